"""Fixed costs: microseconds of a call on tiny arrays with one thread, seconds of the import beyond NumPy's."""

import argparse
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import numpy as np

import fastcnn as fc
from bench import timing
from fastcnn.nn import Conv2d, ReLU, Sequential
from fastcnn_kernels import table
from fastcnn_kernels.conv2d.cases import cases_of, layer

#: One 3x3 filter on 4x4 pixels: 72 operations, so all time is overhead.
TINY = layer("tiny", "overhead", 1, 1, 4, 1, 3)
#: Layers of the network, each as small as that.
LAYERS = 8


def calls(backend: str) -> dict[str, Callable[[], Any]]:
    """The public op without and with `out`, the kernel row alone, and a NumPy call for scale."""
    case = cases_of(TINY)[0]
    arguments = case.arguments("float32", np.random.default_rng(0))
    x, weight, out = (arguments[name] for name in ("x", "weight", "out"))
    (name,) = fc.explain("conv2d", x, weight, backend=backend).kernels
    row = next(row for row in table.kernels_of("conv2d") if row.name == name)
    return {
        f"fc.conv2d, {backend}": partial(fc.conv2d, x, weight, backend=backend),
        f"fc.conv2d into out, {backend}": partial(fc.conv2d, x, weight, out=out, backend=backend),
        f"kernel row alone, {backend}": partial(row.load, **arguments, num_threads=1),
        "numpy.add of two such images": partial(np.add, x, x),
    }


def network() -> dict[str, Callable[[], Any]]:
    """A network of `LAYERS` tiny layers with ReLU: prepared, called layer by layer, and a training step of it."""
    model = Sequential(*(layer for _ in range(LAYERS) for layer in (Conv2d(1, 1, 3, padding=1, rng=0), ReLU())))
    prepared = model.prepare()
    x = np.ones((1, 1, 8, 8), np.float32)
    out = prepared(x)

    def training_step() -> None:
        y, back = model.forward(x)
        back(y, need_dx=False)

    return {"prepared": partial(prepared, x, out=out), "model": partial(model, x), "training step": training_step}


def import_seconds(module: str) -> float:
    """Seconds that a new Python takes to import a module."""
    script = f"import time; begin = time.perf_counter(); import {module}; print(time.perf_counter() - begin)"
    return float(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.overhead", description=__doc__)
    parser.add_argument("--backend", choices=("cython", "numba", "numpy"), default="cython")
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    if reason := table.unavailable(args.backend):
        parser.error(f"--backend {args.backend}: {reason}")

    fc.set_num_threads(1)
    for name, seconds in timing.take_turns(calls(args.backend), args.rounds).items():
        print(f"{name:36} {seconds * 1e6:7.2f} us")
    with fc.use_backend(args.backend):
        for name, seconds in timing.take_turns(network(), args.rounds).items():
            label = f"{LAYERS} layers with ReLU, {name}"
            print(f"{label:36} {seconds * 1e6:7.2f} us, {seconds * 1e6 / LAYERS:.2f} a layer")
    modules = ("numpy", "numpy, fastcnn")
    times: dict[str, list[float]] = {module: [] for module in modules}
    for _ in range(args.rounds):
        for module in modules:
            times[module].append(import_seconds(module))
    base, whole = (median(times[module]) for module in modules)
    print(f"import numpy {base * 1e3:.0f} ms; fastcnn beyond it {(whole - base) * 1e3:.0f} ms (medians)")


if __name__ == "__main__":
    main()
