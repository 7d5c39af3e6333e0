"""Convolution in Cython: matrix products over shifted rows. Contract in the family's ``__init__``.

Forward and input gradient. The image is copied once into planes with its padding, columns sorted by their remainder
modulo the stride, so that along an output row every tap (r, s) reads a contiguous, shifted run of pixels:

    out[k, pixel] = sum_{c, t} weight[k, (c, t)] planes[ origin[pixel] + c plane + tap[t] ]

A panel packs NR pixels of that matrix, run by run (one run while it is first multiplied), and meets all panels of
weights in the micro-kernel (implicit GEMM, arXiv 1410.0759). The input gradient is the same product over dy, one for
each remainder (a, b) of the pixel's position modulo the stride, because each remainder meets its own subset of the
taps; results go straight to dx.

The zeros of the padding take part in these sums, which is wrong only where they meet Inf or NaN. Then the
NumPy row, which clips every tap to the image, computes the call (``handover``).
"""

import numpy as np

from cython.parallel cimport prange
from libc.string cimport memset

from fastcnn_kernels.address cimport address
from fastcnn_kernels.conv2d.epilogue cimport activate, pool_rows
from fastcnn_kernels.gemm.micro cimport (
    PANELS_AHEAD, has_nonfinite, lane_sum, micro, micro_packing, pack_runs, panel_width, put_steps, real, split_row,
    steps_to, take_steps, zero_run
)
from fastcnn_kernels.gemm.panels cimport even_tile, pack_block, pack_panels, panel_rows, rows_side_by_side

from fastcnn_kernels.conv2d import blocking, geometry
from fastcnn_kernels.conv2d.handover import to_numpy_row
from fastcnn_kernels.prepacked import keep, remembered, room
from fastcnn_kernels.gemm.blocking import packing_threads
from fastcnn_kernels.memory import empty


