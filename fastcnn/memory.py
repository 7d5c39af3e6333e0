"""What is kept for reuse: memory of large results and workspaces, the address tables of layers, and known calls."""

from typing import Any

from fastcnn.checks import integer
from fastcnn_kernels import memory, recall
from fastcnn_kernels.memory import memory_stats

__all__ = ["clear_cache", "memory_stats", "set_memory_limit"]


def clear_cache() -> None:
    """Free the memory kept for reuse, the address tables kept per layer, and calls remembered. Arrays in use stay."""
    recall.forget()
    memory.clear_cache()


def set_memory_limit(nbytes: Any) -> None:
    """Bound the memory kept for reuse; 256 MiB unless set.

    The memory of a large result (256 KiB or more) is used again once nobody holds the array or a view of it.

    Parameters
    ----------
    nbytes : int
        0 turns the reuse off.

    Raises
    ------
    TypeError
        If `nbytes` is not an integer.
    ValueError, OverflowError
        If it is negative, or 2**63 or more.
    """
    memory.set_memory_limit(integer(nbytes, "nbytes", 0, 2**63))
