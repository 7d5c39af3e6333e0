"""How many threads a kernel call may use.

While one Python thread is inside a parallel kernel, the kernels of all others run on one thread each: that
does not oversubscribe, and Numba's workqueue layer would abort on two callers. Results do not depend on it.
"""

import os
import threading
from functools import cache
from typing import Any

from fastcnn.checks import integer, message
from fastcnn_kernels.recall import unsettle

MAX_THREADS = 1024
#: Calls of less work, in floating-point operations, stay on one thread: 1e6 take about 10 us there, few of them beside
#: much memory as many, and entering a parallel region costs 2 us (OpenMP) to 90 us (Numba's workqueue).
PARALLEL_WORK = {"cython": 100_000, "numba": 1_000_000, "numpy": 1_000_000}

#: Held by whoever uses several threads; a forked child has another one.
busy = threading.Lock()
_number: int | None = None
_used = False
#: True in a forked child of a process that had used threads: GCC's OpenMP hangs or dies in it.
_single = False


def set_num_threads(n: int) -> None:
    """Set the number of threads the kernels use, for the whole process.

    Parameters
    ----------
    n : int
        1 to 1024. More than the machine has is allowed, and slower.

    Raises
    ------
    TypeError
        If `n` is not an integer.
    ValueError
        If `n` is out of range.
    """
    global _number
    _number = _checked(n, "n")
    unsettle()


def get_num_threads() -> int:
    """Return the number of threads a large call uses.

    `set_num_threads` decides, else the environment variable ``FASTCNN_NUM_THREADS``, else the CPUs this
    process may use. It is 1 in a forked child of a process that had used threads: OpenMP fails there.

    Returns
    -------
    int

    Raises
    ------
    ValueError
        If ``FASTCNN_NUM_THREADS`` decides and is not an integer from 1 to 1024.
    """
    if _single:
        return 1
    return _default() if _number is None else _number


def acquire(work: int, least: float) -> int:
    """Return the threads for a call of `work` operations, 1 below `least`; if more than 1, `release` has to follow."""
    number = get_num_threads()
    return number if work >= least and number > 1 and claim() else 1


def claim() -> bool:
    """Keep other Python threads from using more than one thread until `release`; False if one does, or in a fork."""
    if _single or not busy.acquire(blocking=False):
        return False
    will_use()
    return True


def release() -> None:
    """Let another Python thread use more than one thread."""
    busy.release()


def will_use() -> None:
    """Note, for forks, that threads are started from now on, by whoever holds `busy`."""
    global _used
    _used = True


def _checked(n: Any, name: str) -> int:
    try:
        number = integer(n, name, 1)
    except OverflowError:
        number = MAX_THREADS + 1
    except ValueError:
        number = 0
    if not 1 <= number <= MAX_THREADS:
        raise ValueError(message(name, n, f"an integer from 1 to {MAX_THREADS}"))
    return number


@cache
def _default() -> int:
    text = os.environ.get("FASTCNN_NUM_THREADS", "")
    if text:
        name = "environment variable FASTCNN_NUM_THREADS"
        try:
            return _checked(int(text), name)
        except ValueError:
            raise ValueError(message(name, repr(text), f"an integer from 1 to {MAX_THREADS}")) from None
    if hasattr(os, "process_cpu_count"):
        count = os.process_cpu_count()
    elif hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count()
    return min(count or 1, MAX_THREADS)


def _after_fork_in_child() -> None:
    global busy, _single
    busy = threading.Lock()  # the parent's may be held by a thread that does not exist here
    _single = _single or _used
    unsettle()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
