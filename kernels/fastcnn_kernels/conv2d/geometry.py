"""Where everything lies: the address tables behind the convolution kernels, from shapes alone, shared by the twins.

Offsets and steps are in elements. A `Product` is one matrix product over shifted rows (see ``cython_.pyx``); the
forward pass is one, the input gradient one for each remainder of the pixel's position modulo the stride.
"""

from typing import NamedTuple

import numpy as np

from fastcnn_kernels.memory import planned

#: Number of an activation in the kernels.
ACTIVATIONS = {None: 0, "relu": 1, "relu6": 2}
#: A padded copy may hold this many times the elements of image and result, plus a few: real layers stay under 3.
SPARSEST = 16


class Planes(NamedTuple):
    """Padded copy of an image: ``rows`` x ``pitch`` each, columns sorted by remainder modulo ``stride_w``.

    Rows and remainders that no tap meets are left out.
    """

    top: int  # rows of zeros above the image; negative crops
    left: int
    rows: int
    pitch: int  # remainders * width
    width: int  # columns of one remainder
    stride_w: int
    row_step: int  # rows of the image from one row of the copy to the next
    copied: bool  # False: the image serves as it is
    pads: bool  # some zeros of the padding take part in the sums


class Product(NamedTuple):
    """Tables of one matrix product; see ``shifted_gemm`` for their meaning."""

    table: np.ndarray  # rows: shape (N, P, Q, groups, M, L); source steps; weight steps; out steps; padded by 0
    source_offset: np.ndarray  # (L,)
    weight_offset: np.ndarray  # (L,)
    out_start: int


class Plan(NamedTuple):
    """One call: the planes to copy, then the products."""

    planes: Planes
    products: tuple[Product, ...]
    covers_out: bool  # False: some outputs meet no tap and are zero


