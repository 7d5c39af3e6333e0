"""Arrays in and out: what users hand over becomes what kernels take, and results reach the user's `out`.

Kernels take C-contiguous, aligned, native float32 or float64 arrays; whatever is that already is not copied.
"""

import math
import sys
from typing import Any

import numpy as np

from fastcnn.checks import Shape, message, short
from fastcnn_kernels import memory

F32, F64 = np.dtype(np.float32), np.dtype(np.float64)
_EXPECTED = "a float32 or float64 array"
#: Device types of DLPack whose memory the CPU can read: kDLCPU, kDLCUDAHost, kDLROCMHost.
_CPU_DEVICES = (1, 3, 11)


def array(value: Any, name: str) -> np.ndarray:
    """Return `value` as a native float32 or float64 array of any strides, if possible without a copy."""
    taken = value if type(value) is np.ndarray else _convert(value, name)
    dtype = taken.dtype
    if dtype is F32 or dtype is F64:
        return taken
    if dtype.char not in ("f", "d"):
        raise TypeError(message(name, f"dtype {dtype}", _EXPECTED))
    native = F32 if dtype.char == "f" else F64
    # The view drops a dtype's metadata and makes the dtype the interned one, which is tested by identity.
    return taken.view(native) if dtype.isnative else taken.astype(native)


def _convert(value: Any, name: str) -> np.ndarray:
    """Return anything that is not exactly an ndarray as one."""
    kind = type(value).__name__
    if isinstance(value, np.ndarray):
        if isinstance(value, np.ma.MaskedArray):
            raise TypeError(message(name, "a MaskedArray", f"{_EXPECTED} without a mask; use .filled()"))
        return value.view(np.ndarray)
    if value is None:
        raise TypeError(message(name, "None", _EXPECTED))
    sparse = sys.modules.get("scipy.sparse")  # an instance exists only if its module does
    if sparse is not None and sparse.issparse(value):
        raise TypeError(message(name, f"a sparse {kind}", f"{_EXPECTED}; use .toarray()"))
    if getattr(value, "requires_grad", False) is True:
        raise TypeError(message(name, f"a {kind} that requires grad", f"{_EXPECTED}; use .detach()"))
    try:
        if hasattr(value, "__dlpack_device__") and value.__dlpack_device__()[0] not in _CPU_DEVICES:
            device = getattr(value, "device", value.__dlpack_device__())
            raise TypeError(message(name, f"a {kind} on device {device}", f"{_EXPECTED} on the CPU"))
        if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
            return np.from_dlpack(value)
        return np.asarray(value)
    except MemoryError:
        raise
    except Exception as error:
        if isinstance(error, TypeError) and str(error).startswith(f"{name}: "):
            raise
        # NumPy reports a ragged list as a ValueError; frameworks raise what they like.
        raise TypeError(message(name, f"a {kind} that is no regular array ({error})", _EXPECTED)) from error


def check_dtype(value: np.ndarray, name: str, like: np.ndarray, like_name: str) -> None:
    """Refuse to mix float32 and float64."""
    if value.dtype is not like.dtype:
        raise TypeError(message(name, f"dtype {value.dtype}", f"{like.dtype}, the dtype of {like_name}"))


def check_shape(value: np.ndarray, name: str, expected: Shape, why: str) -> None:
    """Refuse an array of another shape."""
    if value.shape != expected:
        raise ValueError(message(name, f"shape {value.shape}", f"shape {expected}, {why}"))


def allocate(name: str, shape: Shape, dtype: np.dtype) -> np.ndarray:
    """Return uninitialised memory, recycled if it is large, or say how many bytes it would have been."""
    try:
        return memory.empty(shape, dtype)
    except (ValueError, MemoryError):  # NumPy's answers to more than its index type holds, or the memory
        size = math.prod(shape) * dtype.itemsize
        got = f"shape {shape} of {size} bytes"
        if size >= 2**63:
            raise OverflowError(message(name, got, "less than 2**63 bytes")) from None
        raise MemoryError(message(name, got, "a size that this machine can allocate")) from None


def ready(value: np.ndarray, name: str) -> np.ndarray:
    """Return `value` as the kernels take it: C-contiguous and aligned."""
    flags = value.flags
    if flags.c_contiguous and flags.aligned:
        return value
    copy = allocate(name, value.shape, value.dtype)
    np.copyto(copy, value)
    return copy


def output(out: Any, shape: Shape, *inputs: np.ndarray | None) -> np.ndarray:
    """Return the array a kernel may write: `out` if that is safe, else fresh memory for `deliver` to copy.

    The dtype is that of the first of `inputs`, none of which the array returned overlaps.
    """
    dtype = inputs[0].dtype  # type: ignore[union-attr]  # only a bias, never the first, may be None
    if out is None:
        return allocate("out", shape, dtype)
    _check_out(out, shape, dtype)
    flags = out.flags
    if flags.c_contiguous and flags.aligned:
        if not any(value is not None and np.may_share_memory(out, value) for value in inputs):
            return out.view(np.ndarray)
    elif _overlaps_itself(out):
        raise ValueError(message("out", f"strides {out.strides}, overlapping itself", "separate elements"))
    return allocate("out", shape, dtype)


def deliver(result: np.ndarray, out: np.ndarray | None) -> np.ndarray:
    """Return `out` holding `result`, or `result` if the user gave no `out`."""
    if out is None:
        return result
    if not np.may_share_memory(result, out):
        np.copyto(out, result)
    return out


def _check_out(out: Any, shape: Shape, dtype: np.dtype) -> None:
    if not isinstance(out, np.ndarray) or isinstance(out, np.ma.MaskedArray):
        raise TypeError(message("out", f"{short(out)} ({type(out).__name__})", "a numpy.ndarray"))
    if out.dtype.char != dtype.char:
        raise TypeError(message("out", f"dtype {out.dtype}", f"{dtype}, the dtype of the inputs"))
    if out.shape != shape:
        raise ValueError(message("out", f"shape {out.shape}", f"shape {shape}"))
    if not out.dtype.isnative:
        raise ValueError(message("out", "an array of swapped bytes", "native byte order"))
    if not out.flags.writeable:
        raise ValueError(message("out", "a read-only array", "a writeable one"))


def _overlaps_itself(value: np.ndarray) -> bool:
    """Whether two elements share memory."""
    if value.size < 2:
        return False
    steps = zip(value.strides, value.shape, strict=True)
    axes = sorted((abs(stride), size) for stride, size in steps if size > 1)
    reach = value.itemsize
    for stride, size in axes:
        if stride < reach:
            break
        reach += stride * (size - 1)
    else:
        return False  # each axis steps over all that the shorter ones reach
    # Rare: interleaved axes. Sorted addresses decide it.
    address = np.zeros(1, np.int64)
    for stride, size in axes:
        if stride == 0:
            return True
        address = np.add.outer(address, stride * np.arange(size)).ravel()
    return bool(np.diff(np.sort(address)).min() < value.itemsize)
