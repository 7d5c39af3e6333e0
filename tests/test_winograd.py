"""Winograd's algorithm against the float64 oracle: accuracy gates, edges of tiles, bad values."""

import itertools

import numpy as np
import pytest

import fastcnn as fc
from fastcnn_kernels import oracle
from fastcnn_kernels.conv2d import cases as conv2d_cases
from fastcnn_kernels.conv2d.winograd import blocking
from kernel_checks import WIDER, WINOGRAD, describe, row_id, run, strides_of, takes

#: Relative L2 error of a result at most, float32; float64 has 2^-29 of it (RELIABILITY, section 1).
GATES = {"winograd2": 3e-6, "winograd4": 2e-5}
#: What was measured when the kernels landed (largest of the shapes below), times 1.5.
MEASURED = {
    ("winograd2", "conv2d"): 5.4e-7,
    ("winograd2", "conv2d_grad_input"): 5.4e-7,
    ("winograd2", "conv2d_grad_weight"): 1.2e-6,
    ("winograd4", "conv2d"): 1.5e-6,
    ("winograd4", "conv2d_grad_input"): 1.5e-6,
    ("winograd4", "conv2d_grad_weight"): 2.0e-6,
}
MEASURED_OF_STRIDE_2 = {"conv2d": 1.8e-6, "conv2d_grad_input": 9.4e-7, "conv2d_grad_weight": 8.6e-7}
WINOGRAD4 = [kernel for kernel in WINOGRAD if kernel.algorithm == "winograd4"]


def relative_error(kernel, arguments, num_threads=1):
    """L2 norm of the error over that of the result."""
    expected = oracle.oracle(kernel.op, arguments, WIDER[arguments["out"].dtype.name])
    return np.linalg.norm((run(kernel, arguments, num_threads) - expected).ravel()) / np.linalg.norm(expected.ravel())


def case_of(kernel, layer, dtype, rng, integers=False):
    """Arguments of a row for a layer."""
    case = next(case for case in conv2d_cases.cases_of(layer, bias=True) if case.op == kernel.op)
    return case.arguments(dtype, rng, integers=integers)


def layer_of(N, C, H, K, groups=1, W=None, padding=1):
    """A layer with 3 x 3 taps."""
    padding = (padding,) * 4 if isinstance(padding, int) else padding
    return conv2d_cases.Layer("edge", "edge", N, C, H, W or H, K, 3, 3, (1, 1), padding, (1, 1), groups)


def small_layers(rng, heights, widths, paddings, stride):
    """Layers of all these sizes, drawn one by one; some have no output."""
    for H, W, padding in itertools.product(heights, widths, paddings):
        groups = int(rng.integers(1, 3))
        C, K = (groups * int(size) for size in rng.choice([1, 2, 5, 14, 17, 33], 2))
        yield layer_of(int(rng.integers(1, 4)), C, H, K, groups, W, padding)._replace(stride=stride)


def assert_inside_the_gate(kernel, dtype, rng, layers, at_least):
    """Every layer that has an output, on 1 to 3 threads in turn; and that these are not few."""
    gate = GATES[kernel.algorithm] * (1 if dtype == "float32" else 2.0**-29)
    count = 0
    for layer in layers:
        if min(layer.output) < 1:
            continue
        arguments = case_of(kernel, layer, dtype, rng)
        assert relative_error(kernel, arguments, 1 + count % 3) < gate, describe(arguments)
        count += 1
    assert count > at_least


@pytest.mark.parametrize("kernel", WINOGRAD, ids=row_id)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_tile_remainder_and_padding_is_inside_the_gate(kernel, dtype):
    rng = np.random.default_rng(20)
    paddings = ((1, 1, 1, 1), (0, 0, 0, 0), (2, 0, 1, 3), (0, 3, 2, 2))
    layers = small_layers(rng, (1, 2, 3, 4, 5, 7, 8, 14), (1, 2, 5, 6, 9, 33, 70), paddings, (1, 1))
    assert_inside_the_gate(kernel, dtype, rng, layers, at_least=150)


@pytest.mark.parametrize("kernel", WINOGRAD4, ids=row_id)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_layers_of_stride_2_are_inside_the_gate(kernel, dtype):
    """Planes of even and of odd pixels of all sizes, patches that begin on either, tiles before the result's first."""
    rng = np.random.default_rng(27)
    paddings = ((1, 1, 1, 1), (0, 0, 0, 0), (2, 0, 1, 2), (0, 3, 2, 1))
    layers = small_layers(rng, (1, 2, 3, 7, 8, 9, 16, 23), (1, 2, 5, 8, 17, 33, 70, 141), paddings, (2, 2))
    assert_inside_the_gate(kernel, dtype, rng, layers, at_least=180)


