"""Activation and pooling in the last store, and packed weights: every row against the oracle, and against torch."""

import itertools
import threading

import numpy as np
import pytest
import torch

import fastcnn as fc
from fastcnn_kernels import oracle, table
from fastcnn_kernels.conv2d import cases as conv2d_cases
from fastcnn_kernels.prepacked import Prepacked
from kernel_checks import PLAIN, WINOGRAD, assert_exact, describe, random_layer, row_id, run, strides_of, takes

FORWARD = [kernel for kernel in PLAIN if kernel.op == "conv2d"]
FORWARD_WINOGRAD = [kernel for kernel in WINOGRAD if kernel.op == "conv2d"]
FUSIONS = [(activation, max_pool) for activation in (None, "relu", "relu6") for max_pool in (1, 2)][1:]


def depthwise_layers(rng, count):
    """Layers that the depthwise rows take."""
    for _ in range(count):
        C, size, stride = (int(rng.choice(values)) for values in ((2, 3, 8), (3, 5), (1, 2)))
        H, W, pad = (int(rng.integers(*bounds)) for bounds in ((5, 14), (5, 80), (0, 4)))
        yield conv2d_cases.Layer(
            "depthwise", "", 2, C, H, W, C * int(rng.integers(1, 3)), size, size, (stride, stride), (pad,) * 4, groups=C
        )


def pointwise_layers(rng, count):
    """Layers that the pointwise rows take."""
    for _ in range(count):
        bounds = (1, 40), (6, 30), (1, 9), (1, 20), (1, 3), (1, 3)
        C, K, H, W, groups, stride = (int(rng.integers(*each)) for each in bounds)
        sizes = 2, groups * C, H, W, groups * K, 1, 1
        yield conv2d_cases.Layer("pointwise", "", *sizes, (stride, stride), groups=groups)


def dense_layers(rng, count):
    """Layers that the dense rows take."""
    for _ in range(count):
        N, C, H, W, K = (int(rng.integers(1, most)) for most in (5, 40, 4, 6, 30))
        yield conv2d_cases.Layer("dense", "", N, C, H, W, K, H, W)


