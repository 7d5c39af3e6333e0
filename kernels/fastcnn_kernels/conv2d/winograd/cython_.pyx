"""Winograd's convolution in Cython. Equations, sources and packed order in the family's ``__init__``.

Forward and input gradient, in the order of the data:

    transform_filters    weights -> U        a panel of mr rows, lanes are rows
    transform_images     image -> V          a panel of tiles, which are the lanes: consecutive ones of a row of tiles
    multiply             U . V -> products   E matrix products over the channels, of all planes that share a product
    transform_results    products -> out     lanes are tiles again, interleaved into rows of pixels

A filter of more than 3 x 3 taps is cut into parts of 3 x 3. Each is a channel of its own in the sum, whose patches
begin where the part does; all parts share one transform of the result.
"""

import numpy as np

from cython.parallel cimport prange
from libc.stdint cimport uint64_t

from fastcnn_kernels.address cimport address
from fastcnn_kernels.conv2d.epilogue cimport activate, pool_rows
from fastcnn_kernels.conv2d.winograd.segments cimport SPACING, find_segments, whole_lines
from fastcnn_kernels.conv2d.winograd.transforms cimport (
    HAS_TRANSFORMS, filters, image_rows, lanes_to_rows, rows_to_lanes
)
from fastcnn_kernels.gemm.micro cimport (
    MOST_ROWS, MR, VECTOR_BYTES, copy_run, micro_dense, panel_width, real, transpose, zero_run
)

from fastcnn_kernels.conv2d import cython_ as plain_sums
from fastcnn_kernels.conv2d.geometry import ACTIVATIONS
from fastcnn_kernels.conv2d.handover import handing_over_to
from fastcnn_kernels.prepacked import keep, room
from fastcnn_kernels.conv2d.winograd import blocking, geometry
from fastcnn_kernels.conv2d.winograd.remainders import cython_ as copies
from fastcnn_kernels.conv2d.winograd.remainders.dilation import taking_dilation
from fastcnn_kernels.memory import empty

cdef enum:
    PACKED_CHANNELS = 64  # channels whose weights are packed at a time: 64 x 9 x 16 floats stay in L1
    LINES = 9 * (8 + 2) + 2 * 9  # in units of NR: a panel's patches, two pixels more a row, and tails; or results


cdef struct Matrices:
    # `geometry.Matrices`: the products, how operands are found, and what they take.
    const Py_ssize_t* products
    const Py_ssize_t* filters
    const Py_ssize_t* patches
    Py_ssize_t E, u_size, v_size


cdef void pack_part(
    const real* source, real* packed, const Py_ssize_t* table, Py_ssize_t c, Py_ssize_t rows, int mr,
    Py_ssize_t tap_step,
) noexcept nogil:
    """Nine taps of channel c of the sum, which stands for a part of a larger filter: packed[tap][mr]."""
    cdef Py_ssize_t row_step = table[12], R = table[18], S = table[19], across = table[20], channels = table[21]
    cdef Py_ssize_t part = c // channels, t, r, s
    source += c % channels * table[13]
    for t in range(9):
        r = part // across * 3 + t // 3
        s = part % across * 3 + t % 3
        if r >= R or s >= S:
            zero_run(packed + t * tap_step, mr)
            continue
        if table[15]:
            r = R - 1 - r
            s = S - 1 - s
        transpose(source + r * S + s, row_step, rows, 1, packed + t * tap_step, tap_step, mr)


