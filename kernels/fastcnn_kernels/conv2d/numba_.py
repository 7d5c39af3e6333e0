"""Convolution in Numba: matrix products over shifted rows. Contract in the family's ``__init__``.

The twin of ``cython_.pyx``: the same functions in the same order; the algorithms are described there. An array and a
start index stand for a C pointer.
"""

import numpy as np

from fastcnn_kernels.conv2d import blocking, geometry
from fastcnn_kernels.conv2d.handover import to_numpy_row
from fastcnn_kernels.conv2d.numba_epilogue import activate, pool_rows
from fastcnn_kernels.gemm.blocking import packing_threads
from fastcnn_kernels.gemm.numba_copies import (
    pack_runs,
    put_steps,
    split_row,
    steps_to,
    take_steps,
    zero_run,
)
from fastcnn_kernels.gemm.numba_llvm import PANELS_AHEAD, VECTOR_BYTES, panel_width
from fastcnn_kernels.gemm.numba_micro import micro, micro_packing
from fastcnn_kernels.gemm.numba_panels import even_tile, pack_block, pack_panels, panel_rows, rows_side_by_side
from fastcnn_kernels.memory import empty
from fastcnn_kernels.numba_support import compiled, flat, threaded
from fastcnn_kernels.prepacked import keep, remembered, room


