"""Which kernel runs: the first row of the table that takes the call, else every row's reason.

The backend is that of the op's `backend` argument, else of the innermost `use_backend` of this thread or
task, else of `set_backend`, else of the environment variable ``FASTCNN_BACKEND``, else "auto": every row. The
algorithm of a convolution is that of `use_algorithm`, `set_algorithm`, ``FASTCNN_ALGORITHM``, else "auto".
"""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache
from math import inf
from typing import Any, NamedTuple

import numpy as np

from fastcnn import picks, threads
from fastcnn.checks import message
from fastcnn.setting import Setting
from fastcnn_kernels import recall, table

#: One kernel call: op, floating-point operations, keywords except num_threads, and what stands for their shapes and
#: options where that is known.
Step = tuple[str, int, dict[str, Any], tuple[Any, ...] | None]

BACKEND = Setting("backend", lambda: table.BACKENDS, lambda name: table.unavailable(name))
ALGORITHM = Setting("algorithm", lambda: table.ALGORITHMS)


def run(steps: list[Step], choice: str, algorithm: str) -> "list[Chosen]":
    """Run each of `steps` on the first kernel that takes it under a backend and algorithm, and return what ran.

    Raises
    ------
    RuntimeError
        If no kernel of the backend asked for takes a call; each one's reason is in the message.
    ValueError
        If an algorithm was asked for that does not apply to a call.
    """
    ran = []
    for step in steps:
        for observe in observers:
            observe(step)
        ran.append(chosen := _known(step, choice, algorithm))
        launch(chosen, step)
    return ran


def launch(chosen: "Chosen", step: Step) -> None:
    """Run a kernel on as many threads as are free and worth it."""
    call = step[2]
    num_threads = threads.acquire(step[1], chosen.parallel_work)
    try:
        if chosen.kernel(num_threads=num_threads, **call) is False:
            chosen.other(num_threads=num_threads, **call)
    finally:
        if num_threads > 1:
            threads.release()


def settings(backend: str | None = None) -> tuple[Any, ...]:
    """Return all but the call that decides what runs: backend, algorithm, threads, and a count of changes.

    `recall` keeps what it returned: whoever changes any of it for the process calls ``recall.unsettle``.
    """
    return BACKEND.chosen(backend), ALGORITHM.chosen(), threads.get_num_threads(), _generation


recall.settle((BACKEND.in_context, ALGORITHM.in_context), settings)


@contextmanager
def observing(observe: Callable[[Step], None]) -> Iterator[None]:
    """Have `observe` called with every step before it is run, in any thread."""
    observers.append(observe)
    try:
        yield
    finally:
        observers.remove(observe)


#: Those of `observing`; while there are any, `recall` lets every call come here.
observers: list[Callable[[Step], None]] = []


def _no_kernel(op: str, choice: str, algorithm: str, call: dict[str, Any]) -> Exception:
    """The error that no row takes a call: of its algorithm, if there are rows of others that do."""
    reasons = "; ".join(f"{name}: {reason}" for name, reason in select(op, choice, algorithm, call)[1])
    if algorithm != "auto" and select(op, choice, "auto", call)[0] is not None:
        return ValueError(f"{op}: algorithm {algorithm!r} does not apply to this call. {reasons}")
    return RuntimeError(f"{op}: backend {choice!r} has no kernel that takes this call. {reasons}")


class Chosen(NamedTuple):
    """What runs a step."""

    kernel: Callable[..., Any]
    other: Callable[..., None]  # runs if the kernel returns False
    parallel_work: float  # fewer operations run on one thread


_kernels: dict[tuple[Any, ...], Chosen] = {}
#: Counts the times that choices became void.
_generation = 0
#: Choices remembered at most: more than the layers of any program; then all are forgotten.
REMEMBERED = 1 << 14


def _known(step: Step, choice: str, algorithm: str) -> Chosen:
    """What `select` chose for a call of these shapes, dtype and options, which are all that decides."""
    op, _, call, key = step
    if key is None:
        key = tuple([value.shape if type(value) is np.ndarray else value for value in call.values()])
    known = (op, choice, algorithm, threads.get_num_threads(), call["out"].dtype.char, key)
    try:
        return _kernels[known]
    except KeyError:
        pass
    if algorithm == "auto" and _measures() and _pick(op, choice, call) is None:
        from fastcnn import tuning  # it builds on this module

        if (measured := tuning.measure(step, choice)) is not None:
            picks.remember({measured.call: measured.pick})
    kernel = select(op, choice, algorithm, call)[0]
    if kernel is None:
        raise _no_kernel(op, choice, algorithm, call)
    pick = _pick(op, choice, call) if algorithm == "auto" else None
    if len(_kernels) >= REMEMBERED:
        _kernels.clear()
    parallel_work: float = least_parallel(kernel)
    if pick is not None:
        parallel_work = inf if pick.threads == 1 else 0
    chosen = _kernels[known] = Chosen(*kernel.load_parts(), parallel_work)
    return chosen


