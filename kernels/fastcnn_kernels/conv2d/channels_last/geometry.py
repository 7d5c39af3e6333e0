"""Slabs, vectors of sums and tasks of the channels-last weight gradient, shared by the twins."""

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
    #                    of a task, elements of an image's largest slab, step in dw from a channel of a slab to the
    #                    next, output columns at a time, whether `in_place`, whether `turned`
    slabs: np.ndarray  # (slabs + 1, 4) first channel, channels, first vector, vectors of a tile; the last closes it
    offset: np.ndarray  # (vectors,) from the start of a pixel
    pieces: np.ndarray  # (pieces, 4) sums of neighbouring channels: where those of a panel's first row lie, step to the
    #                     next row, how many, and where the first goes in a row of dw
    pads: bool  # some tap of some pixel lies outside the image


def roles(weight_shape, dy_shape, stride, padding, groups, itemsize):
    """Whether rows of tiles are read where they lie, and whether they are channels of x, those of slabs being dy's.

    A single tap sums over the same pixels of both, so that they may change places, and neither a row of x nor of dy has
    to be transposed if its pixels are read one by one.
    """
    (K, Cg, R, S), (_, _, P, Q) = weight_shape, dy_shape
    if R * S > 1 or stride != (1, 1) or any(padding):
        return False, False
    return blocking.roles(K // groups, Cg, P * Q, itemsize)


def _slab_vectors(channels, R, S, dilation_w, VL):
    """Vectors of a slab: (r, first tap of a run of lanes, lanes of it before, [(r, s, channel) of each lane])."""
    vectors = []
    for r in range(R):
        # taps side by side are one run of lanes
        for taps in [range(S)] if dilation_w == 1 else [range(s, s + 1) for s in range(S)]:
            lanes = [(r, s, channel) for s in taps for channel in range(channels)]
            vectors += [(r, taps[0], first, lanes[first : first + VL]) for first in range(0, len(lanes), VL)]
    return vectors


@planned
def plan(
    x_shape, weight_shape, dy_shape, stride, padding, dilation, groups, in_place, turned, mr, tile_vectors, itemsize,
    VL, num_threads,
):  # fmt: skip
    """Arrange a call; mr and `tile_vectors` are those of the register tile. Threads decide which tasks there are."""
    (N, _, H, W), (K, Cg, R, S), (_, _, P, Q) = x_shape, weight_shape, dy_shape
    (sh, sw), (dh, dw), (top, _, left, _), M = stride, dilation, padding, K // groups
    if turned:  # the image is dy, which has the size of x
        M, Cg = Cg, M
    channel_step = M if turned else R * S
    rows_over, columns_over = (R - 1) * dh + 1, (S - 1) * dw + 1
    row_step = sh if R == 1 else 1  # rows that no tap meets are left out
    pads = top > 0 or left > 0 or (P - 1) * sh + rows_over - top > H or (Q - 1) * sw + columns_over - left > W
    most = blocking.SLAB_CHANNELS
    sizes = [min(most, Cg - first) for first in range(0, Cg, most)]
    slab_vectors = [_slab_vectors(channels, R, S, dw, VL) for channels in sizes]
    panels, vector_count = -(-M // mr), sum(map(len, slab_vectors))
    chunks = blocking.chunks_of_sum(groups, N * P * Q, groups * panels * mr * vector_count * VL * itemsize)
    images, lines, columns = blocking.block_of_pixels(N, P, Q, M, sizes[0], sh // row_step * sw, itemsize)
    task_panels, task_slabs = blocking.panels_and_slabs(
        groups * chunks, panels, len(sizes), M * Cg * R * S, N * P * Q / chunks,
        -(-N // images) * -(-P // lines) * -(-Q // columns) / chunks, 0 if in_place else N * M * P * Q / chunks,
        N * Cg * H * W / row_step / chunks, itemsize, num_threads,
    )  # fmt: skip
    rows, width = (lines - 1) * (sh // row_step) + rows_over, (columns - 1) * sw + columns_over
    slabs: list[tuple[int, ...]] = []
    offset: list[int] = []
    pieces: list[tuple[int, ...]] = []
    for number, (channels, vectors) in enumerate(zip(sizes, slab_vectors, strict=True)):
        tile = even(len(vectors), tile_vectors)
        slabs.append((number * most, channels, len(offset), tile))
        for v, (_, _, _, lanes) in enumerate(vectors):
            tile_first = v // tile * tile
            tile_width = min(tile, len(vectors) - tile_first) * VL
            base = (len(offset) + tile_first) * mr * VL + (v - tile_first) * VL
            for (r, s), piece in groupby(enumerate(lanes), key=lambda entry: entry[1][:2]):
                (lane, (_, _, channel)), *others = piece
                where, count = base + lane, len(others) + 1
                start = (number * most + channel) * channel_step + r * S + s
                if pieces and v > tile_first:  # the next vector of a tile may go on where the last one ends
                    before, _, size, begin = pieces[-1]
                    if (where, start) == (before + size, begin + size * channel_step):
                        where, count, start = before, size + count, begin
                        pieces.pop()
                pieces.append((where, tile_width, count, start))
        offset += [(r * dh * width + s * dw) * channels + before for r, s, before, _ in vectors]
    slabs.append((Cg, 0, len(offset), 0))
    table = [
        N, groups, M, Cg, H, W, P, Q, top, left, row_step, sh // row_step, sw, width, lines, images, rows, len(offset),
        chunks, task_panels, task_slabs, rows * width * sizes[0], channel_step, columns, in_place, turned,
    ]  # fmt: skip
    return Plan(
        np.array(table, np.intp), np.array(slabs, np.intp), np.array(offset, np.intp), np.array(pieces, np.intp), pads
    )