cdef void transform_filters(
    const real* weight, real* U, const Py_ssize_t* table, int m, Py_ssize_t g, Py_ssize_t panel,
    int mr, const Py_ssize_t* places, real* packed,
) noexcept nogil:
    """U of one panel of rows; `packed` is scratch for PACKED_CHANNELS.

    The rows of consecutive channels lie side by side in U, and tap by tap in `packed`: vectors of them are whole.
    """
    cdef Py_ssize_t M = table[4], C = table[5], row_step = table[12], channel_step = table[13], R = table[18]
    cdef bint whole = R == 3 and table[19] == 3, backwards = table[15] and whole
    cdef int VL = panel_width(weight) // 2
    cdef Py_ssize_t rows = min(mr, M - panel * mr), chunk, first, count, c, vectors, sign = -1 if backwards else 1
    cdef Py_ssize_t tap_step = PACKED_CHANNELS * mr
    cdef const real* source = weight + g * table[14] + panel * mr * row_step
    cdef const real* taps = packed + (8 * tap_step if backwards else 0)
    for chunk in range((C + PACKED_CHANNELS - 1) // PACKED_CHANNELS):
        first = chunk * PACKED_CHANNELS
        count = min(PACKED_CHANNELS, C - first)
        for c in range(count):
            if whole:
                transpose(
                    source + (first + c) * channel_step, row_step, rows, 9, packed + c * mr, tap_step, mr
                )
            else:
                pack_part(source, packed + c * mr, table, first + c, rows, mr, tap_step)
        vectors = count * mr // VL
        filters(m, vectors, VL, taps, sign * 3 * tap_step, sign * tap_step, U + first * mr, places)
        if vectors * VL < count * mr:
            filters(
                m, 1, count * mr - vectors * VL, taps + vectors * VL, sign * 3 * tap_step, sign * tap_step,
                U + first * mr + vectors * VL, places,
            )


cdef void find_panels(
    const Py_ssize_t* table, Py_ssize_t first, Py_ssize_t count, Py_ssize_t columns, Py_ssize_t* segments
) noexcept nogil:
    """Segments of `count` panels of tiles, 5 entries per column and 1 each, the first of them their number."""
    cdef Py_ssize_t tiles = table[0] * table[10] * table[11], panel
    for panel in range(first, first + count):
        segments[0] = find_segments(table, panel * columns, min(tiles, (panel + 1) * columns), columns, segments + 1)
        segments += 5 * columns + 1


cdef void transform_images(
    const real* image, real* V, const Py_ssize_t* table, int m, Py_ssize_t g, Py_ssize_t c_first, Py_ssize_t c_end,
    int columns, const Py_ssize_t* segments, const Py_ssize_t* places, real* rows,
) noexcept nogil:
    """V of some channels of one panel of tiles; `rows` is scratch."""
    cdef Py_ssize_t groups = table[3], H = table[6], W = table[7], across = table[20], channels = table[21]
    cdef Py_ssize_t patch = table[24], step = table[25], top, left, plane, c, i, tiles = 0
    cdef int NR = panel_width(image)
    cdef Py_ssize_t pitch = (step + 2) * NR
    cdef const Py_ssize_t* segment
    cdef uint64_t ends = 0
    cdef real* tails = rows + patch * pitch
    for i in range(segments[0]):
        tiles += segments[1 + 5 * i + 3]
        ends |= <uint64_t>1 << (tiles - 1)
    for c in range(c_first, c_end):
        plane = c % channels
        top = table[8] + c // channels // across * 3
        left = table[9] + c // channels % across * 3
        for i in range(segments[0]):
            segment = segments + 1 + 5 * i
            image_rows(
                m, image + ((segment[0] * groups + g) * channels + plane) * H * W, H, W, top + segment[1] * step,
                left + segment[2] * step, (segment[3] - 1) * step + patch, rows + segment[4] * step, pitch,
                tails + segment[4] + segment[3] - 1,
            )
        rows_to_lanes(m, rows, pitch, tails, ends, tiles, V + c * columns, places)


cdef void multiply(
    const real* U, const real* V, real* products, const Py_ssize_t* matrices, Py_ssize_t E, int mr, Py_ssize_t rows,
    int vectors, Py_ssize_t tiles, Py_ssize_t u_size, Py_ssize_t p_step,
) noexcept nogil:
    """The E products of some rows, by panels of mr of them, and one panel of tiles."""
    cdef Py_ssize_t VL = panel_width(U) // 2, e, i
    for e in range(E):
        for i in range((rows + mr - 1) // mr):
            micro_dense(
                <int>min(mr, rows - i * mr), vectors, <int>min(vectors * VL, tiles), matrices[2],
                U + i * u_size + matrices[0], mr, V + matrices[1], products + e * p_step + i * mr * vectors * VL, False,
            )
        matrices += 3


cdef void transform_results(
    const real* products, const real* bias, real* out, const Py_ssize_t* table, int m, Py_ssize_t g,
    Py_ssize_t row_first, Py_ssize_t row_end, int columns, const Py_ssize_t* segments, Py_ssize_t p_step,
    int activation, real* rows, real* check,
) noexcept nogil:
    """Results of rows [row_first, row_end) in one panel of tiles of the products; `rows` is scratch."""
    cdef Py_ssize_t groups = table[3], M = table[4], pool = table[16], P = table[1] // pool, Q = table[2] // pool
    cdef Py_ssize_t side = table[26], step = side // pool, h, i, k, row, column, skipped, tiles
    cdef int NR = panel_width(out)
    cdef real* lines = rows + (side * side * NR if pool == 2 else 0)
    cdef const Py_ssize_t* segment = segments + 1 + 5 * (segments[0] - 1)
    cdef real* target
    tiles = segment[4] + segment[3]
    for k in range(row_first, row_end):
        lanes_to_rows(
            m, products + (k - row_first) * columns, p_step, tiles, bias[g * M + k] if bias != NULL else 0, rows,
            side * NR, check,
        )
        if pool == 2:
            for h in range(step):
                pool_rows(rows + 2 * h * side * NR, rows + (2 * h + 1) * side * NR, lines + h * step * NR, tiles * step)
        activate(lines, step, step * NR, tiles * step, activation)
        for i in range(segments[0]):
            segment = segments + 1 + 5 * i
            row = segment[1] * step - table[28]
            column = segment[2] * step - table[29]
            skipped = max(0, -column)
            target = out + (((segment[0] * groups + g) * M + k) * P + row) * Q + column + skipped
            for h in range(max(0, -row), min(step, P - row)):
                copy_run(
                    target + h * Q, lines + h * step * NR + segment[4] * step + skipped,
                    min(segment[3] * step, Q - column) - skipped,
                )


cdef void winograd_tasks(
    const real* image, const real* weight, real* U, real* V, const real* bias, real* out, const Py_ssize_t* table,
    int m, const Matrices* matrices, const Py_ssize_t* blocks, int activation, real* scratch, Py_ssize_t* segments,
    Py_ssize_t worker, Py_ssize_t workers,
) noexcept nogil:
    """Do this worker's share of the tasks (g, block of tiles, block of rows)."""
    cdef Py_ssize_t groups = table[3], M = table[4], C = table[5], tiles = table[0] * table[10] * table[11]
    cdef Py_ssize_t IT = blocks[0], JT = blocks[1], IB = blocks[2]
    cdef bint shared_filters = blocks[3], shared_patches = blocks[4]
    cdef Py_ssize_t g, i, j, k, panel, row_panel, panels, row_end, task, rows
    cdef int NR = panel_width(image), mr = <int>table[30], vectors = <int>table[31], columns = vectors * (NR // 2)
    cdef Py_ssize_t row_panels = (M + mr - 1) // mr, tile_panels = (tiles + columns - 1) // columns
    cdef Py_ssize_t u_size = matrices.u_size, v_size = matrices.v_size, p_step = IB * mr * columns + SPACING
    cdef Py_ssize_t row_blocks = (row_panels + IT - 1) // IT, tile_blocks = (tile_panels + JT - 1) // JT
    cdef Py_ssize_t tasks = groups * tile_blocks * row_blocks, segment_step = 5 * columns + 1
    cdef real* check = scratch
    cdef real* line = check + NR
    cdef real* packed = line + LINES * NR
    cdef real* products = packed + (0 if shared_filters else PACKED_CHANNELS * 9 * mr)
    cdef real* own_filters = products + matrices.E * p_step
    cdef real* own_patches = own_filters + (0 if shared_filters else IB * u_size)
    cdef const real* u
    cdef const real* v
    for task in range(tasks * worker // workers, tasks * (worker + 1) // workers):
        g = task // (tile_blocks * row_blocks)
        panel = task // row_blocks % tile_blocks * JT
        panels = min(JT, tile_panels - panel)
        row_panel = task % row_blocks * IT
        row_end = min(row_panels, row_panel + IT)
        find_panels(table, panel, panels, columns, segments)
        if shared_patches:
            v = V + (g * tile_panels + panel) * v_size
        else:
            for j in range(panels):
                transform_images(
                    image, own_patches + j * v_size, table, m, g, 0, C, columns, segments + j * segment_step,
                    matrices.patches, line,
                )
            v = own_patches
        i = row_panel
        while i < row_end:
            rows = min(IB, row_end - i)
            if shared_filters:
                u = U + (g * row_panels + i) * u_size
            else:
                for k in range(rows):
                    transform_filters(
                        weight, own_filters + k * u_size, table, m, g, i + k, mr, matrices.filters, packed
                    )
                u = own_filters
            for j in range(panels):
                multiply(
                    u, v + j * v_size, products, matrices.products, matrices.E, mr, min(rows * mr, M - i * mr), vectors,
                    tiles - (panel + j) * columns, u_size, p_step,
                )
                transform_results(
                    products, bias, out, table, m, g, i * mr, min(M, (i + rows) * mr), columns,
                    segments + j * segment_step, p_step, activation, line, check,
                )
            i += rows


cdef void share_filters(
    const real* weight, real* U, const Py_ssize_t* table, int m, const Matrices* matrices, real* scratch,
    Py_ssize_t worker, Py_ssize_t workers,
) noexcept nogil:
    """U of this worker's share of all panels of rows."""
    cdef int mr = <int>table[30]
    cdef Py_ssize_t row_panels = (table[4] + mr - 1) // mr, tasks = table[3] * row_panels, task
    for task in range(tasks * worker // workers, tasks * (worker + 1) // workers):
        transform_filters(
            weight, U + task * matrices.u_size, table, m, task // row_panels, task % row_panels, mr, matrices.filters,
            scratch,
        )


cdef void share_patches(
    const real* image, real* V, const Py_ssize_t* table, int m, const Matrices* matrices, real* line,
    Py_ssize_t* segments, Py_ssize_t worker, Py_ssize_t workers,
) noexcept nogil:
    """V of this worker's share of the channels of every panel of tiles."""
    cdef Py_ssize_t C = table[5], tiles = table[0] * table[10] * table[11], task
    cdef int columns = <int>table[31] * (panel_width(image) // 2)
    cdef Py_ssize_t tile_panels = (tiles + columns - 1) // columns
    for task in range(table[3] * tile_panels):
        find_panels(table, task % tile_panels, 1, columns, segments)
        transform_images(
            image, V + task * matrices.v_size, table, m, task // tile_panels, C * worker // workers,
            C * (worker + 1) // workers, columns, segments, matrices.patches, line,
        )


cdef bint run_plan(
    plan, image, weight, bias, out, real* out_start, int activation, packed, int num_threads
) except -1:
    """Allocate the workspace of a `geometry.Plan` and run it; False if a result may not be finite."""
    if not HAS_TRANSFORMS:
        return False
    cdef const real* weight_start = <const real*>address(weight)
    cdef const real* image_start = <const real*>address(image)
    cdef const real* bias_start = <const real*>address(bias)
    cdef const Py_ssize_t* table = <const Py_ssize_t*>address(plan.table)
    cdef Py_ssize_t groups = table[3], M = table[4], C = table[5], tiles = table[0] * table[10] * table[11], worker
    cdef int m = plan.m, NR = panel_width(out_start), mr = <int>table[30], columns = <int>table[31] * (NR // 2)
    cdef Py_ssize_t row_panels = (M + mr - 1) // mr, tile_panels = (tiles + columns - 1) // columns
    cdef Matrices matrices
    products, places_of_filters, places_of_patches, matrices.u_size, matrices.v_size = geometry.matrices(
        m, C, mr, columns
    )
    matrices.products = <const Py_ssize_t*>address(products)
    matrices.filters = <const Py_ssize_t*>address(places_of_filters)
    matrices.patches = <const Py_ssize_t*>address(places_of_patches)
    matrices.E = len(products)
    cdef Py_ssize_t u_size = matrices.u_size, v_size = matrices.v_size
    block_table = blocking.product_blocks(v_size * sizeof(real), groups, M, tiles, mr, columns, packed is not None)
    cdef const Py_ssize_t* blocks = <const Py_ssize_t*>address(block_table)
    cdef Py_ssize_t line_size = LINES * NR, packed_size = PACKED_CHANNELS * 9 * mr
    cdef Py_ssize_t shared_patches = groups * tile_panels * v_size if blocks[4] else 0
    cdef Py_ssize_t scratch_step = whole_lines(
        NR + line_size + packed_size + matrices.E * (blocks[2] * mr * columns + SPACING)
        + (0 if blocks[3] else blocks[2] * u_size) + (0 if blocks[4] else blocks[1] * v_size)
    )
    cdef Py_ssize_t segment_step = blocks[1] * (5 * columns + 1)
    order = ("winograd", m, mr, M)
    transformed, filled = room(packed, order, groups * row_panels * u_size if blocks[3] else 1, out.dtype)
    workspace = empty(shared_patches + num_threads * scratch_step, out.dtype)
    segment_table = np.empty(num_threads * segment_step, np.intp)
    cdef Py_ssize_t* segments = <Py_ssize_t*>address(segment_table)
    cdef real* U = <real*>address(transformed)
    cdef real* V = <real*>address(workspace)
    cdef real* scratch = V + shared_patches
    check = workspace[shared_patches:].reshape(num_threads, -1)[:, :NR]
    check[...] = 0
    if blocks[3] and not filled:
        for worker in prange(num_threads, nogil=True, num_threads=num_threads, schedule="static", chunksize=1):
            share_filters(
                weight_start, U, table, m, &matrices, scratch + worker * scratch_step + NR, worker, num_threads
            )
        keep(packed, order, transformed)
    if blocks[4]:
        for worker in prange(num_threads, nogil=True, num_threads=num_threads, schedule="static", chunksize=1):
            share_patches(
                image_start, V, table, m, &matrices, scratch + worker * scratch_step + NR,
                segments + worker * segment_step, worker, num_threads,
            )
    for worker in prange(num_threads, nogil=True, num_threads=num_threads, schedule="static", chunksize=1):
        winograd_tasks(
            image_start, weight_start, U, V, bias_start, out_start, table, m, &matrices, blocks, activation,
            scratch + worker * scratch_step, segments + worker * segment_step, worker, num_threads,
        )
    return not np.isnan(check).any()


@handing_over_to(plain_sums)
@taking_dilation(copies)
def conv2d(
    m, /, *, x, weight, bias, out, stride, padding, dilation, groups, activation, max_pool, packed, int num_threads
):
    """Forward convolution with tiles of m x m."""
    cdef int clamp = ACTIVATIONS[activation]
    registers = (MR, MOST_ROWS, VECTOR_BYTES // out.itemsize)
    plan = geometry.forward(m, x.shape, weight.shape, out.shape, stride, padding, groups, max_pool, registers)
    if out.itemsize == 4:
        return run_plan(plan, x, weight, bias, out, <float*>address(out), clamp, packed, num_threads)
    return run_plan(plan, x, weight, bias, out, <double*>address(out), clamp, packed, num_threads)


@handing_over_to(plain_sums)
@taking_dilation(copies)
def conv2d_grad_input(m, /, *, dy, weight, out, stride, padding, dilation, groups, int num_threads):
    """Gradient of the input with tiles of m x m."""
    registers = (MR, MOST_ROWS, VECTOR_BYTES // out.itemsize)
    plan = geometry.grad_input(m, dy.shape, weight.shape, out.shape, stride, padding, groups, registers)
    if out.itemsize == 4:
        return run_plan(plan, dy, weight, None, out, <float*>address(out), 0, None, num_threads)
    return run_plan(plan, dy, weight, None, out, <double*>address(out), 0, None, num_threads)
