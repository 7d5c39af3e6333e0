"""Choice by measurement: every kernel that can compute a call, on one thread and on all, side by side.

``FASTCNN_TUNE=1`` measures a call of a new shape when it is first met; `tune` measures one on request. What was
measured goes before the cost model, unless an algorithm, or a backend that excludes it, is asked for.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastcnn import dispatch, picks, threads
from fastcnn.models import Model
from fastcnn.ops import steps_of
from fastcnn_kernels import table

#: Seconds for the turns of one kernel call; candidates that the first turn shows far behind take no more turns.
BUDGET, FAR_BEHIND = 0.3, 2.0
#: A turn of a short call repeats it until the clock can tell it apart.
SHORTEST_TURN = 200e-6
#: Turns at least and at most: the least disturbed one counts.
FEWEST_TURNS, MOST_TURNS = 3, 12


@dataclass(frozen=True)
class Measured:
    """One kernel call, measured.

    Attributes
    ----------
    call : str
        Op, dtype, shapes and options.
    modelled : str
        Kernel that the cost model takes.
    pick : Pick
        Kernel, threads and seconds of the fastest way.
    times : dict of (str, int) to float
        Kernel and threads -> least seconds, fastest first.
    """

    call: str
    modelled: str
    pick: picks.Pick
    times: dict[tuple[str, int], float]

    @property
    def modelled_seconds(self) -> float:
        """Least seconds of the cost model's kernel."""
        return min(seconds for (kernel, _), seconds in self.times.items() if kernel == self.modelled)

    def as_dict(self) -> dict[str, Any]:
        """What JSON can hold of it."""
        times = [{"kernel": kernel, "threads": n, "seconds": seconds} for (kernel, n), seconds in self.times.items()]
        return {"call": self.call, "modelled": self.modelled, **self.pick._asdict(), "times": times}

    def __str__(self) -> str:
        """A line for the call, and one for each way to compute it."""
        lines = [f"{kernel} on {n} threads: {seconds * 1e6:.1f} us" for (kernel, n), seconds in self.times.items()]
        return "\n  ".join([f"{self.call}: {self.pick.kernel}, the cost model takes {self.modelled}", *lines])


@dataclass(frozen=True)
class Tuning:
    """What `tune` found.

    Attributes
    ----------
    calls : list of Measured
        One for each kernel call of the op, in order; none if the result needs no computation.
    """

    calls: list[Measured]

    def __str__(self) -> str:
        """Readable text."""
        return "\n".join(map(str, self.calls)) or "no kernel: the result needs no computation"


def tune(op: str, /, *args: Any, **kwargs: Any) -> Tuning:
    """Measure which kernels are the fastest for a call, and take them for such calls from now on, on this machine.

    Picks are kept in the user's cache directory (``FASTCNN_CACHE_DIR`` names another one) and hold for the op, dtype,
    shapes, options and number of threads. They go before the cost model, and may change the last digits of results as
    `use_algorithm` says. Takes up to a second per kernel call, and Numba's compilation the first time.

    Parameters
    ----------
    op : {"conv2d", "conv2d_backward", "matmul", "linear", "linear_backward"}
    *args, **kwargs
        Arguments of the op; `out` is not written.

    Returns
    -------
    Tuning
        The times; readable as a string.

    Raises
    ------
    ValueError
        If there is no such op.
    RuntimeError
        If another thread is inside a kernel, or this is a forked child: times would mean nothing.
    Exception
        What the op raises for these arguments.

    Warns
    -----
    RuntimeWarning
        If the file cannot be written, or the one there is damaged, or another machine's.
    """
    steps, backend = steps_of(op, args, kwargs)
    return Tuning([measure_and_remember(step, backend) for step in steps])


def measure_and_remember(step: dispatch.Step, backend: str | None = None) -> Measured:
    """Measure a kernel call and keep its pick."""
    measured = measure(step, dispatch.BACKEND.chosen(backend))
    if measured is None:
        raise RuntimeError("cannot measure while another thread is inside a kernel, or in a forked child")
    picks.remember({measured.call: measured.pick})
    dispatch.forget()
    return measured


def training_steps(model: Model, batches: list[int]) -> list[dispatch.Step]:
    """Kernel calls of a model's forward pass and training step, one of each shape."""
    steps: dict[str, dispatch.Step] = {}

    def note(step: dispatch.Step) -> None:
        steps.setdefault(picks.key(step[0], step[2], threads.get_num_threads()), step)

    dtype = next(iter(model.parameters().values())).dtype
    with dispatch.observing(note):
        for batch in batches:
            y, back = model.forward(np.zeros((batch, *model.input_shape), dtype))
            back(np.ones_like(y), need_dx=False)
    return list(steps.values())


def clear_tuning() -> None:
    """Forget everything that was measured, and remove the file of this machine.

    Raises
    ------
    OSError
        If the file cannot be removed.
    """
    picks.clear()
    dispatch.forget()


def measure(step: dispatch.Step, backend: str) -> Measured | None:
    """Time every way to compute a step; None if times would mean nothing now."""
    op, _, call, _ = step
    number = threads.get_num_threads()
    if not threads.claim():
        return None
    try:
        # every kernel overwrites all of `out`, and none writes anything else; a result of the caller's is not touched
        call = call | {"out": np.empty_like(call["out"])}
        kernels = dispatch.candidates(op, backend, call)
        ways = {(kernel.name, n): _runner(kernel, call, n) for kernel in kernels for n in sorted({1, number})}
        times = _race(ways)
    finally:
        threads.release()
    modelled, _ = dispatch.select(op, backend, "auto", call, measured=False)
    (name, n), seconds = next(iter(times.items()))
    assert modelled is not None  # one of the candidates takes the call
    return Measured(picks.key(op, call, number), modelled.name, picks.Pick(name, n, seconds), times)


def _runner(kernel: table.Kernel, call: dict[str, Any], num_threads: int) -> Callable[[], None]:
    function = kernel.load
    return lambda: function(num_threads=num_threads, **call)


def _race(ways: dict[Any, Callable[[], None]]) -> dict[Any, float]:
    """Least seconds of each way, fastest first; the ways take turns, each after one untimed call."""
    least: dict[Any, float] = {}
    turns: dict[Any, int] = {}
    for name, run in ways.items():
        run()  # compiles, and allocates
        seconds = _turn(run, 1)
        least[name], turns[name] = seconds, max(1, min(1000, int(SHORTEST_TURN / seconds)))
    best = min(least.values())
    racing = [name for name in ways if least[name] <= FAR_BEHIND * best]
    spent = 0.0
    for turn in range(MOST_TURNS):
        if turn >= FEWEST_TURNS and spent > BUDGET:
            break
        for name in racing:
            ways[name]()
            seconds = _turn(ways[name], turns[name])
            least[name] = min(least[name], seconds)
            spent += seconds * turns[name]
    return dict(sorted(least.items(), key=lambda item: item[1]))


def _turn(run: Callable[[], None], count: int) -> float:
    """Seconds of one of `count` calls."""
    start = time.perf_counter()
    for _ in range(count):
        run()
    return max((time.perf_counter() - start) / count, 1e-9)
