"""Where the time of a Winograd convolution goes: filters, patches, products, results; on one core.

The functions of the Numba twin run phase by phase over all tasks, each with the block sizes and buffers that the kernel
uses, and together beside the whole kernel. Flops and bytes count what a phase computes and moves.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

import fastcnn as fc
from bench import peak, selection, stored, timing
from fastcnn_kernels import table
from fastcnn_kernels.conv2d.cases import HEADLINE, Layer
from fastcnn_kernels.conv2d.winograd import blocking, geometry
from fastcnn_kernels.conv2d.winograd import numba_ as winograd
from fastcnn_kernels.gemm.numba_llvm import MOST_ROWS, MR, VECTOR_BYTES, panel_width
from fastcnn_kernels.numba_support import compiled

LAYERS = ("ResNet-50 56x56 64", "ResNet-50 14x14 256", "VGG conv3 56x56 256 batch 1")
#: Additions and multiplications of a two-dimensional transform with tiles of 4 x 4, counted in `transforms_body.h`:
#: one-dimensional ones of the columns and of the rows, times the flops of each.
FLOPS = {"patches": (6 + 6) * 22, "results": (6 + 4) * 16, "filters": (3 + 6) * 15}


@compiled
def all_patches(image, w, V, table, m, columns, tile_panels, JT, segments, counts, C, v_size, patches, line):
    """Patches of every tile, a block of panels at a time into the same place."""
    for first in range(0, tile_panels, JT):
        panels = min(JT, tile_panels - first)
        winograd.find_panels(table, first, panels, columns, segments, counts, 0)
        for j in range(panels):
            winograd.transform_images(
                image, w, V + j * v_size, table, m, 0, 0, C, columns, segments, j * columns, counts[j], patches, line
            )


@compiled
def all_products(
    U, w, V, products, matrices, mr, M, row_panels, tile_panels, IB, JT, tiles, vectors, u_size, v_size, p_step
):
    """Products of every tile, each block of them into the same place."""
    columns = vectors * (panel_width(w) // 2)
    for first in range(0, tile_panels, JT):
        for i in range(0, row_panels, IB):
            for j in range(min(JT, tile_panels - first)):
                winograd.multiply(
                    U, i * u_size, w, V + j * v_size, products, matrices, mr, min(IB * mr, M - i * mr), vectors,
                    tiles - (first + j) * columns, u_size, p_step,
                )  # fmt: skip


@compiled
def all_results(
    w, products, out, table, m, mr, M, row_panels, tile_panels, IB, JT, columns, segments, counts, p_step, line, check
):
    """Results of every tile, from products that lie in one place."""
    for first in range(0, tile_panels, JT):
        panels = min(JT, tile_panels - first)
        winograd.find_panels(table, first, panels, columns, segments, counts, 0)
        for i in range(0, row_panels, IB):
            for j in range(panels):
                winograd.transform_results(
                    w, products, w, False, out, table, m, 0, i * mr, min(M, (i + IB) * mr), columns, segments,
                    j * columns, counts[j], p_step, 0, line, check,
                )  # fmt: skip


def measure(layer: Layer, rounds: int) -> dict[str, Any]:
    """Seconds, flops and bytes of each phase of a forward pass with tiles of 4 x 4 on one thread, and of the whole."""
    m, itemsize = 4, 4
    case = selection.case_of(layer, "fwd")
    call = case.arguments("float32", np.random.default_rng(0))
    kernel = next(row for row in table.kernels_of(case.op) if row.name == "conv2d_winograd4_numba")
    shapes, registers = (call[name].shape for name in ("x", "weight", "out")), (MR, MOST_ROWS, VECTOR_BYTES // itemsize)
    plan = geometry.forward(m, *shapes, (1, 1), layer.padding, 1, 1, registers)
    (N, _, _, _, M, C), (_, _, _, _, tiles_h, tiles_w), *_, (mr, vectors, *_) = plan.table.tolist()
    NR, E, tiles = 2 * VECTOR_BYTES // itemsize, (m + 2) ** 2, N * tiles_h * tiles_w
    columns = vectors * (NR // 2)
    row_panels, tile_panels = -(-M // mr), -(-tiles // columns)
    matrices, filters, patches, u_size, v_size = geometry.matrices(m, C, mr, columns)
    _, JT, IB, _, _ = blocking.product_blocks(v_size * itemsize, 1, M, tiles, mr, columns, False).tolist()
    p_step = IB * mr * columns + winograd.SPACING
    V = (1 + winograd.LINES) * NR + winograd.PACKED_CHANNELS * 9 * mr
    products = V + JT * v_size
    w = np.zeros(products + E * p_step, np.float32)
    U = np.zeros(row_panels * u_size, np.float32)
    segments, counts = np.empty((JT * columns, 5), np.intp), np.empty(JT, np.intp)
    x, weight, out = (call[name].reshape(-1) for name in ("x", "weight", "out"))
    phases = {
        "filters": lambda: winograd.share_filters(1, weight, U, plan.table, m, filters, u_size, w, NR, 0),
        "patches": lambda: all_patches(
            x, w, V, plan.table, m, columns, tile_panels, JT, segments, counts, C, v_size, patches, NR
        ),
        "products": lambda: all_products(
            U, w, V, products, matrices, mr, M, row_panels, tile_panels, IB, JT, tiles, vectors, u_size, v_size, p_step
        ),
        "results": lambda: all_results(
            w, products, out, plan.table, m, mr, M, row_panels, tile_panels, IB, JT, columns, segments, counts, p_step,
            NR, 0,
        ),
        "whole": lambda: kernel.load(**call, num_threads=1),
    }  # fmt: skip
    flops = {
        "filters": M * C * FLOPS["filters"],
        "patches": tiles * C * FLOPS["patches"],
        "products": 2 * E * M * C * tiles,
        "results": tiles * M * FLOPS["results"],
        "whole": case.flops,
    }
    nbytes = {
        "filters": M * C * (9 + E) * itemsize,
        "patches": x.nbytes + tiles * C * E * itemsize,
        "products": tiles * (C + M) * E * itemsize,
        "results": out.nbytes + tiles * M * E * itemsize,
        "whole": case.nbytes(itemsize),
    }
    seconds = timing.take_turns(phases, rounds)
    return {"layer": layer.name, "seconds": seconds, "flops": flops, "bytes": nbytes}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.split", description=__doc__)
    parser.add_argument("--only", default="", metavar="SUBSTRING", help="layers with this in their name")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="OUT", help="store the result, e.g. in bench/results/MACHINE/")
    args = parser.parse_args()
    fc.set_num_threads(1)
    peaks = peak.peaks("float32", 1)
    rows = [measure(layer, args.rounds) for layer in HEADLINE if layer.name in LAYERS and args.only in layer.name]
    if not rows:
        parser.error(f"--only {args.only!r}: none of {', '.join(LAYERS)} has this in its name")
    print(f"one core: peak {peaks['flops'] / 1e9:.0f} GFLOP/s, copy {peaks['bytes'] / 1e9:.1f} GB/s")
    for row in rows:
        print(row["layer"])
        for phase, line in phases_of(row, peaks).items():
            print(
                f"  {phase:8} {line['share']:5.0%} of the time  {line['flops'] / 1e9:6.1f} GFLOP/s "
                f"{line['of_flops']:5.0%} of peak  {line['bytes'] / 1e9:6.1f} GB/s {line['of_bytes']:5.0%} of copy"
            )
    if args.json:
        stored.write(args.json, stored.result("split", "float32", args.rounds, rows, peaks=peaks))


def phases_of(row: dict[str, Any], peaks: dict[str, float]) -> dict[str, dict[str, float]]:
    """Share of the whole kernel's time, flops and bytes a second of each phase, and of their sum."""
    lines = {}
    for phase, seconds in row["seconds"].items():
        speed = {name: row[name][phase] / seconds for name in ("flops", "bytes")}
        of = {f"of_{name}": speed[name] / peaks[name] for name in speed}
        lines[phase] = {"share": seconds / row["seconds"]["whole"], **speed, **of}
    return lines


if __name__ == "__main__":
    main()