def least_parallel(kernel: table.Kernel) -> int:
    """Operations from which on a kernel runs on several threads, unless it was measured otherwise."""
    return threads.PARALLEL_WORK[kernel.backend] if kernel.parallel_work is None else kernel.parallel_work


@cache
def _measures() -> bool:
    """Whether ``FASTCNN_TUNE`` asks to measure calls of new shapes."""
    value = os.environ.get("FASTCNN_TUNE", "")
    if value not in ("", "0", "1"):
        raise ValueError(message("environment variable FASTCNN_TUNE", repr(value), "0 or 1"))
    return value == "1"


def _pick(op: str, choice: str, call: dict[str, Any]) -> picks.Pick | None:
    """What was measured for a call, if that kernel may run under the backend asked for."""
    pick = picks.known().get(picks.key(op, call, threads.get_num_threads()))
    if pick is None or pick.kernel not in [kernel.name for kernel in candidates(op, choice, call)]:
        return None
    return pick


def candidates(op: str, choice: str, call: dict[str, Any]) -> list[table.Kernel]:
    """Return the rows of `op` that can compute `call`, fast or not; the oracle only if no other can."""
    rows = [
        kernel
        for kernel, reason in _rows(op, choice, "auto", call["out"].dtype.char)
        if not reason and not kernel.cannot(**call)
    ]
    return [kernel for kernel in rows if kernel.backend != "numpy"] or rows


def forget() -> None:
    """Forget what was chosen: the table, or what was measured, has changed."""
    global _generation
    _generation += 1
    _kernels.clear()
    _rows.cache_clear()
    recall.unsettle()


def select(
    op: str, choice: str, algorithm: str, call: dict[str, Any], measured: bool = True
) -> tuple[table.Kernel | None, list[tuple[str, str]]]:
    """Return the first row of `op` that takes `call`, or None, and the (name, reason) of each row before it.

    What was measured for the call, if anything was, goes before what the rows say, unless an algorithm is asked for or
    `measured` is false. Without it nothing depends on the number of threads, and no result ever does.
    """
    declined: list[tuple[str, str]] = []
    pick = _pick(op, choice, call) if measured and algorithm == "auto" else None
    for kernel, reason in _rows(op, choice, algorithm, call["out"].dtype.char):
        if not reason and pick is not None:
            reason = "" if kernel.name == pick.kernel else f"measured: {pick.kernel} is faster"
        elif not reason:  # a fast algorithm asked for by name need not be the fastest one
            by_name = algorithm == kernel.algorithm != "direct"
            reason = kernel.cannot(**call) if by_name else kernel.refuses(**call)
        if not reason:
            return kernel, declined
        declined.append((kernel.name, reason))
    return None, declined


@cache
def _rows(op: str, choice: str, algorithm: str, dtype: str) -> tuple[tuple[table.Kernel, str], ...]:
    """Rows of `op`, each with the reason why it declines any call under these settings and `dtype`, or ""."""
    name = {"f": "float32", "d": "float64"}[dtype]
    rows = table.kernels_of(op)
    several = len({kernel.algorithm for kernel in rows}) > 1

    def reason(kernel: table.Kernel) -> str:
        if choice not in ("auto", kernel.backend):
            return f"backend {choice!r} was asked for"
        if several and algorithm not in ("auto", kernel.algorithm):
            return f"algorithm {algorithm!r} was asked for"
        if missing := table.unavailable(kernel.backend):
            return f"backend {kernel.backend!r} is not available: {missing}"
        return "" if name in kernel.dtypes else f"takes {' and '.join(kernel.dtypes)}, not {name}"

    return tuple((kernel, reason(kernel)) for kernel in rows)


def use_backend(backend: str) -> AbstractContextManager[None]:
    """Use a backend inside a ``with`` block, in this thread or asyncio task only.

    Parameters
    ----------
    backend : {"auto", "cython", "numba", "numpy"}
        "auto" takes the best kernel of all.

    Raises
    ------
    TypeError, ValueError
        If that is not the name of a backend.
    RuntimeError
        If the backend is not available here; the reason is in the message.
    """
    return BACKEND.use(backend)


