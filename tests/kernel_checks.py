"""What every kernel test needs: rows, cases, the float64 oracle, and the bound that a theorem gives."""

import ctypes
import mmap
import sys

import numpy as np
import pytest

from fastcnn_kernels import cpu, oracle, table
from fastcnn_kernels.cases import Case
from fastcnn_kernels.conv2d import cases as conv2d_cases
from fastcnn_kernels.gemm import cases as gemm_cases

#: Rows of depthwise kernels, which take no layer below AVX-512.
DEPTHWISE = [kernel for kernel in table.KERNELS if "depthwise" in kernel.name]
#: Rows under test at this CPU level, without the oracle; those of plain sums, and those of Winograd's algorithm.
ROWS = [
    kernel
    for kernel in table.KERNELS
    if kernel.backend != "numpy" and (kernel not in DEPTHWISE or cpu.level() == "x86-64-v4")
]
PLAIN = [kernel for kernel in ROWS if kernel.algorithm == "direct"]
WINOGRAD = [kernel for kernel in ROWS if kernel.algorithm != "direct"]
EDGES = [case for layer in conv2d_cases.EDGES for case in conv2d_cases.cases_of(layer, bias=True)] + gemm_cases.EDGES

#: The type in which the reference is computed.
WIDER = {"float32": np.float64, "float64": np.longdouble}


def row_id(kernel):
    return kernel.name


def plain_rows(op):
    """Rows of an op under test whose results are plain sums."""
    return [kernel for kernel in PLAIN if kernel.op == op]


def takes(kernel, arguments):
    """Whether the kernel is right for these arguments, fast or not."""
    return not kernel.cannot(**arguments)


def run(kernel, arguments, num_threads=1):
    """Result of a kernel in a fresh ``out``."""
    arguments = arguments | {"out": np.full_like(arguments["out"], np.nan)}
    kernel.load(**arguments, num_threads=num_threads)
    return arguments["out"]


def assert_exact(kernel, arguments, num_threads=1, expected=None):
    """Integer-valued data: bitwise equal to the integer answer, the oracle's if it is not given."""
    expected = oracle.oracle(kernel.op, arguments, np.float64) if expected is None else expected
    result = run(kernel, arguments, num_threads)
    np.testing.assert_array_equal(result, expected, err_msg=f"{num_threads} threads; {describe(arguments)}")


def error_bound(op, arguments, terms):
    """Bound of the error of an op in the dtype of its ``out``."""
    dtype = arguments["out"].dtype.name
    return oracle.error_bound(dtype, terms, oracle.oracle(op, arguments, WIDER[dtype], of=abs))


def assert_within_bound(kernels, arguments, terms):
    """Real data: the error of each of these kernels of one op is inside the theorem's bound."""
    op, dtype = kernels[0].op, arguments["out"].dtype.name
    expected, bound = oracle.oracle(op, arguments, WIDER[dtype]), error_bound(op, arguments, terms)
    for kernel in kernels:
        error = abs(run(kernel, arguments) - expected)
        assert (error <= bound).all(), f"{kernel.name}: {(error / bound).max():.3g} of the bound; {describe(arguments)}"


def strides_of(kernel):
    """Strides that a test of layers with 3 x 3 taps asks for: what the row takes and others do not, too."""
    return (1, 2) if kernel.algorithm == "winograd4" else (1,)


def describe(arguments):
    return str({name: getattr(value, "shape", value) for name, value in arguments.items()})


def random_layer(rng):
    """A small layer with every option of the op; `output` is at least 1 x 1."""
    while True:
        groups = int(rng.choice([1, 1, 2, 3]))
        Cg, Kg = int(rng.integers(1, 5)), int(rng.choice([1, 2, 3, 5, 14, 17]))
        R, S, sh, sw, dh, dw = (int(value) for value in rng.integers(1, 4, 6))
        top, bottom, left, right = (int(value) for value in rng.integers(0, 4, 4))
        if rng.random() < 0.3:  # what most networks have: stride 1, and mostly rows as long as before
            sh = sw = 1
            if rng.random() < 0.3:  # what Winograd's algorithm takes
                R = S = 3
                dh = dw = 1
                sh = sw = int(rng.choice([1, 1, 2]))
            left, right = ((S - 1) * dw // 2, (S - 1) * dw - (S - 1) * dw // 2) if rng.random() < 0.7 else (left, right)
        if rng.random() < 0.3:  # what the depthwise rows take
            groups, Cg, Kg = int(rng.choice([1, 2, 3])), 1, int(rng.choice([1, 1, 1, 2]))
            R = S = int(rng.choice([3, 5]))
            sh = sw = min(sh, 2)
            dh = dw = 1
        H, W = int(rng.integers(1, 18)), int(rng.integers(1, 40))
        if rng.random() < 0.18:  # what the pointwise rows take
            Cg, Kg = (int(value) for value in rng.integers(6, 21, 2))
            R = S = 1
            top = bottom = left = right = 0
        if rng.random() < 0.17:  # what the dense rows take
            groups, Cg, H, W = 1, int(rng.choice([1, 7, 32])), R, S
            top = bottom = left = right = 0
            dh = dw = 1
        layer = conv2d_cases.Layer(
            "random",
            "edge",
            int(rng.integers(1, 4)),
            groups * Cg,
            H,
            W,
            groups * Kg,
            R,
            S,
            (sh, sw),
            (top, bottom, left, right),
            (dh, dw),
            groups,
        )
        if min(layer.output) >= 1:
            return layer


def random_matmul(rng) -> Case:
    """A small product with every option of the op."""
    M, N, Z = (int(value) for value in (rng.integers(1, 50), rng.integers(1, 70), rng.integers(1, 4)))
    if rng.random() < 0.3:  # one side long, as outer products ask for
        M, N = (M + 90, N) if rng.random() < 0.5 else (M, N + 70)
    names = ("transpose_a", "transpose_b", "bias")
    flags = dict(zip(names, rng.integers(0, 2, 3).astype(bool).tolist(), strict=True))
    L, shared = int(rng.choice([1, 2, 9, 33, 50, 1030])), str(rng.choice(["", "a", "b"]))
    return gemm_cases.matmul("random", "edge", M, N, L, Z, shared=shared, **flags)


needs_guard_pages = pytest.mark.skipif(sys.platform != "linux", reason="guard pages are made with Linux's mmap")


def guarded(array, side, gap=0):
    """Return a copy that lies so many elements from a page that may not be touched, before it or behind it."""
    gap *= array.itemsize
    size = -(-(array.nbytes + gap) // mmap.PAGESIZE) * mmap.PAGESIZE
    block = mmap.mmap(-1, size + 2 * mmap.PAGESIZE)
    libc, start = ctypes.CDLL(None, use_errno=True), ctypes.addressof(ctypes.c_char.from_buffer(block))
    for guard in (start, start + mmap.PAGESIZE + size):
        assert libc.mprotect(ctypes.c_void_p(guard), mmap.PAGESIZE, 0) == 0
    place = mmap.PAGESIZE + (size - array.nbytes - gap if side == "end" else gap)
    copy = np.frombuffer(block, array.dtype, array.size, place).reshape(array.shape)
    copy[...] = array
    return copy