@pytest.mark.parametrize("kernel", WINOGRAD, ids=row_id)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_larger_filters_are_inside_the_gate(kernel, dtype):
    """Cut into parts of 3 x 3, whole or filled up by zeros; channels that fill a vector or do not."""
    rng = np.random.default_rng(25)

    def layers():
        for R, S in itertools.product(range(3, 8), repeat=2):
            padding = tuple(int(pad) for pad in rng.integers(0, 5, 4))
            groups, N = (int(size) for size in rng.integers(1, 3, 2))
            C, K = (groups * int(size) for size in rng.choice([1, 5, 16, 17, 33], 2))
            layer = layer_of(N, C, int(rng.integers(7, 20)), K, groups, int(rng.integers(7, 40)), padding)
            yield layer._replace(R=R, S=S)

    assert_inside_the_gate(kernel, dtype, rng, layers(), at_least=24)


@pytest.mark.parametrize("kernel", WINOGRAD, ids=row_id)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dilated_layers_are_inside_the_gate(kernel, dtype):
    """Remainders with more rows than others, with none, and padding that some of them do not reach."""
    rng = np.random.default_rng(26)
    dilations = ((1, 2), (2, 1), (2, 2), (3, 2), (5, 4))
    paddings = ((0, 0, 0, 0), (2, 2, 2, 2), (5, 0, 1, 7), (11, 3, 9, 4))

    def layers():
        for dilation, (H, W), padding in itertools.product(dilations, ((11, 40), (9, 9), (16, 7), (14, 14)), paddings):
            R, S = (int(size) for size in rng.integers(3, 6, 2))
            groups = int(rng.integers(1, 3))
            C, K = (groups * int(size) for size in rng.choice([1, 5, 17], 2))
            yield layer_of(2, C, H, K, groups, W, padding)._replace(R=R, S=S, dilation=dilation)

    assert_inside_the_gate(kernel, dtype, rng, layers(), at_least=50)


@pytest.mark.parametrize("kernel", WINOGRAD4, ids=row_id)
@pytest.mark.parametrize("C", [16, 64, 128])
def test_error_of_stride_2_stays_what_was_measured(kernel, C):
    layer = layer_of(4, C, 56, C)._replace(stride=(2, 2))
    arguments = case_of(kernel, layer, "float32", np.random.default_rng(21))
    assert relative_error(kernel, arguments, 2) < MEASURED_OF_STRIDE_2[kernel.op]


@pytest.mark.parametrize("kernel", WINOGRAD, ids=row_id)
@pytest.mark.parametrize("C", [16, 64, 128])
def test_error_stays_what_was_measured(kernel, C):
    arguments = case_of(kernel, layer_of(4, C, 28, C), "float32", np.random.default_rng(21))
    assert relative_error(kernel, arguments, 2) < MEASURED[kernel.algorithm, kernel.op]


@pytest.mark.parametrize("parts", [True, False], ids=["parts", "no parts"])
@pytest.mark.parametrize("kernel", WINOGRAD, ids=row_id)
def test_blocks_of_every_kind_are_inside_the_gate(kernel, parts, monkeypatch):
    """Small budgets bring out what only large layers have: several blocks of rows, chunks of tiles, parts of them."""
    monkeypatch.setattr(blocking, "PATCHES_IN_L2", 1 << 14)
    monkeypatch.setattr(blocking, "CHUNK_BYTES", 1 << 14)
    monkeypatch.setattr(blocking, "CHUNK_IN_L2", 1 << 12)
    monkeypatch.setattr(blocking, "PRODUCTS_OF_PART", blocking.PRODUCTS_OF_PART if parts else 0)
    fc.clear_cache()
    rng = np.random.default_rng(22)
    layers = [layer_of(3, 20, 23, 33), layer_of(2, 34, 9, 62, 2), layer_of(1, 70, 14, 80)]
    layers += [
        layer_of(1, 5, 47, 70),
        layer_of(1, 5, 12, 130),
        layer_of(3, 5, 23, 130),
    ]  # few panels of tiles, many of rows
    layers += [layer_of(2, 20, 23, 80, 4), layer_of(1, 45, 9, 36, 9)]  # groups of one vector, in parts or whole
    if kernel.algorithm == "winograd4":
        layers += [layer._replace(stride=(2, 2), H=2 * layer.H, W=2 * layer.W) for layer in layers]
    for layer in layers:
        arguments = case_of(kernel, layer, "float32", rng)
        results = [run(kernel, arguments, num_threads) for num_threads in (1, 2, 3, 5)]
        for result in results[1:]:
            np.testing.assert_array_equal(result, results[0])
        assert relative_error(kernel, arguments) < GATES[kernel.algorithm]
    fc.clear_cache()


@pytest.mark.parametrize("kernel", WINOGRAD, ids=row_id)
def test_values_near_overflow_come_out_as_plain_sums(kernel):
    """Transforms of values that plain sums can add would overflow."""
    rng = np.random.default_rng(23)
    for stride in strides_of(kernel):
        layer = layer_of(1, 3, 9, 3)._replace(stride=(stride, stride))
        arguments = case_of(kernel, layer, "float32", rng, integers=True)
        names = next(name for name in ("x", "dy") if name in arguments), *({"bias"} & set(arguments))
        arguments |= {name: arguments[name] * np.float32(2.0**118) for name in names}
        expected = oracle.oracle(kernel.op, arguments, np.float64)
        assert abs(expected).max() < np.finfo("f4").max
        np.testing.assert_array_equal(run(kernel, arguments), expected)