def set_backend(backend: str) -> None:
    """Set the backend of the whole process; `use_backend` and an op's `backend` argument go before it.

    Parameters
    ----------
    backend : {"auto", "cython", "numba", "numpy"}
        "auto" takes the best kernel of all.

    Raises
    ------
    TypeError, ValueError
        If that is not the name of a backend.
    RuntimeError
        If the backend is not available here; the reason is in the message.
    """
    BACKEND.set(backend)


def get_backend() -> str:
    """Return the backend in force here, "auto" unless one was chosen.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If the environment variable ``FASTCNN_BACKEND`` decides and names no backend.
    """
    return BACKEND.chosen()


def use_algorithm(algorithm: str) -> AbstractContextManager[None]:
    """Choose how convolutions are computed inside a ``with`` block, in this thread or asyncio task only.

    "auto" may compute a convolution of 3 x 3 or more taps by Winograd's algorithm, whose float32 error is 3e-7 to
    2.5e-6 of the result's norm for 16 to 512 channels (2e-7 to 6e-7 for plain sums), so that the last two or three
    digits may change with the shape of a layer. "direct" always gives the plain sums.

    Parameters
    ----------
    algorithm : {"auto", "direct", "winograd2", "winograd4"}
        The last two name the tiles of Winograd's algorithm, 2 x 2 or 4 x 4 pixels: for 3 x 3 taps 2.25 or 4 times
        fewer multiplications, 1.8 times with stride 2. Asked for by name, they apply to 3 x 3 to 7 x 7 taps with stride
        1, those of 4 x 4 also to 3 x 3 taps with stride 2, and other convolutions raise ValueError. Ops without taps
        are not concerned.

    Raises
    ------
    TypeError, ValueError
        If that is not the name of an algorithm.
    """
    return ALGORITHM.use(algorithm)


def set_algorithm(algorithm: str) -> None:
    """Choose how convolutions are computed in the whole process; `use_algorithm` goes before it.

    Parameters
    ----------
    algorithm : {"auto", "direct", "winograd2", "winograd4"}
        See `use_algorithm`.

    Raises
    ------
    TypeError, ValueError
        If that is not the name of an algorithm.
    """
    ALGORITHM.set(algorithm)


def get_algorithm() -> str:
    """Return the algorithm in force here, "auto" unless one was chosen.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If the environment variable ``FASTCNN_ALGORITHM`` decides and names no algorithm.
    """
    return ALGORITHM.chosen()


def backends() -> dict[str, str]:
    """Return each backend's state.

    Returns
    -------
    dict of str to str
        Name -> "available", or the reason why it is not.
    """
    return {name: table.unavailable(name) or "available" for name in table.BACKENDS}


@dataclass(frozen=True)
class Choice:
    """What would run for one kernel call.

    Attributes
    ----------
    op : str
        Op of the table.
    kernel : str or None
        Name of the row that would run; None if there is none.
    declined : list of (str, str)
        Name and reason of each row before it, in order.
    """

    op: str
    kernel: str | None
    declined: list[tuple[str, str]]

    def __str__(self) -> str:
        """One line for the kernel, one for each that declined."""
        lines = [f"{self.op}: {self.kernel or 'no kernel takes this call'}"]
        return "\n".join(lines + [f"  {name} declined: {reason}" for name, reason in self.declined])


@dataclass(frozen=True)
class Explanation:
    """What would run for a call of a public op.

    Attributes
    ----------
    choices : list of Choice
        One for each kernel call, in order; none if the result is empty or known without computing.
    """

    choices: list[Choice]

    @property
    def kernels(self) -> list[str | None]:
        """Names of the kernels that would run."""
        return [choice.kernel for choice in self.choices]

    def __str__(self) -> str:
        """Readable text."""
        return "\n".join(map(str, self.choices)) or "no kernel: the result needs no computation"


def explain(steps: list[Step], backend: str | None) -> Explanation:
    """Say what `run` would do."""
    choice, algorithm = BACKEND.chosen(backend), ALGORITHM.chosen()
    choices = []
    for op, _, call, _ in steps:
        kernel, declined = select(op, choice, algorithm, call)
        choices.append(Choice(op, kernel.name if kernel else None, declined))
    return Explanation(choices)
