"""Which kernel runs: the first row of the table that takes the call, else every row's reason.

The backend is that of the op's `backend` argument, else of the innermost `use_backend` of this thread or
task, else of `set_backend`, else of the environment variable ``FASTCNN_BACKEND``, else "auto": every row.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from fastcnn import threads
from fastcnn.checks import message, short
from fastcnn_kernels import table

#: One kernel call: op, floating-point operations, keywords except num_threads.
Step = tuple[str, int, dict[str, Any]]

_in_context: ContextVar[str | None] = ContextVar("fastcnn_backend", default=None)
_process_wide: str | None = None


def run(steps: list[Step], backend: str | None) -> None:
    """Run each of `steps` on the first kernel that takes it.

    Raises
    ------
    RuntimeError
        If no kernel of the backend asked for takes a call; each one's reason is in the message.
    """
    choice = chosen(backend)
    for op, work, call in steps:
        kernel = _known(op, choice, call)
        if kernel is None:
            _, declined = select(op, choice, call)
            reasons = "; ".join(f"{name}: {reason}" for name, reason in declined)
            raise RuntimeError(f"{op}: backend {choice!r} has no kernel that takes this call. {reasons}")
        num_threads = threads.acquire(work)
        if num_threads == 1:
            kernel.load(num_threads=1, **call)
            continue
        try:
            kernel.load(num_threads=num_threads, **call)
        finally:
            threads.release()


_kernels: dict[tuple[Any, ...], table.Kernel | None] = {}
#: Choices remembered at most: more than the layers of any program; then all are forgotten.
REMEMBERED = 1 << 14


def _known(op: str, choice: str, call: dict[str, Any]) -> table.Kernel | None:
    """What `select` chose for a call of these shapes, dtype and options, which are all that decides."""
    key = [value.shape if type(value) is np.ndarray else value for value in call.values()]
    known = (op, choice, call["out"].dtype.char, *key)
    try:
        return _kernels[known]
    except KeyError:
        if len(_kernels) >= REMEMBERED:
            _kernels.clear()
        kernel = _kernels[known] = select(op, choice, call)[0]
        return kernel


def _forget() -> None:
    """Forget what was chosen, for tests that change the table."""
    _kernels.clear()
    _rows.cache_clear()


def select(op: str, choice: str, call: dict[str, Any]) -> tuple[table.Kernel | None, list[tuple[str, str]]]:
    """Return the first row of `op` that takes `call`, or None, and the (name, reason) of each row before it.

    The number of threads is not part of `call`, so that no choice, and with it no result, depends on it.
    """
    declined: list[tuple[str, str]] = []
    for kernel, reason in _rows(op, choice, call["out"].dtype.char):
        reason = reason or kernel.refuses(**call)
        if not reason:
            return kernel, declined
        declined.append((kernel.name, reason))
    return None, declined


@cache
def _rows(op: str, choice: str, dtype: str) -> tuple[tuple[table.Kernel, str], ...]:
    """Rows of `op`, each with the reason why it declines any call under `choice` and `dtype`, or ""."""
    name = {"f": "float32", "d": "float64"}[dtype]

    def reason(kernel: table.Kernel) -> str:
        if choice not in ("auto", kernel.backend):
            return f"backend {choice!r} was asked for"
        if missing := table.unavailable(kernel.backend):
            return f"backend {kernel.backend!r} is not available: {missing}"
        return "" if name in kernel.dtypes else f"takes {' and '.join(kernel.dtypes)}, not {name}"

    return tuple((kernel, reason(kernel)) for kernel in table.kernels_of(op))


def chosen(backend: str | None) -> str:
    """Return the backend in force, given an op's `backend` argument."""
    if backend is not None:
        return _checked(backend, "backend")
    return _in_context.get() or _process_wide or _from_environment()


def _checked(backend: Any, name: str) -> str:
    if not isinstance(backend, str):
        got = f"{short(backend)} ({type(backend).__name__})"
        raise TypeError(message(name, got, "the name of a backend"))
    if backend != "auto" and backend not in table.BACKENDS:
        raise ValueError(message(name, repr(backend), f"one of auto, {', '.join(table.BACKENDS)}"))
    return backend


def _usable(backend: Any) -> str:
    if _checked(backend, "backend") != "auto" and (reason := table.unavailable(backend)):
        raise RuntimeError(f"backend {backend!r} is not available: {reason}")
    return backend


@cache
def _from_environment() -> str:
    return _checked(os.environ.get("FASTCNN_BACKEND") or "auto", "environment variable FASTCNN_BACKEND")


@contextmanager
def use_backend(backend: str) -> Iterator[None]:
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
    token = _in_context.set(_usable(backend))
    try:
        yield
    finally:
        _in_context.reset(token)


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
    global _process_wide
    _process_wide = _usable(backend)


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
    return chosen(None)


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
    choice = chosen(backend)
    choices = []
    for op, _, call in steps:
        kernel, declined = select(op, choice, call)
        choices.append(Choice(op, kernel.name if kernel else None, declined))
    return Explanation(choices)
