"""What a bug report needs to know about this installation."""

import os
import platform
from importlib import metadata

from fastcnn import __version__, dispatch, picks, threads
from fastcnn_kernels import cpu

#: Packages whose version matters; found in the installation's metadata, so that none is imported.
PACKAGES = ("numpy", "numba", "llvmlite", "cython")


def config() -> dict[str, dict[str, str]]:
    """Return the configuration, by section.

    Returns
    -------
    dict of str to dict of str to str
        Section -> name -> value.
    """
    versions = {"fastcnn": __version__, "python": platform.python_version()}
    versions |= {name: _version(name) for name in PACKAGES}
    return {
        "versions": versions,
        "machine": {
            "platform": platform.platform(),
            "CPU level": _answer(cpu.level),
            "CPU levels supported": ", ".join(cpu.supported_levels()),
            "threads": _answer(threads.get_num_threads),
            "backend": _answer(dispatch.get_backend),
            "algorithm": _answer(dispatch.get_algorithm),
            "tuning": _answer(lambda: f"{len(picks.known())} picks, {picks.path()}"),
        },
        "backends": _backends(),
        "environment": {name: os.environ[name] for name in sorted(os.environ) if name.startswith("FASTCNN_")},
    }


def show_config() -> None:
    """Print versions, CPU level, threads, backends and environment variables: what a bug report needs."""
    for section, entries in config().items():
        print(f"{section}:")
        for name, value in entries.items():
            print(f"  {name}: {value}")
        if not entries:
            print("  none")


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _answer(ask) -> str:
    """Return the answer, or the error that a bad environment variable causes: a bug report has to show it."""
    try:
        return str(ask())
    except ValueError as error:
        return f"error: {error}"


def _backends() -> dict[str, str]:
    try:
        return dispatch.backends()
    except ValueError as error:
        return {"error": str(error)}
