"""Slabs, vectors of sums and tasks of the channels-last weight gradient, from shapes alone, shared by the twins."""

from itertools import groupby
from typing import NamedTuple

import numpy as np

from fastcnn_kernels.conv2d.channels_last import blocking
from fastcnn_kernels.gemm.blocking import even
from fastcnn_kernels.memory import planned


class Plan(NamedTuple):
    """One call. Vectors of sums are numbered slab by slab; a tile has as many of them as `tile_vectors` allows."""

    table: np.ndarray  # N, groups, M, Cg, H, W, P, Q; top, left, row_step, stored rows an output row, stride_w, width,
    #                    output rows and images at a time, stored rows of an image; vectors, chunks, panels and slabs
    #                    of a task, elements of an image's largest slab, taps
    slabs: np.ndarray  # (slabs + 1, 4) first channel, channels, first vector, vectors of a tile; the last closes it
    offset: np.ndarray  # (vectors,) from the start of a pixel
    pieces: np.ndarray  # (pieces, 4) sums of neighbouring channels: where those of a panel's first row lie, step to the
    #                     next row, how many, and where the first goes in a row of dw
    pads: bool  # some tap of some pixel lies outside the image


def _slab_vectors(channels, R, S, dilation, width, VL):
    """Vectors of a slab: (offset, [(r, s, channel) of each lane])."""
    (dh, dw), vectors = dilation, []
    for r in range(R):
        # taps side by side are one run of lanes
        runs = [range(S)] if dw == 1 else [range(s, s + 1) for s in range(S)]
        for taps in runs:
            lanes = [(r, s, channel) for s in taps for channel in range(channels)]
            start = (r * dh * width + taps[0] * dw) * channels
            vectors += [(start + first, lanes[first : first + VL]) for first in range(0, len(lanes), VL)]
    return vectors


@planned
def plan(x_shape, weight_shape, dy_shape, stride, padding, dilation, groups, mr, tile_vectors, itemsize, VL):
    """Arrange a call; mr and `tile_vectors` are those of the register tile."""
    (N, _, H, W), (K, Cg, R, S), (_, _, P, Q) = x_shape, weight_shape, dy_shape
    (sh, sw), (dh, dw), (top, _, left, _), M = stride, dilation, padding, K // groups
    rows_over, width = (R - 1) * dh + 1, (Q - 1) * sw + (S - 1) * dw + 1
    row_step = sh if R == 1 else 1  # rows that no tap meets are left out
    pads = top > 0 or left > 0 or (P - 1) * sh + rows_over - top > H or width - left > W
    slabs: list[tuple[int, ...]] = []
    offset: list[int] = []
    pieces: list[tuple[int, ...]] = []
    for first in range(0, Cg, blocking.SLAB_CHANNELS):
        channels = min(blocking.SLAB_CHANNELS, Cg - first)
        vectors = _slab_vectors(channels, R, S, dilation, width, VL)
        tile = even(len(vectors), tile_vectors)
        for v, (_, lanes) in enumerate(vectors):
            tile_first = v // tile * tile
            tile_width = min(tile, len(vectors) - tile_first) * VL
            base = (len(offset) + tile_first) * mr * VL + (v - tile_first) * VL
            for (r, s), piece in groupby(enumerate(lanes), key=lambda entry: entry[1][:2]):
                (lane, (_, _, channel)), *others = piece
                start = (first + channel) * R * S + r * S + s
                pieces.append((base + lane, tile_width, len(others) + 1, start))
        slabs.append((first, channels, len(offset), tile))
        offset += [start for start, _ in vectors]
    slabs.append((Cg, 0, len(offset), 0))
    panels, count = -(-M // mr), len(slabs) - 1
    chunks, task_panels, task_slabs = blocking.split(
        groups, panels, count, N * P * Q, groups * panels * mr * len(offset) * VL * itemsize, N * M * P * Q,
        N * Cg * H * W // row_step,
    )  # fmt: skip
    most_channels = min(Cg, blocking.SLAB_CHANNELS)
    lines, images = blocking.lines_and_images(
        N, P, Q, min(M, task_panels * mr), most_channels, sh // row_step * sw, itemsize
    )
    rows = (lines - 1) * (sh // row_step) + rows_over
    chunks = min(chunks, -(-P // lines) * -(-N // images))
    table = [
        N, groups, M, Cg, H, W, P, Q, top, left, row_step, sh // row_step, sw, width, lines, images, rows, len(offset),
        chunks, task_panels, task_slabs, rows * width * most_channels, R * S,
    ]  # fmt: skip
    return Plan(
        np.array(table, np.intp), np.array(slabs, np.intp), np.array(offset, np.intp), np.array(pieces, np.intp), pads
    )
