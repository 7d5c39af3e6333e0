"""Winograd's weight gradient in Cython. Equations, sources and packed order in ``winograd``.

The sum runs over the tiles, so the lanes of patches and of dy are channels.
"""

import numpy as np

from cython.parallel cimport prange

from fastcnn_kernels.address cimport address
from fastcnn_kernels.conv2d.winograd.segments cimport SPACING, find_segments, whole_lines
from fastcnn_kernels.conv2d.winograd.transforms cimport GRADIENT, HAS_TRANSFORMS, IMAGE, patches, taps, watch
from fastcnn_kernels.gemm.micro cimport (
    MOST_ROWS, MR, VECTOR_BYTES, micro_dense, panel_width, put_steps, real, transpose, zero_run
)

from fastcnn_kernels.conv2d.channels_last import cython_ as plain_sums
from fastcnn_kernels.conv2d.handover import handing_over_to
from fastcnn_kernels.conv2d.winograd import blocking, geometry
from fastcnn_kernels.conv2d.winograd.remainders import cython_ as copies
from fastcnn_kernels.conv2d.winograd.remainders.dilation import taking_dilation
from fastcnn_kernels.memory import empty

cdef enum:
    SEGMENT = 16  # tiles transposed at a time: 6 x 66 vectors, 9 x 129 with stride 2


cdef void transform_channels(
    const real* planes, real* target, Py_ssize_t plane_step, const Py_ssize_t* table, int kind, int m, Py_ssize_t H,
    Py_ssize_t W, Py_ssize_t top, Py_ssize_t left, Py_ssize_t lanes, const Py_ssize_t* segment, Py_ssize_t target_step,
    Py_ssize_t e_step, real* columns_of_lanes,
) noexcept nogil:
    """Patches of one segment of tiles in `lanes` channels, lanes of `target`; the last argument is scratch."""
    cdef int VL = panel_width(planes) // 2
    cdef Py_ssize_t size = table[24 if kind == IMAGE else 26], step = table[25 if kind == IMAGE else 26], i, h
    cdef Py_ssize_t columns = (segment[3] - 1) * step + size, column = left + segment[2] * step, begin, end
    cdef real* row = columns_of_lanes
    for i in range(size):
        h = top + segment[1] * step + i
        if h < 0 or h >= H:
            begin = end = columns
        else:
            begin = min(columns, max(0, -column))
            end = max(begin, min(columns, W - column))
        zero_run(row, begin * VL)
        if begin < end:
            transpose(planes + h * W + column + begin, plane_step, lanes, end - begin, row + begin * VL, VL, VL)
        zero_run(row + end * VL, (columns - end) * VL)
        row += columns * VL
    patches(
        kind, m, segment[3], lanes, columns_of_lanes, step * VL, columns * VL, VL, target + segment[4] * target_step,
        target_step, e_step,
    )


