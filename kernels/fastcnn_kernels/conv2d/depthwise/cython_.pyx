"""Depthwise convolution in Cython. Contract in ``conv2d``; tables in ``geometry``; tiles of rows in ``rows.h``.

Forward, and the input gradient with stride 1, which is the same with reversed taps:

    out[n, k, p, q] = bias[k] + sum_{r, s} weight[k, r, s] x[n, k // multiplier, p stride - top + r, ...]

The input gradient with stride 2 puts a row of dx together from the taps that meet it: of even and of odd columns. The
weight gradient of a channel is one sum per tap over the pixels of all images, or of a chunk of them.
"""

import numpy as np

from cython.parallel cimport prange
from libc.stdint cimport uint16_t

from fastcnn_kernels.address cimport address
from fastcnn_kernels.conv2d.depthwise.rows cimport (
    HAS_ROWS, ROWS, SCATTER_ROWS, dot_planes, dot_whole, gather_rows, gather_small, scatter_rows
)
from fastcnn_kernels.conv2d.epilogue cimport pool_rows
from fastcnn_kernels.gemm.micro cimport VECTOR_BYTES, add_chunks, has_nonfinite, panel_width, real, zero_run

from fastcnn_kernels.conv2d.depthwise import geometry
from fastcnn_kernels.conv2d.geometry import ACTIVATIONS
from fastcnn_kernels.conv2d.handover import to_numpy_row
from fastcnn_kernels.memory import empty


