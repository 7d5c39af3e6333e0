"""Every row of the table against the oracle: exact on integers, inside the theorem's bound on reals."""

from collections import Counter

import numpy as np
import pytest

import fastcnn as fc
from fastcnn_kernels import oracle
from fastcnn_kernels.conv2d import cases as conv2d_cases
from fastcnn_kernels.gemm import cases as gemm_cases
from kernel_checks import (
    EDGES,
    PLAIN,
    ROWS,
    assert_exact,
    assert_within_bound,
    guarded,
    needs_guard_pages,
    plain_rows,
    random_layer,
    random_matmul,
    row_id,
    run,
    takes,
)

DTYPES = ("float32", "float64")
#: Rows of the general convolution's forward pass and input gradient.
GENERAL = [
    row for row in PLAIN if row.module.rpartition(".")[0] == "fastcnn_kernels.conv2d" and row.op != "conv2d_grad_bias"
]


@pytest.mark.parametrize("kernel", PLAIN, ids=row_id)
@pytest.mark.parametrize("dtype", DTYPES)
def test_edges_are_exact_on_integers(kernel, dtype):
    for seed, case in enumerate(case for case in EDGES if case.op == kernel.op):
        arguments = case.arguments(dtype, np.random.default_rng(seed), integers=True)
        if takes(kernel, arguments):
            expected = oracle.oracle(kernel.op, arguments, np.float64)
            for num_threads in (1, 2, 8):
                assert_exact(kernel, arguments, num_threads, expected)


@pytest.mark.parametrize("kernel", PLAIN, ids=row_id)
@pytest.mark.parametrize("dtype", DTYPES)
def test_edges_are_inside_the_theorem_bound_on_reals(kernel, dtype):
    for seed, case in enumerate(case for case in EDGES if case.op == kernel.op):
        arguments = case.arguments(dtype, np.random.default_rng(seed))
        if takes(kernel, arguments):
            assert_within_bound([kernel], arguments, case.terms)


