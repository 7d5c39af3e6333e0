"""A setting chosen by name: in a ``with`` block, for the process, or in the environment; innermost first."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property
from typing import Any

from fastcnn.checks import message, short
from fastcnn_kernels.recall import unsettle


class Setting:
    """One of several names, "auto" among them.

    Parameters
    ----------
    name : str
        Of the setting; ``FASTCNN_`` and its capitals name the environment variable.
    names : callable
        Returns the names besides "auto".
    unavailable : callable, optional
        Returns why a name cannot be used here, or "".
    """

    def __init__(
        self, name: str, names: Callable[[], Any], unavailable: Callable[[str], str] = lambda name: ""
    ) -> None:
        self.name, self._names, self._unavailable = name, names, unavailable
        self.in_context: ContextVar[str | None] = ContextVar(f"fastcnn_{name}", default=None)
        self.process_wide: str | None = None

    def chosen(self, argument: str | None = None) -> str:
        """Return the name in force, given an op's argument."""
        if argument is not None:
            return self._checked(argument, self.name)
        return self.in_context.get() or self.process_wide or self._from_environment

    @contextmanager
    def use(self, value: str) -> Iterator[None]:
        """Put a name in force inside a ``with`` block, in this thread or asyncio task only."""
        token = self.in_context.set(self._usable(value))
        try:
            yield
        finally:
            self.in_context.reset(token)

    def set(self, value: str) -> None:
        """Put a name in force in the whole process."""
        self.process_wide = self._usable(value)
        unsettle()

    def _checked(self, value: Any, origin: str) -> str:
        if not isinstance(value, str):
            got = f"{short(value)} ({type(value).__name__})"
            article = "an" if self.name[0] in "aeiou" else "a"
            raise TypeError(message(origin, got, f"the name of {article} {self.name}"))
        if value != "auto" and value not in self._names():
            raise ValueError(message(origin, repr(value), f"one of auto, {', '.join(self._names())}"))
        return value

    def _usable(self, value: Any) -> str:
        if self._checked(value, self.name) != "auto" and (reason := self._unavailable(value)):
            raise RuntimeError(f"{self.name} {value!r} is not available: {reason}")
        return value

    @cached_property
    def _from_environment(self) -> str:
        variable = f"FASTCNN_{self.name.upper()}"
        return self._checked(os.environ.get(variable) or "auto", f"environment variable {variable}")