cdef void gather_planes(
    const real* source, const real* weight, const real* bias, real* out, const Py_ssize_t* table, Py_ssize_t filters,
    int activation, real* sums, Py_ssize_t worker, Py_ssize_t workers,
) noexcept nogil:
    """Do this worker's share of the tasks (plane, block of rows); `sums` wait to be pooled."""
    cdef Py_ssize_t planes = table[0], multiplier = table[1], H = table[2], W = table[3], P = table[4], Q = table[5]
    cdef Py_ssize_t top = table[6], left = table[7], PB = table[11], blocks = table[12], VL = panel_width(out) // 2
    cdef int size = <int>table[8], stride = <int>table[9], pool = <int>table[10]
    cdef Py_ssize_t first = planes * blocks * worker // workers, plane = first // blocks, block = first % blocks
    cdef Py_ssize_t k = plane % filters, most = ROWS if pool == 1 else ROWS // 2 * 2, p, q, end, rows, columns, i, _
    cdef const real* image = source + plane // multiplier * H * W
    cdef real* target
    for _ in range(first, planes * blocks * (worker + 1) // workers):
        p = block * PB
        end = min(P, p + PB)
        while p < end:
            rows = min(most, end - p)
            q = 0
            while q < Q:
                columns = min(2 * VL, Q - q)
                target = sums if pool == 2 else out + (plane * P + p) * Q + q
                gather_rows(
                    size, stride, 1 if columns <= VL else 2, image, H, W, p * stride - top, q * stride - left,
                    weight + k * size * size, bias[k] if bias != NULL else 0, target, 2 * VL if pool == 2 else Q, rows,
                    columns, activation,
                )
                if pool == 2:
                    for i in range(rows // 2):
                        pool_rows(
                            sums + 4 * i * VL, sums + (4 * i + 2) * VL,
                            out + (plane * (P // 2) + p // 2 + i) * (Q // 2) + q // 2, columns // 2,
                        )
                q += columns
            p += rows
        block += 1  # the next task, without dividing
        if block == blocks:
            block = 0
            plane += 1
            k = k + 1 if k + 1 < filters else 0
            image = source + (plane if multiplier == 1 else plane // multiplier) * H * W


cdef void gather_small_planes(
    const real* source, const real* weight, const real* bias, real* out, const Py_ssize_t* table, Py_ssize_t filters,
    int activation, Py_ssize_t worker, Py_ssize_t workers,
) noexcept nogil:
    """Do this worker's share of the planes, which are small ones."""
    cdef Py_ssize_t planes = table[0], first = planes * worker // workers, end = planes * (worker + 1) // workers
    gather_small(
        <int>table[8], <int>table[4], end - first, source + first * table[2] * table[3], table[2], table[3], table[5],
        table[6], table[7], weight, bias, first % filters, filters, out + first * table[4] * table[5], activation,
    )


cdef void scatter_planes(
    const real* dy, const real* weight, real* out, const Py_ssize_t* table, Py_ssize_t filters, Py_ssize_t worker,
    Py_ssize_t workers,
) noexcept nogil:
    """Do this worker's share of the tasks (plane, block of rows of dx) with stride 2."""
    cdef Py_ssize_t planes = table[0], P = table[2], Q = table[3], H = table[4], W = table[5], top = table[6]
    cdef Py_ssize_t left = table[7], HB = table[11], blocks = table[12], VL = panel_width(out) // 2
    cdef int size = <int>table[8]
    cdef Py_ssize_t start = planes * blocks * worker // workers, plane = start // blocks, block = start % blocks
    cdef Py_ssize_t k = plane % filters, first, end, u, w, h, _
    for _ in range(start, planes * blocks * (worker + 1) // workers):
        first = block * HB
        end = min(H, first + HB)
        u = (first + top) // 2
        while 2 * u - top < end:
            h = 2 * u - top
            w = 0
            while w < W:
                scatter_rows(
                    size, dy + plane * P * Q, P, Q, u, w // 2, left, weight + k * size * size,
                    out + (plane * H + h) * W + w, W, h, first, end, W - w,
                )
                w += 2 * VL
            u += SCATTER_ROWS // 2
        block += 1
        if block == blocks:
            block = 0
            plane += 1
            k = k + 1 if k + 1 < filters else 0


cdef void gather(
    const real* source, const real* weight, const real* bias, real* out, const Py_ssize_t* table, Py_ssize_t filters,
    int activation, real* sums, Py_ssize_t worker, Py_ssize_t workers,
) noexcept nogil:
    """Do this worker's share of a plan of the forward kind."""
    if table[13]:
        gather_small_planes(source, weight, bias, out, table, filters, activation, worker, workers)
    else:
        gather_planes(
            source, weight, bias, out, table, filters, activation, sums + worker * ROWS * panel_width(out), worker,
            workers,
        )


cdef bint run_gather(plan, source, weight, bias, out, real* out_start, int activation, int num_threads) except -1:
    """Run a plan of the forward kind, unless a weight is not finite where it pads."""
    cdef const Py_ssize_t* table = <const Py_ssize_t*>address(plan.table)
    cdef const real* source_start = <const real*>address(source)
    cdef const real* weight_start = <const real*>address(weight)
    cdef const real* bias_start = <const real*>address(bias)
    cdef Py_ssize_t filters = weight.shape[0], taps = weight.size, worker
    if not HAS_ROWS or plan.pads and has_nonfinite(weight_start, taps):
        return False
    scratch = np.empty(num_threads * ROWS * panel_width(out_start), out.dtype) if table[10] == 2 else out
    cdef real* sums = <real*>address(scratch)
    if num_threads == 1:  # a parallel region of one thread takes a microsecond
        with nogil:
            gather(
                source_start, weight_start, bias_start, out_start, table, filters, activation, sums, 0, 1
            )
        return True
    for worker in prange(num_threads, nogil=True, num_threads=num_threads, schedule="static", chunksize=1):
        gather(
            source_start, weight_start, bias_start, out_start, table, filters, activation, sums, worker,
            num_threads,
        )
    return True


@to_numpy_row
def conv2d(
    *, x, weight, bias, out, stride, padding, dilation, groups, activation, max_pool, packed, int num_threads
):
    """Forward convolution."""
    cdef int clamp = ACTIVATIONS[activation]
    plan = geometry.forward(x.shape, weight.shape, out.shape, stride, padding, max_pool)
    if out.itemsize == 4:
        return run_gather(plan, x, weight, bias, out, <float*>address(out), clamp, num_threads)
    return run_gather(plan, x, weight, bias, out, <double*>address(out), clamp, num_threads)


cdef bint run_scatter(table_, dy, weight, out, real* out_start, int num_threads) except -1:
    """Run a table of the input gradient with stride 2, unless a weight is not finite."""
    cdef const Py_ssize_t* table = <const Py_ssize_t*>address(table_)
    cdef const real* dy_start = <const real*>address(dy)
    cdef const real* weight_start = <const real*>address(weight)
    cdef Py_ssize_t filters = weight.shape[0], taps = weight.size, worker
    if not HAS_ROWS or has_nonfinite(weight_start, taps):
        return False
    if num_threads == 1:
        with nogil:
            scatter_planes(dy_start, weight_start, out_start, table, filters, 0, 1)
        return True
    for worker in prange(num_threads, nogil=True, num_threads=num_threads, schedule="static", chunksize=1):
        scatter_planes(dy_start, weight_start, out_start, table, filters, worker, num_threads)
    return True


cdef void reverse(const real* weight, real* reversed_, Py_ssize_t filters, Py_ssize_t taps) noexcept nogil:
    """Copy filters, each from its last tap to its first one."""
    cdef Py_ssize_t k, t
    for k in range(filters):
        for t in range(taps):
            reversed_[k * taps + t] = weight[k * taps + taps - 1 - t]


cdef bint run_grad_input(plan, dy, weight, out, real* out_start, int num_threads) except -1:
    """Run a `geometry.grad_input` with stride 1."""
    cdef Py_ssize_t filters = weight.shape[0], taps = weight.shape[2] * weight.shape[3]
    taps_reversed = empty(weight.shape, weight.dtype)
    reverse(<const real*>address(weight), <real*>address(taps_reversed), filters, taps)
    return run_gather(plan, dy, taps_reversed, None, out, out_start, 0, num_threads)


@to_numpy_row
def conv2d_grad_input(*, dy, weight, out, stride, padding, dilation, groups, int num_threads):
    """Gradient of the input."""
    plan = geometry.grad_input(dy.shape, weight.shape, out.shape, stride, padding)
    if stride == (1, 1):
        if out.itemsize == 4:
            return run_grad_input(plan, dy, weight, out, <float*>address(out), num_threads)
        return run_grad_input(plan, dy, weight, out, <double*>address(out), num_threads)
    if out.itemsize == 4:
        return run_scatter(plan.table, dy, weight, out, <float*>address(out), num_threads)
    return run_scatter(plan.table, dy, weight, out, <double*>address(out), num_threads)


cdef void dot_channels(
    const real* dy, const real* x, real* partial, const Py_ssize_t* table, const uint16_t* masks, Py_ssize_t worker,
    Py_ssize_t workers,
) noexcept nogil:
    """Do this worker's share of the tasks (chunk of images, block of channels of dy): partial[chunk, k]."""
    cdef Py_ssize_t K = table[0], multiplier = table[1], H = table[2], W = table[3], P = table[4], Q = table[5]
    cdef Py_ssize_t images = table[10], chunks = table[11], KB = table[12], NB = table[13], vectors = table[14]
    cdef Py_ssize_t C = K // multiplier, taps = table[8] * table[8], blocks = (K + KB - 1) // KB, task, chunk
    cdef Py_ssize_t first, last, n, end, k
    cdef int size = <int>table[8], stride = <int>table[9]
    cdef real* sums
    for task in range(chunks * blocks * worker // workers, chunks * blocks * (worker + 1) // workers):
        chunk = task // blocks
        first = task % blocks * KB
        last = min(K, first + KB)
        sums = partial + chunk * K * taps
        zero_run(sums + first * taps, (last - first) * taps)
        n = images * chunk // chunks
        end = images * (chunk + 1) // chunks
        while n < end:
            for k in range(first, last):
                if vectors > 0:
                    dot_whole(
                        size, vectors, min(NB, end - n), x + (n * C + k // multiplier) * H * W, C * H * W, W, table[6],
                        table[7], dy + (n * K + k) * P * Q, K * P * Q, masks, sums + k * taps,
                    )
                    continue
                dot_planes(
                    size, stride, min(NB, end - n), x + (n * C + k // multiplier) * H * W, C * H * W, H, W, table[6],
                    table[7], dy + (n * K + k) * P * Q, K * P * Q, P, Q, masks, sums + k * taps,
                )
            n += NB


cdef bint run_dots(table_, masks_, dy, x, out, real* out_start, int num_threads) except -1:
    """Run a plan of the weight gradient; False if a result is not finite, as zeros stand for what lies outside."""
    cdef const Py_ssize_t* table = <const Py_ssize_t*>address(table_)
    cdef const real* dy_start = <const real*>address(dy)
    cdef const real* x_start = <const real*>address(x)
    cdef const uint16_t* masks = <const uint16_t*>address(masks_)
    cdef Py_ssize_t chunks = table[11], size = out.size, worker
    if not HAS_ROWS:
        return False
    workspace = empty(chunks * size, out.dtype) if chunks > 1 else out
    cdef real* partial = <real*>address(workspace)
    if num_threads == 1:
        with nogil:
            dot_channels(dy_start, x_start, partial, table, masks, 0, 1)
    else:
        for worker in prange(num_threads, nogil=True, num_threads=num_threads, schedule="static", chunksize=1):
            dot_channels(dy_start, x_start, partial, table, masks, worker, num_threads)
    if chunks > 1:
        add_chunks(partial, out_start, size, chunks)
    return not has_nonfinite(out_start, size)


@to_numpy_row
def conv2d_grad_weight(*, dy, x, out, stride, padding, dilation, groups, int num_threads):
    """Gradient of the weights."""
    table, masks = geometry.grad_weight(dy.shape, x.shape, out.shape, stride, padding, VECTOR_BYTES // out.itemsize)
    if out.itemsize == 4:
        return run_dots(table, masks, dy, x, out, <float*>address(out), num_threads)
    return run_dots(table, masks, dy, x, out, <double*>address(out), num_threads)
