"""How exact each algorithm is: the error of float32 results, for 16 to 512 channels.

Standard normal data, K = C. The reference are this library's plain sums in float64, whose own error is 2^-29 of these.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

import fastcnn as fc
from bench import selection, stored
from fastcnn import dispatch
from fastcnn_kernels import table
from fastcnn_kernels.conv2d.cases import layer

CHANNELS = (16, 32, 64, 128, 256, 512)
SIDE = 28
#: Relative L2 error at most.
GATES = {"winograd2": 3e-6, "winograd4": 2e-5}
#: Algorithms, each with a stride that it takes.
VARIANTS = [*((algorithm, 1) for algorithm in table.ALGORITHMS), ("winograd4", 2)]
UNIT = 2.0**-24


def measure(algorithm: str, stride: int, direction: str, C: int) -> dict[str, Any]:
    """Error of one algorithm on one shape.

    Returns
    -------
    dict
        ``l2``: norm of the error over that of the result; ``worst``: largest ``|error| / (u M)``, where M is the sum of
        ``|x| |w|`` over the terms; ``terms`` of a sum.
    """
    case = selection.case_of(layer("accuracy", "accuracy", 1, C, SIDE, C, 3, padding=1, stride=stride), direction)
    arguments = case.arguments("float32", np.random.default_rng(C))
    wide = {name: value.astype(float) if isinstance(value, np.ndarray) else value for name, value in arguments.items()}
    magnitudes = {name: abs(value) if isinstance(value, np.ndarray) else value for name, value in wide.items()}
    result = run(algorithm, case.op, arguments)
    reference, magnitude = (run("direct", case.op, each) for each in (wide, magnitudes))
    error = abs(result - reference)
    return {
        "algorithm": algorithm,
        "stride": stride,
        "direction": direction,
        "C": C,
        "terms": case.terms,
        "l2": float(np.linalg.norm(error) / np.linalg.norm(reference)),
        "worst": float((error / (UNIT * magnitude)).max()),
    }


def run(algorithm: str, op: str, arguments: dict[str, Any]) -> np.ndarray:
    """Result of an op by the kernel that dispatch takes for an algorithm."""
    out = np.empty_like(arguments["out"])
    call = arguments | {"out": out}
    kernel, _ = dispatch.select(op, "auto", algorithm, call, measured=False)
    if kernel is None:
        raise RuntimeError(f"no kernel computes {op} by {algorithm}")
    kernel.load(num_threads=fc.get_num_threads(), **call)
    return out


def main() -> int:
    """Command line; the exit status is 1 if an error is above its gate."""
    parser = argparse.ArgumentParser(prog="python -m bench.accuracy", description=__doc__)
    parser.add_argument("--channels", nargs="+", type=int, default=CHANNELS)
    parser.add_argument("--json", type=Path, metavar="OUT", help="store the result, e.g. in bench/results/MACHINE/")
    args = parser.parse_args()
    rows = []
    for algorithm, stride in VARIANTS:
        for direction in selection.OPS:
            for C in args.channels:
                rows.append(measure(algorithm, stride, direction, C))
                row = rows[-1]
                over = row["l2"] > GATES.get(algorithm, row["terms"] * UNIT)
                print(f"{algorithm:9} stride {stride} {direction:3} C = {C:3}  relative L2 error {row['l2']:.1e}  "
                      f"worst {row['worst']:5.2f} u M  {'ABOVE THE GATE' if over else ''}", flush=True)  # fmt: skip
    if args.json:
        stored.write(args.json, stored.result("accuracy", "float32", 1, rows))
    return int(any(row["l2"] > GATES.get(row["algorithm"], row["terms"] * UNIT) for row in rows))


if __name__ == "__main__":
    raise SystemExit(main())
