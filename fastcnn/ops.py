"""Every public op: the calls are built in `calls` (check, allocate) and run by `dispatch`."""

import inspect
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastcnn import calls, dispatch, threads
from fastcnn.arrays import deliver
from fastcnn_kernels.recall import UNKNOWN, again, record

PairOption = int | tuple[int, int]
PaddingOption = str | int | tuple[int, int] | tuple[tuple[int, int], tuple[int, int]]
Gradients = tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]


def _perform(build: Any, arguments: tuple[Any, ...], backend: str | None, out: np.ndarray | None = None) -> Any:
    """Run the steps that `build` makes of a call, unless they are known already; return the op's result."""
    if not dispatch.observers:
        result = again(build, arguments, backend)
        if result is not UNKNOWN:
            return result
    settings = dispatch.settings(backend)
    steps, result = build(*arguments)
    choice, algorithm, *_ = settings
    chosen = dispatch.run(steps, choice, algorithm)
    if not dispatch.observers and (out is None or np.may_share_memory(result, out)):
        record(build, arguments, settings, chosen, steps, result, threads)
    return deliver(result, out)


def conv2d(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: PairOption = 1,
    padding: PaddingOption = 0,
    dilation: PairOption = 1,
    groups: int = 1,
    *,
    activation: str | None = None,
    max_pool: int | None = None,
    out: np.ndarray | None = None,
    backend: str | None = None,
) -> np.ndarray:
    """Convolve images with filters (cross-correlation, as ``torch.nn.functional.conv2d``).

    Parameters
    ----------
    x : array_like of shape (N, C, H, W) or (C, H, W), float32 or float64
        Any strides; anything with ``__array__`` or ``__dlpack__`` in CPU memory.
    weight : array_like of shape (K, C/groups, R, S), dtype of x
        What `prepack_conv2d` returned saves packing it again in every call.
    bias : array_like of shape (K,), dtype of x, optional
    stride : int or (int, int), default 1
        Vertical and horizontal, here and below.
    padding : int, (int, int), ((top, bottom), (left, right)), "same" or "valid", default 0
        Zeros around the image. "same" keeps its size and needs stride 1; an odd pixel goes after.
    dilation : int or (int, int), default 1
        Distance between filter taps.
    groups : int, default 1
        C and K are split into that many groups, which do not see each other.
    activation : {None, "relu", "relu6"}, default None
        Applied to the result before it is stored: max(y, 0), or that and min(y, 6). NaN stays.
    max_pool : {None, 2}, default None
        Store the maxima over windows of 2 x 2 with stride 2 instead: P and Q are halved, an odd last row or column is
        dropped (``torch.nn.functional.max_pool2d(y, 2)``).
    out : ndarray of shape (N, K, P, Q) or (K, P, Q), dtype of x, optional
        Where the result goes. May overlap the inputs, at the price of a copy.
    backend : {"auto", "cython", "numba", "numpy"}, optional
        Whose kernel runs; see `use_backend`.

    Returns
    -------
    ndarray of shape (N, K, P, Q) or (K, P, Q), dtype of x
        `out`, if that is given. P = (H + top + bottom - dilation (R - 1) - 1) // stride + 1, and Q likewise.

    Raises
    ------
    TypeError
        If an array is not float32 or float64, dtypes differ, or an option is not an integer.
    ValueError
        If shapes or options do not fit each other, or `out` cannot take the result.
    OverflowError, MemoryError
        If an option is 2**31 or more, or the result does not fit the address space or the memory.
    RuntimeError
        If the backend asked for is not available or has no kernel for this call.
    """
    arguments = (x, weight, bias, stride, padding, dilation, groups, activation, max_pool, out)
    return _perform(calls.conv2d, arguments, backend, out)


def conv2d_backward(
    dy: ArrayLike,
    x: ArrayLike,
    weight: ArrayLike,
    stride: PairOption = 1,
    padding: PaddingOption = 0,
    dilation: PairOption = 1,
    groups: int = 1,
    *,
    output_mask: tuple[bool, bool, bool] = (True, True, True),
    backend: str | None = None,
) -> Gradients:
    """Gradients of `conv2d` for its input, weight and bias.

    Parameters
    ----------
    dy : array_like of shape (N, K, P, Q) or (K, P, Q), dtype of x
        Gradient of the result of ``conv2d(x, weight, bias, stride, padding, dilation, groups)``.
    x : array_like of shape (N, C, H, W) or (C, H, W), float32 or float64
    weight : array_like of shape (K, C/groups, R, S), dtype of x
    stride, padding, dilation, groups
        As for `conv2d`.
    output_mask : (bool, bool, bool), default (True, True, True)
        Which of dx, dw and db to compute.
    backend : {"auto", "cython", "numba", "numpy"}, optional
        Whose kernels run; see `use_backend`.

    Returns
    -------
    dx : ndarray of the shape of x, or None if masked out
    dw : ndarray of the shape of weight, or None if masked out
    db : ndarray of shape (K,), or None if masked out

    Raises
    ------
    TypeError, ValueError, OverflowError, MemoryError, RuntimeError
        As `conv2d`.
    """
    return _perform(calls.conv2d_backward, (dy, x, weight, stride, padding, dilation, groups, output_mask), backend)