def _planes(H, W, top, left, rows, columns, stride_w=1, remainders=1, row_step=1):
    """Planes that hold `rows` x `columns` of the image padded by `top` and `left`."""
    width = -(-columns // stride_w)
    copied = top != 0 or left != 0 or stride_w > 1 or row_step > 1 or rows > H or columns != W
    pads = top > 0 or left > 0 or rows > H + top or columns > W + left
    rows = -(-rows // row_step) if copied else H
    return Planes(top, left, rows, remainders * width, width, stride_w, row_step, copied, pads)


def _table(shape, source_steps, weight_steps, out_steps):
    table = np.zeros((4, 6), np.intp)
    for row, values in zip(table, (shape, source_steps, weight_steps, out_steps), strict=True):
        row[: len(values)] = values
    return table


def offset_sums(*axes):
    """Offsets over the outer product of several axes, the last one fastest."""
    total = np.zeros((1,), np.intp)
    for axis in axes:
        total = (total[:, None] + np.asarray(axis, np.intp)[None, :]).ravel()
    return total


def before_pooling(out_shape, max_pool):
    """Shape of the sums of which ``out`` holds the maxima over windows; what no window holds is not computed."""
    return *out_shape[:2], out_shape[2] * max_pool, out_shape[3] * max_pool


def padded_bias(bias, groups, M, mr):
    """Bias with as many rows in each group as the packed weights have: register tiles read whole panels of it."""
    if bias is None or M % mr == 0:
        return bias
    padded = np.zeros((groups, -(-M // mr) * mr), bias.dtype)
    padded[:, :M] = bias.reshape(groups, M)
    return padded.reshape(-1)


@planned
def forward(x_shape, weight_shape, out_shape, stride, padding, dilation, groups, pool=1):
    """Plan of ``conv2d``; with `pool`, rows of sums are counted in pairs."""
    (N, C, H, W), (K, Cg, R, S), (_, _, P, Q) = x_shape, weight_shape, before_pooling(out_shape, pool)
    (sh, sw), (dh, dw), (top, _, left, _) = stride, dilation, padding
    rows, columns = (P - 1) * sh + (R - 1) * dh + 1, (Q - 1) * sw + (S - 1) * dw + 1
    row_step = sh if R == 1 else 1
    planes = _planes(H, W, top, left, rows, columns, sw, sw if S > 1 else 1, row_step)
    plane = planes.rows * planes.pitch
    column_taps = [s * dw % sw * planes.width + s * dw // sw for s in range(S)]
    product = Product(
        _table(
            (N, P // pool, Q, groups, K // groups, Cg * R * S),
            (C * plane, pool * (sh // row_step) * planes.pitch, Cg * plane),
            (Cg * R * S, K // groups * Cg * R * S),
            (K * P * Q // pool**2, Q // pool, 1, P * Q // pool**2),
        ),
        offset_sums(np.arange(Cg) * plane, np.arange(R) * dh * planes.pitch, column_taps),
        np.arange(Cg * R * S, dtype=np.intp),
        0,
    )
    return Plan(planes, (product,), True)


def remainder_taps(size, stride, before, filter_size, dilation):
    """For each remainder a of a pixel's position: its taps, and the row of dy each reads relative to h // stride."""
    taps = []
    for a in range(min(stride, size)):
        offsets = [(r, a + before - r * dilation) for r in range(filter_size)]
        taps.append([(r, offset // stride) for r, offset in offsets if offset % stride == 0])
    return taps


@planned
def grad_input(dy_shape, weight_shape, out_shape, stride, padding, dilation, groups):
    """Plan of ``conv2d_grad_input``: one product for each remainder (a, b) that meets a tap."""
    (N, K, P, Q), (_, Cg, R, S), (_, C, H, W) = dy_shape, weight_shape, out_shape
    (sh, sw), Kg = stride, K // groups
    row_taps = remainder_taps(H, sh, padding[0], R, dilation[0])
    column_taps = remainder_taps(W, sw, padding[2], S, dilation[1])

    def reach(taps, size, stride):
        """Lowest and highest row of dy that any tap reads."""
        ends = [
            (offset, offset + (size - a + stride - 1) // stride - 1)
            for a, found in enumerate(taps)
            for _, offset in found
        ]
        return min((low for low, _ in ends), default=0), max((high for _, high in ends), default=0)

    (low_h, high_h), (low_w, high_w) = reach(row_taps, H, sh), reach(column_taps, W, sw)
    planes = _planes(P, Q, -low_h, -low_w, high_h - low_h + 1, high_w - low_w + 1)
    if not planes.copied:
        low_h = low_w = 0
    plane = planes.rows * planes.pitch
    products = []
    for a, rows in enumerate(row_taps):
        for b, columns in enumerate(column_taps):
            if not rows or not columns:
                continue
            Pa, Qb = -(-(H - a) // sh), -(-(W - b) // sw)
            products.append(
                Product(
                    _table(
                        (N, Pa, Qb, groups, Cg, Kg * len(rows) * len(columns)),
                        (K * plane, planes.pitch, Kg * plane),
                        (R * S, Kg * Cg * R * S),
                        (C * H * W, sh * W, sw, H * W),
                    ),
                    offset_sums(
                        np.arange(Kg) * plane,
                        [(offset - low_h) * planes.pitch for _, offset in rows],
                        [offset - low_w for _, offset in columns],
                    ),
                    offset_sums(np.arange(Kg) * Cg * R * S, [r * S for r, _ in rows], [s for s, _ in columns]),
                    a * W + b,
                )
            )
    covers_out = all(row_taps) and all(column_taps)
    return Plan(planes, tuple(products), covers_out)


def refuses(*, out, stride, dilation, x=None, weight=None, dy=None, max_pool=1, **_):
    """Decline layers whose padded copy would be mostly zeros that no other row stores: huge padding or dilation."""
    (R, S), (sh, sw), (dh, dw) = (out if weight is None else weight).shape[2:], stride, dilation
    if x is None:  # the input gradient pads dy
        (H, W), image = out.shape[2:], dy.shape
        rows, columns = (H - 1 + (R - 1) * dh) // sh + 2, (W - 1 + (S - 1) * dw) // sw + 2
    else:
        (_, _, P, Q), image = before_pooling(out.shape, max_pool) if dy is None else dy.shape, x.shape
        rows, columns = (P - 1) * sh + (R - 1) * dh + 1, (Q - 1) * sw + (S - 1) * dw + 1
    stored = image[2] * image[3] + out.shape[2] * out.shape[3]
    if rows * columns <= SPARSEST * stored + 4096:
        return ""
    return f"the padded copy of the image would be {rows} x {columns}, almost all of it padding"
