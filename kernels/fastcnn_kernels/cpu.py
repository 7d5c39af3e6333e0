"""Which CPU level the kernels use: detected once, or forced by ``FASTCNN_CPU_LEVEL``.

The compiled extensions of every level sit side by side (``gemm/baseline``, ``gemm/x86_64_v3``, ...); an op family
appends `level_folder` to its ``__path__`` so that importing ``cython_`` finds the one of the level in use.
"""

import os
from functools import cache
from pathlib import Path

from fastcnn_kernels.cpu_probe import x86_level

#: Name of each level, lowest first -> the value of `cpu_probe.x86_level` it needs.
LEVELS = {"baseline": 0, "x86-64-v3": 3, "x86-64-v4": 4}


@cache
def supported_levels() -> tuple[str, ...]:
    """Names of the levels this machine can run, lowest first."""
    return tuple(name for name, needed in LEVELS.items() if x86_level() >= needed)


@cache
def level() -> str:
    """The level in use.

    Raises
    ------
    ValueError
        If ``FASTCNN_CPU_LEVEL`` names no level, or one that this machine cannot run.
    """
    forced = os.environ.get("FASTCNN_CPU_LEVEL", "")
    if not forced:
        return supported_levels()[-1]
    if forced not in supported_levels():
        raise ValueError(
            f"environment variable FASTCNN_CPU_LEVEL={forced!r}: expected one of the levels "
            f"this machine supports, {', '.join(supported_levels())}"
        )
    return forced


def level_folder(family_folder: str) -> str:
    """Folder of the extensions compiled for the level in use, below an op family's folder."""
    return str(Path(family_folder) / level().replace("-", "_"))
