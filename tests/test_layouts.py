"""Any strides, alignment, byte order or array type gives the result of clean arrays; `out` likewise."""

import numpy as np
import pytest
import torch

import fastcnn as fc
from fastcnn_kernels import table
from kernel_checks import guarded, needs_guard_pages


def conv(x, w, b, **options):
    return (fc.conv2d(x, w, b, stride=(1, 2), padding=((1, 0), (2, 1)), groups=2, **options),)


def conv_backward(dy, x, w, **options):
    return fc.conv2d_backward(dy, x, w, stride=(1, 2), padding=((1, 0), (2, 1)), groups=2, **options)


#: Op -> its call, and the shapes of its arrays.
OPS = {
    "conv2d": (conv, [(3, 4, 7, 9), (6, 2, 3, 3), (6,)]),
    "conv2d_unbatched": (conv, [(4, 7, 9), (6, 2, 3, 3), (6,)]),
    "conv2d_backward": (conv_backward, [(3, 6, 6, 5), (3, 4, 7, 9), (6, 2, 3, 3)]),
    "matmul": (lambda a, b, **options: (fc.matmul(a, b, **options),), [(5, 7), (7, 3)]),
    "matmul_batch": (lambda a, b, **options: (fc.matmul(a, b, **options),), [(2, 3, 5, 7), (3, 7, 4)]),
    "matmul_shared": (lambda a, b, **options: (fc.matmul(a, b, **options),), [(2, 3, 5, 7), (7, 4)]),
    "matmul_vector": (lambda a, b, **options: (fc.matmul(a, b, **options),), [(2, 5, 7), (7,)]),
    "linear": (lambda x, w, b, **options: (fc.linear(x, w, b, **options),), [(2, 3, 7), (5, 7), (5,)]),
    "linear_backward": (fc.linear_backward, [(2, 3, 5), (2, 3, 7), (5, 7)]),
}


def unaligned(array):
    memory = np.empty(array.nbytes + 1, np.uint8)[1:]
    shifted = memory.view(array.dtype).reshape(array.shape)
    shifted[...] = array
    assert not shifted.flags.aligned
    return shifted


def transposed_matrices(array):
    return array if array.ndim < 2 else array.swapaxes(-1, -2).copy().swapaxes(-1, -2)


def read_only(array):
    array.setflags(write=False)
    return array


class Subclass(np.ndarray):
    """What it does with operators must not matter."""

    def __array_ufunc__(self, *args, **kwargs):
        raise AssertionError("the subclass was asked")


class OnlyArray:
    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array


class OnlyDLPack:
    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


LINE_BYTES = 64
ANY = slice(None)
LAYOUTS = {
    "strided": lambda a: np.repeat(a, 3, axis=-1)[..., ::3],
    "strided_first": lambda a: np.repeat(a, 2, axis=0)[::2],
    "negative": lambda a: np.flip(np.flip(a).copy()),
    "broadcast_first": lambda a: np.broadcast_to(a[:1], a.shape),
    "broadcast_last": lambda a: np.broadcast_to(a[..., :1], a.shape),
    "fortran": np.asfortranarray,
    "swapped_axes": lambda a: np.ascontiguousarray(a.swapaxes(0, -1)).swapaxes(0, -1),
    "transposed_matrices": transposed_matrices,
    "channels_last": lambda a: np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 0, -1)), -1, 0),
    "unaligned": unaligned,
    "read_only": read_only,
    "swapped_bytes": lambda a: a.astype(a.dtype.newbyteorder()),
    "dtype_metadata": lambda a: a.astype(np.dtype(a.dtype, metadata={"unit": "m"})),
    "subclass": lambda a: a.view(Subclass),
    "torch": lambda a: torch.tensor(a),
    "torch_strided": lambda a: torch.tensor(np.repeat(a, 2, axis=-1))[..., ::2],
    "array_protocol": OnlyArray,
    "dlpack_protocol": OnlyDLPack,
}
#: Those that leave a matrix the transpose of a contiguous one, which products read as it is.
TRANSPOSED = ("fortran", "swapped_axes", "transposed_matrices", "channels_last")
OUT_LAYOUTS = [
    "strided",
    "strided_first",
    "negative",
    "fortran",
    "swapped_axes",
    "transposed_matrices",
    "channels_last",
    "unaligned",
]


