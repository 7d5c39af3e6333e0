"""Convolution in naive NumPy: the oracle and the baseline. Contract in the family's ``__init__``.

One pass per filter tap (r, s): the tap meets the input in a shifted, strided rectangle, and contributes one small
einsum over channels. Only the part of the rectangle inside the image takes part, so padding adds nothing.
"""

import numpy as np

from fastcnn_kernels.conv2d.geometry import before_pooling


def tap_slices(size, out_size, stride, before, offset):
    """Output range and input slice along one axis for the tap at `offset` (= r * dilation).

    Returns
    -------
    out, inside : slice
        ``out`` selects the outputs whose tap is inside the image, ``inside`` the pixels these taps read.
    """
    first = max(0, -((offset - before) // stride))
    last = min(out_size - 1, (size - 1 + before - offset) // stride)
    if last < first:
        return slice(0, 0), slice(0, 0)
    start = first * stride - before + offset
    return slice(first, last + 1), slice(start, start + (last - first) * stride + 1, stride)


def taps(image, output, filter_size, stride, padding, dilation):
    """Yield ``(r, s, rows_out, cols_out, rows_in, cols_in)`` for every filter tap."""
    top, _, left, _ = padding
    for r in range(filter_size[0]):
        rows_out, rows_in = tap_slices(image[0], output[0], stride[0], top, r * dilation[0])
        for s in range(filter_size[1]):
            cols_out, cols_in = tap_slices(image[1], output[1], stride[1], left, s * dilation[1])
            yield r, s, rows_out, cols_out, rows_in, cols_in


def group_slices(groups, *sizes):
    """Yield, for each group, one channel slice per entry of `sizes` (channels in total)."""
    for g in range(groups):
        yield tuple(slice(g * (size // groups), (g + 1) * (size // groups)) for size in sizes)


def conv2d(*, x, weight, bias, out, stride, padding, dilation, groups, activation, max_pool, packed, num_threads):
    """Forward convolution."""
    y = out if max_pool == 1 else np.empty(before_pooling(out.shape, max_pool), out.dtype)
    y[...] = 0 if bias is None else bias[:, None, None]
    for r, s, po, qo, hi, wi in taps(x.shape[2:], y.shape[2:], weight.shape[2:], stride, padding, dilation):
        for k, c in group_slices(groups, y.shape[1], x.shape[1]):
            y[:, k, po, qo] += np.einsum("nchw,kc->nkhw", x[:, c, hi, wi], weight[k, :, r, s])
    if activation is not None:
        np.clip(y, 0, None if activation == "relu" else 6, out=y)
    if max_pool > 1:
        N, K, P, Q = out.shape
        y.reshape(N, K, P, max_pool, Q, max_pool).max(axis=(3, 5), out=out)


def conv2d_grad_input(*, dy, weight, out, stride, padding, dilation, groups, num_threads):
    """Gradient of the input."""
    out[...] = 0
    for r, s, po, qo, hi, wi in taps(out.shape[2:], dy.shape[2:], weight.shape[2:], stride, padding, dilation):
        for k, c in group_slices(groups, dy.shape[1], out.shape[1]):
            out[:, c, hi, wi] += np.einsum("nkpq,kc->ncpq", dy[:, k, po, qo], weight[k, :, r, s])


def conv2d_grad_weight(*, dy, x, out, stride, padding, dilation, groups, num_threads):
    """Gradient of the weights."""
    for r, s, po, qo, hi, wi in taps(x.shape[2:], dy.shape[2:], out.shape[2:], stride, padding, dilation):
        for k, c in group_slices(groups, dy.shape[1], x.shape[1]):
            out[k, :, r, s] = np.einsum("nkpq,ncpq->kc", dy[:, k, po, qo], x[:, c, hi, wi])


def conv2d_grad_bias(*, dy, out, num_threads):
    """Gradient of the bias."""
    np.sum(dy, axis=(0, 2, 3), out=out)
