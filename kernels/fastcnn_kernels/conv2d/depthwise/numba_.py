"""Depthwise convolution in Numba. Contract in ``conv2d``; tables in ``geometry``; tiles of rows in ``numba_rows``.

The twin of ``cython_.pyx``: the same functions in the same order; the algorithms are described there. An array and a
start index stand for a C pointer.
"""

import numpy as np

from fastcnn_kernels.conv2d.depthwise import geometry
from fastcnn_kernels.conv2d.depthwise.numba_rows import (
    ROWS,
    SCATTER_ROWS,
    dot_planes,
    dot_whole,
    gather_rows,
    gather_small,
    scatter_rows,
)
from fastcnn_kernels.conv2d.geometry import ACTIVATIONS
from fastcnn_kernels.conv2d.handover import to_numpy_row
from fastcnn_kernels.conv2d.numba_ import add_chunks, any_nonfinite
from fastcnn_kernels.conv2d.numba_epilogue import pool_rows
from fastcnn_kernels.gemm.numba_llvm import (
    VECTOR_BYTES,
    panel_width,
)
from fastcnn_kernels.memory import empty
from fastcnn_kernels.numba_support import compiled, flat, threaded


@compiled
def gather_planes(source, weight, bias, out, table, filters, activation, scratch, worker, workers):
    """Do this worker's share of the tasks (plane, block of rows); the scratch holds sums that wait to be pooled.

    `bias` holds one zero if there is none.
    """
    planes, multiplier, H, W, P, Q, top, left = (
        table[0], table[1], table[2], table[3], table[4], table[5], table[6], table[7],
    )  # fmt: skip
    size, stride, pool, PB, blocks = table[8], table[9], table[10], table[11], table[12]
    VL = panel_width(out) // 2
    sums = worker * ROWS * 2 * VL
    start = planes * blocks * worker // workers
    plane, block = start // blocks, start % blocks
    k, most, image = plane % filters, ROWS if pool == 1 else ROWS // 2 * 2, plane // multiplier * H * W
    for _ in range(start, planes * blocks * (worker + 1) // workers):
        p = block * PB
        end = min(P, p + PB)
        while p < end:
            rows = min(most, end - p)
            q = 0
            while q < Q:
                columns = min(2 * VL, Q - q)
                vectors, place = 1 if columns <= VL else 2, (plane * P + p) * Q + q
                if pool == 1:  # a name for either array would count references to it in every turn
                    gather_rows(
                        size, stride, vectors, source, image, H, W, p * stride - top, q * stride - left, weight,
                        k * size * size, bias, k if bias.size > 1 else 0, out, place, Q, rows, columns, activation,
                    )  # fmt: skip
                else:
                    gather_rows(
                        size, stride, vectors, source, image, H, W, p * stride - top, q * stride - left, weight,
                        k * size * size, bias, k if bias.size > 1 else 0, scratch, sums, 2 * VL, rows, columns,
                        activation,
                    )  # fmt: skip
                    for i in range(rows // 2):
                        pooled = (plane * (P // 2) + p // 2 + i) * (Q // 2) + q // 2
                        pool_rows(scratch, sums + 4 * i * VL, sums + (4 * i + 2) * VL, out, pooled, columns // 2)
                q += columns
            p += rows
        block += 1  # the next task, without dividing
        if block == blocks:
            block = 0
            plane += 1
            k = k + 1 if k + 1 < filters else 0
            image = (plane if multiplier == 1 else plane // multiplier) * H * W


@compiled
def gather_small_planes(source, weight, bias, out, table, filters, activation, worker, workers):
    """Do this worker's share of the planes, which are small ones."""
    planes, plane, pixels = table[0], table[2] * table[3], table[4] * table[5]
    first, end = planes * worker // workers, planes * (worker + 1) // workers
    if first < end:
        gather_small(
            table[8], table[4], end - first, source, first * plane, table[2], table[3], table[5], table[6], table[7],
            weight, 0, bias, 0, 1 if bias.size > 1 else 0, first % filters, filters, out, first * pixels, activation,
        )  # fmt: skip


@threaded
def scatter_planes(dy, weight, out, table, filters, worker, workers):
    """Do this worker's share of the tasks (plane, block of rows of dx) with stride 2."""
    planes, P, Q, H, W, top, left = table[0], table[2], table[3], table[4], table[5], table[6], table[7]
    size, HB, blocks, VL = table[8], table[11], table[12], panel_width(out) // 2
    start = planes * blocks * worker // workers
    plane, block = start // blocks, start % blocks
    k = plane % filters
    for _ in range(start, planes * blocks * (worker + 1) // workers):
        first = block * HB
        end, u = min(H, first + HB), (first + top) // 2
        while 2 * u - top < end:
            h, w = 2 * u - top, 0
            while w < W:
                scatter_rows(
                    size, dy, plane * P * Q, P, Q, u, w // 2, left, weight, k * size * size, out,
                    (plane * H + h) * W + w, W, h, first, end, W - w,
                )  # fmt: skip
                w += 2 * VL
            u += SCATTER_ROWS // 2
        block += 1
        if block == blocks:
            block = 0
            plane += 1
            k = k + 1 if k + 1 < filters else 0


@threaded
def gather(source, weight, bias, out, table, filters, activation, scratch, worker, workers):
    """Do this worker's share of a plan of the forward kind."""
    if table[13]:
        gather_small_planes(source, weight, bias, out, table, filters, activation, worker, workers)
    else:
        gather_planes(source, weight, bias, out, table, filters, activation, scratch, worker, workers)


def run_gather(plan, source, weight, bias, out, activation, num_threads):
    """Run a plan of the forward kind, unless a weight is not finite where it pads."""
    table, weight_flat = plan.table, flat(weight)
    if plan.pads and any_nonfinite(weight_flat, num_threads):
        return False
    bias = np.zeros(1, out.dtype) if bias is None else flat(bias)
    scratch_size = num_threads * ROWS * 2 * VECTOR_BYTES // out.itemsize
    scratch = np.empty(scratch_size, out.dtype) if table[10] == 2 else bias
    gather(
        num_threads, flat(source), weight_flat, bias, flat(out), table, weight.shape[0], activation, scratch,
    )  # fmt: skip
    return True


@to_numpy_row
def conv2d(
    *, x, weight, bias, out, stride, padding, dilation, groups, activation, max_pool, packed, num_threads
):  # fmt: skip
    """Forward convolution."""
    plan = geometry.forward(x.shape, weight.shape, out.shape, stride, padding, max_pool)
    return run_gather(plan, x, weight, bias, out, ACTIVATIONS[activation], num_threads)


def run_scatter(table, dy, weight, out, num_threads):
    """Run a table of the input gradient with stride 2, unless a weight is not finite."""
    if any_nonfinite(flat(weight), num_threads):
        return False
    scatter_planes(num_threads, flat(dy), flat(weight), flat(out), table, weight.shape[0])
    return True


@compiled
def reverse(weight, reversed_, filters, taps):
    """Copy filters, each from its last tap to its first one."""
    for k in range(filters):
        for t in range(taps):
            reversed_[k * taps + t] = weight[k * taps + taps - 1 - t]


def run_grad_input(plan, dy, weight, out, num_threads):
    """Run a `geometry.grad_input` with stride 1."""
    taps_reversed = empty(weight.shape, weight.dtype)
    reverse(flat(weight), flat(taps_reversed), weight.shape[0], weight.shape[2] * weight.shape[3])
    return run_gather(plan, dy, taps_reversed, None, out, 0, num_threads)


@to_numpy_row
def conv2d_grad_input(*, dy, weight, out, stride, padding, dilation, groups, num_threads):
    """Gradient of the input."""
    plan = geometry.grad_input(dy.shape, weight.shape, out.shape, stride, padding)
    if stride == (1, 1):
        return run_grad_input(plan, dy, weight, out, num_threads)
    return run_scatter(plan.table, dy, weight, out, num_threads)


@threaded
def dot_channels(dy, x, partial, table, masks, worker, workers):
    """Do this worker's share of the tasks (chunk of images, block of channels of dy): partial[chunk, k]."""
    K, multiplier, H, W, P, Q, top, left = (
        table[0], table[1], table[2], table[3], table[4], table[5], table[6], table[7],
    )  # fmt: skip
    size, stride, images, chunks, KB, NB = table[8], table[9], table[10], table[11], table[12], table[13]
    vectors = table[14]
    C, taps, blocks = K // multiplier, size * size, (K + KB - 1) // KB
    for task in range(chunks * blocks * worker // workers, chunks * blocks * (worker + 1) // workers):
        chunk, first = task // blocks, task % blocks * KB
        last, sums = min(K, first + KB), chunk * K * taps
        for i in range(sums + first * taps, sums + last * taps):
            partial[i] = 0
        n, end = images * chunk // chunks, images * (chunk + 1) // chunks
        while n < end:
            for k in range(first, last):
                if vectors > 0:
                    dot_whole(
                        size, vectors, min(NB, end - n), x, (n * C + k // multiplier) * H * W, C * H * W, W, top, left,
                        dy, (n * K + k) * P * Q, K * P * Q, masks, 0, partial, sums + k * taps,
                    )  # fmt: skip
                    continue
                dot_planes(
                    size, stride, min(NB, end - n), x, (n * C + k // multiplier) * H * W, C * H * W, H, W, top, left,
                    dy, (n * K + k) * P * Q, K * P * Q, P, Q, masks, 0, partial, sums + k * taps,
                )  # fmt: skip
            n += NB


def run_dots(table, masks, dy, x, out, num_threads):
    """Run a plan of the weight gradient; False if a result is not finite, as zeros stand for what lies outside."""
    chunks = int(table[11])
    partial = empty(chunks * out.size, out.dtype) if chunks > 1 else out
    dot_channels(num_threads, dy, x, partial, table, masks)
    if chunks > 1:
        add_chunks(partial, out, chunks)
    return not any_nonfinite(out, num_threads)


@to_numpy_row
def conv2d_grad_weight(*, dy, x, out, stride, padding, dilation, groups, num_threads):
    """Gradient of the weights."""
    table, masks = geometry.grad_weight(dy.shape, x.shape, out.shape, stride, padding, VECTOR_BYTES // out.itemsize)
    return run_dots(table, masks.ravel(), flat(dy), flat(x), flat(out), num_threads)
