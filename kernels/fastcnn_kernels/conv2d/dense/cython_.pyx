"""Convolutions that are dense layers, in Cython. Contract in the family's ``__init__``, products in ``gemm``."""

from fastcnn_kernels.address cimport address
from fastcnn_kernels.conv2d.epilogue cimport activate

from fastcnn_kernels.conv2d.dense.blocking import IMAGES_OF_STREAM
from fastcnn_kernels.conv2d.dense.geometry import product_of_weight_gradient, rows
from fastcnn_kernels.conv2d.geometry import ACTIVATIONS
from fastcnn_kernels.gemm.skinny import cython_ as skinny


def activate_all(out, int activation):
    """Clamp all results."""
    cdef Py_ssize_t size = out.size
    if out.itemsize == 4:
        activate(<float*>address(out), 1, 0, size, activation)
    else:
        activate(<double*>address(out), 1, 0, size, activation)


def conv2d(
    *, x, weight, bias, out, stride, padding, dilation, groups, activation, max_pool, packed, num_threads
):
    """Forward convolution."""
    skinny.matmul_by(
        "dots", a=rows(x), b=rows(weight), bias=bias, out=rows(out), transpose_a=False, transpose_b=True,
        num_threads=num_threads,
    )
    activate_all(out, ACTIVATIONS[activation])


def conv2d_grad_input(*, dy, weight, out, stride, padding, dilation, groups, num_threads):
    """Gradient of the input."""
    a, b, dx = rows(dy), rows(weight), rows(out)
    for first in range(0, len(dy), IMAGES_OF_STREAM):
        last = first + IMAGES_OF_STREAM
        skinny.matmul_by(
            "stream", a=a[:, first:last], b=b, bias=None, out=dx[:, first:last], transpose_a=False, transpose_b=False,
            num_threads=num_threads,
        )


def conv2d_grad_weight(*, dy, x, out, stride, padding, dilation, groups, num_threads):
    """Gradient of the weights."""
    a, b, dw = rows(dy), rows(x), rows(out)
    matmul = product_of_weight_gradient("cython", *a.shape[1:], b.shape[2], out.itemsize)
    matmul(a=a, b=b, bias=None, out=dw, transpose_a=True, transpose_b=False, num_threads=num_threads)
