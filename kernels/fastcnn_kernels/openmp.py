"""Load GCC's OpenMP runtime so that its idle threads park soon.

By default they spin for milliseconds after a parallel region, which halves the speed of whatever runs next on the same
cores, and of ours when another process has one of them: beside a busy process a LeNet layer took 22 ms in the median,
and 0.25 ms with this limit. The runtime reads its environment once, when it is loaded.
"""

import ctypes
import os
import sys

#: Rounds of the spin loop, under a millisecond: longer than from one call of a small layer to the next, as waking a
#: parked thread costs 50 us (1,000 rounds: 170 us for a layer of 60 us).
SPINS = "50000"


def load() -> None:
    """Load the runtime, unless the user set how it waits, or it is not GCC's."""
    if not sys.platform.startswith("linux") or {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & set(os.environ):
        return
    os.environ["GOMP_SPINCOUNT"] = SPINS
    try:
        ctypes.CDLL("libgomp.so.1")
    except OSError:
        pass  # built with another runtime, or without one
    finally:
        del os.environ["GOMP_SPINCOUNT"]