@threaded
def pad_planes(image, planes, count, H, W, top, left, rows, pitch, width, stride_w, row_step, worker, workers):
    """Copy every `row_step`-th row of (count, H, W) into (count, rows, pitch), padded by zeros.

    Columns are sorted by remainder modulo `stride_w`, `width` of each. Negative `top` and `left` crop.
    """
    remainders = pitch // width
    split = stride_w == 2 and remainders == 2  # both at once
    for plane in range(count * worker // workers, count * (worker + 1) // workers):
        for b in range(1 if split else remainders):
            # column j of remainder b is image column j * stride_w + b - left
            first = min(width, steps_to(left - b, stride_w))
            last = min(width, max(first, steps_to(W + left - b, stride_w)))
            for i in range(rows):
                target = (plane * rows + i) * pitch + b * width
                h = i * row_step - top
                if h < 0 or h >= H:
                    zero_run(planes, target, pitch if split else width)
                    continue
                source = (plane * H + h) * W - left
                if split:
                    split_row(image, source, left, left + W, planes, target, target + width, width)
                    continue
                zero_run(planes, target, first)
                start = source + first * stride_w + b
                take_steps(planes, target + first, image, start, stride_w, last - first)
                zero_run(planes, target + last, width - last)


@compiled
def find_runs(pixel, columns, P, Q, source_steps, out_steps, pool, runs, run_start, run_offset, run_out):
    """Split pixels [pixel, pixel + columns) of the (N, P, Q) grid into runs contiguous in the planes.

    A run starts at column ``run_start[run]`` of the panel, reads ``run_offset[run]`` and writes ``run_out[run]``;
    ``run_start[run_count]`` closes the list. Steps are those of one image, one row and one column. With `pool` 2 a row
    of the grid is a pair of rows: as many columns of the second one follow, run by run, without another ``run_out``.
    """
    column = 0
    count = 0
    while column < columns:
        q = (pixel + column) % Q
        p = (pixel + column) // Q % P
        n = (pixel + column) // (Q * P)
        length = min(Q - q, columns - column)
        offset = n * source_steps[0] + p * source_steps[1] + q
        out = n * out_steps[0] + p * out_steps[1] + q // pool * out_steps[2]
        if (
            count > 0
            and out_steps[2] == 1
            and offset - runs[run_offset + count - 1] == column - runs[run_start + count - 1]
            and (out - runs[run_out + count - 1]) * pool == column - runs[run_start + count - 1]
        ):
            column += length
            continue
        runs[run_start + count] = column
        runs[run_offset + count] = offset
        runs[run_out + count] = out
        count += 1
        column += length
    if pool == 2:
        for run in range(count):
            runs[run_start + count + run] = columns + runs[run_start + run]
            runs[run_offset + count + run] = runs[run_offset + run] + source_steps[1] // 2
        count *= 2
    runs[run_start + count] = columns * pool
    return count


@compiled
def is_one_run(count, runs, run_start, NR):
    """Whether the pixels of a panel lie side by side: then the first product that meets them packs them."""
    return count == 1 and runs[run_start + 1] == NR


@compiled
def source_of(pixel, P, Q, source_steps):
    """Offset of a pixel in the planes."""
    return pixel // (P * Q) * source_steps[0] + pixel // Q % P * source_steps[1] + pixel % Q


@compiled
def shifted_tile(
    rows, columns, L, a, a_start, mr, packed, packed_start, source, source_start, offset, l0, far, packs, bias,
    bias_start, has_bias, c, c_start, ldc, accumulate,
):  # fmt: skip
    """One micro-kernel call on a tile of sums, which starts from the bias, from zero or from what it holds.

    The pixels are packed; or, if it `packs`, they are packed here, from ``source[source_start + offset[l0 + l]:]``.
    """
    NR = panel_width(a)
    if has_bias and not accumulate:
        for i in range(rows):
            for j in range(NR):
                c[c_start + i * ldc + j] = bias[bias_start + i]
    accumulate = accumulate or has_bias
    if packs:
        micro_packing(
            rows, L, a, a_start, mr, source, source_start, offset, l0, far, packed, packed_start, c, c_start, ldc,
            accumulate,
        )  # fmt: skip
    else:
        micro(rows, columns, L, a, a_start, mr, packed, packed_start, NR, c, c_start, ldc, accumulate)


@compiled
def store_runs(
    tile, tile_start, rows, out, out_start, out_row_step, column_step, run_count, runs, run_start, run_out, activation,
    pool, pooled,
):  # fmt: skip
    """Store a tile run by run, activated, pooled if `pool` is 2; `pooled` is scratch for a row."""
    NR, columns = panel_width(tile), runs[run_start + run_count] // pool
    for i in range(rows):
        row = tile_start + i * NR
        if pool == 2:
            pool_rows(tile, row, row + columns, tile, pooled, columns // 2)
            row = pooled
        activate(tile, row, 1, 0, columns // pool, activation)
        for run in range(run_count // pool):
            start = runs[run_start + run]
            put_steps(
                out, out_start + i * out_row_step + runs[run_out + run], column_step, tile, row + start // pool,
                (runs[run_start + run + 1] - start) // pool,
            )  # fmt: skip


@threaded
def shifted_gemm(
    source, weight, a_packed, packs, bias, has_bias, out, out_start, table, source_offset, weight_offset, activation,
    pool, blocks, scratch, scratch_step, runs, worker, workers,
):  # fmt: skip
    """out[n, g, m, p, q] = bias[g, m] + sum_l weight[g, m, l] source[n, g, l, p, q], activated and pooled.

    Rows of table: shape = (N, P, Q, groups, M, L); source_steps = (image, row, group), columns are contiguous;
    weight_steps = (m, group); out_steps = (image, row, column, m); the sum's index l enters through the offset tables.
    A worker has its share of the panels of pixels beside each part of the rows, IB panels: JB of them at a time, of
    which it packs LB rows, a few of them side by side; or, of a panel that is one run, while it multiplies it by the
    first rows. Their sums wait in out where a tile lies as it does there, else in the scratch. Weights that no other
    worker meets are packed here, WB panels at a time; `packs` is False.
    """
    shape, source_steps, weight_steps, out_steps = table[0], table[1], table[2], table[3]
    P, Q, groups, M, L = shape[1], shape[2], shape[3], shape[4], shape[5]
    IB, JB, LB, WB = blocks[0], blocks[1], blocks[2], blocks[3]
    plane, pixels = P * Q, shape[0] * P * Q
    NR, mr = panel_width(source), panel_rows(M)
    span = NR // pool
    row_panels, pixel_panels = (M + mr - 1) // mr, (pixels + span - 1) // span
    a_size, streams = row_panels * mr * L, rows_side_by_side(LB)
    parts = (row_panels + IB - 1) // IB
    tasks = groups * parts * pixel_panels
    task, last = tasks * worker // workers, tasks * (worker + 1) // workers
    counts = worker * JB * (3 * NR + 2)
    packed = worker * scratch_step
    weights = packed + JB * NR * LB
    pooled = weights + (WB * mr * LB + NR - 1) // NR * NR
    sums = pooled + NR
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
            runs[counts + panel] = find_runs(
                pixel, min(span, pixels - pixel), P, Q, source_steps, out_steps, pool, runs, run_start,
                run_start + NR + 1, run_start + 2 * NR + 1,
            )  # fmt: skip
        for step in range((L + LB - 1) // LB):
            l0 = step * LB
            count = min(LB, L - l0)
            for part in range(0, count, streams):
                for panel in range(panels):
                    run_start = counts + JB + panel * (3 * NR + 1)
                    if is_one_run(runs[counts + panel], runs, run_start, NR):
                        continue
                    pack_runs(
                        source, g * source_steps[2], scratch, packed + (panel * count + part) * NR,
                        min(streams, count - part), source_offset, l0 + part,
                        max(0, min(streams, count - part - streams)), runs[counts + panel], runs, run_start,
                        run_start + NR + 1,
                    )  # fmt: skip
            for row_panel in range(row_first, row_last):
                i = row_panel * mr
                rows = min(mr, M - i)
                out_row = out_start + (g * M + i) * out_steps[3]
                if packs:
                    a, a_start = a_packed, g * a_size + i * L + l0 * mr
                else:
                    here = (row_panel - row_first) % WB
                    if here == 0:
                        pack_block(
                            weight, g * weight_steps[1], scratch, weights, M, mr, row_panel,
                            min(row_last, row_panel + WB), count, weight_steps[0], weight_offset, l0,
                        )  # fmt: skip
                    a, a_start = scratch, weights + here * mr * count
                for panel in range(panels):
                    run_start = counts + JB + panel * (3 * NR + 1)
                    pixel = (first + panel) * span
                    columns = pool * min(span, pixels - pixel)
                    tile = packed + panel * NR * count
                    unpacked = g * source_steps[2] + runs[run_start + NR + 1]
                    packs_here = row_panel == row_first and is_one_run(runs[counts + panel], runs, run_start, NR)
                    far = 0
                    if packs_here:
                        far = source_of(pixel + PANELS_AHEAD * NR, P, Q, source_steps) - runs[run_start + NR + 1]
                    if (
                        out_steps[2] == 1
                        and out_steps[1] == Q
                        and pixel + NR <= pixels
                        and pixel // plane == (pixel + NR - 1) // plane
                        and pool == 1
                    ):
                        place = out_row + runs[run_start + 2 * NR + 1]
                        shifted_tile(
                            rows, columns, count, a, a_start, mr, scratch, tile, source, unpacked, source_offset, l0,
                            far, packs_here, bias, g * M + i, has_bias, out, place, out_steps[3], l0 > 0,
                        )  # fmt: skip
                        if l0 + count == L:
                            activate(out, place, rows, out_steps[3], NR, activation)
                        continue
                    c = sums + ((row_panel - row_first) * panels + panel if LB < L else 0) * mr * NR
                    shifted_tile(
                        rows, columns, count, a, a_start, mr, scratch, tile, source, unpacked, source_offset, l0, far,
                        packs_here, bias, g * M + i, has_bias, scratch, c, NR, l0 > 0,
                    )  # fmt: skip
                    if l0 + count == L:
                        store_runs(
                            scratch, c, rows, out, out_row, out_steps[3], out_steps[2], runs[counts + panel], runs,
                            run_start, run_start + 2 * NR + 1, activation, pool, pooled,
                        )  # fmt: skip


def run_product(product, source, weight, bias, out, activation, pool, packed, num_threads):
    """Allocate the workspace of one `shifted_gemm` and run it; `product` is a `geometry.Product`."""
    N, P, Q, groups, M, L = product.table[0].tolist()
    row_step, group_step = product.table[2, :2].tolist()
    NR, mr, pixels = 2 * VECTOR_BYTES // out.itemsize, panel_rows(M), N * P * Q * pool
    blocks = blocking.pixel_blocks(groups, M, pixels, L, mr, NR, out.itemsize, num_threads, packed is not None)
    IB, JB, LB, WB = blocks.tolist()
    packs = WB == 0
    tiles = IB * JB if LB < L else 1
    scratch_step = (JB * LB + -(-WB * mr * LB // NR) + 1 + tiles * mr) * NR
    order = ("plain", mr, M)
    a_packed, filled = room(packed, order, groups * -(-M // mr) * mr * L if packs else 1, out.dtype)
    scratch = empty(num_threads * scratch_step, out.dtype)
    runs = np.empty(num_threads * JB * (3 * NR + 2), np.intp)
    if packs and not filled:
        pack_panels(
            packing_threads(a_packed.size, num_threads), weight, a_packed, groups, group_step, M, mr, L, row_step,
            product.weight_offset,
        )  # fmt: skip
        keep(packed, order, a_packed)
    shifted_gemm(
        num_threads, source, weight, a_packed, packs, a_packed if bias is None else bias, bias is not None, out,
        product.out_start, product.table, product.source_offset, product.weight_offset, activation, pool, blocks,
        scratch, scratch_step, runs,
    )  # fmt: skip


def run_pad_planes(planes, image, target, num_threads):
    """Copy `image` into its `geometry.Planes`."""
    N, C, H, W = image.shape
    pad_planes(
        num_threads, flat(image), target, N * C, H, W, planes.top, planes.left, planes.rows, planes.pitch,
        planes.width, planes.stride_w, planes.row_step,
    )  # fmt: skip


@compiled
def has_nonfinite(values):
    """Whether any value is NaN or infinite: only those minus themselves are not 0."""
    found = False
    for i in range(values.size):  # from another start, as a share has it, LLVM would not form vectors
        found |= values[i] - values[i] != 0
    return found


@threaded
def find_nonfinite(values, found, worker, workers):
    """Whether any value of this worker's share is NaN or infinite."""
    here = False
    for i in range(values.size * worker // workers, values.size * (worker + 1) // workers):
        here |= values[i] - values[i] != 0
    found[worker] = here


def any_nonfinite(values, num_threads):
    """Whether any value is NaN or infinite."""
    workers = packing_threads(values.size, num_threads)
    if workers == 1:  # half a microsecond, with an array for the answer two more
        return has_nonfinite(values)
    found = np.empty(workers, bool)
    find_nonfinite(workers, values, found)
    return found.any()


@threaded
def set_zero(values, worker, workers):
    """Set all values to zero, this worker's share."""
    first = values.size * worker // workers
    zero_run(values, first, values.size * (worker + 1) // workers - first)


def planes_of(planes, image, num_threads):
    """The `geometry.Planes` of an image, flat: a padded copy, or the image itself."""
    if not planes.copied:
        return flat(image)
    target = empty(image.shape[0] * image.shape[1] * planes.rows * planes.pitch, image.dtype)
    run_pad_planes(planes, image, target, num_threads)
    return target


def run_plan(plan, image, weight, bias, out, activation, pool, packed, num_threads):
    """Run a `geometry.Plan`: copy the planes, then one product after the other."""
    source = planes_of(plan.planes, image, num_threads)
    if not plan.covers_out:
        set_zero(num_threads, flat(out))
    for product in plan.products:
        run_product(
            product, source, flat(weight), None if bias is None else flat(bias), flat(out), activation, pool, packed,
            num_threads,
        )  # fmt: skip


@to_numpy_row
def conv2d(
    *, x, weight, bias, out, stride, padding, dilation, groups, activation, max_pool, packed, num_threads
):  # fmt: skip
    """Forward convolution."""
    plan = geometry.forward(x.shape, weight.shape, out.shape, stride, padding, dilation, groups, max_pool)
    if plan.planes.pads and remembered(packed, "nonfinite", any_nonfinite, flat(weight), num_threads):
        return False
    run_plan(plan, x, weight, bias, out, geometry.ACTIVATIONS[activation], max_pool, packed, num_threads)
    return True


@to_numpy_row
def conv2d_grad_input(*, dy, weight, out, stride, padding, dilation, groups, num_threads):
    """Gradient of the input."""
    plan = geometry.grad_input(dy.shape, weight.shape, out.shape, stride, padding, dilation, groups)
    if plan.planes.pads and any_nonfinite(flat(weight), num_threads):
        return False
    run_plan(plan, dy, weight, None, out, 0, 1, None, num_threads)
    return True


def add_chunks(partial, out, chunks):
    """``out[j]`` = sum of ``partial[chunk, j]``, in the order of the chunks."""
    parts = partial.reshape(chunks, -1)
    out[:] = parts[0]
    for part in parts[1:]:
        out += part


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
