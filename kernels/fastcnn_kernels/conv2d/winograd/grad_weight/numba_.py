"""Winograd's weight gradient in Numba. Equations, sources and packed order in ``winograd``.

The twin of ``cython_.pyx``: the same functions in the same order; the algorithms are described there.
"""

import numpy as np

from fastcnn_kernels.conv2d.channels_last import numba_ as plain_sums
from fastcnn_kernels.conv2d.handover import handing_over_to
from fastcnn_kernels.conv2d.winograd import blocking, geometry
from fastcnn_kernels.conv2d.winograd.numba_ import SPACING, find_segments, whole_lines
from fastcnn_kernels.conv2d.winograd.numba_points import GRADIENT, IMAGE
from fastcnn_kernels.conv2d.winograd.numba_transforms import patches, taps, watch
from fastcnn_kernels.conv2d.winograd.remainders import numba_ as copies
from fastcnn_kernels.conv2d.winograd.remainders.dilation import taking_dilation
from fastcnn_kernels.gemm.numba_copies import add_vectors, put_steps, zero_run
from fastcnn_kernels.gemm.numba_llvm import MOST_ROWS, MR, VECTOR_BYTES, panel_width
from fastcnn_kernels.gemm.numba_micro import micro
from fastcnn_kernels.gemm.numba_transposes import transpose
from fastcnn_kernels.memory import empty
from fastcnn_kernels.numba_support import compiled, flat, threaded

SEGMENT = 16  # tiles transposed at a time: 6 x 66 vectors, 9 x 129 with stride 2


@compiled
def transform_channels(
    planes, start, w, target, plane_step, table, kind, m, H, W, top, left, lanes, segments, index, target_step, e_step,
    scratch,
):  # fmt: skip
    """Patches of one segment of tiles in `lanes` channels, lanes of the target; `scratch` holds transposed columns."""
    VL = panel_width(planes) // 2
    size, step = (table[4, 0], table[4, 1]) if kind == IMAGE else (table[4, 2], table[4, 2])
    length = segments[index, 3]
    columns, column = (length - 1) * step + size, left + segments[index, 2] * step
    row = scratch
    for i in range(size):
        h = top + segments[index, 1] * step + i
        begin = end = columns
        if 0 <= h < H:
            begin = min(columns, max(0, -column))
            end = max(begin, min(columns, W - column))
        zero_run(w, row, begin * VL)
        if begin < end:
            transpose(
                planes, start + h * W + column + begin, plane_step, lanes, end - begin, w, row + begin * VL, VL,
                VL,
            )  # fmt: skip
        zero_run(w, row + end * VL, (columns - end) * VL)
        row += columns * VL
    patches(
        kind, m, length, lanes, w, scratch, step * VL, columns * VL, VL, w, target + segments[index, 4] * target_step,
        target_step, e_step,
    )  # fmt: skip


