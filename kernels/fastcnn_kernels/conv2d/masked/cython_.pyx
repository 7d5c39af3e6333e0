"""Masked convolution in Cython. Contract in ``conv2d``; shifts and masks in ``geometry``.

Forward and input gradient: a tile of mr rows by up to four vectors of pixels stays in registers
while every tap of every channel is read where it lies:

    out[m, j] = bias[m] + sum_{c, t} weight[m, (c, t)] image[ c plane + offset[t] + j ]

Weight gradient: every entry is a dot product over the pixels of all images, summed in the lanes of one vector:

    dw[m, (c, t)] = sum_{n, j} dy[n, m, j] image[ n, c plane + offset[t] + j ]

A tile of rows by columns of them stays in registers for a block of pixels; the sum over the images is split into chunks
fixed by the shape.
"""

from cython.parallel cimport prange
from libc.stdint cimport uint16_t

from fastcnn_kernels.address cimport address
from fastcnn_kernels.conv2d.epilogue cimport activate, pool_rows
from fastcnn_kernels.gemm.micro cimport (
    DOT_COLUMNS, DOT_COLUMNS_OF_ONE_ROW, DOT_ROWS, MASKS_OF, MR, TILE_VECTORS, VECTOR_BYTES, add_chunks, add_lanes,
    direct, has_nonfinite, keep_lanes, masked, masked_dot, panel_width, real, store_tile, zero_run
)
from fastcnn_kernels.gemm.panels cimport even_tile, pack_panels

from fastcnn_kernels.conv2d.masked import blocking, geometry
from fastcnn_kernels.conv2d.geometry import ACTIVATIONS, padded_bias
from fastcnn_kernels.conv2d.handover import to_numpy_row
from fastcnn_kernels.prepacked import keep, room
from fastcnn_kernels.gemm.blocking import packing_threads
from fastcnn_kernels.memory import empty