def arrays_of(shapes, dtype):
    rng = np.random.default_rng(1)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def clean(value):
    """The same values as a fresh C-contiguous native array."""
    value = getattr(value, "array", value)
    value = np.asarray(value)
    return np.array(value, value.dtype.char, order="C", subok=False)


def assert_equal(results, expected):
    for result, right in zip(results, expected, strict=True):
        assert isinstance(result, np.ndarray)
        np.testing.assert_array_equal(result, right, strict=True)


@pytest.mark.parametrize("backend", table.BACKENDS)
@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_layouts_of_inputs(op, dtype, backend):
    call, shapes = OPS[op]
    count = 0
    for name, layout in LAYOUTS.items():
        for which in [*range(len(shapes)), ANY]:
            values = arrays_of(shapes, dtype)
            changed = [layout(value) for value in values[which]] if which is ANY else layout(values[which])
            values[which] = changed
            results, expected = call(*values, backend=backend), call(*map(clean, values), backend=backend)
            # BLAS, and our skinny products, sum a transposed operand in another order.
            if backend == "numpy" or (name in TRANSPOSED and "conv2d" not in op):
                for result, right in zip(results, expected, strict=True):
                    np.testing.assert_allclose(result, right, rtol=0, atol=100 * np.finfo(dtype).eps)
            else:
                assert_equal(results, expected)
            count += 1
    assert count == len(LAYOUTS) * (len(shapes) + 1)


def behind_a_line(array, elements):
    """A copy that begins so many elements behind a cache line, NaN around it."""
    memory = np.full(array.size + 2 * LINE_BYTES, np.nan, array.dtype)
    start = -memory.ctypes.data % LINE_BYTES // array.itemsize + elements
    copy = memory[start : start + array.size].reshape(array.shape)
    copy[...] = array
    return copy


#: Shapes of skinny products, with the transpose of the second operand or not: dots of a row, and of rows that leave one
#: over; streams of one block of panels and of several; batches.
SKINNY = [
    ((1, 1, 400), (1, 400, 1), False),
    ((1, 5, 400), (1, 400, 1), False),
    ((1, 13, 416), (1, 416, 1), False),
    ((1, 70, 400), (1, 400, 1), False),
    ((1, 70, 401), (1, 401, 1), False),
    ((1, 70, 32), (1, 32, 1), False),
    ((3, 70, 48), (3, 48, 1), False),
    ((1, 13, 400), (1, 20, 400), True),
    ((1, 1, 40), (1, 40, 272), False),
    ((1, 3, 33), (1, 33, 512), False),
    ((1, 1, 40), (1, 40, 301), False),
    ((1, 8, 20), (1, 20, 2496), False),
    ((3, 7, 33), (3, 33, 1904), False),
]


