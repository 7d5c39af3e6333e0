"""Recycled memory for results and workspaces: writing a fresh page costs several times what writing a used one does.

A large array handed out by `empty` is a lease on a block. When the array and every view of it are gone, the block goes
back to the pool, and the next request of its size takes it. What somebody still holds is never handed out again.
"""

import math
import os
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

#: Smaller arrays come from NumPy: the allocator reuses their memory by itself.
SMALLEST_BLOCK = 1 << 18
#: Where arrays begin: at a cache line, since a vector that lies across two is read as two. NumPy's begin anywhere.
ALIGNMENT = 64
#: Smaller arrays may begin anywhere: finding the line takes a microsecond.
SMALLEST_ALIGNED = 1 << 16
#: Bytes kept for reuse at most.
DEFAULT_LIMIT = 1 << 28
#: Size classes per doubling: a block is at most an eighth larger than asked for.
CLASSES = 8


def _aligned(shape: int | tuple[int, ...], nbytes: int, dtype: Any) -> np.ndarray:
    """Return new memory of `nbytes`, from the beginning of a cache line."""
    memory = np.empty(nbytes + ALIGNMENT, np.uint8)
    return np.ndarray(shape, dtype, memory, -memory.__array_interface__["data"][0] % ALIGNMENT)


class _Block:
    """Memory, and its address, which costs more to find out than a lease does."""

    __slots__ = ("address", "array", "nbytes")

    def __init__(self, nbytes: int) -> None:
        self.nbytes, self.array = nbytes, _aligned(nbytes, nbytes, np.uint8)
        self.address = self.array.ctypes.data


class _Pool:
    """Free blocks by size; the sizes in the order of their last return, so that the oldest give way."""

    def __init__(self) -> None:
        self.limit = DEFAULT_LIMIT
        self.free: dict[int, list[_Block]] = {}
        self.kept = self.leased = self.reused = self.allocated = 0
        self.lock = threading.RLock()  # reentrant: a lease may end wherever Python collects garbage

    def take(self, size: int) -> _Block:
        """Return a block of `size` bytes."""
        with self.lock:
            if blocks := self.free.get(size):
                self.leased += size
                self.reused += 1
                self.kept -= size
                return blocks.pop()
        try:
            block = _Block(size)
        except MemoryError:  # what is kept may be what is missing
            self.clear()
            block = _Block(size)
        with self.lock:
            self.leased += size
            self.allocated += 1
        return block

    def give_back(self, block: _Block) -> None:
        """Keep a block for reuse, in place of those whose size was not used for longest."""
        with self.lock:
            self.leased -= block.nbytes
            if block.nbytes <= self.limit:
                blocks = self.free.pop(block.nbytes, [])
                blocks.append(block)
                self.free[block.nbytes] = blocks
                self.kept += block.nbytes
                self.shrink()

    def shrink(self) -> None:
        """Free what is beyond the limit, oldest sizes first."""
        with self.lock:
            while self.kept > self.limit:
                size, blocks = next(iter(self.free.items()))
                if blocks:
                    blocks.pop()
                    self.kept -= size
                else:
                    del self.free[size]

    def clear(self) -> None:
        """Free what is kept."""
        with self.lock:
            self.free.clear()
            self.kept = 0


_pool = _Pool()


class _Lease:
    """What an array on a block has as its base: gives the block back when the last view is gone.

    Not an array itself, since NumPy shortens chains of bases through arrays.
    """

    __slots__ = ("__array_interface__", "_block", "_give_back")

    def __init__(self, block: _Block, shape: tuple[int, ...], typestr: str) -> None:
        self._block, self._give_back = block, _pool.give_back  # bound here: at the interpreter's end globals are gone
        self.__array_interface__ = {"data": (block.address, False), "shape": shape, "typestr": typestr, "version": 3}

    def __del__(self) -> None:
        self._give_back(self._block)


def size_class(nbytes: int) -> int:
    """Bytes of the block that serves a request."""
    step = max(1 << (nbytes.bit_length() - 1), CLASSES) // CLASSES
    return -(-nbytes // step) * step


def empty(shape: int | tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return an uninitialised C-contiguous array, as ``numpy.empty``, a large one from the beginning of a cache line.

    Parameters
    ----------
    shape : int or tuple of int
    dtype : dtype_like

    Returns
    -------
    ndarray

    Raises
    ------
    MemoryError, ValueError
        As ``numpy.empty``.
    """
    if type(shape) is int and shape < SMALLEST_ALIGNED >> 4:  # without delay: no dtype has more than 16 bytes
        return np.empty(shape, dtype)
    dtype = np.dtype(dtype)
    nbytes = (math.prod(shape) if isinstance(shape, tuple) else shape) * dtype.itemsize
    if nbytes < SMALLEST_ALIGNED or nbytes >= 2**62:
        return np.empty(shape, dtype)
    if nbytes < SMALLEST_BLOCK or _pool.limit == 0:
        return _aligned(shape, nbytes, dtype)
    shape = shape if isinstance(shape, tuple) else (shape,)
    return np.asarray(_Lease(_pool.take(size_class(nbytes)), shape, dtype.str))


#: Plans kept per kernel family: more than the layers of any network in one process, at a few kilobytes each.
CACHED_PLANS = 1024
_plans: list[Any] = []


def planned(plan: Callable[..., Any]) -> Callable[..., Any]:
    """Remember what a function of shapes returned, until `clear_cache`."""
    _plans.append(lru_cache(CACHED_PLANS)(plan))
    return _plans[-1]


def clear_cache() -> None:
    """Free the memory kept for reuse, and the address tables kept per layer. Arrays that somebody holds stay."""
    _pool.clear()
    for plan in _plans:
        plan.cache_clear()


def memory_stats() -> dict[str, int]:
    """Return what is kept for reuse.

    Returns
    -------
    dict of str to int
        ``kept_bytes`` of large results and workspaces wait for reuse, at most ``limit_bytes``; ``leased_bytes`` are
        held by somebody; ``reused`` and ``allocated`` count requests since the start; ``plans`` are address tables.
    """
    with _pool.lock:
        return {
            "kept_bytes": _pool.kept,
            "limit_bytes": _pool.limit,
            "leased_bytes": _pool.leased,
            "reused": _pool.reused,
            "allocated": _pool.allocated,
            "plans": sum(plan.cache_info().currsize for plan in _plans),
        }


def set_memory_limit(nbytes: int) -> None:
    """Bound the bytes kept for reuse."""
    with _pool.lock:
        _pool.limit = nbytes
        _pool.shrink()


def _after_fork_in_child() -> None:
    _pool.lock = threading.RLock()  # the parent's may be held by a thread that does not exist here


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