@pytest.mark.parametrize("dtype", DTYPES)
def test_2500_random_shapes_per_dtype_are_exact_on_integers(dtype):
    """5,000 shapes in all, on every row of every op; the options drawn cover each other's combinations."""
    rng = np.random.default_rng(7)
    seen = set()
    runs = Counter()
    for count in range(2500):
        layer = random_layer(rng)
        seen |= {("stride", layer.stride), ("dilation", layer.dilation), ("groups", layer.groups)}
        seen |= {("padding", side, value) for side, value in enumerate(layer.padding)}
        cases = [*conv2d_cases.cases_of(layer, bias=bool(count % 2)), random_matmul(rng)]
        num_threads = (1, 2, 1, 2, 3)[count // 2 % 5]  # seldom 3, since more threads than cores take their time
        for case in cases:
            arguments = case.arguments(dtype, rng, integers=True)
            expected = oracle.oracle(case.op, arguments, np.float64)
            for kernel in plain_rows(case.op):
                if takes(kernel, arguments):
                    assert_exact(kernel, arguments, num_threads, expected)
                    runs[kernel] += 1
    assert min(runs[kernel] for kernel in PLAIN) > 400
    assert len(seen) == 9 + 9 + 3 + 4 * 4, "some value of some option was never drawn"


@pytest.mark.parametrize("dtype", DTYPES)
def test_random_shapes_are_inside_the_theorem_bound_on_reals(dtype):
    rng = np.random.default_rng(8)
    for _ in range(400):
        for case in (*conv2d_cases.cases_of(random_layer(rng), bias=True), random_matmul(rng)):
            arguments = case.arguments(dtype, rng)
            kernels = [kernel for kernel in plain_rows(case.op) if takes(kernel, arguments)]
            assert_within_bound(kernels, arguments, case.terms)


@pytest.mark.parametrize(
    "name",
    [
        "ResNet-50 conv1 7x7/2",
        "CIFAR ResNet-20 16x16 32",
        "ResNet-50 56x56 64",
        "MobileNetV2 dw 3x3/2 192 28x28",
        "MobileNetV2 dw 3x3 960 7x7",
    ],
)
def test_whole_layers_are_exact_on_integers(name):
    layer = next(layer for layer in conv2d_cases.HEADLINE if layer.name == name)._replace(N=2)
    for case in conv2d_cases.cases_of(layer, bias=True):
        arguments = case.arguments("float32", np.random.default_rng(0), integers=True)
        answer = oracle.oracle(case.op, arguments, np.float64)
        for kernel in plain_rows(case.op):
            if takes(kernel, arguments):
                np.testing.assert_array_equal(run(kernel, arguments, num_threads=2), answer, err_msg=kernel.name)


@pytest.mark.parametrize("kernel", GENERAL, ids=row_id)
@pytest.mark.parametrize(
    "layer",
    [
        conv2d_cases.layer("weights packed several times", "", 2, 45, 5, 260, 3, padding=1),
        conv2d_cases.Layer("parts of long sums", "", 2, 400, 10, 16, 840, 1, 1),
    ],
    ids=lambda layer: layer.name,
)
def test_shares_of_panels_are_exact_on_integers(kernel, layer):
    """Shares that end inside a part and at its end, and parts that one worker has several of."""
    case = next(case for case in conv2d_cases.cases_of(layer, bias=True) if case.op == kernel.op)
    arguments = case.arguments("float32", np.random.default_rng(3), integers=True)
    expected = oracle.oracle(kernel.op, arguments, np.float64)
    for num_threads in (1, 2, 3, 5):
        assert_exact(kernel, arguments, num_threads, expected)


@pytest.mark.parametrize("backend", ["cython", "numba"])
def test_adjoint_identity_is_exact_on_integers(backend):
    """<dy, conv(x, w)> = <dx, x> = <dw, w>."""
    rng = np.random.default_rng(9)
    for _ in range(200):
        forward, grad_input, *_ = conv2d_cases.cases_of(random_layer(rng))
        given = forward.arguments("float64", rng, integers=True)
        x, weight, dy = given["x"], given["weight"], rng.integers(-4, 5, given["out"].shape).astype("float64")
        options = {"dy": dy, **grad_input.options}
        sums = set()
        for op, call, other in (
            ("conv2d", given, dy),
            ("conv2d_grad_input", options | {"weight": weight, "out": x}, x),
            ("conv2d_grad_weight", options | {"x": x, "out": weight}, weight),
        ):
            rows = [row for row in plain_rows(op) if row.backend == backend and takes(row, call)]
            sums |= {(run(row, call) * other).sum() for row in rows}
        assert len(sums) == 1


@pytest.mark.parametrize("kernel", ROWS, ids=row_id)
def test_a_batch_equals_its_parts_bitwise(kernel):
    if kernel.op in ("conv2d_grad_weight", "conv2d_grad_bias"):
        batched = ()  # these sum over the batch
    else:
        batched = ("a", "b", "out") if kernel.op == "matmul" else ("x", "dy", "out")
    rng = np.random.default_rng(10)
    count = 0
    while count < 50:
        cases = [*conv2d_cases.cases_of(random_layer(rng)._replace(N=3), bias=True), random_matmul(rng)]
        case = next(case for case in cases if case.op == kernel.op)
        arguments = case.arguments("float32", rng)
        if not takes(kernel, arguments):
            continue
        count += 1
        whole = run(kernel, arguments)
        np.testing.assert_array_equal(whole, run(kernel, arguments))
        for n in range(len(whole) if batched else 0):
            part = {
                name: np.ascontiguousarray(value[n : n + 1]) if name in batched and len(value) > 1 else value
                for name, value in arguments.items()
            }
            np.testing.assert_array_equal(run(kernel, part)[0], whole[n])


@pytest.mark.parametrize("backend", ["cython", "numba"])
@pytest.mark.parametrize(
    ("batch", "C", "K", "size", "stride"),
    [(70, 64, 64, 14, 1), (90, 20, 130, 9, 1), (30, 130, 96, 9, 1), (150, 40, 64, 15, 2)],
)
def test_a_batch_and_its_parts_have_the_same_digits_though_not_the_same_rows(backend, batch, C, K, size, stride):
    rng = np.random.default_rng(14)
    x, weight = rng.standard_normal((batch, C, size, size), "f4"), rng.standard_normal((K, C, 1, 1), "f4")
    bias, options = rng.standard_normal(K, "f4"), {"stride": stride, "backend": backend}

    def both(images):
        y = fc.conv2d(images, weight, bias, activation="relu", **options)
        return y, fc.conv2d_backward(y, images, weight, output_mask=(True, False, False), **options)[0]

    with fc.use_algorithm("direct"):
        rows = [fc.explain("conv2d", x[:n], weight, bias, **options).kernels for n in (1, batch)]
        assert rows[0] != rows[1]
        whole = both(x)
        for n in (0, batch - 1):
            for part, result in zip(both(x[n : n + 1]), whole, strict=True):
                np.testing.assert_array_equal(part[0], result[n])


@pytest.mark.parametrize("backend", ["cython", "numba"])
def test_images_of_dense_layers_have_the_same_digits_in_any_batch(backend):
    rng = np.random.default_rng(15)
    x, weight, bias = (rng.standard_normal(shape, "f4") for shape in ((40, 30, 3, 3), (70, 30, 3, 3), 70))

    def both(images):
        y = fc.conv2d(images, weight, bias, activation="relu", backend=backend)
        return y, fc.conv2d_backward(y, images, weight, output_mask=(True, False, False), backend=backend)[0]

    assert fc.explain("conv2d", x, weight, bias, backend=backend).kernels == [f"conv2d_dense_{backend}"]
    whole = both(x)
    for part in (slice(1), slice(31, 34), slice(39, 40)):  # dx takes 32 at a time
        for got, expected in zip(both(x[part]), whole, strict=True):
            np.testing.assert_array_equal(got, expected[part])


@pytest.mark.parametrize("kernel", ROWS, ids=row_id)
@pytest.mark.parametrize("dtype", DTYPES)
def test_real_results_are_bitwise_equal_for_any_number_of_threads(kernel, dtype):
    """Every row, large enough for several chunks and blocks; dispatch would pick one row only."""
    layers = [
        conv2d_cases.layer("general", "edge", 6, 20, 23, 33, 3, padding=1),
        conv2d_cases.layer("depthwise", "edge", 5, 18, 31, 18, 3, padding=1, groups=18),
        conv2d_cases.layer("strided", "edge", 5, 6, 33, 12, 3, stride=2, padding=1, groups=2),
        conv2d_cases.layer("pointwise", "edge", 5, 20, 23, 33, 1),
        conv2d_cases.layer("pointwise, strided", "edge", 2, 20, 17, 34, 1, stride=2, groups=2),
        conv2d_cases.layer("dense layer", "edge", 40, 30, 3, 70, 3),
        conv2d_cases.layer("panels of one run, sums of two blocks", "edge", 3, 400, 9, 29, 1),
        conv2d_cases.layer("strided, filters beyond L2", "edge", 1, 344, 8, 344, 3, stride=2, padding=1),
    ]
    several = ("stream", "columns packed", "rows packed", "packed beforehand")
    products = gemm_cases.LAYERS[:2] + [case for case in gemm_cases.EDGES if case.name.startswith(several)]
    cases = [case for layer in layers for case in conv2d_cases.cases_of(layer, bias=True)] + products
    compared = 0
    for case in (case for case in cases if case.op == kernel.op):
        arguments = case.arguments(dtype, np.random.default_rng(13))
        if takes(kernel, arguments):
            expected = run(kernel, arguments)
            for num_threads in (2, 3, 4, 8):
                np.testing.assert_array_equal(run(kernel, arguments, num_threads), expected, err_msg=case.name)
                compared += 1
    assert compared


@needs_guard_pages
@pytest.mark.parametrize("side", ["begin", "end"])
@pytest.mark.parametrize("kernel", ROWS, ids=row_id)
def test_nothing_is_read_outside_the_arrays(kernel, side):
    """K leaves rows of the last panel empty. A crash here is a read or write outside an array."""
    layers = [
        conv2d_cases.layer("panels", "edge", 2, 5, 9, 15, 3, padding=1),
        conv2d_cases.layer("groups", "edge", 1, 6, 10, 34, 3, padding=1, groups=2),
        conv2d_cases.layer("depthwise", "edge", 2, 7, 7, 7, 3, padding=1, groups=7),
        conv2d_cases.layer("strided", "edge", 2, 3, 11, 17, 3, stride=2, padding=1),
        conv2d_cases.Layer("wide", "edge", 2, 3, 9, 70, 17, 3, 3, (2, 2)),
        conv2d_cases.layer("1x1 of fewer pixels than lanes", "edge", 2, 7, 3, 8, 1),
        conv2d_cases.layer("1x1 with stride", "edge", 1, 7, 9, 8, 1, stride=2),
        conv2d_cases.layer("dense layer", "edge", 3, 7, 3, 15, 3),
        conv2d_cases.layer("panels of one run", "edge", 2, 20, 8, 15, 1),
        conv2d_cases.layer("1x1, rows of x in place", "edge", 3, 70, 7, 15, 1),
    ]
    cases = [case for layer in layers for case in conv2d_cases.cases_of(layer, bias=True)] + gemm_cases.EDGES[:6]
    cases.append(gemm_cases.matmul("whole panels of columns, packed by tasks", "edge", 29, 1024, 40))
    cases += [case for case in gemm_cases.EDGES if case.name.startswith("small")]
    count = 0
    for case in (case for case in cases if case.op == kernel.op):
        arguments = case.arguments("float32", np.random.default_rng(0))
        arguments = {
            name: guarded(value, side) if isinstance(value, np.ndarray) else value for name, value in arguments.items()
        }
        if takes(kernel, arguments):
            kernel.load(**arguments, num_threads=1)
            count += 1
    assert count