@pytest.mark.parametrize("backend", ["numba", "cython"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("a_shape", "b_shape", "transpose_b"), SKINNY)
def test_place_in_a_cache_line(a_shape, b_shape, transpose_b, dtype, backend):
    """A skinny product reads its matrix in whole vectors, wherever it begins; no digit may depend on that."""
    a, b = arrays_of([a_shape, b_shape], dtype)
    (Z, M, L), N = a_shape, b_shape[1 if transpose_b else 2]
    (bias,) = arrays_of([(N,)], dtype)
    kernel = next(row for row in table.KERNELS if row.name == f"matmul_skinny_{backend}")
    expected = (a.astype(np.longdouble) @ (b.swapaxes(1, 2) if transpose_b else b)) + bias
    results = []
    for elements in range(LINE_BYTES // a.itemsize):
        for first, second, threads in [(elements, 0, 1), (0, elements, 2), (elements, elements, 3)]:
            out = np.full((Z, M, N), np.nan, dtype)
            operands = {"a": behind_a_line(a, first), "b": behind_a_line(b, second), "bias": bias}
            kernel.load(**operands, out=out, transpose_a=False, transpose_b=transpose_b, num_threads=threads)
            results.append(out)
    np.testing.assert_allclose(results[0], expected, rtol=0, atol=100 * L * np.finfo(dtype).eps)
    for result in results[1:]:
        assert_equal([result], [results[0]])


@needs_guard_pages
@pytest.mark.parametrize("backend", ["numba", "cython"])
@pytest.mark.parametrize(("a_shape", "b_shape", "transpose_b"), SKINNY)
def test_place_in_a_cache_line_beside_guard_pages(a_shape, b_shape, transpose_b, backend):
    """Lanes that a vector of one operand has before or behind what it meets of the other may not be read."""
    a, b = arrays_of([a_shape, b_shape], "float32")
    (Z, M, _), N = a_shape, b_shape[1 if transpose_b else 2]
    kernel = next(row for row in table.KERNELS if row.name == f"matmul_skinny_{backend}")
    options = {"bias": None, "transpose_a": False, "transpose_b": transpose_b, "num_threads": 1}
    expected = np.empty((Z, M, N), "float32")
    kernel.load(a=a, b=b, out=expected, **options)
    for side in ("begin", "end"):
        for elements in range(LINE_BYTES // a.itemsize):
            for first, second in [
                (guarded(a, side), guarded(b, side, elements)),
                (guarded(a, side, elements), guarded(b, side)),
            ]:
                out = guarded(np.full_like(expected, np.nan), side)
                kernel.load(a=first, b=second, out=out, **options)
                assert_equal([out], [expected])


@pytest.mark.parametrize("backend", table.BACKENDS)
@pytest.mark.parametrize("op", [op for op in OPS if "backward" not in op])
@pytest.mark.parametrize("layout", OUT_LAYOUTS)
def test_layouts_of_out(op, layout, backend):
    call, shapes = OPS[op]
    values = arrays_of(shapes, "float32")
    (expected,) = call(*values, backend=backend)
    out = LAYOUTS[layout](np.full_like(expected, np.nan))
    (result,) = call(*values, out=out, backend=backend)
    assert result is out
    assert_equal([result], [expected])


@pytest.mark.parametrize("backend", table.BACKENDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shift", [0, 1, 5])
def test_out_overlaps_an_input(shift, dtype, backend):
    memory = np.random.default_rng(2).standard_normal(2 * 3 * 6 * 6 + shift).astype(dtype)
    x, out = memory[: 2 * 3 * 36].reshape(2, 3, 6, 6), memory[shift:].reshape(2, 3, 6, 6)
    weight = arrays_of([(3, 3, 3, 3)], dtype)[0]
    expected = fc.conv2d(x.copy(), weight, padding=1, backend=backend)
    assert fc.conv2d(x, weight, padding=1, out=out, backend=backend) is out
    assert_equal([out], [expected])


@pytest.mark.parametrize("backend", table.BACKENDS)
def test_out_is_the_weight_or_the_bias(backend):
    a, bias = arrays_of([(4, 4), (4,)], "float64")
    expected = fc.matmul(a.copy(), a.copy(), backend=backend)
    assert_equal([fc.matmul(a, a, out=a, backend=backend)], [expected])
    weight = arrays_of([(4, 4)], "float64")[0]
    expected = fc.linear(bias.copy(), weight, bias.copy(), backend=backend)
    assert_equal([fc.linear(bias, weight, bias, out=bias, backend=backend)], [expected])


def test_out_of_a_subclass_is_filled_and_returned():
    a, b = arrays_of([(3, 4), (4, 5)], "float32")
    out = np.empty((3, 5), np.float32).view(Subclass)
    assert fc.matmul(a, b, out=out) is out
    assert_equal([out.view(np.ndarray)], [fc.matmul(a, b)])


def test_interleaved_out_without_overlap_is_accepted():
    """Axes whose strides interleave but never meet: element (i, j) lies at 2 i + 3 j, i < 3, j < 2."""
    memory = np.zeros(8, np.float64)
    out = np.lib.stride_tricks.as_strided(memory, (3, 2), (16, 24))
    a, b = arrays_of([(3, 4), (4, 2)], "float64")
    assert_equal([fc.matmul(a, b, out=out)], [fc.matmul(a, b)])


def test_transposed_operands_reach_the_kernel_without_a_copy():
    a, b, weight, batch = arrays_of([(7, 5), (3, 7), (3, 7), (2, 7, 5)], "float32")
    with_flags = {
        "matmul": (fc.calls.matmul(a.T, b.T, None), a, b, True, True),
        "linear": (fc.calls.linear(a.T, weight, None, None), a, weight, True, True),
        "linear_F": (fc.calls.linear(a.T, weight.copy().T.reshape(3, 7), None, None), a, None, True, True),
        "batch": (fc.calls.matmul(batch.swapaxes(1, 2), b.T, None), batch, b, True, True),
    }
    for (steps, _), first, second, transpose_a, transpose_b in with_flags.values():
        ((_, _, call, _),) = steps
        assert (call["transpose_a"], call["transpose_b"]) == (transpose_a, transpose_b)
        assert np.shares_memory(call["a"], first)
        assert second is None or np.shares_memory(call["b"], second)


def test_shared_matrix_collapses_the_batch():
    a, b = arrays_of([(2, 3, 5, 7), (7, 4)], "float32")
    (((_, _, call, _),), _) = fc.calls.matmul(a, b, None)
    assert call["a"].shape == (1, 30, 7)
    assert np.shares_memory(call["a"], a)


@pytest.mark.parametrize("backend", table.BACKENDS)
def test_lists_are_float64(backend):
    result = fc.linear([1.0, 2.0], [[3.0, 4.0]], [5.0], backend=backend)
    assert_equal([result], [np.array([16.0])])


@pytest.mark.parametrize("backend", table.BACKENDS)
def test_empty_batches_give_empty_results_and_zero_gradients(backend):
    x, w = np.empty((0, 4, 7, 9), np.float32), np.ones((6, 4, 3, 3), np.float32)
    y = fc.conv2d(x, w, np.ones(6, np.float32), backend=backend)
    dx, dw, db = fc.conv2d_backward(y, x, w, backend=backend)
    assert (y.shape, dx.shape) == ((0, 6, 5, 7), x.shape)
    assert_equal([dw, db], [np.zeros_like(w), np.zeros(6, np.float32)])
    x, w, bias = np.empty((2, 0, 3)), np.ones((5, 3)), np.ones(5)
    y = fc.linear(x, w, bias, backend=backend)
    dx, dw, db = fc.linear_backward(y, x, w, backend=backend)
    assert (y.shape, dx.shape) == ((2, 0, 5), x.shape)
    assert_equal([dw, db], [np.zeros_like(w), np.zeros(5)])
    assert_equal([fc.linear(np.ones((2, 0)), np.ones((5, 0)), bias, backend=backend)], [np.ones((2, 5))])
    assert_equal([fc.matmul(np.ones((2, 0)), np.ones((0, 3)), backend=backend)], [np.zeros((2, 3))])


FAR = 2**31 - 1


@pytest.mark.parametrize(
    ("taps", "options", "expected"),
    [
        (1, {"stride": FAR, "padding": FAR}, [[0, 0, 0], [0, 2, 0], [0, 0, 0]]),
        (2, {"padding": ((0, FAR - 1), (FAR - 1, 0)), "dilation": FAR}, [[6]]),
    ],
)
def test_extreme_options_that_are_valid(taps, options, expected):
    """Products of a stride, a dilation and a padded size that pass 2**63 must not reach an address."""
    x = np.arange(2.0, 2 + taps * taps).reshape(1, 1, taps, taps)
    w = np.arange(1.0, 1 + taps * taps).reshape(1, 1, taps, taps)
    assert_equal([fc.conv2d(x, w, **options)[0, 0]], [np.array(expected, float)])
    dy = np.ones((1, 1, *np.shape(expected)))
    got = fc.conv2d_backward(dy, x, w, **options)
    assert_equal(got, fc.conv2d_backward(dy, x, w, backend="numpy", **options))


@pytest.mark.parametrize("backend", ["cython", "numba"])
def test_compiled_rows_refuse_a_copy_that_is_almost_all_padding(backend):
    with pytest.raises(RuntimeError, match=f"conv2d_{backend}: the padded copy of the image would be 2002 x 2002"):
        fc.conv2d(np.ones((1, 1, 2, 2)), np.ones((1, 1, 2, 2)), stride=1000, padding=1000, backend=backend)
