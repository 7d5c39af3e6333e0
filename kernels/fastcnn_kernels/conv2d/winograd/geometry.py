"""Sizes and steps of Winograd's convolution, from shapes alone, shared by the twins."""

from typing import NamedTuple

import numpy as np

from fastcnn_kernels.conv2d.winograd import cost
from fastcnn_kernels.memory import planned


class Plan(NamedTuple):
    """One call."""

    table: np.ndarray  # rows: N, P, Q, groups, M, channels; H, W, top, left, tiles per column and per row of a plane;
    #                    weight steps of row, channel and group, 1 if the taps are reversed
    m: int


def _plan(m, N, groups, M, channels, source, result, padding, weight_steps, reversed_taps):
    table = np.zeros((3, 6), np.intp)
    table[0] = N, *result, groups, M, channels
    table[1] = *source, -padding[0], -padding[1], -(-result[0] // m), -(-result[1] // m)
    table[2, :4] = *weight_steps, reversed_taps
    return Plan(table, m)


@planned
def forward(m, x_shape, weight_shape, out_shape, padding, groups):
    """Plan of ``conv2d``, and of ``conv2d_grad_weight``."""
    (N, _, *source), (K, C, _, _), (_, _, *result) = x_shape, weight_shape, out_shape
    M = K // groups
    return _plan(m, N, groups, M, C, source, result, (padding[0], padding[2]), (C * 9, 9, M * C * 9), False)


@planned
def grad_input(m, dy_shape, weight_shape, out_shape, padding, groups):
    """Plan of ``conv2d_grad_input``: the forward product over dy, taps reversed and channels exchanged."""
    (N, K, *source), (_, C, _, _), (_, _, *result) = dy_shape, weight_shape, out_shape
    before = (2 - padding[0], 2 - padding[2])
    return _plan(m, N, groups, C, K // groups, source, result, before, (9, C * 9, K // groups * C * 9), True)


def cannot(*, out, stride, dilation, x=None, weight=None, dy=None, **_):
    """Say why the layer is not one of 3 x 3 taps, each step and distance 1, or ""."""
    taps = (out if weight is None else weight).shape[2:]
    if taps != (3, 3) or stride != (1, 1) or dilation != (1, 1):
        return f"takes 3 x 3 taps, stride 1 and dilation 1, not {taps[0]} x {taps[1]}, {stride} and {dilation}"
    return ""


def _refuses(m, out, x, weight, dy, groups):
    K, C = (out if weight is None else weight).shape[:2]
    result = out if weight is not None else dy
    M, C = (C, K // groups) if x is None else (K // groups, C)
    return cost.declines(m, cost.costs(weight is None, groups, len(result), M, C, result.shape[2:], out.itemsize))


def refuses4(*, out, stride, dilation, x=None, weight=None, dy=None, groups=1, **_):
    """Decline what the kernels cannot do, and layers on which others are faster than tiles of 4 x 4."""
    return cannot(out=out, stride=stride, dilation=dilation, weight=weight) or _refuses(4, out, x, weight, dy, groups)


def refuses2(*, out, stride, dilation, x=None, weight=None, dy=None, groups=1, **_):
    """Decline what the kernels cannot do, and layers on which others are faster than tiles of 2 x 2."""
    return cannot(out=out, stride=stride, dilation=dilation, weight=weight) or _refuses(2, out, x, weight, dy, groups)
