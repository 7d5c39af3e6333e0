"""Convolution in Numba: three matrix products over shifted rows. Contract in the family's ``__init__``.

The twin of ``cython_.pyx``: the same functions in the same order; the algorithms are described there. An array and a
start index stand for a C pointer.
"""

import numpy as np

from fastcnn_kernels.conv2d import blocking, geometry
from fastcnn_kernels.conv2d.handover import to_numpy_row
from fastcnn_kernels.gemm.blocking import packing_threads
from fastcnn_kernels.gemm.numba_ import pack_rows, panel_rows
from fastcnn_kernels.gemm.numba_micro import (
    MR,
    VECTOR_BYTES,
    copy_panel_row,
    copy_run,
    copy_steps,
    micro,
    panel_width,
    put_steps,
    scatter_steps,
    take_steps,
    zero_run,
)
from fastcnn_kernels.memory import empty
from fastcnn_kernels.numba_support import compiled, flat, threaded


@threaded
def pad_planes(image, planes, count, H, W, top, left, rows, pitch, stride_w, worker, workers):
    """Copy (count, H, W) into (count, rows, pitch), padded by zeros, columns sorted by remainder modulo stride_w.

    Negative `top` and `left` crop.
    """
    width = pitch // stride_w
    for plane in range(count * worker // workers, count * (worker + 1) // workers):
        for i in range(rows):
            target = (plane * rows + i) * pitch
            h = i - top
            if h < 0 or h >= H:
                zero_run(planes, target, pitch)
                continue
            source = (plane * H + h) * W - left
            for b in range(stride_w):
                # column j of remainder b is image column j * stride_w + b - left
                first = min(width, max(0, (left - b + stride_w - 1) // stride_w))
                last = min(width, max(first, (W + left - b + stride_w - 1) // stride_w))
                zero_run(planes, target + b * width, first)
                start = source + first * stride_w + b
                take_steps(planes, target + b * width + first, image, start, stride_w, last - first)
                zero_run(planes, target + b * width + last, width - last)


@compiled
def pack_runs(
    source, source_start, packed, packed_start, L, l_offset, l_start, run_count, runs, run_start, run_offset, columns
):
    """Pack one panel whose row l is made of contiguous runs, at ``source + l_offset[l] + run_offset[run]``.

    A run is copied NR elements wide: the next one, or the next row, overwrites the excess.
    """
    NR = panel_width(source)
    for l in range(L):
        target = packed_start + l * NR
        for run in range(run_count):
            from_ = source_start + l_offset[l_start + l] + runs[run_offset + run]
            start = runs[run_start + run]
            if from_ + NR <= source.size:
                copy_panel_row(packed, target + start, source, from_)
            else:
                copy_run(packed, target + start, source, from_, runs[run_start + run + 1] - start)
        if columns < NR:
            zero_run(packed, target + columns, NR - columns)


@compiled
def find_runs(pixel, columns, P, Q, source_steps, out_steps, runs, run_start, run_offset, run_out):
    """Split pixels [pixel, pixel + columns) of the (N, P, Q) grid into runs contiguous in the planes.

    A run starts at column ``run_start[run]`` of the panel, reads ``run_offset[run]`` and writes ``run_out[run]``;
    ``run_start[run_count]`` closes the list. Steps are those of one image, one row and one column.
    """
    column = 0
    count = 0
    while column < columns:
        q = (pixel + column) % Q
        p = (pixel + column) // Q % P
        n = (pixel + column) // (Q * P)
        length = min(Q - q, columns - column)
        offset = n * source_steps[0] + p * source_steps[1] + q
        out = n * out_steps[0] + p * out_steps[1] + q * out_steps[2]
        if (
            count > 0
            and out_steps[2] == 1
            and offset - runs[run_offset + count - 1] == column - runs[run_start + count - 1]
            and out - runs[run_out + count - 1] == column - runs[run_start + count - 1]
        ):
            column += length
            continue
        runs[run_start + count] = column
        runs[run_offset + count] = offset
        runs[run_out + count] = out
        count += 1
        column += length
    runs[run_start + count] = columns
    return count


@compiled
def shifted_tile(
    mr, rows, columns, L, a, a_start, b, b_start, bias, bias_start, has_bias, out, out_start, out_row_step, column_step,
    dense, run_count, runs, run_start, run_out, tile, tile_start,
):  # fmt: skip
    """One micro-kernel call and the store of its tile, run by run unless the tile is `dense` in out."""
    NR = panel_width(a)
    if dense and rows == mr and columns == NR:
        c_start = out_start + runs[run_out]
        if has_bias:
            for i in range(rows):
                for j in range(NR):
                    out[c_start + i * out_row_step + j] = bias[bias_start + i]
        micro(mr, L, a, a_start, b, b_start, NR, out, c_start, out_row_step, has_bias)
        return
    if has_bias:
        for i in range(mr):
            for j in range(NR):
                tile[tile_start + i * NR + j] = bias[bias_start + i] if i < rows else 0
    micro(mr, L, a, a_start, b, b_start, NR, tile, tile_start, NR, has_bias)
    for i in range(rows):
        for run in range(run_count):
            start = runs[run_start + run]
            source = tile_start + i * NR + start
            target = out_start + i * out_row_step + runs[run_out + run]
            put_steps(out, target, column_step, tile, source, runs[run_start + run + 1] - start)


@threaded
def pack_weights(weight, a_packed, table, weight_offset, worker, workers):
    """Pack this worker's share of the panels of all groups' weights."""
    groups, M, L, weight_steps = table[0, 3], table[0, 4], table[0, 5], table[2]
    mr = panel_rows(M)
    row_panels = (M + mr - 1) // mr
    for task in range(groups * row_panels * worker // workers, groups * row_panels * (worker + 1) // workers):
        g = task // row_panels
        i = task % row_panels * mr
        pack_rows(
            weight, g * weight_steps[1] + i * weight_steps[0], a_packed, (g * row_panels * mr + i) * L,
            min(mr, M - i), mr, L, weight_steps[0], weight_offset, 0,
        )  # fmt: skip


@threaded
def shifted_gemm(
    source, a_packed, bias, has_bias, out, out_start, table, source_offset, scratch, scratch_step, runs, JB, worker,
    workers,
):  # fmt: skip
    """out[n, g, m, p, q] = bias[g, m] + sum_l weight[g, m, l] source[n, g, l, p, q].

    Rows of table: shape = (N, P, Q, groups, M, L); source_steps = (image, row, group), columns are contiguous;
    weight_steps = (m, group); out_steps = (image, row, column, m); the sum's index l enters through the offset tables.
    """
    shape, source_steps, out_steps = table[0], table[1], table[3]
    P, Q, groups, M, L, pixels = shape[1], shape[2], shape[3], shape[4], shape[5], shape[0] * shape[1] * shape[2]
    NR = panel_width(source)
    mr = panel_rows(M)
    a_size = (M + mr - 1) // mr * mr * L
    pixel_panels = (pixels + NR - 1) // NR
    blocks = (pixel_panels + JB - 1) // JB
    scratch_start = worker * scratch_step
    packed = scratch_start + MR * NR
    runs_start = worker * JB * (3 * NR + 2)
    for task in range(groups * blocks * worker // workers, groups * blocks * (worker + 1) // workers):
        g = task // blocks
        first = task % blocks * JB
        panels = min(JB, pixel_panels - first)
        for panel in range(panels):
            run_start = runs_start + JB + panel * (3 * NR + 1)
            pixel = (first + panel) * NR
            columns = min(NR, pixels - pixel)
            run_count = find_runs(
                pixel, columns, P, Q, source_steps, out_steps, runs, run_start, run_start + NR + 1,
                run_start + 2 * NR + 1,
            )  # fmt: skip
            runs[runs_start + panel] = run_count
            pack_runs(
                source, g * source_steps[2], scratch, packed + panel * NR * L, L, source_offset, 0, run_count, runs,
                run_start, run_start + NR + 1, columns,
            )  # fmt: skip
        for row_panel in range((M + mr - 1) // mr):
            i = row_panel * mr
            for panel in range(panels):
                run_start = runs_start + JB + panel * (3 * NR + 1)
                pixel = (first + panel) * NR
                columns = min(NR, pixels - pixel)
                image = P * Q
                dense = out_steps[2] == 1 and out_steps[1] == Q and pixel // image == (pixel + NR - 1) // image
                shifted_tile(
                    mr, min(mr, M - i), columns, L, a_packed, g * a_size + i * L, scratch, packed + panel * NR * L,
                    bias, g * M + i, has_bias, out, out_start + (g * M + i) * out_steps[3], out_steps[3],
                    out_steps[2], dense, runs[runs_start + panel], runs, run_start, run_start + 2 * NR + 1, scratch,
                    scratch_start,
                )  # fmt: skip


def run_product(product, source, weight, bias, out, num_threads):
    """Allocate the workspace of one `shifted_gemm` and run it; `product` is a `geometry.Product`."""
    groups, M, L = product.table[0, 3:6].tolist()
    NR, mr = 2 * VECTOR_BYTES // out.itemsize, panel_rows(M)
    JB = blocking.panels_per_task(L, NR, out.itemsize)
    scratch_step = MR * NR + JB * NR * L + NR
    a_packed = empty(groups * -(-M // mr) * mr * L, out.dtype)
    scratch = empty(num_threads * scratch_step, out.dtype)
    runs = np.empty(num_threads * JB * (3 * NR + 2), np.intp)
    pack_weights(packing_threads(a_packed.size, num_threads), weight, a_packed, product.table, product.weight_offset)
    shifted_gemm(
        num_threads, source, a_packed, a_packed if bias is None else bias, bias is not None, out, product.out_start,
        product.table, product.source_offset, scratch, scratch_step, runs, JB,
    )  # fmt: skip


def run_pad_planes(planes, image, target, num_threads):
    """Copy `image` into its `geometry.Planes`."""
    N, C, H, W = image.shape
    pad_planes(
        num_threads, flat(image), target, N * C, H, W, planes.top, planes.left, planes.rows, planes.pitch,
        planes.stride_w,
    )  # fmt: skip


@compiled
def any_nonfinite(values):
    """Whether any value is NaN or infinite: only those differ from themselves by anything but 0."""
    found = False
    for value in values:
        found |= value - value != 0
    return found


def run_plan(plan, image, weight, bias, out, num_threads):
    """Run a `geometry.Plan`: copy the planes, then one product after the other."""
    planes = plan.planes
    source = flat(image)
    if planes.copied:
        source = empty(image.shape[0] * image.shape[1] * planes.rows * planes.pitch, image.dtype)
        run_pad_planes(planes, image, source, num_threads)
    if not plan.covers_out:
        out[...] = 0
    for product in plan.products:
        run_product(product, source, flat(weight), None if bias is None else flat(bias), flat(out), num_threads)


@to_numpy_row
def conv2d(*, x, weight, bias, out, stride, padding, dilation, groups, num_threads):
    """Forward convolution."""
    plan = geometry.forward(x.shape, weight.shape, out.shape, stride, padding, dilation, groups)
    if plan.planes.pads and any_nonfinite(flat(weight)):
        return False
    run_plan(plan, x, weight, bias, out, num_threads)
    return True


@to_numpy_row
def conv2d_grad_input(*, dy, weight, out, stride, padding, dilation, groups, num_threads):
    """Gradient of the input."""
    plan = geometry.grad_input(dy.shape, weight.shape, out.shape, stride, padding, dilation, groups)
    if plan.planes.pads and any_nonfinite(flat(weight)):
        return False
    run_plan(plan, dy, weight, None, out, num_threads)
    return True


@threaded
def channels_last(x, image, N, C, H, W, top, left, rows, columns, worker, workers):
    """Copy (N, C, H, W) into (N, rows, columns, C), padded by zeros."""
    for task in range(N * rows * worker // workers, N * rows * (worker + 1) // workers):
        target = task * columns * C
        n = task // rows
        h = task % rows - top
        first = min(columns, left)
        last = min(columns, W + left)
        if h < 0 or h >= H:
            first = 0
            last = 0
        for j in range(first * C):
            image[target + j] = 0
        for block in range(0, C, 16):  # 16 channels at a time: as many rows of x are read side by side
            source = ((n * C + block) * H + h) * W - left
            for j in range(first, last):
                copy_steps(image, target + j * C + block, 1, x, source + j, H * W, min(C - block, 16))
        for j in range(last * C, columns * C):
            image[target + j] = 0


@threaded
def pack_pixels(dy, packed, N, K, pixels, groups, mr, worker, workers):
    """Pack dy (N, K, pixels) into panels of mr channels, [groups][panel][N * pixels][mr]."""
    Kg = K // groups
    panels = (Kg + mr - 1) // mr
    tasks = groups * panels * N
    for task in range(tasks * worker // workers, tasks * (worker + 1) // workers):
        n = task % N
        k = task // N % panels * mr
        g = task // (N * panels)
        target = task * pixels * mr
        for block in range(0, pixels, 64):  # a stretch of the panel that stays in L1 while its rows are filled in
            count = min(pixels - block, 64)
            for i in range(mr):
                if k + i < Kg:
                    source = (n * K + g * Kg + k + i) * pixels + block
                    copy_steps(packed, target + block * mr + i, mr, dy, source, 1, count)
                else:
                    for j in range(block, block + count):
                        packed[target + j * mr + i] = 0


@threaded
def weight_product(
    a_packed, image, partial, N, P, Q, groups, M, Cg, pixel_steps, column_offset, column_out, scratch, scratch_step,
    offsets, KB, chunks, worker, workers,
):  # fmt: skip
    """partial[chunk, g, m, column_out[j]] = sum over the chunk's pixels of dy[m, pixel] image[pixel, column j]."""
    NR = panel_width(image)
    mr = panel_rows(M)
    columns = column_offset.size
    panels = (columns + NR - 1) // NR
    row_panels = (M + mr - 1) // mr
    pixels = N * P * Q
    chunk_size = ((pixels + chunks - 1) // chunks + KB - 1) // KB * KB
    run_start = worker * (KB + 2 * NR + 1)
    run_offset = run_start + NR + 1
    l_offset = run_offset + NR
    scratch_start = worker * scratch_step
    packed = scratch_start + row_panels * mr * NR
    tasks = groups * panels * chunks
    for task in range(tasks * worker // workers, tasks * (worker + 1) // workers):
        chunk = task % chunks
        first = task // chunks % panels * NR
        g = task // (chunks * panels)
        count = min(NR, columns - first)
        runs = 0
        for j in range(count):
            if j == 0 or column_offset[first + j] != column_offset[first + j - 1] + 1:
                offsets[run_start + runs] = j
                offsets[run_offset + runs] = column_offset[first + j]
                runs += 1
        offsets[run_start + runs] = count
        end = min(pixels, (chunk + 1) * chunk_size)
        zero_run(scratch, scratch_start, row_panels * mr * NR)
        for step in range((end - chunk * chunk_size + KB - 1) // KB):
            pixel = chunk * chunk_size + step * KB
            block = min(KB, end - pixel)
            for l in range(block):
                i = pixel + l
                offsets[l_offset + l] = (
                    i // (P * Q) * pixel_steps[0] + i // Q % P * pixel_steps[1] + i % Q * pixel_steps[2]
                )
            pack_runs(
                image, g * Cg, scratch, packed, block, offsets, l_offset, runs, offsets, run_start, run_offset, count
            )
            for i in range(row_panels):
                micro(
                    mr, block, a_packed, ((g * row_panels + i) * pixels + pixel) * mr, scratch, packed, NR, scratch,
                    scratch_start + i * mr * NR, NR, True,
                )  # fmt: skip
        for i in range(M):
            target = ((chunk * groups + g) * M + i) * columns
            scatter_steps(partial, target, column_out, first, scratch, scratch_start + i * NR, count)


def add_chunks(partial, out, chunks):
    """``out[j]`` = sum of ``partial[chunk, j]``, in the order of the chunks."""
    parts = partial.reshape(chunks, -1)
    out[:] = parts[0]
    for part in parts[1:]:
        out += part


def run_weight_plan(plan, dy, x, out, groups, num_threads):
    """Run a `geometry.WeightPlan`: copy both operands, multiply, add up the chunks in order."""
    (N, K, P, Q), (C, H, W) = dy.shape, x.shape[1:]
    rows, columns, M, filter_size = plan.planes.rows, plan.planes.pitch, K // groups, plan.column_offset.size
    NR, mr, KB = 2 * VECTOR_BYTES // out.itemsize, panel_rows(M), blocking.PIXEL_BLOCK
    row_panels = -(-M // mr)
    chunks = blocking.pixel_chunks(groups * -(-filter_size // NR), N * P * Q)
    scratch_step = (row_panels * mr + KB + 1) * NR
    image = empty(N * rows * columns * C, out.dtype)
    a_packed = empty(groups * row_panels * mr * N * P * Q, out.dtype)
    scratch = empty(num_threads * scratch_step, out.dtype)
    partial = out if chunks == 1 else empty(chunks * out.size, out.dtype)
    offsets = np.empty(num_threads * (KB + 2 * NR + 1), np.intp)
    channels_last(num_threads, flat(x), image, N, C, H, W, plan.planes.top, plan.planes.left, rows, columns)
    pack_pixels(num_threads, flat(dy), a_packed, N, K, P * Q, groups, mr)
    weight_product(
        num_threads, a_packed, image, partial, N, P, Q, groups, M, C // groups, plan.pixel_steps, plan.column_offset,
        plan.column_out, scratch, scratch_step, offsets, KB, chunks,
    )  # fmt: skip
    if chunks > 1:
        add_chunks(partial, out, chunks)


@to_numpy_row
def conv2d_grad_weight(*, dy, x, out, stride, padding, dilation, groups, num_threads):
    """Gradient of the weights."""
    plan = geometry.grad_weight(dy.shape, x.shape, out.shape, stride, padding, dilation, groups)
    run_weight_plan(plan, dy, x, out.reshape(-1), groups, num_threads)
    return not (plan.planes.pads and any_nonfinite(out.reshape(-1)))


@compiled
def lane_sum(x, start, n):
    """Sum of n values in double precision over eight fixed lanes."""
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = 0.0
    whole = n // 8 * 8
    for i in range(start, start + whole, 8):
        s0 += x[i]
        s1 += x[i + 1]
        s2 += x[i + 2]
        s3 += x[i + 3]
        s4 += x[i + 4]
        s5 += x[i + 5]
        s6 += x[i + 6]
        s7 += x[i + 7]
    rest = start + whole
    left = n - whole
    s0 += x[rest] if left > 0 else 0.0
    s1 += x[rest + 1] if left > 1 else 0.0
    s2 += x[rest + 2] if left > 2 else 0.0
    s3 += x[rest + 3] if left > 3 else 0.0
    s4 += x[rest + 4] if left > 4 else 0.0
    s5 += x[rest + 5] if left > 5 else 0.0
    s6 += x[rest + 6] if left > 6 else 0.0
    return ((s0 + s4) + (s2 + s6)) + ((s1 + s5) + (s3 + s7))


@threaded
def sum_channels(dy, out, N, K, pixels, worker, workers):
    """out[k] = sum of dy[n, k, pixel]."""
    for k in range(K * worker // workers, K * (worker + 1) // workers):
        total = 0.0
        for n in range(N):
            total += lane_sum(dy, (n * K + k) * pixels, pixels)
        out[k] = total


def conv2d_grad_bias(*, dy, out, num_threads):
    """Gradient of the bias, summed in double precision."""
    N, K, P, Q = dy.shape
    sum_channels(num_threads, flat(dy), out, N, K, P * Q)
