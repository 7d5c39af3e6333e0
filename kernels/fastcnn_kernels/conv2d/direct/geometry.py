"""Address tables of the direct kernels, from shapes alone, shared by the twins.

A task holds a block of output rows: the image rows behind it are copied into planes, padded, one plane per remainder
(a, b) of the position modulo the stride that some tap meets. Inside a plane the taps of consecutive output pixels are
consecutive, row after row, so that an output plane is one long run of `width` elements a row, of which the first Q
are wanted:

    pixel (p, q), tap t of channel c:    planes[ c F plane + offset[t] + p width + q ]
"""

from functools import partial
from math import gcd
from typing import NamedTuple

import numpy as np

from fastcnn_kernels.conv2d.channels_last import blocking as channels_last
from fastcnn_kernels.conv2d.direct import blocking
from fastcnn_kernels.conv2d.geometry import before_pooling, offset_sums, remainder_taps
from fastcnn_kernels.conv2d.geometry import refuses as general_refuses
from fastcnn_kernels.gemm.geometry import filled_panel_rows
from fastcnn_kernels.memory import planned

#: Elements behind the last plane that a last vector of pixels may read, beyond those by which the last tap is shifted.
SLACK = 16


class Product(NamedTuple):
    """One product over the taps: which outputs, and where its taps lie."""

    table: np.ndarray  # P, Q, out_start, out steps of image, row, column and m
    offset: np.ndarray  # (L,) of row l = (c, t) in the planes
    weight_offset: np.ndarray  # (L,) of row l in one filter


class Plan(NamedTuple):
    """One call; `phases` has a row (remainder a, remainder b) for each plane of a channel."""

    #: N, groups, M, channels of a group, H, W, top, left, stride_h, stride_w, rows, width, PB, blocks, elements of the
    #: planes of one task with the slack behind them, 2 if windows of 2 x 2 are pooled, 1 if output channels are lanes,
    #: rows of a panel of filters, 1 if output rows are tiled one by one
    table: np.ndarray
    phases: np.ndarray
    weight_steps: np.ndarray  # of m and of the group
    products: np.ndarray  # per product: its table, its L, start of its packed weights, start in the offset tables
    offset: np.ndarray  # offsets of all products, one after the other
    weight_offset: np.ndarray
    packed_size: int  # elements of all products' packed weights
    scratch_size: int  # elements of a task: planes, slack, and the sums that wait to be pooled
    covers_out: bool
    pads: bool


