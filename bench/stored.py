"""Results as JSON: what ran, where, and with which versions."""

import datetime
import json
import platform
from collections.abc import Iterable
from importlib import metadata
from math import exp, log
from pathlib import Path
from typing import Any

import fastcnn as fc
from fastcnn_kernels import cpu

#: A folder for each machine.
RESULTS = Path(__file__).parent / "results"
PACKAGES = ("numpy", "numba", "cython", "torch", "onnxruntime")


def result(kind: str, dtype: str, rounds: int, rows: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """Wrap measured rows with all that is needed to compare them with another run's."""
    return {
        "kind": kind,
        "dtype": dtype,
        "threads": fc.get_num_threads(),
        "rounds": rounds,
        "date": datetime.date.today().isoformat(),
        "machine": {"cpu": cpu_model(), "cpu_level": cpu.level(), "system": platform.system()},
        "versions": {"fastcnn": fc.__version__, "python": platform.python_version()} | versions(),
        **more,
        "rows": rows,
    }


def write(path: Path, data: dict[str, Any]) -> None:
    """Write a result, one row a line, so that a new run makes a readable difference."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = json.dumps({name: value for name, value in data.items() if name != "rows"}, indent=1)
    rows = ",\n  ".join(json.dumps(rounded(row)) for row in data["rows"])
    path.write_text(f'{head[:-2]},\n "rows": [\n  {rows}\n ]\n}}\n')


def read(path: Path) -> dict[str, Any]:
    """Read a stored result."""
    return json.loads(path.read_text())


def rounded(value: Any) -> Any:
    """Every float to four significant digits."""
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value


def cpu_model() -> str:
    """The processor's name, as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def versions() -> dict[str, str]:
    """Versions of the installed packages of `PACKAGES`."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def geomean(values: Iterable[float]) -> float:
    """Geometric mean; NaN of nothing."""
    logs = [log(value) for value in values]
    return exp(sum(logs) / len(logs)) if logs else float("nan")
