"""Which convolutions are dense layers, and their matrices; shared by the twins."""

from fastcnn_kernels.conv2d.dense.blocking import SHORTEST_SUM
from fastcnn_kernels.gemm.skinny import geometry as skinny
from fastcnn_kernels.gemm.small import geometry as small


def cannot(*, out, padding, dilation, groups, x=None, weight=None, dy=None, max_pool=1, **_):
    """Decline what is no dense layer."""
    image, filters = (out if x is None else x).shape, (out if weight is None else weight).shape
    pixels = (out if dy is None else dy).shape[2:]
    if pixels != (1, 1) or image[2:] != filters[2:] or any(padding) or dilation != (1, 1):
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


def products(dy, x, out):
    """Keywords of the product of the weight gradient, and the families of ``gemm`` that take it, the best one first."""
    call = {"a": rows(dy), "b": rows(x), "bias": None, "out": rows(out), "transpose_a": True, "transpose_b": False}
    return call, [name for name, family in (("small", small), ("skinny", skinny)) if not family.refuses(**call)]
