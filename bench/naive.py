"""Each twin beside the naive NumPy row on the headline layers, in one run, answers checked first."""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import fastcnn as fc
from bench import answers, peak, roofline, selection, stored, timing
from fastcnn.dispatch import least_parallel
from fastcnn_kernels.conv2d.cases import Layer

NAIVE = "numpy"
#: What a machine would reach that did plain sums at its peak, and met every array once at the speed of a copy.
ROOFLINE = "roofline"


def measure(layer: Layer, direction: str, dtype: str, rounds: int) -> dict[str, Any]:
    """Check and time each backend's preferred row on one layer and direction.

    Returns
    -------
    dict
        Layer, direction, flops, bytes, and seconds per call of each backend.
    """
    case = selection.case_of(layer, direction)
    problem = answers.problem(case, dtype)
    rows = list({row.backend: row for row in reversed(selection.rows_of(case, dtype))}.values())[::-1]
    calls = {}
    for row in rows:
        threads = fc.get_num_threads() if case.flops >= least_parallel(row) else 1  # as dispatch has it
        problem.check(row, threads)
        calls[row.backend] = partial(row.load, **problem.arguments, num_threads=threads)
    nbytes = case.nbytes(problem.arguments["out"].itemsize)
    head = {"layer": layer.name, "class": layer.group, "direction": direction, "flops": case.flops, "bytes": nbytes}
    return head | {"seconds": timing.take_turns(calls, rounds)}


def summary(rows: list[dict[str, Any]], peaks: dict[str, float] | None) -> list[dict[str, Any]]:
    """Geometric means of the speed ratio over the naive row, per direction, then over all.

    Returns
    -------
    list of dict
        ``direction``, number of ``layers``, and ``ratios`` by backend; the last one is `ROOFLINE`, given the machine's
        measured peaks.
    """
    backends = [name for name in rows[0]["seconds"] if name != NAIVE]
    if peaks is not None:
        backends.append(ROOFLINE)
        limits = [{ROOFLINE: roofline.least_seconds(row, peaks)} for row in rows]
        rows = [row | {"seconds": row["seconds"] | limit} for row, limit in zip(rows, limits, strict=True)]
    directions = list(dict.fromkeys(row["direction"] for row in rows))
    lines = []
    for label, members in [(each, [each]) for each in directions] + [("all", directions)]:
        of = [row["seconds"] for row in rows if row["direction"] in members]
        means = {name: stored.geomean(seconds[NAIVE] / seconds[name] for seconds in of) for name in backends}
        lines.append({"direction": label, "layers": len(of), "ratios": means})
    return lines


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.naive", description=__doc__)
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--dirs", nargs="+", choices=selection.OPS, default=list(selection.OPS))
    parser.add_argument("--only", default="", metavar="SUBSTRING", help="layers with this in their name")
    parser.add_argument("--threads", type=int, default=fc.get_num_threads())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="OUT", help="store the result, e.g. in bench/results/MACHINE/")
    args = parser.parse_args()
    fc.set_num_threads(args.threads)

    try:
        layers = selection.choose([], args.only)
    except ValueError as error:
        parser.error(str(error))
    peaks = peak.peaks(args.dtype, args.threads)
    rows = []
    for layer in layers:
        for direction in args.dirs:
            rows.append(measure(layer, direction, args.dtype, args.rounds))
            seconds = rows[-1]["seconds"]
            print(f"{layer.name:40} {direction:3} {seconds[NAIVE] * 1e3:9.3f} ms naive", end="")
            for name, value in seconds.items():
                if name != NAIVE:
                    print(f"  {name} {seconds[NAIVE] / value:7.1f}x", end="")
            print(flush=True)
    print("\ngeometric mean of the ratio to the naive NumPy row")
    for line in summary(rows, peaks):
        ratios = "  ".join(f"{name} {ratio:.1f}x" for name, ratio in line["ratios"].items())
        print(f"{line['direction']:3} ({line['layers']} layers)  {ratios}")
    if args.json:
        stored.write(args.json, stored.result("naive", args.dtype, args.rounds, rows, peaks=stored.rounded(peaks)))


if __name__ == "__main__":
    main()