def matmul(a: ArrayLike, b: ArrayLike, *, out: np.ndarray | None = None, backend: str | None = None) -> np.ndarray:
    """Matrix product with the shapes of ``numpy.matmul``.

    Parameters
    ----------
    a : array_like of shape (..., M, L) or (L,), float32 or float64
    b : array_like of shape (..., L, N) or (L,), dtype of a
        The leading dimensions of both broadcast. The transpose of a contiguous array is not copied.
    out : ndarray of the result's shape, dtype of a, optional
        Where the result goes. May overlap the inputs, at the price of a copy.
    backend : {"auto", "cython", "numba", "numpy"}, optional
        Whose kernel runs; see `use_backend`.

    Returns
    -------
    ndarray of shape (..., M, N), without M or N where a or b is 1-D, dtype of a
        `out`, if that is given; a scalar for two 1-D operands.

    Raises
    ------
    TypeError
        If an array is not float32 or float64, or dtypes differ.
    ValueError
        If shapes do not fit each other, an operand is 0-D, or `out` cannot take the result.
    OverflowError, MemoryError
        If the result does not fit the address space or the memory.
    RuntimeError
        If the backend asked for is not available or has no kernel for this call.
    """
    result = _perform(calls.matmul, (a, b, out), backend, out)
    return result if out is not None or result.ndim else result[()]


def linear(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    out: np.ndarray | None = None,
    backend: str | None = None,
) -> np.ndarray:
    """Dense layer ``x @ weight.T + bias`` (as ``torch.nn.functional.linear``).

    Parameters
    ----------
    x : array_like of shape (..., I), float32 or float64
    weight : array_like of shape (O, I), dtype of x
    bias : array_like of shape (O,), dtype of x, optional
    out : ndarray of shape (..., O), dtype of x, optional
        Where the result goes. May overlap the inputs, at the price of a copy.
    backend : {"auto", "cython", "numba", "numpy"}, optional
        Whose kernel runs; see `use_backend`.

    Returns
    -------
    ndarray of shape (..., O), dtype of x
        `out`, if that is given.

    Raises
    ------
    TypeError, ValueError, OverflowError, MemoryError, RuntimeError
        As `matmul`.
    """
    return _perform(calls.linear, (x, weight, bias, out), backend, out)


def linear_backward(
    dy: ArrayLike,
    x: ArrayLike,
    weight: ArrayLike,
    *,
    output_mask: tuple[bool, bool, bool] = (True, True, True),
    backend: str | None = None,
) -> Gradients:
    """Gradients of `linear` for its input, weight and bias.

    Parameters
    ----------
    dy : array_like of shape (..., O), dtype of x
        Gradient of the result of ``linear(x, weight, bias)``.
    x : array_like of shape (..., I), float32 or float64
    weight : array_like of shape (O, I), dtype of x
    output_mask : (bool, bool, bool), default (True, True, True)
        Which of dx, dw and db to compute.
    backend : {"auto", "cython", "numba", "numpy"}, optional
        Whose kernels run; see `use_backend`.

    Returns
    -------
    dx : ndarray of the shape of x, or None if masked out
    dw : ndarray of the shape of weight, or None if masked out
    db : ndarray of shape (O,), or None if masked out

    Raises
    ------
    TypeError, ValueError, OverflowError, MemoryError, RuntimeError
        As `matmul`.
    """
    return _perform(calls.linear_backward, (dy, x, weight, output_mask), backend)


#: Op by name -> the function and what builds its calls.
OPS = {
    function.__name__: (function, build)
    for function, build in (
        (conv2d, calls.conv2d),
        (conv2d_backward, calls.conv2d_backward),
        (matmul, calls.matmul),
        (linear, calls.linear),
        (linear_backward, calls.linear_backward),
    )
}


def explain(op: str, /, *args: Any, **kwargs: Any) -> dispatch.Explanation:
    """Say which kernels a call would run, and why each row of the table before them declined. Nothing is run.

    Parameters
    ----------
    op : {"conv2d", "conv2d_backward", "matmul", "linear", "linear_backward"}
    *args, **kwargs
        Arguments of the op.

    Returns
    -------
    Explanation
        Readable as a string; `kernels` holds the names, `choices` the reasons.

    Raises
    ------
    ValueError
        If there is no such op.
    Exception
        What the op raises for these arguments.
    """
    return dispatch.explain(*steps_of(op, args, kwargs))


def steps_of(op: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[list[dispatch.Step], str | None]:
    """Kernel calls of an op, and the backend asked for; nothing is run and `out` not written."""
    if not isinstance(op, str) or op not in OPS:
        raise ValueError(f"op: got {op!r}, expected one of {', '.join(OPS)}")
    function, build = OPS[op]
    bound = inspect.signature(function).bind(*args, **kwargs)
    bound.apply_defaults()
    backend = bound.arguments.pop("backend")
    out = bound.arguments.get("out")
    before = out.copy() if type(out) is np.ndarray else None
    steps, _ = build(**bound.arguments)
    if out is not None and before is not None and not steps:  # a result known without computing was written at once
        out[...] = before
    return steps, backend
