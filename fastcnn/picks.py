"""What measurements chose, per machine: the picks of this process, and the file they are kept in.

The file is JSON: format, fastcnn's version, the machine, and for each call the fastest kernel and its threads. Whatever
is wrong with it costs one warning, and the cost model chooses as if there were none.
"""

import hashlib
import json
import math
import os
import platform
import stat
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from fastcnn.atomic import write_atomic
from fastcnn.threads import MAX_THREADS
from fastcnn_kernels import cpu, table

FORMAT = 1
#: A file of more bytes is none of ours: 10,000 picks take 3 MB.
LARGEST_FILE = 16 << 20


class Pick(NamedTuple):
    """The fastest way found for a call."""

    kernel: str
    threads: int
    seconds: float


_picks: dict[str, Pick] | None = None
_warned: set[str] = set()


def key(op: str, call: dict[str, Any], num_threads: int) -> str:
    """Name of a call: all that decides how fast its kernels are."""
    parts = [op, call["out"].dtype.name, f"threads={num_threads}"]
    for name, value in call.items():
        if name == "packed":
            value = value is not None
        shape = getattr(value, "shape", value)
        parts.append(f"{name}={'x'.join(map(str, shape)) if isinstance(shape, tuple) else shape}")
    return " ".join(parts)


def known() -> dict[str, Pick]:
    """Every pick there is; the file is read the first time."""
    global _picks
    if _picks is None:
        _picks = _read()
    return _picks


def remember(new: dict[str, Pick]) -> None:
    """Add picks to those of this process and of the file."""
    known().update(new)
    try:
        path().parent.mkdir(parents=True, exist_ok=True)
        with _locked():
            merged = _read() | new
            picks = {name: pick._asdict() for name, pick in sorted(merged.items())}
            text = json.dumps({"format": FORMAT, **_origin(), "picks": picks}, indent=1)
            write_atomic(path(), text.encode())
    except OSError as error:
        _warn(f"cannot be written ({error.strerror or error}); what was measured serves this process only")


def clear() -> None:
    """Forget all picks, and remove the file."""
    global _picks
    _picks = {}
    _warned.clear()
    path().unlink(missing_ok=True)


def path() -> Path:
    """File of this machine's picks."""
    machine = hashlib.sha256(json.dumps(_origin()["machine"]).encode()).hexdigest()[:12]
    return _folder() / f"tuning-{machine}.json"


def _folder() -> Path:
    """User's cache directory of fastcnn; ``FASTCNN_CACHE_DIR`` goes before the system's convention."""
    if chosen := os.environ.get("FASTCNN_CACHE_DIR"):
        return Path(chosen)
    home = Path.home()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "fastcnn" / "Cache"
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "fastcnn"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "fastcnn"


@cache
def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            return next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "")
    except OSError:
        return platform.processor()


def _origin() -> dict[str, Any]:
    """What a file's picks hold for."""
    from fastcnn import __version__

    machine = {"cpu": _cpu_model() or platform.machine(), "level": cpu.level(), "cpus": os.cpu_count()}
    return {"fastcnn": __version__, "machine": machine}


def _read() -> dict[str, Pick]:
    """Picks of the file; none, and a warning, if it is damaged or not this machine's and version's."""
    try:
        # a FIFO must not block, and only a regular file is ours
        descriptor = os.open(path(), os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        return {}
    except OSError as error:
        return _warn(f"cannot be read ({error.strerror or error})")
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return _warn("is no regular file")
        if status.st_size > LARGEST_FILE:
            return _warn(f"has {status.st_size} bytes, more than {LARGEST_FILE}")
        with open(descriptor, "rb", closefd=False) as file:
            return _parse(file.read())
    except (ValueError, RecursionError) as error:
        return _warn(f"is damaged or foreign ({error})")
    finally:
        os.close(descriptor)


def _parse(data: bytes) -> dict[str, Pick]:
    def refuse(text: str) -> None:
        raise ValueError(f"{text} is no number here")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise ValueError("a name appears twice")
        return dict(pairs)

    content = json.loads(data.decode(), parse_constant=refuse, object_pairs_hook=unique)
    if not isinstance(content, dict) or content.keys() != {"format", "fastcnn", "machine", "picks"}:
        raise ValueError("its entries are not format, fastcnn, machine and picks")
    if content["format"] != FORMAT:
        raise ValueError(f"format {content['format']!r}, this fastcnn writes {FORMAT}")
    for name, value in _origin().items():
        if content[name] != value:
            raise ValueError(f"{name} is {content[name]!r}, here {value!r}")
    if not isinstance(content["picks"], dict):
        raise ValueError("picks is no object")
    names = {kernel.name: kernel.op for kernel in table.KERNELS}
    return {name: _pick(name, entry, names) for name, entry in content["picks"].items()}


def _pick(name: str, entry: Any, names: dict[str, str]) -> Pick:
    if not isinstance(entry, dict) or entry.keys() != set(Pick._fields):
        raise ValueError(f"{name}: its entries are not {', '.join(Pick._fields)}")
    kernel, number, seconds = entry["kernel"], entry["threads"], entry["seconds"]
    if not isinstance(kernel, str) or names.get(kernel) != name.split(" ")[0]:
        raise ValueError(f"{name}: no kernel {kernel!r}")
    if type(number) is not int or not 1 <= number <= MAX_THREADS:
        raise ValueError(f"{name}: {number!r} threads")
    if type(seconds) is not float or not 0 < seconds < math.inf:
        raise ValueError(f"{name}: {seconds!r} seconds")
    return Pick(kernel, number, seconds)


def _warn(reason: str) -> dict[str, Pick]:
    """Warn once of each reason; returns no picks."""
    text = f"tuning file {path()} {reason}"
    if text not in _warned:
        _warned.add(text)
        warnings.warn(f"{text}: the cost model chooses", RuntimeWarning, stacklevel=2)
    return {}


@contextmanager
def _locked() -> Iterator[None]:
    """Keep other processes from writing between reading the file and replacing it, where the system can."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with open(path().with_suffix(".lock"), "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
