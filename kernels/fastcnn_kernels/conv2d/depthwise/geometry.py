"""Sizes of a depthwise convolution, and which layers the kernels take."""

from typing import NamedTuple

import numpy as np

from fastcnn_kernels import cpu
from fastcnn_kernels.conv2d.depthwise import blocking
from fastcnn_kernels.conv2d.geometry import before_pooling
from fastcnn_kernels.conv2d.masked.geometry import row_masks
from fastcnn_kernels.memory import planned


class Plan(NamedTuple):
    """One call of the forward kind."""

    table: np.ndarray  # planes, planes for each of the source, H, W, P, Q, top, left, size, stride, pool, rows of a
    #                    task, tasks of a plane, whether planes are small
    pads: bool  # some tap of some pixel lies outside the source


#: Rows and columns of the result that rows.h takes at once.
SMALL = 8


def _plan(planes, multiplier, source, result, top, left, size, stride, pool):
    """Plan of the forward kind."""
    small = multiplier == stride == pool == 1 and max(result) <= SMALL
    rows = blocking.rows_per_task(planes, result[0])
    table = [
        planes, multiplier, *source, *result, top, left, size, stride, pool, rows, -(-result[0] // rows),
        small,
    ]  # fmt: skip
    ends = ((pixels - 1) * stride + size - begin for pixels, begin in zip(result, (top, left), strict=True))
    pads = top > 0 or left > 0 or any(end > pixels for end, pixels in zip(ends, source, strict=True))
    return Plan(np.array(table, np.intp), pads)


@planned
def forward(x_shape, weight_shape, out_shape, stride, padding, pool):
    """Plan of ``conv2d``."""
    (N, C, H, W), (K, _, size, _), (_, _, P, Q) = x_shape, weight_shape, before_pooling(out_shape, pool)
    return _plan(N * K, K // C, (H, W), (P, Q), padding[0], padding[2], size, stride[0], pool)


@planned
def grad_input(dy_shape, weight_shape, out_shape, stride, padding):
    """Plan of ``conv2d_grad_input``: with stride 1 that of the forward pass with the padding of the other side."""
    (N, K, P, Q), size, (H, W) = dy_shape, weight_shape[2], out_shape[2:]
    top, left = (size - 1 - padding[0], size - 1 - padding[2]) if stride == (1, 1) else (padding[0], padding[2])
    return _plan(N * K, 1, (P, Q), (H, W), top, left, size, stride[0], 1)


#: Masks of a vector of dy's pixels, as in rows.h.
DOT_MASKS = 7
#: Vectors of a plane whose weight gradient is taken as a whole, a tap being a shift of it.
WHOLE_VECTORS = 4


def _whole_masks(source, result, top, left, size, stride, VL):
    """Masks of a plane of few vectors, none if it is not one."""
    if stride > 1 or source[1] != result[1] or result[0] * result[1] > WHOLE_VECTORS * VL:
        return np.zeros((0, 1), np.uint16)
    return row_masks(source, result, np.arange(size) - top, np.arange(size) - left, VL)[0]


@planned
def grad_weight(dy_shape, x_shape, out_shape, stride, padding, VL):
    """Table and masks of ``conv2d_grad_weight``: that of the forward pass of one image; images, blocks, vectors."""
    (N, K, P, Q), (_, C, H, W), size = dy_shape, x_shape, out_shape[2]
    table = [K, K // C, H, W, P, Q, padding[0], padding[2], size, stride[0], N, *blocking.weight_blocks(N, K, P * Q)]
    masks = _whole_masks((H, W), (P, Q), padding[0], padding[2], size, stride[0], VL)
    if len(masks) == 0:
        starts = [s - s % stride[0] + s % stride[0] * VL for s in range(DOT_MASKS - 1)]
        pixel = np.arange(-(-Q // VL) * VL).reshape(-1, 1, VL)
        column = (pixel - pixel % VL) * stride[0] + pixel % VL + np.array(starts)[:, None] - padding[2]
        inside = np.concatenate([(column >= 0) & (column < W), pixel < Q], axis=1)
        return np.array([*table, 0], np.intp), (inside << np.arange(VL)).sum(2).astype(np.uint16)
    return np.array([*table, len(masks)], np.intp), masks


def cannot(*, out, stride, dilation, x=None, weight=None, dy=None, groups=1, **_):
    """Say why the layer is not one of these, or ""."""
    if cpu.level() != "x86-64-v4":
        return f"CPU level {cpu.level()}: no masked loads"
    K, Cg, R, S = (out if weight is None else weight).shape
    if Cg != 1:
        return f"{Cg} channels a group"
    if groups == 1 and K != 1:
        return f"{K} filters of one channel share its pixels"
    if x is None and K != groups:
        return f"{K // groups} filters a channel"
    if (R, S) not in ((3, 3), (5, 5)) or stride not in ((1, 1), (2, 2)) or dilation != (1, 1):
        return f"takes 3 x 3 or 5 x 5 taps, stride 1 or 2 and dilation 1, not {R} x {S}, {stride} and {dilation}"
    return ""
