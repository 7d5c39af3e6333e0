"""Load GCC's OpenMP runtime so that its idle threads park soon.

By default they spin for milliseconds after a parallel region, which halves the speed of whatever runs next on the
same cores, and of ours when another process has one: training a small network beside a busy process made 180 images/s
instead of 4,000. The runtime reads its environment once, when it is loaded.
"""

import ctypes
import os
import sys

#: Rounds of the spin loop, about 20 us: longer than from one region of a kernel call to the next.
SPINS = "1000"


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
