"""How every Numba kernel here is compiled and launched."""

import functools
from collections.abc import Callable
from typing import Any

import numba
from numba import njit, prange

#: How whatever runs without the GIL is compiled: integer division without zero checks.
_plain = functools.partial(njit, nogil=True, error_model="numpy")
#: Compilation of every function that runs inside a kernel. Without Numba's runtime it cannot allocate, which no kernel
#: does, and does not count references: two atomic operations for each array of each call, half the time of small tasks.
compiled = functools.partial(_plain, _nrt=False)


def threaded(work: Callable[..., None]) -> Any:
    """Compile ``work(*arguments, worker, workers)``, which does its worker's share, for any number of threads.

    The result is called as ``launch(num_threads, *arguments)``. With one thread it calls the share of worker 0 of 1
    and enters no threading layer: the only safe way in a forked child, and the fast one for small work. Its attribute
    ``share`` is the compiled ``work``, for calls from compiled code.
    """
    share = compiled(work)

    @functools.partial(_plain, parallel=True)
    def all_shares(workers, *arguments):
        for worker in prange(workers):
            share(*arguments, worker, workers)

    @functools.wraps(work)
    def launch(num_threads, *arguments):
        if num_threads == 1:
            share(*arguments, 0, 1)
            return
        before, wanted = numba.get_num_threads(), min(num_threads, numba.config.NUMBA_NUM_THREADS)
        if wanted == before:
            all_shares(num_threads, *arguments)
            return
        numba.set_num_threads(wanted)
        try:
            all_shares(num_threads, *arguments)
        finally:
            numba.set_num_threads(before)

    launched: Any = launch
    launched.share = share
    return launched


def flat(array):
    """One-dimensional view of a C-contiguous array; a read-only one is copied, as it is another type to Numba."""
    array = array if array.flags.writeable else array.copy()
    return array.ravel()