def _axis(size, count, stride, before, offsets):
    """Planes of one axis whose taps are at `offsets`: phases, each tap's (phase, shift), length beyond `count`."""
    phases = sorted({offset % stride for offset in offsets})
    taps = [(phases.index(offset % stride), offset // stride) for offset in offsets]
    extra = max((shift for _, shift in taps), default=0)
    pads = before > 0 or (count - 1) * stride + max(offsets, default=0) - before >= size
    return phases, taps, extra, pads


def _plan(
    shape, image, output, row_pixels, rows_axis, columns_axis, products, weight_steps, covers_out, MR, VL, pool=1,
    rows_per_block=blocking.rows_per_block,
):  # fmt: skip
    """Put a plan together; `products` are built from the size of a plane, which depends on the block of rows.

    `row_pixels` are the pixels of an output row of each.
    """
    (N, groups, M, channels), (H, W, top, left, sh, sw), (P, Q) = shape, image, output
    phases_h, _, extra_h, pads_h = rows_axis
    phases_w, _, extra_w, pads_w = columns_axis
    F = len(phases_h) * len(phases_w)
    row_by_row = all(blocking.row_by_row(pixels, VL) for pixels in row_pixels)
    width = -(-(Q + extra_w) // VL) * VL if row_by_row else Q + extra_w
    PB = rows_per_block(4 * width * channels * max(1, F), P, N * groups)
    PB += PB % pool
    rows = PB + extra_h
    planes_size = -(-(channels * F * rows * width + extra_w + SLACK) // SLACK) * SLACK
    built = [product(F * rows * width, rows * width, width) for product in products]
    longest = max((product.offset.size for product in built), default=0)
    lanes = not row_by_row and blocking.channels_in_lanes(M, longest, VL)
    mr = 2 * VL if lanes else filled_panel_rows(M, MR, blocking.ROWS_PER_PANEL)
    table = [
        N, groups, M, channels, H, W, top, left, sh, sw, rows, width, PB, -(-P // PB), planes_size, pool, lanes, mr,
        row_by_row,
    ]  # fmt: skip
    phases = np.array([(a, b) for a in phases_h for b in phases_w], np.intp).reshape(-1, 2)
    lengths = [product.offset.size for product in built]
    starts = np.cumsum([0, *lengths])
    rows_packed = groups * -(-M // mr) * mr
    entries = [
        [*product.table, length, rows_packed * start, start]
        for product, length, start in zip(built, lengths, starts, strict=False)
    ]
    none = np.empty(0, np.intp)
    return Plan(
        np.array(table, np.intp),
        phases,
        np.array(weight_steps, np.intp),
        np.array(entries, np.intp).reshape(-1, 10),
        np.concatenate([none, *(product.offset for product in built)]),
        np.concatenate([none, *(product.weight_offset for product in built)]),
        int(rows_packed * starts[-1]),
        planes_size + (M * PB * Q if pool == 2 else 0),
        covers_out,
        pads_h or pads_w,
    )


def _tap_offsets(row_taps, column_taps, column_phases, plane, width):
    """Offsets of the taps (r, s) in a channel's planes."""
    return offset_sums(
        [phase * column_phases * plane + shift * width for phase, shift in row_taps],
        [phase * plane + shift for phase, shift in column_taps],
    )


@planned
def forward(x_shape, weight_shape, out_shape, stride, padding, dilation, groups, MR, VL, pool=1):
    """Plan of ``conv2d``, and of the planes of ``conv2d_grad_weight``, for a register tile of MR rows of VL lanes."""
    (N, _, H, W), (K, Cg, R, S), (_, _, P, Q) = x_shape, weight_shape, before_pooling(out_shape, pool)
    (sh, sw), (dh, dw), (top, _, left, _) = stride, dilation, padding
    rows_axis = _axis(H, P, sh, top, [r * dh for r in range(R)])
    columns_axis = _axis(W, Q, sw, left, [s * dw for s in range(S)])

    def product(channel, plane, width):
        taps = _tap_offsets(rows_axis[1], columns_axis[1], len(columns_axis[0]), plane, width)
        return Product(
            np.array([P, Q, 0, K * P * Q // pool**2, Q // pool, 1, P * Q // pool**2], np.intp),
            offset_sums(np.arange(Cg) * channel, taps),
            np.arange(Cg * R * S, dtype=np.intp),
        )

    return _plan(
        (N, groups, K // groups, Cg), (H, W, top, left, sh, sw), (P, Q), [Q], rows_axis, columns_axis, [product],
        (Cg * R * S, K // groups * Cg * R * S), True, MR, VL, pool,
    )  # fmt: skip


@planned
def grad_input(dy_shape, weight_shape, out_shape, stride, padding, dilation, groups, MR, VL, num_threads):
    """Plan of ``conv2d_grad_input``: a product for each remainder of the pixel's position that meets a tap.

    The number of threads decides how many tasks there are, and no digit.
    """
    (N, K, P, Q), (_, Cg, R, S), (_, C, H, W) = dy_shape, weight_shape, out_shape
    (sh, sw), Kg = stride, K // groups
    row_taps, column_taps = (
        remainder_taps(H, sh, padding[0], R, dilation[0]),
        remainder_taps(W, sw, padding[2], S, dilation[1]),
    )
    low_h, low_w = (
        min((offset for found in taps for _, offset in found), default=0) for taps in (row_taps, column_taps)
    )
    Pa, Qb = -(-H // sh), -(-W // sw)
    rows_axis = _axis(P, Pa, 1, -low_h, [offset - low_h for found in row_taps for _, offset in found])
    columns_axis = _axis(Q, Qb, 1, -low_w, [offset - low_w for found in column_taps for _, offset in found])
    products = []
    for a, rows in enumerate(row_taps):
        for b, columns in enumerate(column_taps):
            if not rows or not columns:
                continue

            def product(channel, plane, width, a=a, b=b, rows=rows, columns=columns):
                return Product(
                    np.array([-(-(H - a) // sh), -(-(W - b) // sw), a * W + b, C * H * W, sh * W, sw, H * W], np.intp),
                    offset_sums(
                        np.arange(Kg) * channel,
                        [(offset - low_h) * width for _, offset in rows],
                        [offset - low_w for _, offset in columns],
                    ),
                    offset_sums(np.arange(Kg) * Cg * R * S, [r * S for r, _ in rows], [s for s, _ in columns]),
                )

            products.append(product)
    rows_per_block = blocking.rows_per_block
    if 4 * Kg * Cg * R * S > blocking.BYTES_OF_LARGE_FILTERS:
        rows_per_block = partial(blocking.rows_beside_filters, num_threads=num_threads)
    return _plan(
        (N, groups, Cg, Kg), (P, Q, -low_h, -low_w, 1, 1), (Pa, Qb),
        [-(-(W - b) // sw) for b, columns in enumerate(column_taps) if columns], rows_axis, columns_axis, products,
        (R * S, Kg * Cg * R * S), all(row_taps) and all(column_taps), MR, VL,
        rows_per_block=rows_per_block,
    )  # fmt: skip


def refuses(*, out, stride, dilation, x=None, weight=None, dy=None, groups=1, max_pool=1, **_):
    """Decline layers on which the general kernel is faster; the limits are `blocking`'s."""
    if sparse := general_refuses(
        out=out, stride=stride, dilation=dilation, x=x, weight=weight, dy=dy, max_pool=max_pool
    ):
        return sparse
    if weight is None:  # the weight gradient: M x L dot products over the pixels
        M, (_, Cg, R, S) = dy.shape[1] // groups, out.shape
        nbytes, fewest_sums = x.nbytes + dy.nbytes, channels_last.FEWEST_SUMS_BESIDE_COPY
        return channels_last.pays(M, Cg, (R, S), dilation[1], out.itemsize, nbytes, fewest_sums) or (
            blocking.declines_weight_gradient(M, Cg * R * S, R * S, dy.size // dy.shape[1], groups)
        )
    K, Cg, R, S = weight.shape
    if x is None:  # taps share a remainder if they are so far apart
        sh, sw = (step // gcd(step, apart) for step, apart in zip(stride, dilation, strict=True))
        M, longest, products = Cg, K // groups * -(-R // sh) * -(-S // sw), min(R, sh) * min(S, sw)
    else:
        M, longest, products = K // groups, Cg * R * S, 1
    strided = x is not None and stride != (1, 1)
    return blocking.declines_product(M, longest, R * S, products, groups, strided, out.itemsize)
