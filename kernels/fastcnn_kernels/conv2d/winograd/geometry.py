"""Sizes and steps of Winograd's convolution, from shapes alone, shared by the twins."""

from typing import NamedTuple

import numpy as np

from fastcnn_kernels.conv2d.winograd import blocking
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
