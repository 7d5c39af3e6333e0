"""Our library beside PyTorch, ONNX Runtime and im2col + BLAS: side by side in one run, answers checked first."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import threadpoolctl
import torch

import fastcnn as fc
from bench import answers, contestants, figures, gemm, page, peak, report, selection, stored, timing
from fastcnn_kernels import oracle, table
from fastcnn_kernels.conv2d.cases import Layer

#: With ONNX Runtime's spinning threads, a turn has to wait until these are parked.
SPINNING_PAUSE = 0.1


def measure(layer: Layer, direction: str, dtype: str, backends: list[str], rounds: int, spinning: bool = False):
    """Check and time all contestants on one layer and direction.

    Returns
    -------
    dict
        Layer, class, direction, flops, bytes, the kernel that "auto" chose, and seconds per call of each contestant.
    """
    case = selection.case_of(layer, direction)
    data = contestants.draw(layer, dtype)
    wide = data.map(lambda array: array.astype(np.float64))
    reference = contestants.pytorch(wide, direction).answer()
    magnitude = contestants.pytorch(wide.map(np.abs), direction).answer()
    bound = oracle.error_bound(dtype, case.terms, magnitude)
    del wide, magnitude
    taking_part = contestants.build(data, direction, backends, spinning)
    for name, contestant in taking_part.items():
        answers.assert_within(contestant.answer(), reference, bound, f"{name} on {layer.name} {direction}")
    del reference, bound
    calls = {name: contestant.call for name, contestant in taking_part.items()}
    return {
        "layer": layer.name,
        "class": layer.group,
        "direction": direction,
        "flops": case.flops,
        "bytes": case.nbytes(np.dtype(dtype).itemsize),
        "seconds": timing.take_turns(calls, rounds, SPINNING_PAUSE if spinning else timing.PAUSE),
    }


def measure_all(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Rows of the layers, or of the products with --gemm."""
    if args.gemm:
        yield from gemm.measure(args.gemm, args.dtype, args.backends, args.rounds, args.only)
        return
    for layer in selection.choose(args.layers, args.only):
        for direction in args.dirs:
            yield measure(layer, direction, args.dtype, args.backends, args.rounds, args.ort_spinning)


def usable_backends() -> list[str]:
    """What can take part for us."""
    compiled = [name for name in table.BACKENDS if name != "numpy" and not table.unavailable(name)]
    return ["auto", *compiled, contestants.PREPACKED]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    usable = usable_backends()
    options = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    options.add_argument("--layers", nargs="+", type=Path, default=[], metavar="FILE", help="default: headline layers")
    options.add_argument("--gemm", type=Path, metavar="FILE", help="matrix products and dense layers instead")
    options.add_argument("--dirs", nargs="+", choices=selection.OPS, default=list(selection.OPS))
    options.add_argument("--backends", nargs="+", choices=usable, help="default: all; the first is judged")
    options.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    options.add_argument("--threads", type=int, default=fc.get_num_threads())
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--only", default="", metavar="SUBSTRING", help="layers with this in their name")
    options.add_argument("--ort-spinning", action="store_true", help="let ONNX Runtime's threads spin; pauses longer")
    options.add_argument("--json", type=Path, metavar="OUT", help="store the result, e.g. in bench/results/MACHINE/")
    options.add_argument("--html", type=Path, metavar="OUT", help="write a page with table and charts")
    options.add_argument("--png", type=Path, metavar="DIR", help="write roofline.png and bars.png")
    options.add_argument("--from-json", type=Path, metavar="FILE", help="measure nothing, show a stored result")
    return options


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure all that was asked for, printing as it goes.

    Raises
    ------
    ValueError
        If no layer was chosen.
    """
    if args.backends is None:  # products have no weights to pack
        args.backends = [name for name in usable_backends() if not (args.gemm and name == contestants.PREPACKED)]
    fc.set_num_threads(args.threads)
    torch.set_num_threads(args.threads)
    with threadpoolctl.threadpool_limits(args.threads, user_api="blas"):
        before = peak.peaks(args.dtype, args.threads)
        rows = []
        for row in measure_all(args):
            print(report.line(row, args.backends[0]), flush=True)
            rows.append(row)
        after = peak.peaks(args.dtype, args.threads)
    if not rows:
        raise ValueError(f"--only {args.only!r}: no layer has this in its name")
    peaks = {name: max(before[name], after[name]) for name in before}
    print(f"\npeak {peaks['flops'] / 1e9:.0f} GFLOP/s, copy {peaks['bytes'] / 1e9:.1f} GB/s (best of before and after)")
    files = [args.gemm] if args.gemm else args.layers
    return stored.result(
        "gemm" if args.gemm else "peers",
        args.dtype,
        args.rounds,
        rows,
        layers=[path.stem for path in files] or ["headline"],
        ours=args.backends,
        peaks=stored.rounded(peaks),
    )


def main() -> None:
    """Command line."""
    options = parser()
    args = options.parse_args()
    if args.from_json:
        data = stored.read(args.from_json)
    else:
        try:
            data = run(args)
        except (OSError, ValueError) as error:
            options.error(str(error))
    print(report.text(data))
    if args.json:
        stored.write(args.json, data)
    if args.html:
        page.write(args.html, data)
    if args.png:
        figures.write(args.png, data)


if __name__ == "__main__":
    main()