cdef void share_channels(
    const real* dy, const real* image, real* Y, real* V, const Py_ssize_t* table, int m, Py_ssize_t first_group,
    Py_ssize_t end_group, Py_ssize_t tiles, Py_ssize_t count, const Py_ssize_t* segments, real* scratch,
    Py_ssize_t worker, Py_ssize_t workers,
) noexcept nogil:
    """Patches of this worker's share of the channels of dy, and of the image, in some groups and a chunk of tiles."""
    cdef Py_ssize_t P = table[1], Q = table[2], groups = table[3], M = table[4], C = table[5]
    cdef Py_ssize_t H = table[6], W = table[7], across = table[20], channels = table[21], place = table[22]
    cdef Py_ssize_t E = table[24] * table[24], E_dy = table[27] * table[27], task, unit, g, panel, first, part, c
    cdef int VL = panel_width(image) // 2, mr = <int>table[30], columns = <int>table[31] * VL
    cdef Py_ssize_t y_step = tiles * mr + SPACING, v_step = tiles * columns + SPACING
    cdef Py_ssize_t row_panels = (M + mr - 1) // mr, parts = (mr + VL - 1) // VL, blocks = (C + VL - 1) // VL
    cdef Py_ssize_t column_panels = (C + columns - 1) // columns, tasks
    cdef const Py_ssize_t* segment
    tasks = (end_group - first_group) * row_panels * parts * count
    for task in range(tasks * worker // workers, tasks * (worker + 1) // workers):
        segment = segments + task % count * 5
        unit = task // count
        panel = unit // parts % row_panels
        g = unit // (parts * row_panels)
        first = unit % parts * VL
        if panel * mr + first >= M:
            continue
        transform_channels(
            dy + ((segment[0] * groups + first_group + g) * M + panel * mr + first) * P * Q,
            Y + (g * row_panels + panel) * E_dy * y_step + first, P * Q, table, GRADIENT, m, P, Q, 0, 0,
            min(VL, mr - first, M - panel * mr - first), segment, mr, y_step, scratch,
        )
    tasks = (end_group - first_group) * blocks * count
    for task in range(tasks * worker // workers, tasks * (worker + 1) // workers):
        segment = segments + task % count * 5
        unit = task // count
        g = unit // blocks
        first = unit % blocks * VL
        part = first // place
        c = first % place
        transform_channels(
            image + ((segment[0] * groups + first_group + g) * channels + c) * H * W,
            V + (g * column_panels + first // columns) * E * v_step + first % columns, H * W, table, IMAGE, m, H, W,
            table[8] + part // across * 3, table[9] + part % across * 3, min(VL, channels - c), segment, columns,
            v_step, scratch,
        )


cdef void weight_results(
    const real* products, real* out, const Py_ssize_t* table, int m, Py_ssize_t g, Py_ssize_t row_panel,
    Py_ssize_t column_panel, Py_ssize_t p_step, real* check,
) noexcept nogil:
    """The 3 x 3 gradients of one tile of products."""
    cdef Py_ssize_t M = table[4], C = table[5], R = table[18], S = table[19], across = table[20], channels = table[21]
    cdef Py_ssize_t place = table[22], i, j, t, column, c, r, s, lanes
    cdef int VL = panel_width(out) // 2, mr = <int>table[30], vectors = <int>table[31], columns = vectors * VL, vector
    cdef real* gradients = check + 2 * VL
    cdef real* target
    for i in range(min(mr, M - row_panel * mr)):
        for vector in range(vectors):
            column = column_panel * columns + vector * VL
            if column >= C:
                break
            c = column % place
            lanes = min(VL, channels - c)
            taps(m, lanes, products + i * columns + vector * VL, p_step, gradients)
            for j in range(lanes, VL):
                for t in range(9):
                    gradients[t * VL + j] = 0
            watch(gradients, 9, check)
            target = out + ((g * M + row_panel * mr + i) * channels + c) * R * S
            if R == 3 and S == 3:
                transpose(gradients, VL, 9, lanes, target, 9, 9)
                continue
            for t in range(9):
                r = column // place // across * 3 + t // 3
                s = column // place % across * 3 + t % 3
                if r < R and s < S:
                    put_steps(target + r * S + s, gradients + t * VL, R * S, lanes)


cdef void weight_tasks(
    const real* Y, const real* V, real* products, real* out, const Py_ssize_t* table, int m,
    const Py_ssize_t* gradient_of, Py_ssize_t first_group, Py_ssize_t end_group, Py_ssize_t tiles,
    const Py_ssize_t* blocks, bint first_chunk, bint finish, real* scratch, Py_ssize_t worker, Py_ssize_t workers,
) noexcept nogil:
    """products[m, c] (+)= Y . V over a chunk of tiles, for this worker's share of the tasks (g, rows, columns, es).

    `finish` tells it to go on to the results; a task then has all E products.
    """
    cdef Py_ssize_t M = table[4], C = table[5], IB = blocks[1], JB = blocks[2], splits = blocks[3]
    cdef Py_ssize_t E = table[24] * table[24], E_dy = table[27] * table[27]
    cdef Py_ssize_t task, tasks, g, row_first, column_first, e, i, j, pair
    cdef int mr = <int>table[30], vectors = <int>table[31], columns = vectors * (panel_width(Y) // 2)
    cdef Py_ssize_t row_panels = (M + mr - 1) // mr, column_panels = (C + columns - 1) // columns
    cdef Py_ssize_t i_blocks = (row_panels + IB - 1) // IB, j_blocks = (column_panels + JB - 1) // JB
    cdef Py_ssize_t y_step = tiles * mr + SPACING, v_step = tiles * columns + SPACING, p_step = mr * columns + SPACING
    tasks = (end_group - first_group) * i_blocks * j_blocks * splits
    for task in range(tasks * worker // workers, tasks * (worker + 1) // workers):
        g = task // (i_blocks * j_blocks * splits)
        row_first = task // (j_blocks * splits) % i_blocks * IB
        column_first = task // splits % j_blocks * JB
        for e in range(E * (task % splits) // splits, E * (task % splits + 1) // splits):
            for i in range(row_first, min(row_panels, row_first + IB)):
                for j in range(column_first, min(column_panels, column_first + JB)):
                    pair = (g * row_panels + i) * column_panels + j
                    micro_dense(
                        <int>min(mr, M - i * mr), vectors, <int>min(columns, C - j * columns), tiles,
                        Y + ((g * row_panels + i) * E_dy + gradient_of[e]) * y_step, mr,
                        V + ((g * column_panels + j) * E + e) * v_step, products + (pair * E + e) * p_step,
                        not first_chunk,
                    )
        if finish:
            for i in range(row_first, min(row_panels, row_first + IB)):
                for j in range(column_first, min(column_panels, column_first + JB)):
                    pair = (g * row_panels + i) * column_panels + j
                    weight_results(
                        products + pair * E * p_step, out, table, m, first_group + g, i, j, p_step, scratch
                    )


cdef void weight_parts(
    const real* dy, const real* image, real* Y, real* V, real* products, Py_ssize_t part_size, real* out,
    const Py_ssize_t* table, int m, const Py_ssize_t* gradient_of, const Py_ssize_t* blocks, Py_ssize_t* segments,
    real* scratch, Py_ssize_t worker, Py_ssize_t workers,
) noexcept nogil:
    """products[g, part] = Y . V over the tiles of each part of each group in this worker's share, chunk by chunk.

    All patches are its own. So are the products if a group has one part, and then it goes on to the results.
    """
    cdef Py_ssize_t rows_of_tiles = table[0] * table[10], tiles_w = table[11], chunk = blocks[0], parts = blocks[4]
    cdef Py_ssize_t units = table[3] * parts, unit, g, part, first, tile, end, length, count
    cdef int NR = panel_width(out)
    cdef real* own
    for unit in range(units * worker // workers, units * (worker + 1) // workers):
        g = unit // parts
        part = unit % parts
        own = products + (unit if parts > 1 else worker) * part_size
        tile = first = rows_of_tiles * part // parts * tiles_w
        end = rows_of_tiles * (part + 1) // parts * tiles_w
        while tile < end:
            length = min(chunk, end - tile)
            count = find_segments(table, tile, tile + length, SEGMENT, segments)
            share_channels(
                dy, image, Y, V, table, m, g, g + 1, length, count, segments, scratch + NR, 0, 1
            )
            weight_tasks(
                Y, V, own, out, table, m, gradient_of, g, g + 1, length, blocks, tile == first,
                parts == 1 and tile + length == end, scratch, 0, 1,
            )
            tile += length


cdef void share_weight_results(
    real* products, Py_ssize_t parts, Py_ssize_t part_size, real* out, const Py_ssize_t* table, int m, real* scratch,
    Py_ssize_t worker, Py_ssize_t workers,
) noexcept nogil:
    """Add up the products of all parts, in their order, and turn them into results, this worker's share."""
    cdef Py_ssize_t M = table[4], C = table[5], E = table[24] * table[24], task, tasks, part, e, i, size, g, pair
    cdef int mr = <int>table[30], columns = <int>table[31] * (panel_width(out) // 2)
    cdef Py_ssize_t row_panels = (M + mr - 1) // mr, column_panels = (C + columns - 1) // columns
    cdef Py_ssize_t p_step = mr * columns + SPACING
    cdef real* total
    cdef real* addend
    tasks = table[3] * row_panels * column_panels
    for task in range(tasks * worker // workers, tasks * (worker + 1) // workers):
        g = task // (row_panels * column_panels)
        pair = task % (row_panels * column_panels)
        total = products + g * parts * part_size + pair * E * p_step
        size = min(mr, M - pair // column_panels * mr) * columns
        for part in range(1, parts):
            for e in range(E):
                addend = total + part * part_size + e * p_step
                for i in range(size):
                    total[e * p_step + i] += addend[i]
        weight_results(total, out, table, m, g, pair // column_panels, pair % column_panels, p_step, scratch)


cdef bint run_weight_plan(plan, dy, image, out, real* out_start, int num_threads) except -1:
    """Run a `geometry.Plan` of the weight gradient; False if a result may not be finite."""
    if not HAS_TRANSFORMS:
        return False
    cdef const real* dy_start = <const real*>address(dy)
    cdef const real* image_start = <const real*>address(image)
    cdef const Py_ssize_t* table = <const Py_ssize_t*>address(plan.table)
    cdef Py_ssize_t groups = table[3], M = table[4], C = table[5], worker
    cdef int m = plan.m, NR = panel_width(out_start), mr = <int>table[30], columns = <int>table[31] * (NR // 2)
    cdef Py_ssize_t E = table[24] * table[24], E_dy = table[27] * table[27]
    cdef Py_ssize_t tiles = table[0] * table[10] * table[11]
    cdef Py_ssize_t row_panels = (M + mr - 1) // mr, column_panels = (C + columns - 1) // columns
    gradient_table = geometry.gradient_of(m)
    cdef const Py_ssize_t* gradient_of = <const Py_ssize_t*>address(gradient_table)
    block_table = blocking.weight_blocks(
        E, E_dy, groups, M, C, table[0] * table[10], table[11], mr, columns, sizeof(real)
    )
    cdef const Py_ssize_t* blocks = <const Py_ssize_t*>address(block_table)
    cdef Py_ssize_t chunk = blocks[0], splits = blocks[3], parts = blocks[4]
    cdef Py_ssize_t partners = min(num_threads, groups * parts) if parts else 1  # with patches of their own
    cdef Py_ssize_t groups_at_once = 1 if parts else groups
    cdef Py_ssize_t y_size = whole_lines(groups_at_once * row_panels * E_dy * (chunk * mr + SPACING))
    cdef Py_ssize_t v_size = groups_at_once * column_panels * E * (chunk * columns + SPACING)
    cdef Py_ssize_t part_size = row_panels * column_panels * E * (mr * columns + SPACING)
    cdef Py_ssize_t products_size = part_size * (partners if parts == 1 else groups * max(parts, 1))
    cdef Py_ssize_t scratch_step = NR + table[24] * (SEGMENT + 1) * table[25] * (NR // 2), tile, end, count
    cdef Py_ssize_t patches_size = partners * (y_size + v_size)
    workspace = empty(patches_size + products_size + num_threads * scratch_step, out.dtype)
    segment_table = np.empty(partners * chunk * 5, np.intp)
    cdef Py_ssize_t* segments = <Py_ssize_t*>address(segment_table)
    cdef real* Y = <real*>address(workspace)
    cdef real* V = Y + y_size
    cdef real* products = Y + patches_size
    cdef real* scratch = products + products_size
    check = workspace[patches_size + products_size:].reshape(num_threads, -1)[:, :NR]
    check[...] = 0
    if parts:
        for worker in prange(partners, nogil=True, num_threads=partners, schedule="static", chunksize=1):
            weight_parts(
                dy_start, image_start, Y + worker * (y_size + v_size), V + worker * (y_size + v_size), products,
                part_size, out_start, table, m, gradient_of, blocks, segments + worker * chunk * 5,
                scratch + worker * scratch_step, worker, partners,
            )
    tile = tiles if parts else 0
    while tile < tiles:
        end = min(tiles, tile + chunk)
        count = find_segments(table, tile, end, SEGMENT, segments)
        for worker in prange(num_threads, nogil=True, num_threads=num_threads, schedule="static", chunksize=1):
            share_channels(
                dy_start, image_start, Y, V, table, m, 0, groups, end - tile, count, segments,
                scratch + worker * scratch_step + NR, worker, num_threads,
            )
        for worker in prange(num_threads, nogil=True, num_threads=num_threads, schedule="static", chunksize=1):
            weight_tasks(
                Y, V, products, out_start, table, m, gradient_of, 0, groups, end - tile, blocks, tile == 0,
                splits == 1 and end == tiles, scratch + worker * scratch_step, worker, num_threads,
            )
        tile = end
    if splits > 1 or parts > 1:
        for worker in prange(num_threads, nogil=True, num_threads=num_threads, schedule="static", chunksize=1):
            share_weight_results(
                products, max(parts, 1), part_size, out_start, table, m, scratch + worker * scratch_step, worker,
                num_threads,
            )
    return not np.isnan(check).any()


@handing_over_to(plain_sums)
@taking_dilation(copies)
def conv2d_grad_weight(m, /, *, dy, x, out, stride, padding, dilation, groups, int num_threads):
    """Gradient of the weights with tiles of m x m."""
    registers = (MR, MOST_ROWS, VECTOR_BYTES // out.itemsize)
    plan = geometry.grad_weight(m, x.shape, out.shape, dy.shape, stride, padding, groups, registers)
    if out.itemsize == 4:
        return run_weight_plan(plan, dy, x, out, <float*>address(out), num_threads)
    return run_weight_plan(plan, dy, x, out, <double*>address(out), num_threads)