cdef void multiply_tile(
    int mr, int vectors, bint all_lanes, const Py_ssize_t* table, const real* a, const real* source,
    const Py_ssize_t* offset, const Py_ssize_t* column_offset, const uint16_t* masks, const real* bias, real* c,
    Py_ssize_t ldc,
) noexcept nogil:
    """One tile of sums, without masks if all its lanes count."""
    if all_lanes:
        direct(mr, vectors, table[5], a, source, column_offset, bias, c, ldc)
    else:
        masked(mr, vectors, table[5] // table[9], table[9], a, source, table[8], offset, masks, bias, c, ldc)


cdef void masked_tiles(
    const real* image, const real* a_packed, const real* bias, real* out, const Py_ssize_t* table,
    const Py_ssize_t* offset, const Py_ssize_t* column_offset, const uint16_t* masks, int activation,
    Py_ssize_t tile_block, Py_ssize_t row_block, real* tile, Py_ssize_t worker, Py_ssize_t workers,
) noexcept nogil:
    """Do this worker's share of the tasks (n, g, block of tiles, panel of rows).

    Where no tap pads, all lanes count but in the last vector of a plane, and masks would only cost.
    If windows are pooled, a block has all tiles that meet `row_block` rows of the plane, whose sums wait behind the
    tile, between as many rows of the neighbours as a tile may hold.
    """
    cdef Py_ssize_t N = table[0], P = table[1], Q = table[2], groups = table[3], M = table[4], L = table[5]
    cdef Py_ssize_t taps = table[9], width = table[10], m_step = table[19]
    cdef bint dense = table[20], whole, no_masks = table[22]
    cdef int pool = <int>table[21], mr = <int>table[23]
    cdef Py_ssize_t panels = (M + mr - 1) // mr, most = TILE_VECTORS(mr), VL = panel_width(image) // 2, vectors
    cdef Py_ssize_t tile_width = most * VL, pixels = (P - 1) * width + Q
    cdef Py_ssize_t tiles = (pixels + tile_width - 1) // tile_width, blocks = (tiles + tile_block - 1) // tile_block
    cdef Py_ssize_t slack = tile_width // width + 1, sums_step = (row_block + 2 * slack) * Q
    cdef Py_ssize_t tasks, first, n, g, block, panel, step, step_first, step_end, pixel, i, h, _
    cdef const real* source
    cdef real* target
    cdef real* c
    cdef real* sums = tile + MR * 4 * panel_width(image) + slack * Q
    if pool == 2:
        blocks = (P + row_block - 1) // row_block
    tasks = N * groups * blocks * panels
    first = tasks * worker // workers
    panel = first % panels
    block = first // panels % blocks
    g = first // (panels * blocks) % groups
    n = first // (panels * blocks * groups)
    for _ in range(first, tasks * (worker + 1) // workers):
        i = panel * mr
        source = image + n * table[6] + g * table[7]
        target = out + n * table[18] + (g * M + i) * m_step
        whole = dense and i + mr <= M
        step_first = block * tile_block
        step_end = min(tiles, (block + 1) * tile_block)
        if pool == 2:
            step_first = block * row_block * width // tile_width
            step_end = min(tiles, ((block + 1) * row_block * width + tile_width - 1) // tile_width)
        for step in range(step_first, step_end):
            pixel = step * tile_width
            c = target + pixel if whole else tile
            vectors = min(most, (pixels - pixel + VL - 1) // VL)
            multiply_tile(
                mr, <int>vectors, no_masks and pixel + vectors * VL <= pixels, table,
                a_packed + (g * panels * mr + i) * L, source + pixel, offset, column_offset,
                masks + step * most * (taps + 1), bias + g * panels * mr + i if bias != NULL else NULL, c,
                m_step if whole else tile_width,
            )
            if whole:
                activate(c, mr, m_step, min(tile_width, pixels - pixel), activation)
                continue
            activate(tile, min(mr, M - i), tile_width, vectors * VL, activation)
            if pool == 2:
                store_tile(
                    tile, tile_width, min(mr, M - i), pixel, pixels, Q, width, sums - block * row_block * Q, Q, 1,
                    sums_step,
                )
                continue
            c = target + pixel // width * Q + min(Q, pixel % width)
            for h in range(min(mr, M - i)):
                keep_lanes(
                    c + h * m_step, tile + h * tile_width, <int>vectors, masks + step * most * (taps + 1) + taps,
                    taps + 1,
                )
        if pool == 2:
            for i in range(min(mr, M - panel * mr)):
                for h in range(min(row_block, P - block * row_block) // 2):
                    pool_rows(
                        sums + i * sums_step + 2 * h * Q, sums + i * sums_step + (2 * h + 1) * Q,
                        target + i * m_step + (block * row_block // 2 + h) * (Q // 2), Q // 2,
                    )
        panel += 1  # the next task, without dividing
        if panel == panels:
            panel = 0
            block += 1
        if block == blocks:
            block = 0
            g += 1
        if g == groups:
            g = 0
            n += 1


cdef bint run_plan(
    plan, image, weight, bias, out, real* out_start, int activation, packed, int num_threads
) except -1:
    """Allocate the workspace of a `geometry.Plan` and run it, unless a value is not finite where it pads."""
    cdef const real* weight_start = <const real*>address(weight)
    cdef const Py_ssize_t* table = <const Py_ssize_t*>address(plan.table)
    cdef const Py_ssize_t* offset = <const Py_ssize_t*>address(plan.offset)
    cdef const Py_ssize_t* column_offset = <const Py_ssize_t*>address(plan.column_offset)
    cdef const Py_ssize_t* weight_offset = <const Py_ssize_t*>address(plan.weight_offset)
    cdef const uint16_t* masks = <const uint16_t*>address(plan.masks)
    cdef const real* image_start = <const real*>address(image)
    cdef Py_ssize_t groups = table[3], M = table[4], L = table[5], weight_size = weight.size, worker
    if plan.pads and has_nonfinite(weight_start, weight_size):
        return False
    cdef int mr = <int>table[23]
    cdef Py_ssize_t panels = (M + mr - 1) // mr, tile_size = MR * 4 * panel_width(out_start), row_block = 0
    cdef Py_ssize_t tile_width = TILE_VECTORS(mr) * panel_width(out_start) // 2
    cdef Py_ssize_t tile_block = blocking.tiles_per_task(
        ((table[1] - 1) * table[10] + table[2] + tile_width - 1) // tile_width, L // table[9],
        tile_width * sizeof(real), table[0] * groups * panels, num_threads,
    )
    if table[21] == 2:
        row_block = blocking.rows_per_task(tile_block, tile_width, table[10], table[1])
        tile_size += mr * (row_block + 2 * (tile_width // table[10] + 1)) * table[2]
    cdef Py_ssize_t packed_size = groups * panels * mr * L
    filled = False
    if packed is None:
        workspace = empty(num_threads * tile_size + packed_size, out.dtype)
    else:
        order = ("plain", mr, M)
        filters, filled = room(packed, order, packed_size, out.dtype)
        workspace = empty(num_threads * tile_size, out.dtype)
    cdef real* tiles = <real*>address(workspace)
    cdef real* a_packed = tiles + num_threads * tile_size if packed is None else <real*>address(filters)
    cdef int packers = packing_threads(packed_size, num_threads)
    bias = padded_bias(bias, groups, M, mr)
    cdef const real* bias_start = <const real*>address(bias)
    if not filled:
        if packers == 1:  # a parallel region of one thread takes a microsecond
            pack_panels(weight_start, a_packed, groups, table[13], M, mr, L, table[12], weight_offset, 0, 1)
        else:
            for worker in prange(packers, nogil=True, num_threads=packers, schedule="static", chunksize=1):
                pack_panels(
                    weight_start, a_packed, groups, table[13], M, mr, L, table[12], weight_offset, worker, packers
                )
        if packed is not None:
            keep(packed, order, filters)
    if num_threads == 1:
        with nogil:
            masked_tiles(
                image_start, a_packed, bias_start, out_start, table, offset, column_offset, masks, activation,
                tile_block, row_block, tiles, 0, 1,
            )
        return True
    for worker in prange(num_threads, nogil=True, num_threads=num_threads, schedule="static", chunksize=1):
        masked_tiles(
            image_start, a_packed, bias_start, out_start, table, offset, column_offset, masks, activation, tile_block,
            row_block, tiles + worker * tile_size, worker, num_threads,
        )
    return True


@to_numpy_row
def conv2d(
    *, x, weight, bias, out, stride, padding, dilation, groups, activation, max_pool, packed, int num_threads
):
    """Forward convolution."""
    cdef int clamp = ACTIVATIONS[activation]
    plan = geometry.forward(
        x.shape, weight.shape, out.shape, padding, dilation, groups, MR, VECTOR_BYTES // out.itemsize, max_pool
    )
    if out.itemsize == 4:
        return run_plan(plan, x, weight, bias, out, <float*>address(out), clamp, packed, num_threads)
    return run_plan(plan, x, weight, bias, out, <double*>address(out), clamp, packed, num_threads)


@to_numpy_row
def conv2d_grad_input(*, dy, weight, out, stride, padding, dilation, groups, int num_threads):
    """Gradient of the input."""
    plan = geometry.grad_input(
        dy.shape, weight.shape, out.shape, padding, dilation, groups, MR, VECTOR_BYTES // out.itemsize
    )
    if out.itemsize == 4:
        return run_plan(plan, dy, weight, None, out, <float*>address(out), 0, None, num_threads)
    return run_plan(plan, dy, weight, None, out, <double*>address(out), 0, None, num_threads)


cdef void masked_dots(
    const real* dy, const real* image, real* partial, const Py_ssize_t* table, const Py_ssize_t* offset,
    const uint16_t* masks, const Py_ssize_t* blocks, real* scratch, Py_ssize_t scratch_step, Py_ssize_t worker,
    Py_ssize_t workers,
) noexcept nogil:
    """Do this worker's share of the tasks (block of groups, block of rows, chunk of images): partial[chunk, g, m, l].

    `blocks`: chunks, groups and rows of a task, images and vectors of a visit.
    """
    cdef Py_ssize_t N = table[0], groups = table[3], M = table[4], L = table[5], taps = table[9], vectors = table[11]
    cdef Py_ssize_t chunks = blocks[0], group_block = blocks[1], row_block = blocks[2], image_block = blocks[3]
    cdef Py_ssize_t vector_block = blocks[4], VL = panel_width(dy) // 2, plane = table[19]
    cdef Py_ssize_t group_blocks = (groups + group_block - 1) // group_block
    cdef Py_ssize_t row_blocks = (M + row_block - 1) // row_block, rows = even_tile(row_block, DOT_ROWS)
    cdef Py_ssize_t columns = even_tile(L, DOT_COLUMNS_OF_ONE_ROW if rows == 1 else DOT_COLUMNS)
    cdef Py_ssize_t column_tiles = (L + columns - 1) // columns, tile_size = rows * columns * VL
    cdef Py_ssize_t task, tasks = group_blocks * row_blocks * chunks, chunk, first, last, begin, end, row_tiles
    cdef Py_ssize_t group_size, m, rows_here, g, n, images, block, count, i, j
    cdef real* sums = scratch + worker * scratch_step
    for task in range(tasks * worker // workers, tasks * (worker + 1) // workers):
        chunk = task % chunks
        begin = N * chunk // chunks
        end = N * (chunk + 1) // chunks
        m = task // chunks % row_blocks * row_block
        rows_here = min(row_block, M - m)
        row_tiles = (rows_here + rows - 1) // rows
        first = task // (chunks * row_blocks) * group_block
        last = min(groups, first + group_block)
        group_size = column_tiles * row_tiles * tile_size
        zero_run(sums, (last - first) * group_size)
        for n in range((end - begin + image_block - 1) // image_block):
            n = begin + n * image_block
            images = min(image_block, end - n)
            for g in range(first, last):
                for block in range((vectors + vector_block - 1) // vector_block):
                    block = block * vector_block
                    count = min(vector_block, vectors - block)
                    for j in range(column_tiles):
                        for i in range(row_tiles):
                            masked_dot(
                                <int>min(rows, rows_here - i * rows), <int>min(columns, L - j * columns), images, count,
                                dy + n * table[18] + (g * M + m + i * rows) * plane + block * VL, plane, table[18],
                                image + n * table[6] + g * table[7] + block * VL, table[6], offset + j * columns,
                                masks + block * MASKS_OF(taps), j * columns % taps, taps,
                                sums + (g - first) * group_size + (j * row_tiles + i) * tile_size, columns * VL,
                            )
        for g in range(first, last):
            for j in range(column_tiles):
                for i in range(rows_here):
                    add_lanes(
                        sums + (g - first) * group_size + j * row_tiles * tile_size + i * columns * VL,
                        partial + ((chunk * groups + g) * M + m + i) * L + j * columns, min(columns, L - j * columns),
                    )


cdef bint run_weight_plan(plan, dy, x, out, real* out_start, int num_threads) except -1:
    """Allocate the workspace of `geometry.grad_weight`, run it, add up the chunks."""
    cdef const Py_ssize_t* table = <const Py_ssize_t*>address(plan.table)
    cdef const Py_ssize_t* offset = <const Py_ssize_t*>address(plan.column_offset)
    cdef const uint16_t* masks = <const uint16_t*>address(plan.masks)
    cdef const real* dy_start = <const real*>address(dy)
    cdef const real* x_start = <const real*>address(x)
    cdef Py_ssize_t N = table[0], groups = table[3], M = table[4], L = table[5], size = groups * M * L
    cdef Py_ssize_t VL = panel_width(out_start) // 2, worker
    block_sizes = blocking.weight_blocks(N, groups, M, L, table[11], DOT_ROWS, VL * sizeof(real))
    cdef const Py_ssize_t* blocks = <const Py_ssize_t*>address(block_sizes)
    cdef Py_ssize_t chunks = blocks[0]
    cdef Py_ssize_t scratch_step = blocks[1] * (blocks[2] + DOT_ROWS) * (L + DOT_COLUMNS_OF_ONE_ROW) * VL
    workspace = empty(num_threads * scratch_step + (chunks * size if chunks > 1 else 0), out.dtype)
    cdef real* scratch = <real*>address(workspace)
    cdef real* partial = scratch + num_threads * scratch_step if chunks > 1 else out_start
    if num_threads == 1:
        with nogil:
            masked_dots(dy_start, x_start, partial, table, offset, masks, blocks, scratch, scratch_step, 0, 1)
    else:
        for worker in prange(num_threads, nogil=True, num_threads=num_threads, schedule="static", chunksize=1):
            masked_dots(
                dy_start, x_start, partial, table, offset, masks, blocks, scratch, scratch_step, worker, num_threads
            )
    if chunks > 1:
        add_chunks(partial, out_start, size, chunks)
    return not (plan.pads and has_nonfinite(out_start, size))  # a masked lane is a zero, which met what it must not


@to_numpy_row
def conv2d_grad_weight(*, dy, x, out, stride, padding, dilation, groups, int num_threads):
    """Gradient of the weights."""
    plan = geometry.grad_weight(
        x.shape, out.shape, dy.shape, padding, dilation, groups, MR, VECTOR_BYTES // out.itemsize
    )
    if out.itemsize == 4:
        return run_weight_plan(plan, dy, x, out, <float*>address(out), num_threads)
    return run_weight_plan(plan, dy, x, out, <double*>address(out), num_threads)
