"""A call made before goes straight to its kernels, and gives what it gave before; what is a different call does not."""

import pickle
import threading
from types import SimpleNamespace

import numpy as np
import pytest

import fastcnn as fc
from fastcnn import dispatch, threads

RNG = np.random.default_rng(0)


def values(*shape, dtype=np.float32):
    return RNG.standard_normal(shape).astype(dtype)


X, W, B = values(2, 3, 9, 8), values(4, 3, 3, 2), values(4)
Y = fc.conv2d(X, W, B)
ROWS, MATRIX, BIAS = values(5, 7), values(6, 7), values(6)

CALLS = {
    "conv2d": (fc.conv2d, (X, W, B), {}),
    "conv2d without bias": (fc.conv2d, (X, W), {}),
    "conv2d unbatched": (fc.conv2d, (X[0], W, B), {}),
    "conv2d with options": (
        fc.conv2d,
        (X, W, B),
        {"stride": (2, 1), "padding": ((1, 0), (2, 1)), "activation": "relu"},
    ),
    "conv2d same": (fc.conv2d, (X, W, B), {"padding": "same", "max_pool": 2}),
    "conv2d grouped": (fc.conv2d, (values(2, 4, 5, 5), values(4, 2, 1, 1)), {"groups": 2}),
    "conv2d_backward": (fc.conv2d_backward, (values(*Y.shape), X, W), {}),
    "conv2d_backward dx": (fc.conv2d_backward, (values(*Y.shape), X, W), {"output_mask": (True, False, False)}),
    "conv2d_backward dw, db": (fc.conv2d_backward, (values(*Y.shape), X, W), {"output_mask": (False, True, True)}),
    "matmul": (fc.matmul, (values(5, 7), values(7, 6)), {}),
    "matmul batched": (fc.matmul, (values(3, 5, 7), values(3, 7, 6)), {}),
    "matmul of vectors": (fc.matmul, (values(7), values(7)), {}),
    "matmul matrix by vector": (fc.matmul, (values(5, 7), values(7)), {}),
    "linear": (fc.linear, (ROWS, MATRIX, BIAS), {}),
    "linear of more dimensions": (fc.linear, (values(2, 3, 7), MATRIX), {}),
    "linear_backward": (fc.linear_backward, (values(5, 6), ROWS, MATRIX), {}),
}


def refuse(*_):
    raise AssertionError("the call was not known")


def same(got, expected):
    if isinstance(expected, tuple):
        assert len(got) == len(expected)
        for one, other in zip(got, expected, strict=True):
            same(one, other)
    elif expected is None:
        assert got is None
    else:
        assert type(got) is type(expected)
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)


@pytest.fixture
def no_building(monkeypatch):
    """Let a test end what would find a call out anew."""
    return lambda: monkeypatch.setattr(dispatch, "run", refuse)


