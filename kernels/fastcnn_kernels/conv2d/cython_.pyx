"""Convolution in Cython: three matrix products over shifted rows. Contract in the family's ``__init__``.

Forward and input gradient. The image is copied once into planes with its padding, columns sorted by their remainder
modulo the stride, so that along an output row every tap (r, s) reads a contiguous, shifted run of pixels:

    out[k, pixel] = sum_{c, t} weight[k, (c, t)] planes[ origin[pixel] + c plane + tap[t] ]

A panel packs NR pixels of that matrix, run by run, and meets all panels of weights in the micro-kernel (implicit GEMM,
arXiv 1410.0759). The input gradient is the same product over dy, one for each remainder (a, b) of the pixel's
position modulo the stride, because each remainder meets its own subset of the taps; results go straight to dx.

Weight gradient. Pixels are the sum; x is copied channels last, so that the columns (t, c) of a pixel are contiguous
runs, and dy is packed with its pixels downwards:

    dw[k, (t, c)] = sum_pixel dy[k, pixel] image[ origin[pixel] + tap[t] + c ]

The zeros of the padding take part in these sums, which is wrong only where they meet Inf or NaN. Then the
NumPy row, which clips every tap to the image, computes the call (``handover``).
"""

import numpy as np

from cython.parallel cimport prange

from fastcnn_kernels.gemm.micro cimport (
    MR, add_chunks, copy_panel_row, copy_run, has_nonfinite, lane_sum, micro, pack_weights, panel_rows, panel_width,
    put_steps, real, take_steps
)

from fastcnn_kernels.conv2d import blocking, geometry
from fastcnn_kernels.conv2d.handover import to_numpy_row
from fastcnn_kernels.gemm.blocking import packing_threads
from fastcnn_kernels.memory import empty