@pytest.mark.parametrize("kernel", WINOGRAD, ids=row_id)
def test_takes_only_what_it_can(kernel):
    rng = np.random.default_rng(24)
    assert takes(kernel, case_of(kernel, layer_of(1, 3, 9, 3), "float32", rng))
    assert takes(kernel, case_of(kernel, layer_of(1, 3, 9, 3)._replace(R=5, S=7), "float32", rng))
    assert takes(kernel, case_of(kernel, layer_of(1, 3, 9, 3)._replace(dilation=(1, 2)), "float32", rng))
    for options in (
        {"stride": (2, 1)},
        {"R": 2},
        {"S": 1},
        {"R": 8},
        {"dilation": (4000, 1), "padding": (4000, 4000, 1, 1)},
    ):
        assert not takes(kernel, case_of(kernel, layer_of(1, 3, 9, 3)._replace(**options), "float32", rng))
    strided = layer_of(1, 3, 9, 3)._replace(stride=(2, 2))
    assert takes(kernel, case_of(kernel, strided, "float32", rng)) == (kernel.algorithm == "winograd4")
    for options in ({"R": 5, "S": 5}, {"dilation": (2, 2)}):
        assert not takes(kernel, case_of(kernel, strided._replace(**options), "float32", rng))
    if kernel.op == "conv2d":
        dilated = case_of(kernel, layer_of(1, 3, 9, 3)._replace(dilation=(1, 2)), "float32", rng)
        assert not takes(kernel, dilated | {"max_pool": 2, "out": dilated["out"][:, :, :4, :3]})


X, W = np.ones((2, 32, 30, 30), "f4"), np.ones((32, 32, 3, 3), "f4")


@pytest.mark.parametrize("backend", ["cython", "numba"])
@pytest.mark.parametrize("algorithm", fc.dispatch.table.ALGORITHMS)
def test_an_algorithm_asked_for_is_the_one_that_runs(algorithm, backend):
    with fc.use_algorithm(algorithm):
        assert fc.get_algorithm() == algorithm
        names = fc.explain("conv2d", X, W, padding=1, backend=backend).kernels
        names += fc.explain("conv2d_backward", X, X, W, padding=1, backend=backend).kernels[:2]
    for name in names:
        assert (algorithm in name) if algorithm != "direct" else "winograd" not in name
        assert name.endswith(backend)


def test_other_ops_are_not_concerned():
    with fc.use_algorithm("winograd4"):
        np.testing.assert_array_equal(fc.matmul(np.eye(3), np.eye(3)), np.eye(3))
        assert fc.conv2d_backward(X, X, W, padding=1, output_mask=(False, False, True))[2].shape == (32,)


def test_an_algorithm_that_does_not_apply_is_an_error():
    with (
        fc.use_algorithm("winograd2"),
        pytest.raises(ValueError, match=r"conv2d: algorithm 'winograd2' does not apply"),
    ):
        fc.conv2d(X, W, stride=2)
    with fc.use_algorithm("winograd4"), pytest.raises(ValueError, match=r"takes 3 x 3 to 7 x 7 taps.* not 1 x 1"):
        fc.conv2d(X, W[:, :, :1, :1])
    with fc.use_algorithm("winograd4"), pytest.raises(ValueError, match=r"stride \(2, 2\) and dilation 1, not 3 x 3, "):
        fc.conv2d(X, W, stride=2, dilation=2)
    with fc.use_algorithm("winograd4"), pytest.raises(ValueError, match="does not apply"):
        fc.conv2d(X, W, padding=1, backend="numpy")


def test_the_process_the_environment_and_names(python):
    fc.set_algorithm("direct")
    assert fc.get_algorithm() == "direct"
    with fc.use_algorithm("auto"):
        assert fc.get_algorithm() == "auto"
    with pytest.raises(ValueError, match="algorithm: got 'fft', expected one of auto, direct, winograd2, winograd4"):
        fc.set_algorithm("fft")
    with pytest.raises(TypeError, match=r"algorithm: got 4 \(int\), expected the name of an algorithm"):
        fc.use_algorithm(4).__enter__()
    assert python("import fastcnn; print(fastcnn.get_algorithm())", {"FASTCNN_ALGORITHM": "winograd2"}) == "winograd2\n"
    script = """
import fastcnn
try:
    fastcnn.get_algorithm()
except ValueError as error:
    print(error)
"""
    expected = "environment variable FASTCNN_ALGORITHM: got 'x', expected one of auto, direct, winograd2, winograd4\n"
    assert python(script, {"FASTCNN_ALGORITHM": "x"}) == expected
