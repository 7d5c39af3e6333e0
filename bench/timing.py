"""Fair times on a machine with few cores: contestants take turns, and the least disturbed round counts.

The idle threads of a library's pool spin for milliseconds after work and halve the speed of whoever comes next.
So each turn begins with a pause, in which they park, and an untimed call, which wakes the contestant's own threads.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

#: Seconds of sleep before a turn. Measured until parked: GNU OpenMP (ours, PyTorch) and OpenBLAS, as set in this
#: package's ``__init__``, 5 to 10 ms.
PAUSE = 0.03
#: Seconds that the calls of one turn last at least together: 10,000 times the clock's resolution.
TURN = 0.01


def take_turns(contestants: Mapping[str, Callable[[], Any]], rounds: int, pause: float = PAUSE) -> dict[str, float]:
    """Time each contestant in every round; the order rotates.

    Parameters
    ----------
    contestants : mapping of str to callable
    rounds : int
    pause : float, seconds, default PAUSE

    Returns
    -------
    dict of str to float
        Seconds per call, of the contestant's least disturbed round.
    """
    names = list(contestants)
    calls = {name: calls_per_turn(call) for name, call in contestants.items()}
    best = dict.fromkeys(names, float("inf"))
    for count in range(rounds):
        start = count % len(names)
        for name in names[start:] + names[:start]:
            best[name] = min(best[name], turn(contestants[name], calls[name], pause))
    return best


def calls_per_turn(call: Callable[[], Any]) -> int:
    """Calls that last `TURN` together, by doubling."""
    call()
    count = 1
    while (seconds := timed(call, count)) < TURN / 2:
        count *= 2
    return max(1, round(count * TURN / seconds))


def turn(call: Callable[[], Any], count: int, pause: float) -> float:
    """Seconds per call of one turn: pause, one untimed call, `count` timed ones."""
    time.sleep(pause)
    call()
    return timed(call, count) / count


def timed(call: Callable[[], Any], count: int) -> float:
    """Seconds of `count` calls."""
    begin = time.perf_counter()
    for _ in range(count):
        call()
    return time.perf_counter() - begin