cdef void pad_planes(
    const real* image, real* planes, Py_ssize_t count, Py_ssize_t H, Py_ssize_t W, Py_ssize_t top, Py_ssize_t left,
    Py_ssize_t rows, Py_ssize_t pitch, Py_ssize_t stride_w, Py_ssize_t worker,
    Py_ssize_t workers,
) noexcept nogil:
    """Copy (count, H, W) into (count, rows, pitch), padded by zeros, columns sorted by remainder modulo stride_w.

    Negative `top` and `left` crop.
    """
    cdef Py_ssize_t plane, i, j, h, b, width = pitch // stride_w, first, last
    cdef const real* source
    cdef real* target
    for plane in range(count * worker // workers, count * (worker + 1) // workers):
        for i in range(rows):
            target = planes + (plane * rows + i) * pitch
            h = i - top
            if h < 0 or h >= H:
                for j in range(pitch):
                    target[j] = 0
                continue
            source = image + (plane * H + h) * W - left
            for b in range(stride_w):
                # column j of remainder b is image column j * stride_w + b - left
                first = min(width, max(0, (left - b + stride_w - 1) // stride_w))
                last = min(width, max(first, (W + left - b + stride_w - 1) // stride_w))
                for j in range(first):
                    target[b * width + j] = 0
                take_steps(target + b * width + first, source + first * stride_w + b, stride_w, last - first)
                for j in range(last, width):
                    target[b * width + j] = 0


cdef void pack_runs(
    const real* source, const real* source_end, real* packed, Py_ssize_t L, const Py_ssize_t* l_offset,
    Py_ssize_t run_count, const Py_ssize_t* run_start, const Py_ssize_t* run_offset, Py_ssize_t columns,
) noexcept nogil:
    """Pack one panel whose row l is made of contiguous runs, at ``source + l_offset[l] + run_offset[run]``.

    A run is copied NR elements wide: the next one, or the next row, overwrites the excess.
    """
    cdef Py_ssize_t l, run, j, start
    cdef int NR = panel_width(source)
    cdef const real* from_
    cdef real* target
    for l in range(L):
        target = packed + l * NR
        for run in range(run_count):
            from_ = source + l_offset[l] + run_offset[run]
            start = run_start[run]
            if from_ + NR <= source_end:
                copy_panel_row(target + start, from_)
            else:
                copy_run(target + start, from_, run_start[run + 1] - start)
        for j in range(columns, NR):
            target[j] = 0


cdef Py_ssize_t find_runs(
    Py_ssize_t pixel, Py_ssize_t columns, const Py_ssize_t* grid, const Py_ssize_t* source_steps,
    const Py_ssize_t* out_steps, Py_ssize_t* run_start, Py_ssize_t* run_offset, Py_ssize_t* run_out,
) noexcept nogil:
    """Split pixels [pixel, pixel + columns) of the (N, P, Q) `grid` into runs contiguous in the planes.

    A run starts at column ``run_start[run]`` of the panel, reads ``run_offset[run]`` and writes ``run_out[run]``;
    ``run_start[run_count]`` closes the list. Steps are those of one image, one row and one column.
    """
    cdef Py_ssize_t P = grid[1], Q = grid[2], column = 0, runs = 0, n, p, q, length, offset, out
    while column < columns:
        q = (pixel + column) % Q
        p = (pixel + column) // Q % P
        n = (pixel + column) // (Q * P)
        length = min(Q - q, columns - column)
        offset = n * source_steps[0] + p * source_steps[1] + q
        out = n * out_steps[0] + p * out_steps[1] + q * out_steps[2]
        if (
            runs > 0 and out_steps[2] == 1 and offset - run_offset[runs - 1] == column - run_start[runs - 1]
            and out - run_out[runs - 1] == column - run_start[runs - 1]
        ):
            column += length
            continue
        run_start[runs] = column
        run_offset[runs] = offset
        run_out[runs] = out
        runs += 1
        column += length
    run_start[runs] = columns
    return runs


cdef void shifted_tile(
    int mr, Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t L, const real* a, const real* b, const real* bias,
    real* out, Py_ssize_t out_row_step, Py_ssize_t column_step, bint dense,
    Py_ssize_t run_count, const Py_ssize_t* run_start, const Py_ssize_t* run_out, real* tile,
) noexcept nogil:
    """One micro-kernel call and the store of its tile, run by run unless the tile is `dense` in out."""
    cdef Py_ssize_t i, j, run, start
    cdef int NR = panel_width(a)
    cdef bint direct = dense and rows == mr and columns == NR
    cdef real* c = out + run_out[0] if direct else tile
    cdef Py_ssize_t ldc = out_row_step if direct else NR
    cdef real* target
    if bias != NULL:
        for i in range(rows):
            for j in range(NR):
                c[i * ldc + j] = bias[i]
        for i in range(rows, mr):
            for j in range(NR):
                c[i * ldc + j] = 0
    micro(mr, L, a, b, NR, c, ldc, bias != NULL)
    if direct:
        return
    for i in range(rows):
        for run in range(run_count):
            start = run_start[run]
            target = out + i * out_row_step + run_out[run]
            put_steps(target, tile + i * NR + start, column_step, run_start[run + 1] - start)


cdef void shifted_gemm(
    const real* source, Py_ssize_t source_size, const real* a_packed, const real* bias, real* out,
    const Py_ssize_t* table, const Py_ssize_t* source_offset, real* scratch, Py_ssize_t scratch_step,
    Py_ssize_t* runs, Py_ssize_t JB, Py_ssize_t worker, Py_ssize_t workers,
) noexcept nogil:
    """out[n, g, m, p, q] = bias[g, m] + sum_l weight[g, m, l] source[n, g, l, p, q].

    Rows of table: shape = (N, P, Q, groups, M, L); source_steps = (image, row, group), columns are contiguous;
    weight_steps = (m, group); out_steps = (image, row, column, m); the sum's index l enters through the offset tables.
    """
    cdef const Py_ssize_t* shape = table
    cdef const Py_ssize_t* source_steps = table + 6
    cdef const Py_ssize_t* out_steps = table + 18
    cdef Py_ssize_t groups = shape[3], M = shape[4], L = shape[5], pixels = shape[0] * shape[1] * shape[2]
    cdef int NR = panel_width(source), mr = panel_rows(M)
    cdef Py_ssize_t row_panels = (M + mr - 1) // mr, a_size = row_panels * mr * L
    cdef Py_ssize_t pixel_panels = (pixels + NR - 1) // NR, blocks = (pixel_panels + JB - 1) // JB
    cdef Py_ssize_t task, g, i, panel, row_panel, first, panels, pixel, columns, run_count, image
    cdef Py_ssize_t* run_start
    cdef Py_ssize_t* counts = runs + worker * JB * (3 * NR + 2)
    cdef real* tile = scratch + worker * scratch_step
    cdef real* packed = tile + MR * NR
    cdef bint dense
    for task in range(groups * blocks * worker // workers, groups * blocks * (worker + 1) // workers):
        g = task // blocks
        first = task % blocks * JB
        panels = min(JB, pixel_panels - first)
        for panel in range(panels):
            run_start = counts + JB + panel * (3 * NR + 1)
            pixel = (first + panel) * NR
            columns = min(NR, pixels - pixel)
            run_count = find_runs(
                pixel, columns, shape, source_steps, out_steps, run_start, run_start + NR + 1,
                run_start + 2 * NR + 1,
            )
            counts[panel] = run_count
            pack_runs(
                source + g * source_steps[2], source + source_size, packed + panel * NR * L, L, source_offset,
                run_count, run_start, run_start + NR + 1, columns,
            )
        for row_panel in range(row_panels):
            i = row_panel * mr
            for panel in range(panels):
                run_start = counts + JB + panel * (3 * NR + 1)
                pixel = (first + panel) * NR
                columns = min(NR, pixels - pixel)
                image = shape[1] * shape[2]
                dense = (
                    out_steps[2] == 1 and out_steps[1] == shape[2] and pixel // image == (pixel + NR - 1) // image
                )
                shifted_tile(
                    mr, min(mr, M - i), columns, L, a_packed + g * a_size + i * L, packed + panel * NR * L,
                    bias + g * M + i if bias != NULL else NULL, out + (g * M + i) * out_steps[3], out_steps[3],
                    out_steps[2], dense, counts[panel], run_start, run_start + 2 * NR + 1, tile,
                )


def run_product(
    product, const real[::1] source not None, const real[::1] weight not None, const real[::1] bias,
    real[::1] out not None, int num_threads,
):
    """Allocate the workspace of one `shifted_gemm` and run it; `product` is a `geometry.Product`."""
    cdef const Py_ssize_t[:, ::1] table = product.table
    cdef const Py_ssize_t[::1] source_offset = product.source_offset, weight_offset = product.weight_offset
    cdef Py_ssize_t out_start = product.out_start
    cdef Py_ssize_t groups = table[0, 3], M = table[0, 4], L = table[0, 5]
    cdef int NR = panel_width(&source[0]), mr = panel_rows(M)
    cdef Py_ssize_t JB = blocking.panels_per_task(L, NR, sizeof(real))
    cdef Py_ssize_t scratch_step = MR * NR + JB * NR * L + NR
    dtype = np.float32 if real is float else np.float64
    cdef real[::1] a_packed = empty(groups * ((M + mr - 1) // mr) * mr * L, dtype)
    cdef real[::1] scratch = empty(num_threads * scratch_step, dtype)
    cdef Py_ssize_t[::1] runs = np.empty(num_threads * JB * (3 * NR + 2), np.intp)
    cdef int packers = packing_threads(a_packed.shape[0], num_threads)
    cdef const real* bias_start = &bias[0] if bias is not None else NULL
    cdef Py_ssize_t worker
    for worker in prange(packers, nogil=True, num_threads=packers, schedule="static", chunksize=1):
        pack_weights(&weight[0], &a_packed[0], &table[0, 0], &weight_offset[0], worker, packers)
    for worker in prange(num_threads, nogil=True, num_threads=num_threads, schedule="static", chunksize=1):
        shifted_gemm(
            &source[0], source.shape[0], &a_packed[0], bias_start, &out[0] + out_start, &table[0, 0],
            &source_offset[0], &scratch[0], scratch_step, &runs[0], JB, worker, num_threads,
        )


def run_pad_planes(planes, const real[:, :, :, ::1] image not None, real[::1] target not None, int num_threads):
    """Copy `image` into its `geometry.Planes`."""
    cdef Py_ssize_t top = planes.top, left = planes.left, rows = planes.rows, pitch = planes.pitch
    cdef Py_ssize_t stride_w = planes.stride_w, count = image.shape[0] * image.shape[1], worker
    for worker in prange(num_threads, nogil=True, num_threads=num_threads, schedule="static", chunksize=1):
        pad_planes(
            &image[0, 0, 0, 0], &target[0], count, image.shape[2], image.shape[3], top, left, rows, pitch, stride_w,
            worker, num_threads,
        )


def any_nonfinite(const real[::1] values not None):
    """Whether any value is NaN or infinite."""
    return has_nonfinite(&values[0], values.shape[0])


def run_plan(plan, image, weight, bias, out, num_threads):
    """Run a `geometry.Plan`: copy the planes, then one product after the other."""
    planes = plan.planes
    source = image.reshape(-1)
    if planes.copied:
        source = empty(image.shape[0] * image.shape[1] * planes.rows * planes.pitch, image.dtype)
        run_pad_planes(planes, image, source, num_threads)
    if not plan.covers_out:
        out[...] = 0
    for product in plan.products:
        run_product(product, source, weight.reshape(-1), bias, out.reshape(-1), num_threads)


@to_numpy_row
def conv2d(*, x, weight, bias, out, stride, padding, dilation, groups, num_threads):
    """Forward convolution."""
    plan = geometry.forward(x.shape, weight.shape, out.shape, stride, padding, dilation, groups)
    if plan.planes.pads and any_nonfinite(weight.reshape(-1)):
        return False
    run_plan(plan, x, weight, bias, out, num_threads)
    return True


@to_numpy_row
def conv2d_grad_input(*, dy, weight, out, stride, padding, dilation, groups, num_threads):
    """Gradient of the input."""
    plan = geometry.grad_input(dy.shape, weight.shape, out.shape, stride, padding, dilation, groups)
    if plan.planes.pads and any_nonfinite(weight.reshape(-1)):
        return False
    run_plan(plan, dy, weight, None, out, num_threads)
    return True


cdef void channels_last(
    const real* x, real* image, Py_ssize_t N, Py_ssize_t C, Py_ssize_t H, Py_ssize_t W, Py_ssize_t top,
    Py_ssize_t left, Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t worker,
    Py_ssize_t workers,
) noexcept nogil:
    """Copy (N, C, H, W) into (N, rows, columns, C), padded by zeros."""
    cdef Py_ssize_t task, n, h, j, c, block, first, last
    cdef const real* source
    cdef real* target
    for task in range(N * rows * worker // workers, N * rows * (worker + 1) // workers):
        target = image + task * columns * C
        n = task // rows
        h = task % rows - top
        first = min(columns, left)
        last = min(columns, W + left)
        if h < 0 or h >= H:
            last = first = 0
        for j in range(first * C):
            target[j] = 0
        for block in range((C + 15) // 16):  # 16 channels at a time: as many rows of x are read side by side
            source = x + ((n * C + block * 16) * H + h) * W - left
            for j in range(first, last):
                for c in range(min(C - block * 16, 16)):
                    target[j * C + block * 16 + c] = source[c * H * W + j]
        for j in range(last * C, columns * C):
            target[j] = 0


cdef void pack_pixels(
    const real* dy, real* packed, Py_ssize_t N, Py_ssize_t K, Py_ssize_t pixels, Py_ssize_t groups, int mr,
    Py_ssize_t worker,
    Py_ssize_t workers,
) noexcept nogil:
    """Pack dy (N, K, pixels) into panels of mr channels, [groups][panel][N * pixels][mr]."""
    cdef Py_ssize_t Kg = K // groups, panels = (Kg + mr - 1) // mr
    cdef Py_ssize_t task, n, g, k, i, j, block
    cdef const real* source
    cdef real* target
    for task in range(groups * panels * N * worker // workers, groups * panels * N * (worker + 1) // workers):
        n = task % N
        k = task // N % panels * mr
        g = task // (N * panels)
        target = packed + task * pixels * mr
        for block in range((pixels + 63) // 64):  # a stretch that stays in L1 while the panel's rows are filled in
            for i in range(mr):
                source = dy + (n * K + g * Kg + k + i) * pixels
                if k + i < Kg:
                    for j in range(block * 64, min(pixels, block * 64 + 64)):
                        target[j * mr + i] = source[j]
                else:
                    for j in range(block * 64, min(pixels, block * 64 + 64)):
                        target[j * mr + i] = 0


cdef void weight_product(
    const real* a_packed, const real* image, Py_ssize_t image_size, real* partial, Py_ssize_t N, Py_ssize_t P,
    Py_ssize_t Q, Py_ssize_t groups, Py_ssize_t M, Py_ssize_t Cg, Py_ssize_t columns,
    const Py_ssize_t* pixel_steps, const Py_ssize_t* column_offset, const Py_ssize_t* column_out,
    real* scratch, Py_ssize_t scratch_step, Py_ssize_t* offsets, Py_ssize_t KB, Py_ssize_t chunks, Py_ssize_t worker,
    Py_ssize_t workers,
) noexcept nogil:
    """partial[chunk, g, m, column_out[j]] = sum over the chunk's pixels of dy[m, pixel] image[pixel, column j]."""
    cdef int NR = panel_width(image), mr = panel_rows(M)
    cdef Py_ssize_t panels = (columns + NR - 1) // NR, row_panels = (M + mr - 1) // mr, pixels = N * P * Q
    cdef Py_ssize_t chunk_size = ((pixels + chunks - 1) // chunks + KB - 1) // KB * KB
    cdef Py_ssize_t task, chunk, g, first, count, i, j, l, pixel, step, block, runs, end
    cdef Py_ssize_t tasks = groups * panels * chunks
    cdef Py_ssize_t* run_start
    cdef Py_ssize_t* run_offset
    cdef real* sums
    cdef real* packed
    cdef real* target
    run_start = offsets + worker * (KB + 2 * NR + 1)
    run_offset = run_start + NR + 1
    sums = scratch + worker * scratch_step
    packed = sums + row_panels * mr * NR
    for task in range(tasks * worker // workers, tasks * (worker + 1) // workers):
        chunk = task % chunks
        first = task // chunks % panels * NR
        g = task // (chunks * panels)
        count = min(NR, columns - first)
        runs = 0
        for j in range(count):
            if j == 0 or column_offset[first + j] != column_offset[first + j - 1] + 1:
                run_start[runs] = j
                run_offset[runs] = column_offset[first + j]
                runs = runs + 1
        run_start[runs] = count
        end = min(pixels, (chunk + 1) * chunk_size)
        for j in range(row_panels * mr * NR):
            sums[j] = 0
        for step in range((end - chunk * chunk_size + KB - 1) // KB):
            pixel = chunk * chunk_size + step * KB
            block = min(KB, end - pixel)
            for l in range(block):
                i = pixel + l
                run_offset[NR + l] = (
                    i // (P * Q) * pixel_steps[0] + i // Q % P * pixel_steps[1] + i % Q * pixel_steps[2]
                )
            pack_runs(
                image + g * Cg, image + image_size, packed, block, run_offset + NR, runs, run_start, run_offset,
                count,
            )
            for i in range(row_panels):
                micro(
                    mr, block, a_packed + ((g * row_panels + i) * pixels + pixel) * mr, packed, NR,
                    sums + i * mr * NR, NR, True,
                )
        for i in range(M):
            target = partial + ((chunk * groups + g) * M + i) * columns
            for j in range(count):
                target[column_out[first + j]] = sums[i * NR + j]


def run_weight_plan(
    plan, const real[:, :, :, ::1] dy not None, const real[:, :, :, ::1] x not None, real[::1] out not None,
    Py_ssize_t groups, int num_threads,
):
    """Run a `geometry.WeightPlan`: copy both operands, multiply, add up the chunks in order."""
    cdef Py_ssize_t N = dy.shape[0], K = dy.shape[1], P = dy.shape[2], Q = dy.shape[3], C = x.shape[1]
    cdef Py_ssize_t rows = plan.planes.rows, columns = plan.planes.pitch, top = plan.planes.top
    cdef Py_ssize_t left = plan.planes.left
    cdef const Py_ssize_t[::1] pixel_steps = plan.pixel_steps
    cdef const Py_ssize_t[::1] column_offset = plan.column_offset, column_out = plan.column_out
    cdef Py_ssize_t filter_size = column_offset.shape[0], M = K // groups
    cdef int NR = panel_width(&dy[0, 0, 0, 0]), mr = panel_rows(M)
    cdef Py_ssize_t row_panels = (M + mr - 1) // mr, KB = blocking.PIXEL_BLOCK
    cdef Py_ssize_t chunks = blocking.pixel_chunks(groups * ((filter_size + NR - 1) // NR), N * P * Q)
    cdef Py_ssize_t scratch_step = (row_panels * mr + KB + 1) * NR, worker
    dtype = np.float32 if real is float else np.float64
    cdef real[::1] image = empty(N * rows * columns * C, dtype)
    cdef real[::1] a_packed = empty(groups * row_panels * mr * N * P * Q, dtype)
    cdef real[::1] scratch = empty(num_threads * scratch_step, dtype)
    cdef real[::1] partial = out if chunks == 1 else empty(chunks * out.shape[0], dtype)
    cdef Py_ssize_t[::1] offsets = np.empty(num_threads * (KB + 2 * NR + 1), np.intp)
    for worker in prange(num_threads, nogil=True, num_threads=num_threads, schedule="static", chunksize=1):
        channels_last(
            &x[0, 0, 0, 0], &image[0], N, C, x.shape[2], x.shape[3], top, left, rows, columns, worker, num_threads
        )
    for worker in prange(num_threads, nogil=True, num_threads=num_threads, schedule="static", chunksize=1):
        pack_pixels(&dy[0, 0, 0, 0], &a_packed[0], N, K, P * Q, groups, mr, worker, num_threads)
    for worker in prange(num_threads, nogil=True, num_threads=num_threads, schedule="static", chunksize=1):
        weight_product(
            &a_packed[0], &image[0], image.shape[0], &partial[0], N, P, Q, groups, M, C // groups, filter_size,
            &pixel_steps[0], &column_offset[0], &column_out[0], &scratch[0], scratch_step, &offsets[0], KB, chunks,
            worker, num_threads,
        )
    if chunks > 1:
        add_chunks(&partial[0], &out[0], out.shape[0], chunks)


@to_numpy_row
def conv2d_grad_weight(*, dy, x, out, stride, padding, dilation, groups, num_threads):
    """Gradient of the weights."""
    plan = geometry.grad_weight(dy.shape, x.shape, out.shape, stride, padding, dilation, groups)
    run_weight_plan(plan, dy, x, out.reshape(-1), groups, num_threads)
    return not (plan.planes.pads and any_nonfinite(out.reshape(-1)))


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
    for worker in prange(num_threads, nogil=True, num_threads=num_threads, schedule="static", chunksize=1):
        sum_channels(&dy[0, 0, 0, 0], &out[0], N, K, pixels, worker, num_threads)
