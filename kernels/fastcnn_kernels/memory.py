"""What is kept for reuse: memory of results and workspaces (``recycled``), and the address tables of layers."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from fastcnn_kernels.recycled import empty, pool

__all__ = ["clear_cache", "empty", "memory_stats", "planned", "set_memory_limit"]

#: Plans kept per kernel family: more than the layers of any network in one process, at a few kilobytes each.
CACHED_PLANS = 1024
_plans: list[Any] = []


def planned(plan: Callable[..., Any]) -> Callable[..., Any]:
    """Remember what a function of shapes returned, until `clear_cache`."""
    _plans.append(lru_cache(CACHED_PLANS)(plan))
    return _plans[-1]


def clear_cache() -> None:
    """Free the memory kept for reuse, and the address tables kept per layer. Arrays that somebody holds stay."""
    pool.clear()
    for plan in _plans:
        plan.cache_clear()


def memory_stats() -> dict[str, int]:
    """Return what is kept for reuse.

    Returns
    -------
    dict of str to int
        ``kept_bytes`` of large results and workspaces wait for reuse, at most ``limit_bytes``; ``leased_bytes`` are
        held by somebody; ``reused`` and ``allocated`` count requests since the start; ``plans`` are address tables.
    """
    return {
        "kept_bytes": pool.kept,
        "limit_bytes": pool.limit,
        "leased_bytes": pool.leased,
        "reused": pool.reused,
        "allocated": pool.allocated,
        "plans": sum(plan.cache_info().currsize for plan in _plans),
    }


def set_memory_limit(nbytes: int) -> None:
    """Bound the bytes kept for reuse."""
    pool.set_limit(nbytes)
