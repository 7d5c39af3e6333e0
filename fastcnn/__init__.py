"""Compiled CPU convolution and dense-layer kernels for NumPy arrays; names only, nothing slow is imported."""

from typing import Any

__version__ = "0.1.0"

from fastcnn.dispatch import (
    backends,
    get_algorithm,
    get_backend,
    set_algorithm,
    set_backend,
    use_algorithm,
    use_backend,
)
from fastcnn.memory import clear_cache, memory_stats, set_memory_limit
from fastcnn.ops import conv2d, conv2d_backward, explain, linear, linear_backward, matmul
from fastcnn.prepacked import prepack_conv2d
from fastcnn.threads import get_num_threads, set_num_threads

__all__ = [
    "__version__",
    "backends",
    "clear_cache",
    "clear_tuning",
    "conv2d",
    "conv2d_backward",
    "explain",
    "get_algorithm",
    "get_backend",
    "get_num_threads",
    "linear",
    "linear_backward",
    "matmul",
    "memory_stats",
    "models",
    "nn",
    "prepack_conv2d",
    "set_algorithm",
    "set_backend",
    "set_memory_limit",
    "set_num_threads",
    "show_config",
    "tune",
    "use_algorithm",
    "use_backend",
]

#: Name -> the module that has it; imported on first use.
_LAZY = {
    "show_config": "fastcnn.config",
    "nn": "fastcnn.nn",
    "models": "fastcnn.models",
    "tune": "fastcnn.tuning",
    "clear_tuning": "fastcnn.tuning",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'fastcnn' has no attribute {name!r}")
    from importlib import import_module

    module = import_module(_LAZY[name])
    return module if _LAZY[name].endswith(f".{name}") else getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