@pytest.mark.parametrize("backend", ["cython", "numba", "numpy"])
@pytest.mark.parametrize("name", CALLS)
def test_a_known_call_gives_the_same(name, backend, no_building):
    op, arrays, options = CALLS[name]
    first = op(*arrays, **options, backend=backend)
    others = tuple(values(*array.shape) for array in arrays)
    expected = op(*(array.astype(float) for array in others), **options, backend="numpy")
    no_building()
    same(op(*(array.copy() for array in arrays), **options, backend=backend), first)
    got = op(*others, **options, backend=backend)
    for one, other in zip(_parts(got), _parts(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def _parts(result):
    return [part for part in (result if isinstance(result, tuple) else (result,)) if part is not None]


@pytest.mark.parametrize("backend", ["cython", "numba", "numpy"])
def test_prepacked_weights(backend, no_building):
    weights = [W, values(*W.shape)]
    packed = [fc.prepack_conv2d(weight) for weight in weights]
    for each in packed:
        fc.conv2d(X, each, B, backend=backend)
    expected = [fc.conv2d(X, weight, B, backend=backend) for weight in weights]
    no_building()
    for each, y in zip(packed, expected, strict=True):
        np.testing.assert_array_equal(fc.conv2d(X, each, B, backend=backend), y)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtypes_are_different_calls(dtype):
    fc.conv2d(X, W)
    fc.conv2d(X.astype(float), W.astype(float))
    assert fc.conv2d(X.astype(dtype), W.astype(dtype)).dtype == dtype


def test_a_matrix_times_itself_is_a_different_call():
    a, b = values(6, 6), values(6, 6)
    for _ in range(2):
        np.testing.assert_allclose(fc.matmul(a, a), a @ a, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(fc.matmul(a, b), a @ b, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(fc.linear(a, a), a @ a.T, rtol=1e-4, atol=1e-5)


def test_strides_are_different_calls():
    a, b = values(6, 6), values(6, 6)
    for _ in range(2):
        for one in (a, a.T, a[::-1], np.asfortranarray(a)):
            np.testing.assert_allclose(fc.matmul(one, b), one @ b, rtol=1e-4, atol=1e-5)
    shifted = np.zeros(a.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(a.shape)
    shifted[...] = a
    np.testing.assert_array_equal(fc.matmul(shifted, b), fc.matmul(a, b))
    np.testing.assert_array_equal(fc.matmul(pickle.loads(pickle.dumps(a)), b), fc.matmul(a, b))
    swapped = a.astype(a.dtype.newbyteorder())
    np.testing.assert_array_equal(fc.matmul(swapped, b), fc.matmul(a, b))


def test_options_of_other_types_are_different_calls():
    same(fc.conv2d(X, W, padding=(1, 2)), fc.conv2d(X, W, padding=((1, 1), (2, 2))))
    for _ in range(2):
        fc.conv2d(X, W, stride=1)
        with pytest.raises(TypeError, match="stride: got the bool True"):
            fc.conv2d(X, W, stride=True)
        with pytest.raises(TypeError, match="stride: got"):
            fc.conv2d(X, W, stride=1.0)
    same(fc.conv2d(X, W, stride=np.int64(1)), fc.conv2d(X, W))


def test_strings():
    for bad in ("\ud800", "same" * 300):
        with pytest.raises(ValueError, match="padding: got"):
            fc.conv2d(X, W, padding=bad)
    for padding in ("same", "valid"):
        for _ in range(2):
            same(fc.conv2d(X, W, padding=padding), fc.conv2d(X, W, padding=padding, backend="cython"))


def test_out_is_filled(no_building):
    out = np.full_like(Y, np.nan)
    fc.conv2d(X, W, B, out=out)
    out[...] = np.nan
    no_building()
    assert fc.conv2d(X, W, B, out=out) is out
    np.testing.assert_array_equal(out, Y)
    other = np.full_like(Y, np.nan)
    assert fc.conv2d(X, W, B, out=other) is other
    np.testing.assert_array_equal(other, Y)


def test_out_that_overlaps_an_input_after_one_that_does_not():
    a, b = values(6, 6), values(6, 6)
    expected = fc.matmul(a, b)
    np.testing.assert_array_equal(fc.matmul(a, b, out=np.empty_like(a)), expected)
    for _ in range(2):
        c = a.copy()
        assert fc.matmul(c, b, out=c) is c
        np.testing.assert_array_equal(c, expected)
    both = np.empty(6 * 6 + 3, np.float32)
    source, out = both[3:].reshape(6, 6), both[:-3].reshape(6, 6)
    source[...] = a
    assert fc.matmul(source, b, out=out) is out
    np.testing.assert_array_equal(out, expected)


def test_out_that_cannot_be_written_after_one_that_can():
    out = np.empty_like(Y)
    fc.conv2d(X, W, B, out=out)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="out: got a read-only array"):
        fc.conv2d(X, W, B, out=out)


def test_read_only_inputs():
    x, w = X.copy(), W.copy()
    x.flags.writeable = w.flags.writeable = False
    for backend in ("cython", "numba"):
        for _ in range(2):
            np.testing.assert_array_equal(fc.conv2d(x, w, backend=backend), fc.conv2d(X, W, backend=backend))


def test_values_that_kernels_hand_over():
    for backend in ("cython", "numba"):
        fc.conv2d(X, W, padding=1, backend=backend)
        w = W.copy()
        w[0, 0, 0, 0] = np.inf
        same(
            np.isfinite(fc.conv2d(X, w, padding=1, backend=backend)),
            np.isfinite(fc.conv2d(X, w, padding=1, backend="numpy")),
        )


def test_settings_are_obeyed():
    fc.conv2d(X, W)
    seen = []
    with fc.use_backend("numpy"):
        assert fc.explain("conv2d", X, W).kernels == ["conv2d_numpy"]
        expected = fc.conv2d(X, W)
        for _ in range(2):
            with dispatch.observing(seen.append):
                np.testing.assert_array_equal(fc.conv2d(X, W), expected)
                np.testing.assert_array_equal(fc.conv2d(X, W), expected)
    assert [step[0] for step in seen] == 4 * ["conv2d"]
    with fc.use_algorithm("winograd2"), pytest.raises(ValueError, match="algorithm 'winograd2' does not apply"):
        fc.conv2d(X, W[:, :, :1])
    fc.conv2d(X, W[:, :, :1].copy())
    with fc.use_algorithm("winograd2"), pytest.raises(ValueError, match="algorithm 'winograd2' does not apply"):
        fc.conv2d(X, W[:, :, :1].copy())
    with pytest.raises(ValueError, match="backend: got 'none'"):
        fc.conv2d(X, W, backend="none")


@pytest.mark.parametrize("backend", [None, "auto"])
def test_settings_of_the_process_are_obeyed(backend):
    x, weight = values(1, 3, 9, 9), values(3, 3, 1, 1)
    for _ in range(2):
        fc.set_algorithm("auto")
        for _ in range(2):
            fc.conv2d(x, weight, backend=backend)
        fc.set_algorithm("winograd2")
        for _ in range(2):
            with pytest.raises(ValueError, match="algorithm 'winograd2' does not apply"):
                fc.conv2d(x, weight, backend=backend)


def test_the_number_of_threads_is_obeyed(monkeypatch):
    x, weight, asked = values(1, 8, 64, 64), values(8, 8, 3, 3), []
    fc.set_num_threads(1)
    for _ in range(2):
        fc.conv2d(x, weight)
    busy = SimpleNamespace(acquire=lambda *_, **__: asked.append(fc.get_num_threads()))
    monkeypatch.setattr(threads, "busy", busy)
    fc.conv2d(x, weight)
    assert asked == []  # the known call of one thread does not ask for more
    fc.set_num_threads(2)
    for count in (1, 2):
        fc.conv2d(x, weight)
        assert asked == count * [2]


def test_results_known_without_computing_are_not_remembered():
    for _ in range(2):
        np.testing.assert_array_equal(fc.matmul(values(3, 0), values(0, 2)), np.zeros((3, 2)))
        assert fc.conv2d(np.empty((0, 3, 9, 8), np.float32), W).shape == (0, 4, 7, 7)
        dx, dw, db = fc.linear_backward(values(0, 6), values(0, 7), MATRIX)
        np.testing.assert_array_equal(dw, np.zeros((6, 7)))
        np.testing.assert_array_equal(db, np.zeros(6))
        assert dx.shape == (0, 7)


def test_results_are_new_arrays():
    first, second = fc.conv2d(X, W), fc.conv2d(X, W)
    assert not np.may_share_memory(first, second)
    first[...] = 0
    assert second.any()


def test_clear_cache_forgets_calls(no_building):
    fc.conv2d(X, W)
    fc.clear_cache()
    no_building()
    with pytest.raises(AssertionError, match="not known"):
        fc.conv2d(X, W)


def test_threads_call_at_once():
    expected = fc.conv2d(X, W, B)
    wrong = []

    def work():
        wrong.extend(i for i in range(300) if not np.array_equal(fc.conv2d(X, W, B), expected))

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong
