"""Shifts and masks of the masked kernels, from shapes alone, shared by the twins.

Pixel (p, q) of a plane of the result is element ``p W + q`` of a run of ``pixels``, W being the width of the image's
rows; the run is cut into vectors. Tap t reads the image at ``offset[t]`` from there:

    masks[vector, t]        lanes in which tap t lies inside the image and the pixel inside the result
    masks[vector, taps]     lanes in which the pixel lies inside the result
"""

from typing import NamedTuple

import numpy as np

from fastcnn_kernels import cpu
from fastcnn_kernels.conv2d.channels_last import blocking as channels_last
from fastcnn_kernels.conv2d.channels_last.geometry import roles
from fastcnn_kernels.conv2d.direct.blocking import ROWS_PER_PANEL
from fastcnn_kernels.conv2d.geometry import before_pooling, offset_sums
from fastcnn_kernels.conv2d.masked import blocking
from fastcnn_kernels.gemm.geometry import DOT_COLUMNS_OF_ONE_ROW, filled_panel_rows
from fastcnn_kernels.memory import planned

#: Bytes of a vector at the one CPU level that has masked loads.
VECTOR_BYTES = 64


class Plan(NamedTuple):
    """One call."""

    table: np.ndarray  # rows: N, P, Q, groups, M, L; image, group and channel step of the source, taps, W, vectors;
    #                    weight steps of m and group; image and m step of the result, 1 if its rows are W long, 2 if
    #                    windows of 2 x 2 are pooled, 1 if each tap of each pixel lies inside the image and rows
    #                    of both are equally long, rows of a panel of weights
    offset: np.ndarray  # (taps,)
    masks: np.ndarray  # (vectors, taps + 1) uint16; for the weight gradient as `grad_weight` has them
    weight_offset: np.ndarray  # (L,) of row l = (channel, tap) in one filter
    column_offset: np.ndarray  # (L,) of column l = (channel, tap) of the weight gradient in the source
    pads: bool  # some tap of some pixel lies outside the image


def _axis_inside(size, count, shifts):
    """Whether position i + shift lies in an axis of `size`, (count, shifts)."""
    position = np.arange(count)[:, None] + np.asarray(shifts)[None, :]
    return (position >= 0) & (position < size)


def row_masks(source, output, row_shifts, column_shifts, VL):
    """Lanes of each vector in which each tap lies inside the source, as bits; the last column is the output's own."""
    (H, W), (P, Q) = source, output
    inside = np.zeros((P, W, len(row_shifts) * len(column_shifts) + 1), bool)
    rows, columns = _axis_inside(H, P, row_shifts), _axis_inside(W, Q, column_shifts)
    inside[:, :Q, :-1] = (rows[:, None, :, None] & columns[None, :, None, :]).reshape(P, Q, -1)
    inside[:, :Q, -1] = True
    vectors = -(-((P - 1) * W + Q) // VL)
    lanes = np.zeros((vectors * VL, inside.shape[-1]), bool)
    pixels = min(P * W, len(lanes))
    lanes[:pixels] = inside.reshape(P * W, -1)[:pixels]
    bits = lanes.reshape(-1, VL, lanes.shape[-1]) * (1 << np.arange(VL))[None, :, None]
    return bits.sum(1).astype(np.uint16), vectors, not inside[:, :Q].all()


def _plan(
    N, groups, M, channels, source, output, row_shifts, column_shifts, weight_steps, weight_offset, MR, VL, pool=1
):  # fmt: skip
    (H, W), (P, Q), taps = source, output, len(row_shifts) * len(column_shifts)
    masks, vectors, pads = row_masks(source, output, row_shifts, column_shifts, VL)
    table = np.zeros((4, 6), np.intp)
    table[0] = N, P, Q, groups, M, channels * taps
    table[1] = groups * channels * H * W, channels * H * W, H * W, taps, W, vectors
    table[2, :2] = weight_steps
    plane = P * Q // pool**2
    mr = filled_panel_rows(M, MR, ROWS_PER_PANEL)
    table[3] = groups * M * plane, plane, Q == W and pool == 1, pool, not pads and Q == W, mr
    offset = offset_sums([shift * W for shift in row_shifts], column_shifts)
    return Plan(
        table, offset, masks, weight_offset, offset_sums(np.arange(channels) * H * W, offset), pads
    )  # fmt: skip


@planned
def forward(x_shape, weight_shape, out_shape, padding, dilation, groups, MR, VL, pool=1):
    """Plan of ``conv2d``; MR are rows of the largest tile, VL lanes of a vector."""
    (N, _, H, W), (K, Cg, R, S), (_, _, P, Q) = x_shape, weight_shape, before_pooling(out_shape, pool)
    (dh, dw), (top, _, left, _) = dilation, padding
    return _plan(
        N, groups, K // groups, Cg, (H, W), (P, Q), [r * dh - top for r in range(R)], [s * dw - left for s in range(S)],
        (Cg * R * S, K // groups * Cg * R * S), np.arange(Cg * R * S, dtype=np.intp), MR, VL, pool,
    )  # fmt: skip


@planned
def grad_input(dy_shape, weight_shape, out_shape, padding, dilation, groups, MR, VL):
    """Plan of ``conv2d_grad_input``: the forward product with taps reversed and channels exchanged."""
    (N, K, P, Q), (_, Cg, R, S), (H, W) = dy_shape, weight_shape, out_shape[2:]
    (dh, dw), (top, _, left, _), Kg = dilation, padding, K // groups
    return _plan(
        N, groups, Cg, Kg, (P, Q), (H, W), [top - r * dh for r in range(R)], [left - s * dw for s in range(S)],
        (R * S, Kg * Cg * R * S), offset_sums(np.arange(Kg) * Cg * R * S, np.arange(R * S)), MR, VL,
    )  # fmt: skip


@planned
def grad_weight(x_shape, weight_shape, dy_shape, padding, dilation, groups, MR, VL):
    """Plan of ``conv2d_grad_weight``. A vector's masks are that of dy, then those of the taps and some of them again.

    A tile of columns l = (channel, tap) may begin with any tap: its masks lie side by side.
    """
    plan = forward(x_shape, weight_shape, dy_shape, padding, dilation, groups, MR, VL)
    taps = plan.masks.shape[1] - 1
    order = [taps, *(tap % taps for tap in range(taps + DOT_COLUMNS_OF_ONE_ROW - 1))]
    return plan._replace(masks=np.ascontiguousarray(plan.masks[:, order]))


def cannot(*, out, stride, x=None, weight=None, dy=None, max_pool=1, **_):
    """Say why the planes of a layer are not one run each, or ""."""
    if stride != (1, 1):
        return f"stride {stride}: taps of neighbouring pixels are not neighbours"
    source, result = (dy, out) if x is None else (x, out if dy is None else dy)
    W, Q = source.shape[3], result.shape[3] * max_pool
    if Q > W or (Q < W and weight is None) or (Q < W and x is None):
        return f"rows of {W} pixels against {Q}: a plane is not one run"
    return ""


def refuses(**call):
    """Decline what the kernels cannot do, and layers on which others are faster (limits in `blocking`)."""
    if reason := cannot(**call):
        return reason
    return declines(**call) if cpu.level() == "x86-64-v4" else f"CPU level {cpu.level()}: no masked loads"


def declines(*, out, stride, padding, dilation, x=None, weight=None, dy=None, groups=1, max_pool=1, **_):
    """Say why others are faster than AVX-512's masked loads on a layer of which the kernels are capable, or ""."""
    image, result = (dy if x is None else x), (out if dy is None or x is None else dy)
    (_, _, P, Q), W = before_pooling(result.shape, max_pool), image.shape[3]
    R, S = (out if weight is None else weight).shape[2:]
    if P * W * R * S > blocking.MASKED_TAPS:
        return f"masks for {P} x {W} pixels and {R} x {S} taps leave the cache"
    VL = VECTOR_BYTES // out.itemsize
    if weight is None:
        M, Cg, pixels = dy.shape[1] // groups, out.shape[1], dy.size // dy.shape[1]
        if roles(out.shape, dy.shape, stride, padding, groups, out.itemsize)[1]:
            M, Cg = Cg, M  # for either kernel the same sums
        return channels_last.pays(M, Cg, (R, S), dilation[1], out.itemsize, x.nbytes + dy.nbytes) or (
            blocking.declines_weight_gradient(M, Cg * R * S, R * S, P * Q, pixels, groups, Q % VL == 0)
        )
    K, Cg = weight.shape[:2]
    M, channels = (K // groups, Cg) if dy is None else (Cg, K // groups)
    lanes = -(-((P - 1) * W + Q) // VL) * VL
    return blocking.declines_product(M, channels, R * S, lanes / (P * Q), image.nbytes + out.nbytes, VL)
