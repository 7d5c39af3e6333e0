"""What choosing without measuring costs: the time of the kernel that the cost model takes over that of the fastest one.

Every kernel that can compute a layer runs, on one thread and on all, side by side; PyTorch and others are not involved.
"""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import fastcnn as fc
from bench import selection, stored, timing
from fastcnn import dispatch
from fastcnn_kernels.conv2d.cases import Layer

#: The target: geometric mean over all layers.
MOST = 1.05
#: A way to compute a layer that is this many times slower than another one in a first call takes no turns.
FAR_BEHIND = 2.0
#: Seconds of pause before a turn: all contestants share one pool of threads.
PAUSE = 0.005


def measure(layer: Layer, direction: str, rounds: int) -> dict[str, Any] | None:
    """Time every way to compute one layer and direction in float32.

    Returns
    -------
    dict
        Layer, class, direction; the model's ``pick`` and the ``best`` way, each ``"kernel on n"``; ``seconds`` of all
        that took turns; ``regret``.
    """
    case = selection.case_of(layer, direction)
    arguments = case.arguments("float32", np.random.default_rng(0))
    kernel, _ = dispatch.select(case.op, "auto", "auto", arguments, measured=False)
    if kernel is None:
        return None
    most = fc.get_num_threads()
    pick = f"{kernel.name} on {most if case.flops >= dispatch.least_parallel(kernel) else 1}"
    ways = {
        f"{row.name} on {n}": partial(row.load, **arguments, num_threads=n)
        for row in dispatch.candidates(case.op, "auto", arguments)
        for n in sorted({1, most})
    }
    first = {}
    for name, call in ways.items():
        call()  # compiles, and allocates
        first[name] = timing.timed(call, 1)
    limit = FAR_BEHIND * min(first.values())
    racing = {name: call for name, call in ways.items() if first[name] <= limit or name == pick}
    seconds = timing.take_turns(racing, rounds, PAUSE)
    best = min(seconds, key=seconds.__getitem__)
    head = {"layer": layer.name, "class": layer.group, "direction": direction, "pick": pick, "best": best}
    return head | {"regret": seconds[pick] / seconds[best], "seconds": seconds}


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Geometric mean and worst regret, and how often the pick was the best, per direction and over all."""
    directions = list(dict.fromkeys(row["direction"] for row in rows))
    lines = []
    for label, members in [(each, [each]) for each in directions] + [("all", directions)]:
        of = [row for row in rows if row["direction"] in members]
        regrets = [row["regret"] for row in of]
        right = sum(row["pick"] == row["best"] for row in of)
        lines.append(
            {
                "direction": label,
                "layers": len(of),
                "mean": stored.geomean(regrets),
                "worst": max(regrets),
                "right": right,
            }
        )
    return lines


def main() -> int:
    """Command line; the exit status is 1 if the geometric mean is above the target."""
    parser = argparse.ArgumentParser(prog="python -m bench.regret", description=__doc__)
    parser.add_argument("--layers", nargs="+", type=Path, default=[], metavar="FILE", help="as of bench.peers")
    parser.add_argument("--dirs", nargs="+", choices=selection.OPS, default=list(selection.OPS))
    parser.add_argument("--only", default="", metavar="SUBSTRING", help="layers with this in their name")
    parser.add_argument("--threads", type=int, default=fc.get_num_threads())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="OUT", help="store the result, e.g. in bench/results/MACHINE/")
    args = parser.parse_args()
    fc.set_num_threads(args.threads)

    try:
        chosen = selection.choose(args.layers, args.only)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    layers = {layer[2:]: layer for layer in chosen}  # shapes that occur twice, once
    rows = []
    for layer in layers.values():
        for direction in args.dirs:
            row = measure(layer, direction, args.rounds)
            if row is None:
                continue
            rows.append(row)
            print(f"{layer.name:44} {direction:3} {row['regret']:6.3f}  {row['pick']}", end="")
            print("" if row["pick"] == row["best"] else f"; best {row['best']}", flush=True)
    if not rows:
        parser.error("no two kernels can compute any of these layers")
    print("\nregret: time of the pick over that of the best")
    for line in summary(rows):
        print(f"{line['direction']:3} {line['layers']:4} layers  geometric mean {line['mean']:.3f}  "
              f"worst {line['worst']:.2f}  best kernel picked {line['right']} times")  # fmt: skip
    for row in sorted(rows, key=lambda row: -row["regret"])[:10]:
        print(f"  {row['regret']:.2f}  {row['layer']} {row['direction']}: {row['pick']}; best {row['best']}")
    if args.json:
        names = [path.stem for path in args.layers] or ["headline"]
        stored.write(args.json, stored.result("regret", "float32", args.rounds, rows, layers=names))
    return int(summary(rows)[-1]["mean"] > MOST)


if __name__ == "__main__":
    raise SystemExit(main())
