"""1x1 convolution in Numba, weights and pixels unpacked. Contract in ``conv2d``; tiles in ``gemm/small/rows.pxd``.

The twin of ``cython_.pyx``: the same functions in the same order; the algorithm is described there. An array and a
start index stand for a C pointer.
"""

import numpy as np

from fastcnn_kernels.conv2d.geometry import ACTIVATIONS
from fastcnn_kernels.conv2d.numba_epilogue import activate
from fastcnn_kernels.gemm.blocking import L_BLOCK, even
from fastcnn_kernels.gemm.numba_copies import put_steps, take_steps, zero_run
from fastcnn_kernels.gemm.numba_llvm import panel_width
from fastcnn_kernels.gemm.numba_micro import OUTER_ROWS
from fastcnn_kernels.gemm.small.numba_rows import multiply_strip, row_of, strip_columns
from fastcnn_kernels.memory import empty
from fastcnn_kernels.numba_support import flat, threaded


@threaded
def take_pixels(image, taken, sizes, worker, workers):
    """Copy this worker's share of the rows of every plane; `sizes` are planes, H, W, P, Q and the strides."""
    H, W, P, Q, rows = sizes[1], sizes[2], sizes[3], sizes[4], sizes[0] * sizes[3]
    for row in range(rows * worker // workers, rows * (worker + 1) // workers):
        take_steps(taken, row * Q, image, (row // P * H + row % P * sizes[5]) * W, sizes[6], Q)


@threaded
def spread_pixels(sums, out, sizes, worker, workers):
    """Store this worker's share of the rows of every plane: sums where `take_pixels` takes them, zeros elsewhere."""
    H, W, P, Q, rows = sizes[1], sizes[2], sizes[3], sizes[4], sizes[0] * sizes[1]
    for row in range(rows * worker // workers, rows * (worker + 1) // workers):
        zero_run(out, row * W, W)
        if row % H % sizes[5] == 0:
            put_steps(out, row * W, sizes[6], sums, (row // H * P + row % H // sizes[5]) * Q, Q)


@threaded
def multiply_share(
    weight, image, bias, has_bias, out, N, groups, M, L, pixels, row_step, a_step, block, activation, worker, workers
):  # fmt: skip
    """Do this worker's share of the tiles of rows: out[n, g] = bias[g] + weight[g] . image[n, g]."""
    tiles = M // OUTER_ROWS
    tasks = N * groups * tiles
    task = (tasks * worker + workers - 1) // workers
    last = (tasks * (worker + 1) + workers - 1) // workers
    while task < last:
        z, tile = task // tiles, task % tiles
        g = z % groups
        end = min(tiles, tile + last - task)
        first = row_of(tile, M)
        stop = row_of(end, M)
        j = 0
        while j < pixels:
            columns = strip_columns(pixels - j, pixels, panel_width(image) // 2)
            j = min(j, pixels - columns)
            multiply_strip(
                weight, g * M * L, row_step, a_step, image, z * L * pixels + j, bias, g * M, has_bias, out,
                z * M * pixels + j, first, stop, columns, pixels, L, block,
            )  # fmt: skip
            activate(out, (z * M + first) * pixels + j, stop - first, pixels, columns, activation)
            j += columns
        task += end - tile


def run_product(weight, image, bias, out, transposed, stride, groups, activation, workers):
    """Multiply on as many threads as there are tiles of rows for."""
    (K, C), (large, small) = weight.shape[:2], (out, image) if transposed else (image, out)
    K //= groups
    (M, L), (row_step, a_step) = ((C, K), (1, C)) if transposed else ((K, C), (C, 1))
    N, pixels = len(out), small.shape[2] * small.shape[3]
    workers = min(workers, N * groups * (M // OUTER_ROWS))
    weight, source, sums = flat(weight), flat(image), out.ravel()
    if stride != (1, 1):
        sizes = np.array((N * groups * C, *large.shape[2:], *small.shape[2:], *stride), np.intp)
        dense = empty(N * groups * C * pixels, out.dtype)
        if transposed:
            sums = dense
        else:
            take_pixels(workers, source, dense, sizes)
            source = dense
    multiply_share(
        workers, weight, source, weight if bias is None else flat(bias), bias is not None, sums, N, groups, M, L,
        pixels, row_step, a_step, even(L, L_BLOCK), activation,
    )  # fmt: skip
    if stride != (1, 1) and transposed:
        spread_pixels(workers, sums, out.ravel(), sizes)


def conv2d(
    *, x, weight, bias, out, stride, padding, dilation, groups, activation, max_pool, packed, num_threads
):  # fmt: skip
    """Forward convolution."""
    run_product(weight, x, bias, out, False, stride, groups, ACTIVATIONS[activation], num_threads)


def conv2d_grad_input(*, dy, weight, out, stride, padding, dilation, groups, num_threads):
    """Gradient of the input."""
    run_product(weight, dy, None, out, True, stride, groups, 0, num_threads)
