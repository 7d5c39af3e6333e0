"""Build the sdist, a wheel from it, install that elsewhere, and train on every backend at every CPU level.

    python tests/wheel_check.py

Fails unless the sdist and the wheel carry what they must, and all trainings reach the loss level with the same history
to float32 rounding.
"""

import csv
import itertools
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from fastcnn_kernels import cpu

ROOT = Path(__file__).parents[1]
KERNELS = ROOT / "kernels/fastcnn_kernels"
FAMILIES = sorted(path.parent.relative_to(KERNELS).as_posix() for path in KERNELS.rglob("cython_.pyx"))


def run(*command, **options):
    """Run a command; its output only if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def check_names(names, wanted):
    """Every wanted ending is among the names of an archive."""
    missing = [ending for ending in wanted if not any(name.endswith(ending) for name in names)]
    if missing:
        sys.exit(f"missing from the archive: {', '.join(missing)}")


def check_archives(folder):
    """Build both, and look at what is in them."""
    run(sys.executable, "-m", "build", "--sdist", "--outdir", folder, ROOT)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "source", filter="data")
    (source,) = (folder / "source").iterdir()
    if (ROOT / "build").is_dir():  # setup.py does not compile again what came from the same C, unless a header is new
        shutil.copytree(ROOT / "build", source / "build")
    run(sys.executable, "-m", "build", "--wheel", "--outdir", folder, source)
    (wheel,) = folder.glob("*.whl")
    sources = [f"{family}/{file}" for family in FAMILIES for file in ("cython_.pyx", "numba_.py")]
    sources += [
        "gemm/micro.h",
        "gemm/vectors_body.h",
        "gemm/copies_body.h",
        "gemm/products_body.h",
        "gemm/tiles_body.h",
        "gemm/dots_body.h",
        "gemm/micro.pxd",
        "conv2d/epilogue.pxd",
        "fastcnn_kernels/cpu_probe.pyx",
        "fastcnn_kernels/recall.pyx",
        "fastcnn_kernels/recycled.pyx",
    ]
    with tarfile.open(sdist) as archive:
        check_names(archive.getnames(), [*sources, "fastcnn/py.typed", "LICENSE"])
    levels = [level.replace("-", "_") for level in cpu.LEVELS] if len(cpu.supported_levels()) > 1 else ["baseline"]
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    check_names(names, [*sources, "fastcnn/py.typed"])
    for family, level in itertools.product(FAMILIES, levels):
        if not any(f"{family}/{level}/cython_" in name for name in names):
            sys.exit(f"{wheel.name} has no extension {family}/{level}")
    return wheel


def train(fastcnn, folder, backend, level):
    """Train the essay's network; returns its loss history."""
    out = folder / f"{backend}-{level}"
    environment = os.environ | {"FASTCNN_BACKEND": backend, "FASTCNN_CPU_LEVEL": level}
    run(fastcnn, "train", "essay", "--quiet", "--out", out, env=environment, cwd=folder)
    with (out / "history.csv").open() as file:
        return np.array([float(row["loss"]) for row in csv.DictReader(file)])


def main():
    """Build, install, train."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheel = check_archives(folder)
        run(sys.executable, "-m", "venv", folder / "venv")
        run(folder / "venv/bin/pip", "install", "--quiet", f"{wheel}[train]")
        histories = {}
        for backend, level in itertools.product(("numpy", "numba", "cython"), cpu.supported_levels()):
            history = histories[backend, level] = train(folder / "venv/bin/fastcnn", folder, backend, level)
            print(f"{backend:6} {level:9} {len(history) - 1} steps, loss {history[-1]:.6f}", flush=True)
        first, *others = histories.values()
        for history in others:
            np.testing.assert_allclose(history, first, rtol=1e-5)
        worst = max(abs(history / first - 1).max() for history in others)
        print(f"wheel: {len(histories)} trainings agree, largest relative difference {worst:.1e}")


if __name__ == "__main__":
    main()