def fused(layer, activation, max_pool, dtype, rng, integers=True):
    """Arguments of a forward row that fuses, or None where no window fits."""
    arguments = conv2d_cases.cases_of(layer, bias=True)[0].arguments(dtype, rng, integers=integers)
    N, K, P, Q = arguments["out"].shape
    if min(P, Q) < max_pool:
        return None
    out = np.full((N, K, P // max_pool, Q // max_pool), np.nan, dtype)
    return arguments | {"out": out, "activation": activation, "max_pool": max_pool}


@pytest.mark.parametrize("kernel", FORWARD, ids=row_id)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_fused_sums_are_exact_on_integers(kernel, dtype):
    rng = np.random.default_rng(30)
    count = 0
    layers = [*conv2d_cases.EDGES, *(random_layer(rng) for _ in range(150))]
    layers += [*depthwise_layers(rng, 40), *pointwise_layers(rng, 60), *dense_layers(rng, 60)]
    for layer in layers:
        for activation, max_pool in FUSIONS:
            arguments = fused(layer, activation, max_pool, dtype, rng)
            if arguments is not None and takes(kernel, arguments):
                assert_exact(kernel, arguments, num_threads=1 + count % 2)
                count += 1
    assert count > 150


@pytest.mark.parametrize("kernel", FORWARD, ids=row_id)
def test_fused_sums_of_larger_layers_are_exact(kernel):
    """Planes and channels of several tasks, whose blocks meet inside a pair of rows."""
    rng = np.random.default_rng(31)
    for layer in (
        conv2d_cases.layer("", "", 2, 40, 30, 65, 3, padding=1),
        conv2d_cases.layer("", "", 1, 600, 9, 20, 1),
        conv2d_cases.layer("", "", 2, 3, 70, 8, 5, stride=2, padding=2),
        conv2d_cases.layer("", "", 3, 16, 46, 16, 3, padding=1, groups=16),
        conv2d_cases.Layer("", "", 1, 2, 9, 150, 30, 3, 3, padding=(1, 1, 1, 1)),
    ):
        for activation, max_pool in (("relu", 1), ("relu6", 2)):
            arguments = fused(layer, activation, max_pool, "float32", rng)
            if takes(kernel, arguments):
                assert_exact(kernel, arguments, num_threads=2)


@pytest.mark.parametrize("kernel", FORWARD_WINOGRAD, ids=row_id)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_fused_tiles_equal_the_plain_ones(kernel, dtype):
    rng = np.random.default_rng(32)
    sizes = ((2, 2, 1), (5, 7, 1), (8, 9, 0), (9, 70, 2), (14, 14, 1), (30, 33, 1))
    for (H, W, padding), stride in itertools.product(sizes, strides_of(kernel)):
        layer = conv2d_cases.Layer("", "", 2, 5, H, W, 17, 3, 3, (stride, stride), (padding,) * 4)
        for activation, max_pool in FUSIONS:
            arguments = fused(layer, activation, max_pool, dtype, rng, integers=False)
            if arguments is None:
                continue
            plain = fused(layer, None, 1, dtype, rng, integers=False)
            plain |= {name: arguments[name] for name in ("x", "weight", "bias")}
            y = run(kernel, plain)
            if activation is not None:
                y = np.clip(y, 0, None if activation == "relu" else 6)
            P, Q = arguments["out"].shape[2:]
            y = y[:, :, : P * max_pool, : Q * max_pool].reshape(2, 17, P, max_pool, Q, max_pool).max(axis=(3, 5))
            np.testing.assert_array_equal(run(kernel, arguments, 2), y, err_msg=describe(arguments))


@pytest.mark.parametrize("kernel", FORWARD + FORWARD_WINOGRAD, ids=row_id)
def test_nonfinite_values_come_through(kernel):
    rng = np.random.default_rng(33)
    layer = conv2d_cases.Layer("", "", 2, 3, 9, 10, 16, 3, 3, padding=(1, 1, 1, 1))
    if "depthwise" in kernel.name:
        layer = layer._replace(K=6, groups=3)
    if "pointwise" in kernel.name:
        layer = layer._replace(R=1, S=1, padding=(0,) * 4)
    if "dense" in kernel.name:
        layer = layer._replace(H=3, W=3, padding=(0,) * 4)
    count = 0
    for value, stride in itertools.product((np.nan, np.inf, -np.inf), strides_of(kernel)):
        layer = layer._replace(stride=(stride, stride))
        for name in ("x", "weight", "bias"):
            for activation, max_pool in FUSIONS:
                arguments = fused(layer, activation, max_pool, "float32", rng)
                if arguments is None or not takes(kernel, arguments):  # as pointwise rows do not pool
                    continue
                count += 1
                arguments[name].flat[arguments[name].size // 2] = value
                expected = oracle.oracle("conv2d", arguments, np.float32)
                with np.errstate(invalid="ignore"):
                    got = run(kernel, arguments)
                # equal where it is not finite; a bias is none of the tiles', which stay Winograd's
                np.testing.assert_allclose(got, expected, rtol=0, atol=1e-3, err_msg=describe(arguments))
    assert count >= 9 * 2


@pytest.mark.parametrize("kernel", FORWARD + FORWARD_WINOGRAD, ids=row_id)
def test_packed_weights_give_the_same_results_call_after_call(kernel):
    rng = np.random.default_rng(34)
    count = 0
    for layer in [*conv2d_cases.EDGES, *(random_layer(rng) for _ in range(40)), *depthwise_layers(rng, 5)]:
        arguments = fused(layer, None, 1, "float32", rng, integers=False)
        if not takes(kernel, arguments):
            continue
        expected, packed = run(kernel, arguments), Prepacked()
        for num_threads in (1, 2, 1):
            got = run(kernel, arguments | {"packed": packed}, num_threads)
            np.testing.assert_array_equal(got, expected, err_msg=describe(arguments))
        reads_them_as_they_lie = any(family in kernel.name for family in ("depthwise", "pointwise", "dense"))
        assert bool(packed.orders) != reads_them_as_they_lie
        count += 1
    assert count > 3


@pytest.mark.parametrize("backend", table.BACKENDS)
def test_twins_and_algorithms_share_one_object(backend):
    rng = np.random.default_rng(35)
    x, w = rng.integers(-3, 4, (2, 16, 30, 30)).astype("f4"), rng.integers(-3, 4, (16, 16, 3, 3)).astype("f4")
    packed, expected = fc.prepack_conv2d(w), fc.conv2d(x, w, padding=1, backend="numpy")
    for _ in range(2):
        with fc.use_algorithm("direct"):
            for each in ("cython", "numba", backend):
                np.testing.assert_array_equal(fc.conv2d(x, packed, padding=1, backend=each), expected)
    if backend != "numpy":
        with fc.use_algorithm("winograd4"):
            got = fc.conv2d(x, packed, padding=1, backend=backend)
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-3)
    # strides and groups of other calls need other orders
    np.testing.assert_array_equal(fc.conv2d(x, packed, stride=2), fc.conv2d(x, w, stride=2, backend="numpy"))
    twice = np.concatenate([x, x], axis=1)
    np.testing.assert_array_equal(fc.conv2d(twice, packed, groups=2), fc.conv2d(twice, w, groups=2, backend="numpy"))


def test_packed_weights_are_a_snapshot_and_an_array():
    rng = np.random.default_rng(36)
    x, w = rng.standard_normal((1, 3, 9, 9)), rng.standard_normal((4, 3, 3, 3))
    packed, expected = fc.prepack_conv2d(w), fc.conv2d(x, w)
    plain = w.copy()
    w[...] = 0
    np.testing.assert_array_equal(fc.conv2d(x, packed), expected)
    assert packed.shape == (4, 3, 3, 3)
    assert packed.dtype == np.float64
    assert packed.nbytes > plain.nbytes
    assert "shape=(4, 3, 3, 3)" in repr(packed)
    np.testing.assert_array_equal(np.asarray(packed), plain)
    with pytest.raises(ValueError, match="read-only"):
        np.asarray(packed)[0] = 1
    gradients = [fc.conv2d_backward(expected, x, weight) for weight in (packed, plain)]
    for got, wanted in zip(*gradients, strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_many_threads_may_pack_at_once():
    rng = np.random.default_rng(37)
    x, w = rng.integers(-3, 4, (1, 32, 20, 20)).astype("f4"), rng.integers(-3, 4, (32, 32, 3, 3)).astype("f4")
    expected, packed, wrong = fc.conv2d(x, w), fc.prepack_conv2d(w), []

    def call():
        for _ in range(20):
            if not np.array_equal(fc.conv2d(x, packed), expected):
                wrong.append(True)

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("backend", table.BACKENDS)
@pytest.mark.parametrize("size", [2, 9, 20])
def test_fused_op_equals_torch(backend, size):
    rng = np.random.default_rng(38)
    x, w, b = rng.standard_normal((2, 6, size, size + 1)), rng.standard_normal((5, 6, 3, 3)), rng.standard_normal(5)
    y = torch.nn.functional.conv2d(torch.from_numpy(x), torch.from_numpy(w), torch.from_numpy(b), padding=1)
    for activation, function in ((None, lambda y: y), ("relu", torch.relu), ("relu6", torch.nn.functional.relu6)):
        for max_pool in (None, 2):
            expected = function(y) if max_pool is None else torch.nn.functional.max_pool2d(function(y), 2)
            got = fc.conv2d(x, w, b, padding=1, activation=activation, max_pool=max_pool, backend=backend)
            np.testing.assert_allclose(got, expected.numpy(), rtol=0, atol=1e-12)
            one = fc.conv2d(x[0], w, b, padding=1, activation=activation, max_pool=max_pool, backend=backend)
            np.testing.assert_allclose(one, expected[0].numpy(), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "error", "pattern"),
    [
        ({"activation": "gelu"}, ValueError, "activation: got 'gelu', expected one of None, 'relu', 'relu6'"),
        ({"activation": 6}, TypeError, r"activation: got 6 \(int\), expected one of None, 'relu'"),
        ({"max_pool": 3}, ValueError, "max_pool: got 3, expected None or 2"),
        ({"max_pool": 0}, ValueError, "max_pool: got 0, expected at least 1"),
        ({"max_pool": (2, 2)}, TypeError, "max_pool: got .* expected an integer"),
        ({"max_pool": True}, TypeError, "max_pool: got the bool True"),
        ({"max_pool": 2, "padding": 0}, ValueError, "max_pool: got 2, expected None for a result of 1 x 1 pixels"),
        ({"max_pool": 2, "out": np.empty((1, 2, 3, 3))}, ValueError, r"out: got shape .*expected .*\(1, 2, 1, 1\)"),
    ],
)
def test_bad_options(options, error, pattern):
    x, w = np.zeros((1, 2, 3, 3)), np.zeros((2, 2, 3, 3))
    with pytest.raises(error, match=pattern):
        fc.conv2d(x, w, **({"padding": 1} | options))


def test_bad_weights_to_pack():
    with pytest.raises(ValueError, match=r"weight: got shape \(3, 3\)"):
        fc.prepack_conv2d(np.zeros((3, 3)))
    with pytest.raises(TypeError, match="weight: got dtype int64"):
        fc.prepack_conv2d(np.zeros((3, 3, 3, 3), int))
    with pytest.raises(TypeError, match="weight: got dtype float64, expected float32, the dtype of x"):
        fc.conv2d(np.zeros((1, 3, 3, 3), "f4"), fc.prepack_conv2d(np.zeros((3, 3, 3, 3))))
