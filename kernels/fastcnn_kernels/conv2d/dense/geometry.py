"""Which convolutions are dense layers, and their matrices; shared by the twins."""

import numpy as np

from fastcnn_kernels import table
from fastcnn_kernels.conv2d.dense.blocking import SHORTEST_SUM
from fastcnn_kernels.memory import planned


def cannot(*, out, padding, dilation, groups, x=None, weight=None, dy=None, max_pool=1, **_):
    """Decline what is no dense layer."""
    image, filters = (out if x is None else x).shape, (out if weight is None else weight).shape
    pixels = (out if dy is None else dy).shape[2:]
    dilated = any(taps > 1 and step > 1 for taps, step in zip(filters[2:], dilation, strict=True))
    if pixels != (1, 1) or image[2:] != filters[2:] or any(padding) or dilated:
        return "takes filters that cover the image, without padding"
    if groups > 1 or max_pool > 1:
        return "takes one group, and does not pool"
    return ""


def refuses(*, out, x=None, weight=None, **call):
    """Decline what is no dense layer, and sums too short for dot products."""
    if reason := cannot(out=out, x=x, weight=weight, **call):
        return reason
    if x is not None and weight is not None and weight[0].size < SHORTEST_SUM:
        return f"sums of {weight[0].size} are too short for dot products"
    return ""


def rows(value):
    """An image or a filter a row, as a batch of one matrix."""
    return value.reshape(1, len(value), -1)


@planned
def product_of_weight_gradient(backend, N, K, L, itemsize):
    """The backend's kernel for dy^T x, of N images, K filters and L taps: the first of the table that takes it."""
    a, b, out = (np.empty((1, *shape), f"f{itemsize}") for shape in ((N, K), (N, L), (K, L)))
    call = {"a": a, "b": b, "bias": None, "out": out, "transpose_a": True, "transpose_b": False}
    rows_of_backend = (row for row in table.kernels_of("matmul") if row.backend == backend)
    return next(row.load for row in rows_of_backend if not row.refuses(**call))