cdef void pad_planes(
    const real* image, real* planes, Py_ssize_t count, Py_ssize_t H, Py_ssize_t W, Py_ssize_t top, Py_ssize_t left,
    Py_ssize_t rows, Py_ssize_t pitch, Py_ssize_t width, Py_ssize_t stride_w, Py_ssize_t row_step, Py_ssize_t worker,
    Py_ssize_t workers,
) noexcept nogil:
    """Copy every `row_step`-th row of (count, H, W) into (count, rows, pitch), padded by zeros.

    Columns are sorted by remainder modulo `stride_w`, `width` of each. Negative `top` and `left` crop.
    """
    cdef Py_ssize_t plane, i, h, b, first, last, remainders = pitch // width
    cdef bint split = stride_w == 2 and remainders == 2  # both at once
    cdef const real* source
    cdef real* target
    for plane in range(count * worker // workers, count * (worker + 1) // workers):
        for b in range(1 if split else remainders):
            # column j of remainder b is image column j * stride_w + b - left
            first = min(width, steps_to(left - b, stride_w))
            last = min(width, max(first, steps_to(W + left - b, stride_w)))
            for i in range(rows):
                target = planes + (plane * rows + i) * pitch + b * width
                h = i * row_step - top
                if h < 0 or h >= H:
                    zero_run(target, pitch if split else width)
                    continue
                source = image + (plane * H + h) * W - left
                if split:
                    split_row(source, left, left + W, target, target + width, width)
                    continue
                zero_run(target, first)
                take_steps(target + first, source + first * stride_w + b, stride_w, last - first)
                zero_run(target + last, width - last)


cdef Py_ssize_t find_runs(
    Py_ssize_t pixel, Py_ssize_t columns, const Py_ssize_t* grid, const Py_ssize_t* source_steps,
    const Py_ssize_t* out_steps, int pool, Py_ssize_t* run_start, Py_ssize_t* run_offset, Py_ssize_t* run_out,
) noexcept nogil:
    """Split pixels [pixel, pixel + columns) of the (N, P, Q) `grid` into runs contiguous in the planes.

    A run starts at column ``run_start[run]`` of the panel, reads ``run_offset[run]`` and writes ``run_out[run]``;
    ``run_start[run_count]`` closes the list. Steps are those of one image, one row and one column. With `pool` 2 a row
    of the grid is a pair of rows: as many columns of the second one follow, run by run, without another ``run_out``.
    """
    cdef Py_ssize_t P = grid[1], Q = grid[2], column = 0, runs = 0, n, p, q, length, offset, out, run
    while column < columns:
        q = (pixel + column) % Q
        p = (pixel + column) // Q % P
        n = (pixel + column) // (Q * P)
        length = min(Q - q, columns - column)
        offset = n * source_steps[0] + p * source_steps[1] + q
        out = n * out_steps[0] + p * out_steps[1] + q // pool * out_steps[2]
        if (
            runs > 0 and out_steps[2] == 1 and offset - run_offset[runs - 1] == column - run_start[runs - 1]
            and (out - run_out[runs - 1]) * pool == column - run_start[runs - 1]
        ):
            column += length
            continue
        run_start[runs] = column
        run_offset[runs] = offset
        run_out[runs] = out
        runs += 1
        column += length
    if pool == 2:
        for run in range(runs):
            run_start[runs + run] = columns + run_start[run]
            run_offset[runs + run] = run_offset[run] + source_steps[1] // 2
        runs *= 2
    run_start[runs] = columns * pool
    return runs


cdef inline bint is_one_run(Py_ssize_t runs, const Py_ssize_t* run_start, int NR) noexcept nogil:
    """Whether the pixels of a panel lie side by side: then the first product that meets them packs them."""
    return runs == 1 and run_start[1] == NR


cdef inline Py_ssize_t source_of(
    Py_ssize_t pixel, const Py_ssize_t* grid, const Py_ssize_t* source_steps
) noexcept nogil:
    """Offset of a pixel in the planes."""
    cdef Py_ssize_t P = grid[1], Q = grid[2]
    return pixel // (P * Q) * source_steps[0] + pixel // Q % P * source_steps[1] + pixel % Q


cdef void shifted_tile(
    int rows, int columns, Py_ssize_t L, const real* a, int mr, real* packed, const real* source,
    const Py_ssize_t* offset, Py_ssize_t far, const real* bias, real* c, Py_ssize_t ldc, bint accumulate,
) noexcept nogil:
    """One micro-kernel call on a tile of sums, which starts from the bias, from zero or from what it holds.

    The pixels are packed; or, if `source` is not NULL, they are packed here, from ``source + offset[l]``.
    """
    cdef Py_ssize_t i, j
    cdef int NR = panel_width(a)
    if bias != NULL and not accumulate:
        for i in range(rows):
            for j in range(NR):
                c[i * ldc + j] = bias[i]
    if source != NULL:
        micro_packing(rows, L, a, mr, source, offset, far, packed, c, ldc, accumulate or bias != NULL)
    else:
        micro(rows, columns, L, a, mr, packed, NR, c, ldc, accumulate or bias != NULL)


cdef void store_runs(
    real* tile, Py_ssize_t rows, real* out, Py_ssize_t out_row_step, Py_ssize_t column_step, Py_ssize_t run_count,
    const Py_ssize_t* run_start, const Py_ssize_t* run_out, int activation, int pool, real* pooled,
) noexcept nogil:
    """Store a tile run by run, activated, pooled if `pool` is 2; `pooled` is scratch for a row."""
    cdef Py_ssize_t i, run, start, columns = run_start[run_count] // pool
    cdef int NR = panel_width(tile)
    cdef real* row
    for i in range(rows):
        row = tile + i * NR
        if pool == 2:
            pool_rows(row, row + columns, pooled, columns // 2)
            row = pooled
        activate(row, 1, 0, columns // pool, activation)
        for run in range(run_count // pool):
            start = run_start[run]
            put_steps(
                out + i * out_row_step + run_out[run], row + start // pool, column_step,
                (run_start[run + 1] - start) // pool,
            )


cdef void shifted_gemm(
    const real* source, const real* weight, const real* a_packed, const real* bias, real* out, const Py_ssize_t* table,
    const Py_ssize_t* source_offset, const Py_ssize_t* weight_offset, int activation, int pool,
    const Py_ssize_t* blocks, real* scratch, Py_ssize_t scratch_step, Py_ssize_t* runs, Py_ssize_t worker,
    Py_ssize_t workers,
) noexcept nogil:
    """out[n, g, m, p, q] = bias[g, m] + sum_l weight[g, m, l] source[n, g, l, p, q], activated and pooled.

    Rows of table: shape = (N, P, Q, groups, M, L); source_steps = (image, row, group), columns are contiguous;
    weight_steps = (m, group); out_steps = (image, row, column, m); the sum's index l enters through the offset tables.
    A worker has its share of the panels of pixels beside each part of the rows, IB panels: JB of them at a time, of
    which it packs LB rows, a few of them side by side; or, of a panel that is one run, while it multiplies it by the
    first rows. Their sums wait in out where a tile lies as it does there, else in the scratch. Weights that no other
    worker meets are packed here, WB panels at a time; `a_packed` is NULL.
    """
    cdef const Py_ssize_t* shape = table
    cdef const Py_ssize_t* source_steps = table + 6
    cdef const Py_ssize_t* weight_steps = table + 12
    cdef const Py_ssize_t* out_steps = table + 18
    cdef Py_ssize_t groups = shape[3], M = shape[4], L = shape[5], plane = shape[1] * shape[2]
    cdef Py_ssize_t pixels = shape[0] * plane, IB = blocks[0], JB = blocks[1], LB = blocks[2], WB = blocks[3]
    cdef int NR = panel_width(source), mr = panel_rows(M), span = NR // pool, rows
    cdef Py_ssize_t row_panels = (M + mr - 1) // mr, a_size = row_panels * mr * L
    cdef Py_ssize_t pixel_panels = (pixels + span - 1) // span, parts = (row_panels + IB - 1) // IB
    cdef Py_ssize_t task = groups * parts * pixel_panels * worker // workers
    cdef Py_ssize_t last = groups * parts * pixel_panels * (worker + 1) // workers, g, i, panel, row_panel, row_first
    cdef Py_ssize_t row_last, first, panels, pixel, step, l0, count, part, here, far, streams = rows_side_by_side(LB)
    cdef Py_ssize_t* run_start
    cdef Py_ssize_t* counts = runs + worker * JB * (3 * NR + 2)
    cdef real* packed = scratch + worker * scratch_step
    cdef real* weights = packed + JB * NR * LB
    cdef real* pooled = weights + (WB * mr * LB + NR - 1) // NR * NR
    cdef real* sums = pooled + NR
    cdef real* c
    cdef const real* a
    cdef const real* unpacked
    cdef bint in_place
    while task < last:
        g = task // (parts * pixel_panels)
        row_first = task // pixel_panels % parts * IB
        row_last = min(row_panels, row_first + IB)
        first = task % pixel_panels
        panels = even_tile(min(pixel_panels - first, last - task), JB)
        task += panels
        for panel in range(panels):
            run_start = counts + JB + panel * (3 * NR + 1)
            pixel = (first + panel) * span
            counts[panel] = find_runs(
                pixel, min(span, pixels - pixel), shape, source_steps, out_steps, pool, run_start, run_start + NR + 1,
                run_start + 2 * NR + 1,
            )
        for step in range((L + LB - 1) // LB):
            l0 = step * LB
            count = min(LB, L - l0)
            for part in range((count + streams - 1) // streams):
                part = part * streams
                for panel in range(panels):
                    run_start = counts + JB + panel * (3 * NR + 1)
                    if is_one_run(counts[panel], run_start, NR):
                        continue
                    pack_runs(
                        source + g * source_steps[2], packed + (panel * count + part) * NR,
                        min(streams, count - part), source_offset + l0 + part,
                        max(0, min(streams, count - part - streams)), counts[panel], run_start, run_start + NR + 1,
                    )
            for row_panel in range(row_first, row_last):
                i = row_panel * mr
                rows = <int>min(mr, M - i)
                if a_packed != NULL:
                    a = a_packed + g * a_size + i * L + l0 * mr
                else:
                    here = (row_panel - row_first) % WB
                    if here == 0:
                        pack_block(
                            weight + g * weight_steps[1], weights, M, mr, row_panel, min(row_last, row_panel + WB),
                            count, weight_steps[0], weight_offset + l0,
                        )
                    a = weights + here * mr * count
                for panel in range(panels):
                    run_start = counts + JB + panel * (3 * NR + 1)
                    pixel = (first + panel) * span
                    in_place = (
                        out_steps[2] == 1 and out_steps[1] == shape[2] and pixel + NR <= pixels
                        and pixel // plane == (pixel + NR - 1) // plane and pool == 1
                    )
                    c = sums + ((row_panel - row_first) * panels + panel if LB < L else 0) * mr * NR
                    if in_place:
                        c = out + (g * M + i) * out_steps[3] + run_start[2 * NR + 1]
                    unpacked = NULL
                    far = 0
                    if row_panel == row_first and is_one_run(counts[panel], run_start, NR):
                        unpacked = source + g * source_steps[2] + run_start[NR + 1]
                        far = source_of(pixel + PANELS_AHEAD * NR, shape, source_steps) - run_start[NR + 1]
                    shifted_tile(
                        rows, <int>(pool * min(span, pixels - pixel)), count, a, mr, packed + panel * NR * count,
                        unpacked, source_offset + l0, far, bias + g * M + i if bias != NULL else NULL, c,
                        out_steps[3] if in_place else NR, l0 > 0,
                    )
                    if l0 + count < L:
                        continue
                    if in_place:
                        activate(c, rows, out_steps[3], NR, activation)
                    else:
                        store_runs(
                            c, rows, out + (g * M + i) * out_steps[3], out_steps[3], out_steps[2],
                            counts[panel], run_start, run_start + 2 * NR + 1, activation, pool, pooled,
                        )


def run_product(
    product, const real[::1] source not None, const real[::1] weight not None, const real[::1] bias,
    real[::1] out not None, int activation, int pool, packed, int num_threads,
):
    """Allocate the workspace of one `shifted_gemm` and run it; `product` is a `geometry.Product`."""
    cdef const Py_ssize_t[:, ::1] table = product.table
    cdef const Py_ssize_t[::1] source_offset = product.source_offset, weight_offset = product.weight_offset
    cdef Py_ssize_t out_start = product.out_start
    cdef Py_ssize_t groups = table[0, 3], M = table[0, 4], L = table[0, 5]
    cdef Py_ssize_t pixels = table[0, 0] * table[0, 1] * table[0, 2] * pool, worker
    cdef int NR = panel_width(&source[0]), mr = panel_rows(M)
    cdef const Py_ssize_t[::1] blocks = blocking.pixel_blocks(
        groups, M, pixels, L, mr, NR, sizeof(real), num_threads, packed is not None
    )
    cdef Py_ssize_t JB = blocks[1], LB = blocks[2], WB = blocks[3], tiles = blocks[0] * JB if LB < L else 1
    cdef bint packs = WB == 0
    cdef Py_ssize_t scratch_step = (JB * LB + (WB * mr * LB + NR - 1) // NR + 1 + tiles * mr) * NR
    dtype = np.float32 if real is float else np.float64
    order = ("plain", mr, M)
    filters, filled = room(packed, order, groups * ((M + mr - 1) // mr) * mr * L if packs else 1, dtype)
    cdef real[::1] a_packed = filters
    cdef real[::1] scratch = empty(num_threads * scratch_step, dtype)
    cdef Py_ssize_t[::1] runs = np.empty(num_threads * JB * (3 * NR + 2), np.intp)
    cdef int packers = packing_threads(a_packed.shape[0], num_threads)
    cdef const real* bias_start = &bias[0] if bias is not None else NULL
    if packs and not filled:
        if packers == 1:  # a parallel region of one thread takes a microsecond
            pack_panels(
                &weight[0], &a_packed[0], groups, table[2, 1], M, mr, L, table[2, 0], &weight_offset[0], 0, 1
            )
        else:
            for worker in prange(packers, nogil=True, num_threads=packers, schedule="static", chunksize=1):
                pack_panels(
                    &weight[0], &a_packed[0], groups, table[2, 1], M, mr, L, table[2, 0], &weight_offset[0], worker,
                    packers,
                )
        keep(packed, order, filters)
    for worker in prange(num_threads, nogil=True, num_threads=num_threads, schedule="static", chunksize=1):
        shifted_gemm(
            &source[0], &weight[0], &a_packed[0] if packs else NULL, bias_start, &out[0] + out_start, &table[0, 0],
            &source_offset[0], &weight_offset[0], activation, pool, &blocks[0], &scratch[0], scratch_step,
            &runs[0], worker, num_threads,
        )


def run_pad_planes(planes, const real[:, :, :, ::1] image not None, real[::1] target not None, int num_threads):
    """Copy `image` into its `geometry.Planes`."""
    cdef Py_ssize_t top = planes.top, left = planes.left, rows = planes.rows, pitch = planes.pitch
    cdef Py_ssize_t width = planes.width, stride_w = planes.stride_w, row_step = planes.row_step
    cdef Py_ssize_t count = image.shape[0] * image.shape[1], worker
    for worker in prange(num_threads, nogil=True, num_threads=num_threads, schedule="static", chunksize=1):
        pad_planes(
            &image[0, 0, 0, 0], &target[0], count, image.shape[2], image.shape[3], top, left, rows, pitch, width,
            stride_w, row_step, worker, num_threads,
        )


def any_nonfinite(values, int num_threads):
    """Whether any value is NaN or infinite."""
    cdef Py_ssize_t size = values.size, first, worker
    cdef int workers = packing_threads(size, num_threads), found = 0
    cdef const float* singles = <const float*>address(values) if values.itemsize == 4 else NULL
    cdef const double* doubles = <const double*>address(values)
    if workers == 1:
        return has_nonfinite(doubles, size) if singles == NULL else has_nonfinite(singles, size)
    for worker in prange(workers, nogil=True, num_threads=workers, schedule="static", chunksize=1):
        first = size * worker // workers
        if singles == NULL:
            found |= has_nonfinite(doubles + first, size * (worker + 1) // workers - first)
        else:
            found |= has_nonfinite(singles + first, size * (worker + 1) // workers - first)
    return found != 0


def set_zero(values, int num_threads):
    """Set all values to zero."""
    cdef Py_ssize_t size = values.nbytes, first, worker
    cdef char* start = <char*>address(values)
    for worker in prange(num_threads, nogil=True, num_threads=num_threads, schedule="static", chunksize=1):
        first = size * worker // num_threads
        memset(start + first, 0, size * (worker + 1) // num_threads - first)


def planes_of(planes, image, num_threads):
    """The `geometry.Planes` of an image, flat: a padded copy, or the image itself."""
    if not planes.copied:
        return image.reshape(-1)
    target = empty(image.shape[0] * image.shape[1] * planes.rows * planes.pitch, image.dtype)
    run_pad_planes(planes, image, target, num_threads)
    return target


def run_plan(plan, image, weight, bias, out, activation, pool, packed, num_threads):
    """Run a `geometry.Plan`: copy the planes, then one product after the other."""
    source = planes_of(plan.planes, image, num_threads)
    if not plan.covers_out:
        set_zero(out, num_threads)
    for product in plan.products:
        run_product(
            product, source, weight.reshape(-1), bias, out.reshape(-1), activation, pool, packed, num_threads
        )


@to_numpy_row
def conv2d(
    *, x, weight, bias, out, stride, padding, dilation, groups, activation, max_pool, packed, num_threads
):
    """Forward convolution."""
    plan = geometry.forward(x.shape, weight.shape, out.shape, stride, padding, dilation, groups, max_pool)
    if plan.planes.pads and remembered(packed, "nonfinite", any_nonfinite, weight, num_threads):
        return False
    run_plan(plan, x, weight, bias, out, geometry.ACTIVATIONS[activation], max_pool, packed, num_threads)
    return True


@to_numpy_row
def conv2d_grad_input(*, dy, weight, out, stride, padding, dilation, groups, num_threads):
    """Gradient of the input."""
    plan = geometry.grad_input(dy.shape, weight.shape, out.shape, stride, padding, dilation, groups)
    if plan.planes.pads and any_nonfinite(weight, num_threads):
        return False
    run_plan(plan, dy, weight, None, out, 0, 1, None, num_threads)
    return True


cdef void sum_channels(
    const real* dy, real* out, Py_ssize_t N, Py_ssize_t K, Py_ssize_t pixels, Py_ssize_t worker, Py_ssize_t workers
) noexcept nogil:
    """out[k] = sum of dy[n, k, pixel]."""
    cdef Py_ssize_t n, k
    cdef double total
    for k in range(K * worker // workers, K * (worker + 1) // workers):
        total = 0
        for n in range(N):
            total += lane_sum(dy + (n * K + k) * pixels, pixels)
        out[k] = <real>total


def conv2d_grad_bias(*, const real[:, :, :, ::1] dy not None, real[::1] out not None, int num_threads):
    """Gradient of the bias, summed in double precision."""
    cdef Py_ssize_t worker, N = dy.shape[0], K = dy.shape[1], pixels = dy.shape[2] * dy.shape[3]
    if num_threads == 1:
        with nogil:
            sum_channels(&dy[0, 0, 0, 0], &out[0], N, K, pixels, 0, 1)
        return
    for worker in prange(num_threads, nogil=True, num_threads=num_threads, schedule="static", chunksize=1):
        sum_channels(&dy[0, 0, 0, 0], &out[0], N, K, pixels, worker, num_threads)
