"""The depthwise rows on every size, stride and remainder they take; what they decline."""

import numpy as np
import pytest

import fastcnn as fc
from fastcnn_kernels import cpu
from fastcnn_kernels.conv2d import cases as conv2d_cases
from kernel_checks import DEPTHWISE, assert_exact, row_id, takes


def layer_of(C, H, W, size, stride, padding, multiplier=1, N=1):
    return conv2d_cases.Layer(
        "", "", N, C, H, W, C * multiplier, size, size, (stride, stride), padding, (1, 1), groups=C
    )  # fmt: skip


def layers(rng):
    """Widths around those of 1, 2 and 4 vectors, heights around a tile's, paddings beyond the filter, few planes."""
    for size in (3, 5):
        for stride in (1, 2):
            for W in (1, 2, 7, 15, 16, 17, 31, 33, 50, 63, 65, 112, 131):
                H, multiplier = int(rng.integers(1, 20)), int(rng.integers(1, 3))
                for padding in ((size // 2,) * 4, tuple(int(pad) for pad in rng.integers(0, 7, 4))):
                    layer = layer_of(int(rng.integers(1, 5)), H, W, size, stride, padding, multiplier, N=2)
                    if min(layer.output) >= 1:
                        yield layer
    yield layer_of(2, 70, 9, 3, 1, (1,) * 4)  # fewer planes than tasks: rows are shared out
    yield layer_of(2, 71, 9, 5, 2, (2,) * 4)


@pytest.mark.parametrize("kernel", DEPTHWISE, ids=row_id)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_exact_on_integers(kernel, dtype):
    rng = np.random.default_rng(50)
    count = 0
    for layer in layers(rng):
        case = next(case for case in conv2d_cases.cases_of(layer, bias=True) if case.op == kernel.op)
        arguments = case.arguments(dtype, rng, integers=True)
        if takes(kernel, arguments):
            assert_exact(kernel, arguments, num_threads=1 + count % 3)
            count += 1
    assert count > 40 if cpu.level() == "x86-64-v4" else count == 0


@pytest.mark.parametrize("kernel", [kernel for kernel in DEPTHWISE if kernel.op != "conv2d_grad_weight"], ids=row_id)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [3, 5])
def test_small_planes_are_exact_on_integers(kernel, dtype, size):
    """Every number of rows and columns whose sums stay in registers, of planes that the padding leaves."""
    rng = np.random.default_rng(51)
    count = 0
    for P in range(1, 10):
        for Q in range(1, 10):
            padding = [(size // 2,) * 4, tuple(int(pad) for pad in rng.integers(0, size, 4))][count % 2]
            H, W = P + size - 1 - padding[0] - padding[1], Q + size - 1 - padding[2] - padding[3]
            if kernel.op == "conv2d_grad_input":  # whose result is the plane
                H, W = P, Q
            layer = layer_of(3, max(1, H), max(1, W), size, 1, padding, N=2)
            if min(layer.output) < 1:
                continue
            case = next(case for case in conv2d_cases.cases_of(layer, bias=P % 2 == 0) if case.op == kernel.op)
            arguments = case.arguments(dtype, rng, integers=True)
            if kernel.op == "conv2d":
                arguments["activation"] = (None, "relu", "relu6")[count % 3]
            if takes(kernel, arguments):
                assert_exact(kernel, arguments, num_threads=1 + count % 2)
                count += 1
    assert count > 60 if cpu.level() == "x86-64-v4" else count == 0


def chosen(x_shape, w_shape, groups, **options):
    x, w = np.zeros(x_shape, "f4"), np.zeros(w_shape, "f4")
    y = fc.conv2d(x, w, groups=groups, backend="numpy", **options)
    names = fc.explain("conv2d", x, w, groups=groups, **options).kernels
    names += fc.explain("conv2d_backward", y, x, w, groups=groups, **options).kernels[:2]
    return ["depthwise" in name for name in names]


def test_takes_what_it_can(monkeypatch):
    monkeypatch.setattr(cpu, "level", lambda: "x86-64-v4")
    assert chosen((1, 4, 9, 9), (4, 1, 3, 3), 4) == [True, True, True]
    assert chosen((1, 4, 9, 9), (4, 1, 5, 5), 4, stride=2) == [True, True, True]
    assert chosen((1, 4, 9, 9), (8, 1, 3, 3), 4) == [True, False, True]  # two filters a channel
    assert chosen((2, 1, 9, 9), (1, 1, 3, 3), 1) == [True, True, True]
    assert chosen((1, 4, 9, 9), (4, 1, 7, 7), 4) == [False, False, False]
    assert chosen((1, 4, 9, 9), (4, 1, 3, 5), 4) == [False, False, False]
    assert chosen((1, 4, 9, 9), (4, 1, 3, 3), 4, stride=3) == [False, False, False]
    assert chosen((1, 4, 9, 9), (4, 1, 3, 3), 4, stride=(1, 2)) == [False, False, False]
    assert chosen((1, 4, 9, 9), (4, 1, 3, 3), 4, dilation=2) == [False, False, False]
    assert chosen((1, 4, 9, 9), (4, 2, 3, 3), 2) == [False, False, False]
    assert chosen((1, 1, 9, 9), (4, 1, 3, 3), 1) == [False, False, False]


def test_needs_masked_loads(monkeypatch):
    monkeypatch.setattr(cpu, "level", lambda: "x86-64-v3")
    assert chosen((1, 4, 9, 9), (4, 1, 3, 3), 4) == [False, False, False]
