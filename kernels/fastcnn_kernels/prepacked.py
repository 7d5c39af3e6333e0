"""Filters packed once for many calls, in whichever order a kernel reads them."""

from collections.abc import Callable
from typing import Any

import numpy as np

from fastcnn_kernels.memory import empty


class Prepacked:
    """The packed copies of one convolution's filters; the first call that needs an order adds it.

    All are equal: that weights are packed decides which kernel is the fastest, which ones they are does not.
    """

    def __init__(self) -> None:
        self.orders: dict[tuple[Any, ...], Any] = {}

    def __eq__(self, other: object) -> bool:
        """Tell whether the other one is packed, too."""
        return type(other) is Prepacked

    def __hash__(self) -> int:
        """All are equal."""
        return 0


class PackedWeight:
    """Weights that kernels may pack once.

    Attributes
    ----------
    plain : ndarray
        The weights as they were, read-only.
    packed : Prepacked
        Their packed copies.
    """

    def __init__(self, plain: np.ndarray) -> None:
        self.plain, self.packed = plain, Prepacked()


def room(packed: Prepacked | None, order: tuple[Any, ...], size: int, dtype: Any) -> tuple[np.ndarray, bool]:
    """Return an array for filters in an order, and whether they are in it already."""
    if packed is None:
        return empty(size, dtype), False
    known = packed.orders.get(order)
    return (np.empty(size, dtype), False) if known is None else (known, True)


def keep(packed: Prepacked | None, order: tuple[Any, ...], filters: np.ndarray) -> None:
    """Keep filters for later calls; call it when they are complete, as another thread may use them at once."""
    if packed is not None:
        packed.orders[order] = filters


def remembered(packed: Prepacked | None, what: str, find: Callable[..., Any], *arguments: Any) -> Any:
    """Return what `find` says of the filters, asked once if they are packed."""
    if packed is None:
        return find(*arguments)
    if (what,) not in packed.orders:
        packed.orders[what,] = find(*arguments)
    return packed.orders[what,]
