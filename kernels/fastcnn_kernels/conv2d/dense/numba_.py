"""Convolutions that are dense layers, in Numba; the twin of ``cython_.pyx``."""

from fastcnn_kernels.conv2d.dense.blocking import IMAGES_OF_STREAM
from fastcnn_kernels.conv2d.dense.geometry import product_of_weight_gradient, rows
from fastcnn_kernels.conv2d.geometry import ACTIVATIONS
from fastcnn_kernels.conv2d.numba_epilogue import activate
from fastcnn_kernels.gemm.skinny import numba_ as skinny
from fastcnn_kernels.numba_support import flat


def activate_all(out, activation):
    """Clamp all results."""
    if activation > 0:
        activate(flat(out), 0, 1, 0, out.size, activation)


def conv2d(
    *, x, weight, bias, out, stride, padding, dilation, groups, activation, max_pool, packed, num_threads
):  # fmt: skip
    """Forward convolution."""
    skinny.matmul_by(
        "dots", a=rows(x), b=rows(weight), bias=bias, out=rows(out), transpose_a=False, transpose_b=True,
        num_threads=num_threads,
    )  # fmt: skip
    activate_all(out, ACTIVATIONS[activation])


def conv2d_grad_input(*, dy, weight, out, stride, padding, dilation, groups, num_threads):
    """Gradient of the input."""
    a, dx = rows(dy), rows(out)
    b = flat(weight).reshape(1, len(weight), -1)  # a read-only one is copied once
    for first in range(0, len(dy), IMAGES_OF_STREAM):
        last = first + IMAGES_OF_STREAM
        skinny.matmul_by(
            "stream", a=a[:, first:last], b=b, bias=None, out=dx[:, first:last], transpose_a=False, transpose_b=False,
            num_threads=num_threads,
        )  # fmt: skip


def conv2d_grad_weight(*, dy, x, out, stride, padding, dilation, groups, num_threads):
    """Gradient of the weights."""
    a, b, dw = rows(dy), rows(x), rows(out)
    matmul = product_of_weight_gradient("numba", *a.shape[1:], b.shape[2], out.itemsize)
    matmul(a=a, b=b, bias=None, out=dw, transpose_a=True, transpose_b=False, num_threads=num_threads)