@threaded
def share_channels(
    dy, image, w, Y, V, table, m, first_group, end_group, tiles, count, segments, scratch, scratch_step, worker, workers
):  # fmt: skip
    """Patches of this worker's share of the channels of dy, and of the image, in some groups and a chunk of tiles."""
    P, Q, groups, M, C = table[0, 1], table[0, 2], table[0, 3], table[0, 4], table[0, 5]
    H, W, across, channels, place = table[1, 0], table[1, 1], table[3, 2], table[3, 3], table[3, 4]
    E, E_dy, VL = table[4, 0] ** 2, table[4, 3] ** 2, panel_width(image) // 2
    mr, columns = table[5, 0], table[5, 1] * VL
    y_step, v_step = tiles * mr + SPACING, tiles * columns + SPACING
    row_panels, parts, blocks = (M + mr - 1) // mr, (mr + VL - 1) // VL, (C + VL - 1) // VL
    column_panels = (C + columns - 1) // columns
    scratch += worker * scratch_step
    tasks = (end_group - first_group) * row_panels * parts * count
    for task in range(tasks * worker // workers, tasks * (worker + 1) // workers):
        index, unit = task % count, task // count
        panel, g, first = unit // parts % row_panels, unit // (parts * row_panels), unit % parts * VL
        if panel * mr + first >= M:
            continue
        transform_channels(
            dy, ((segments[index, 0] * groups + first_group + g) * M + panel * mr + first) * P * Q, w,
            Y + (g * row_panels + panel) * E_dy * y_step + first, P * Q, table, GRADIENT, m, P, Q, 0, 0,
            min(VL, mr - first, M - panel * mr - first), segments, index, mr, y_step, scratch,
        )  # fmt: skip
    tasks = (end_group - first_group) * blocks * count
    for task in range(tasks * worker // workers, tasks * (worker + 1) // workers):
        index, unit = task % count, task // count
        g, first = unit // blocks, unit % blocks * VL
        part, c = first // place, first % place
        transform_channels(
            image, ((segments[index, 0] * groups + first_group + g) * channels + c) * H * W, w,
            V + (g * column_panels + first // columns) * E * v_step + first % columns, H * W, table, IMAGE, m, H, W,
            table[1, 2] + part // across * 3, table[1, 3] + part % across * 3, min(VL, channels - c), segments, index,
            columns, v_step, scratch,
        )  # fmt: skip


@compiled
def weight_results(w, products, out, table, m, g, row_panel, column_panel, p_step, check):
    """The 3 x 3 gradients of one tile of products."""
    M, C, R, S, across = table[0, 4], table[0, 5], table[3, 0], table[3, 1], table[3, 2]
    channels, place, VL = table[3, 3], table[3, 4], panel_width(out) // 2
    mr, vectors, gradients = table[5, 0], table[5, 1], check + 2 * VL
    columns = vectors * VL
    for i in range(min(mr, M - row_panel * mr)):
        for vector in range(vectors):
            column = column_panel * columns + vector * VL
            if column >= C:
                break
            c = column % place
            lanes = min(VL, channels - c)
            taps(m, lanes, w, products + i * columns + vector * VL, p_step, w, gradients)
            for t in range(9):
                zero_run(w, gradients + t * VL + lanes, VL - lanes)
            watch(w, gradients, 9, w, check)
            target = ((g * M + row_panel * mr + i) * channels + c) * R * S
            if R == 3 and S == 3:
                transpose(w, gradients, VL, 9, lanes, out, target, 9, 9)
                continue
            for t in range(9):
                r, s = column // place // across * 3 + t // 3, column // place % across * 3 + t % 3
                if r < R and s < S:
                    put_steps(out, target + r * S + s, R * S, w, gradients + t * VL, lanes)


@threaded
def weight_tasks(
    w, Y, V, products, out, table, m, gradient_of, first_group, end_group, tiles, blocks, first_chunk, finish, scratch,
    scratch_step, worker, workers,
):  # fmt: skip
    """products[m, c] (+)= Y . V over a chunk of tiles, for this worker's share of the tasks (g, rows, columns, es).

    `finish` tells it to go on to the results; a task then has all E products.
    """
    M, C, IB, JB, splits, VL = table[0, 4], table[0, 5], blocks[1], blocks[2], blocks[3], panel_width(w) // 2
    E, E_dy, mr, columns = table[4, 0] ** 2, table[4, 3] ** 2, table[5, 0], table[5, 1] * VL
    row_panels, column_panels = (M + mr - 1) // mr, (C + columns - 1) // columns
    i_blocks, j_blocks = (row_panels + IB - 1) // IB, (column_panels + JB - 1) // JB
    y_step, v_step, p_step = tiles * mr + SPACING, tiles * columns + SPACING, mr * columns + SPACING
    tasks = (end_group - first_group) * i_blocks * j_blocks * splits
    for task in range(tasks * worker // workers, tasks * (worker + 1) // workers):
        g = task // (i_blocks * j_blocks * splits)
        row_first = task // (j_blocks * splits) % i_blocks * IB
        column_first = task // splits % j_blocks * JB
        for e in range(E * (task % splits) // splits, E * (task % splits + 1) // splits):
            for i in range(row_first, min(row_panels, row_first + IB)):
                for j in range(column_first, min(column_panels, column_first + JB)):
                    pair = (g * row_panels + i) * column_panels + j
                    micro(
                        min(mr, M - i * mr), min(columns, C - j * columns), tiles, w,
                        Y + ((g * row_panels + i) * E_dy + gradient_of[e]) * y_step, mr, w,
                        V + ((g * column_panels + j) * E + e) * v_step, columns, w,
                        products + (pair * E + e) * p_step, columns, not first_chunk,
                    )  # fmt: skip
        if finish:
            for i in range(row_first, min(row_panels, row_first + IB)):
                for j in range(column_first, min(column_panels, column_first + JB)):
                    pair = (g * row_panels + i) * column_panels + j
                    weight_results(
                        w, products + pair * E * p_step, out, table, m, first_group + g, i, j, p_step,
                        scratch + worker * scratch_step,
                    )  # fmt: skip


channels_of_one, tasks_of_one = share_channels.share, weight_tasks.share


@threaded
def weight_parts(
    dy, image, w, Y, V, patches_step, products, part_size, out, table, m, gradient_of, blocks, segments, scratch,
    scratch_step, worker, workers,
):  # fmt: skip
    """products[g, part] = Y . V over the tiles of each part of each group in this worker's share, chunk by chunk.

    All patches are its own. So are the products if a group has one part, and then it goes on to the results.
    """
    rows_of_tiles, tiles_w, chunk, parts = table[0, 0] * table[1, 4], table[1, 5], blocks[0], blocks[4]
    segments = segments[worker * chunk : (worker + 1) * chunk]
    check, NR = scratch + worker * scratch_step, panel_width(w)
    Y, V, units = Y + worker * patches_step, V + worker * patches_step, table[0, 3] * parts
    for unit in range(units * worker // workers, units * (worker + 1) // workers):
        g, part = unit // parts, unit % parts
        own = products + (unit if parts > 1 else worker) * part_size
        first, end = rows_of_tiles * part // parts * tiles_w, rows_of_tiles * (part + 1) // parts * tiles_w
        tile = first
        while tile < end:
            length = min(chunk, end - tile)
            count = find_segments(table, tile, tile + length, SEGMENT, segments, 0)
            channels_of_one(dy, image, w, Y, V, table, m, g, g + 1, length, count, segments, check + NR, 0, 0, 1)
            tasks_of_one(
                w, Y, V, own, out, table, m, gradient_of, g, g + 1, length, blocks, tile == first,
                parts == 1 and tile + length == end, check, 0, 0, 1,
            )  # fmt: skip
            tile += length


@threaded
def share_weight_results(w, products, parts, part_size, out, table, m, scratch, scratch_step, worker, workers):
    """Add up the products of all parts, in their order, and turn them into results, this worker's share."""
    M, C, E, VL = table[0, 4], table[0, 5], table[4, 0] ** 2, panel_width(out) // 2
    mr, columns = table[5, 0], table[5, 1] * VL
    row_panels, column_panels, p_step = (M + mr - 1) // mr, (C + columns - 1) // columns, mr * columns + SPACING
    tasks = table[0, 3] * row_panels * column_panels
    for task in range(tasks * worker // workers, tasks * (worker + 1) // workers):
        g, pair = task // (row_panels * column_panels), task % (row_panels * column_panels)
        total = products + g * parts * part_size + pair * E * p_step
        size = min(mr, M - pair // column_panels * mr) * columns
        for part in range(1, parts):
            for e in range(E):
                add_vectors(w, total + e * p_step, w, total + part * part_size + e * p_step, size)
        weight_results(
            w, total, out, table, m, g, pair // column_panels, pair % column_panels, p_step,
            scratch + worker * scratch_step,
        )  # fmt: skip


def run_weight_plan(plan, dy, image, out, num_threads):
    """Run a `geometry.Plan` of the weight gradient; False if a result may not be finite."""
    (N, _, _, groups, M, C), (_, _, _, _, tiles_h, tiles_w), *_, tile, (mr, vectors, *_) = plan.table.tolist()
    patch, step, _, sums, *_ = tile
    m, VL, E, E_dy, tiles = plan.m, VECTOR_BYTES // out.itemsize, patch**2, sums**2, N * tiles_h * tiles_w
    columns = vectors * VL
    row_panels, column_panels = -(-M // mr), -(-C // columns)
    gradient_of = geometry.gradient_of(m)
    blocks = blocking.weight_blocks(E, E_dy, groups, M, C, N * tiles_h, tiles_w, mr, columns, out.itemsize)
    chunk, _, _, splits, parts = blocks.tolist()
    partners, groups_at_once = (min(num_threads, groups * parts), 1) if parts else (1, groups)
    V = whole_lines(groups_at_once * row_panels * E_dy * (chunk * mr + SPACING))
    patches_size = V + groups_at_once * column_panels * E * (chunk * columns + SPACING)
    products = partners * patches_size  # partners have patches of their own
    part_size = row_panels * column_panels * E * (mr * columns + SPACING)
    scratch = products + part_size * (partners if parts == 1 else groups * max(parts, 1))
    scratch_step = 2 * VL + patch * (SEGMENT + 1) * step * VL
    w = empty(scratch + num_threads * scratch_step, out.dtype)
    segments = np.empty((partners * chunk, 5), np.intp)
    check = w[scratch:].reshape(num_threads, -1)[:, : 2 * VL]
    check[...] = 0
    dy, image, out = flat(dy), flat(image), flat(out)
    if parts:
        weight_parts(
            partners, dy, image, w, 0, V, patches_size, products, part_size, out, plan.table, m, gradient_of, blocks,
            segments, scratch, scratch_step,
        )  # fmt: skip
    for tile in range(0, 0 if parts else tiles, chunk):
        end = min(tiles, tile + chunk)
        count = find_segments(plan.table, tile, end, SEGMENT, segments, 0)
        share_channels(
            num_threads, dy, image, w, 0, V, plan.table, m, 0, groups, end - tile, count, segments, scratch + 2 * VL,
            scratch_step,
        )  # fmt: skip
        weight_tasks(
            num_threads, w, 0, V, products, out, plan.table, m, gradient_of, 0, groups, end - tile, blocks, tile == 0,
            splits == 1 and end == tiles, scratch, scratch_step,
        )  # fmt: skip
    if splits > 1 or parts > 1:
        share_weight_results(
            num_threads, w, products, max(parts, 1), part_size, out, plan.table, m, scratch, scratch_step
        )
    return not np.isnan(check).any()


@handing_over_to(plain_sums)
@taking_dilation(copies)
def conv2d_grad_weight(m, /, *, dy, x, out, stride, padding, dilation, groups, num_threads):
    """Gradient of the weights with tiles of m x m."""
    registers = (MR, MOST_ROWS, VECTOR_BYTES // out.itemsize)
    plan = geometry.grad_weight(m, x.shape, out.shape, dy.shape, stride, padding, groups, registers)
    return run_weight_plan(plan, dy, x, out, num_threads)
