"""Winograd's convolution in Cython. Equations, sources and packed order in the family's ``__init__``.

Forward and input gradient, in the order of the data:

    transform_filters    weights -> U        a panel of mr rows, lanes are rows
    transform_images     image -> V          a panel of NR tiles, lanes are tiles: consecutive ones of a row of tiles
    multiply             U . V -> products   E matrix products over the channels
    transform_results    products -> out     lanes are tiles again, interleaved into rows of pixels

Weight gradient: the sum runs over the tiles, so the lanes of patches and of dy are channels.

A filter of more than 3 x 3 taps is cut into parts of 3 x 3. Each is a channel of its own in the sum, whose patches
begin where the part does; all parts share one transform of the result.
"""

import numpy as np

from cython.parallel cimport prange
from libc.stdint cimport uint64_t

from fastcnn_kernels.address cimport address
from fastcnn_kernels.conv2d.epilogue cimport activate, pool_rows
from fastcnn_kernels.conv2d.winograd.transforms cimport (
    FILTER, GRADIENT, HAS_TRANSFORMS, IMAGE, WEIGHT, image_rows, lanes_to_rows, patches, rows_to_lanes, watch
)
from fastcnn_kernels.gemm.micro cimport (
    VECTOR_BYTES, copy_run, micro, panel_rows, panel_width, put_steps, real, transpose
)

from fastcnn_kernels.conv2d import cython_ as plain_sums
from fastcnn_kernels.conv2d.channels_last import cython_ as plain_weight_sums
from fastcnn_kernels.conv2d.geometry import ACTIVATIONS
from fastcnn_kernels.conv2d.handover import handing_over_to
from fastcnn_kernels.prepacked import keep, room
from fastcnn_kernels.conv2d.winograd import blocking, geometry
from fastcnn_kernels.conv2d.winograd.remainders import taking_dilation
from fastcnn_kernels.memory import empty

cdef enum:
    PACKED_CHANNELS = 64  # channels whose weights are packed at a time: 64 x 9 x 14 floats stay in L1
    LINES = 6 * 6 + 2 * 6  # rows of a panel's patches, 6 NR long, and their tails, in units of NR
    SEGMENT = 16  # tiles transposed at a time in the weight gradient: 6 x 66 vectors
    SPACING = 16  # elements between the E matrices of a panel beyond their size, or their starts meet in few cache sets


cdef Py_ssize_t whole_lines(Py_ssize_t n) noexcept nogil:
    """Elements of the cache lines that n take: what lies behind them begins at a line as well."""
    return (n + 15) // 16 * 16


cdef void pack_part(
    const real* source, real* packed, const Py_ssize_t* table, Py_ssize_t c, Py_ssize_t rows, int mr,
    Py_ssize_t tap_step,
) noexcept nogil:
    """Nine taps of channel c of the sum, which stands for a part of a larger filter: packed[tap][mr]."""
    cdef Py_ssize_t row_step = table[12], R = table[18], S = table[19], across = table[20], channels = table[21]
    cdef Py_ssize_t part = c // channels, t, r, s, i
    source += c % channels * table[13]
    for t in range(9):
        r = part // across * 3 + t // 3
        s = part % across * 3 + t % 3
        if r >= R or s >= S:
            for i in range(mr):
                packed[t * tap_step + i] = 0
            continue
        if table[15]:
            r = R - 1 - r
            s = S - 1 - s
        transpose(source + r * S + s, row_step, rows, 1, packed + t * tap_step, tap_step, mr)


cdef void transform_filters(
    const real* weight, real* U, const Py_ssize_t* table, int m, Py_ssize_t g, Py_ssize_t panel, Py_ssize_t u_step,
    real* packed,
) noexcept nogil:
    """U of one panel of rows; `packed` is scratch for PACKED_CHANNELS.

    The rows of consecutive channels lie side by side in U, and tap by tap in `packed`: vectors of them are whole.
    """
    cdef Py_ssize_t M = table[4], C = table[5], row_step = table[12], channel_step = table[13], R = table[18]
    cdef bint whole = R == 3 and table[19] == 3, backwards = table[15] and whole
    cdef int mr = panel_rows(M), VL = panel_width(weight) // 2
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
        patches(
            FILTER, m, vectors, VL, taps, VL, sign * 3 * tap_step, sign * tap_step, U + first * mr, VL, u_step
        )
        if vectors * VL < count * mr:
            patches(
                FILTER, m, 1, count * mr - vectors * VL, taps + vectors * VL, VL, sign * 3 * tap_step,
                sign * tap_step, U + first * mr + vectors * VL, VL, u_step,
            )


cdef Py_ssize_t find_segments(
    const Py_ssize_t* table, Py_ssize_t first, Py_ssize_t end, Py_ssize_t longest, Py_ssize_t* segments
) noexcept nogil:
    """Split tiles [first, end) into runs inside one row of tiles and one panel of `longest`; returns their number.

    Each is (n, row, column, length, position counted from the first).
    """
    cdef Py_ssize_t tiles_h = table[10], tiles_w = table[11], tile = first, count = 0, column
    while tile < end:
        column = tile % tiles_w
        segments[0] = tile // (tiles_w * tiles_h)
        segments[1] = tile // tiles_w % tiles_h
        segments[2] = column
        segments[3] = min(tiles_w - column, end - tile, longest - (tile - first) % longest)
        segments[4] = tile - first
        tile += segments[3]
        segments += 5
        count += 1
    return count


cdef void find_panels(
    const Py_ssize_t* table, Py_ssize_t first, Py_ssize_t count, Py_ssize_t NR, Py_ssize_t* segments
) noexcept nogil:
    """Segments of `count` panels of tiles, 5 NR + 1 entries each, the first of them their number."""
    cdef Py_ssize_t tiles = table[0] * table[10] * table[11], panel
    for panel in range(first, first + count):
        segments[0] = find_segments(table, panel * NR, min(tiles, (panel + 1) * NR), NR, segments + 1)
        segments += 5 * NR + 1


cdef void transform_images(
    const real* image, real* V, const Py_ssize_t* table, int m, Py_ssize_t g, Py_ssize_t c_first, Py_ssize_t c_end,
    const Py_ssize_t* segments, Py_ssize_t v_step, real* rows,
) noexcept nogil:
    """V of some channels of one panel of tiles; `rows` is scratch."""
    cdef Py_ssize_t groups = table[3], H = table[6], W = table[7], across = table[20], channels = table[21]
    cdef Py_ssize_t top, left, plane, c, i, tiles = 0
    cdef int NR = panel_width(image)
    cdef Py_ssize_t pitch = 6 * NR
    cdef const Py_ssize_t* segment
    cdef uint64_t ends = 0
    cdef real* tails = rows + 6 * pitch
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
                m, image + ((segment[0] * groups + g) * channels + plane) * H * W, H, W, top + segment[1] * m,
                left + segment[2] * m, segment[3] * m + 2, rows + segment[4] * m, pitch,
                tails + segment[4] + segment[3] - 1,
            )
        rows_to_lanes(m, rows, pitch, tails, ends, tiles, V + c * NR, v_step)


cdef void multiply(
    const real* U, const real* V, real* products, int m, int mr, Py_ssize_t C, Py_ssize_t rows, Py_ssize_t tiles,
    Py_ssize_t u_step, Py_ssize_t v_step, Py_ssize_t p_step,
) noexcept nogil:
    """The E products of some panels of rows and one of tiles."""
    cdef Py_ssize_t E = (m + 2) * (m + 2), e, i
    cdef int NR = panel_width(U)
    for e in range(E):
        for i in range(rows):
            micro(
                mr, <int>min(NR, tiles), C, U + (i * E + e) * u_step, V + e * v_step, NR,
                products + e * p_step + i * mr * NR, NR, False,
            )


cdef void transform_results(
    const real* products, const real* bias, real* out, const Py_ssize_t* table, int m, Py_ssize_t g,
    Py_ssize_t row_first, Py_ssize_t row_end, const Py_ssize_t* segments, Py_ssize_t p_step, int activation,
    real* rows, real* check,
) noexcept nogil:
    """Results of rows [row_first, row_end) in one panel of tiles of the products; `rows` is scratch."""
    cdef Py_ssize_t groups = table[3], M = table[4], pool = table[16], P = table[1] // pool, Q = table[2] // pool
    cdef Py_ssize_t step = m // pool, h, i, k, length, tiles
    cdef int NR = panel_width(out)
    cdef real* lines = rows + (m * m * NR if pool == 2 else 0)
    cdef const Py_ssize_t* segment = segments + 1 + 5 * (segments[0] - 1)
    cdef real* target
    tiles = segment[4] + segment[3]
    for k in range(row_first, row_end):
        lanes_to_rows(
            m, products + (k - row_first) * NR, p_step, tiles, bias[g * M + k] if bias != NULL else 0, rows, m * NR,
            check,
        )
        if pool == 2:
            for h in range(step):
                pool_rows(rows + 2 * h * m * NR, rows + (2 * h + 1) * m * NR, lines + h * step * NR, tiles * step)
        activate(lines, step, step * NR, tiles * step, activation)
        for i in range(segments[0]):
            segment = segments + 1 + 5 * i
            h = segment[1] * step
            target = out + (((segment[0] * groups + g) * M + k) * P + h) * Q + segment[2] * step
            length = min(segment[3] * step, Q - segment[2] * step)
            for h in range(min(step, P - h)):
                copy_run(target + h * Q, lines + h * step * NR + segment[4] * step, length)


cdef void winograd_tasks(
    const real* image, const real* weight, real* U, real* V, const real* bias, real* out, const Py_ssize_t* table,
    int m, const Py_ssize_t* blocks, int activation, real* scratch, Py_ssize_t* segments, Py_ssize_t worker,
    Py_ssize_t workers,
) noexcept nogil:
    """Do this worker's share of the tasks (g, block of tiles, block of rows)."""
    cdef Py_ssize_t groups = table[3], M = table[4], C = table[5], tiles = table[0] * table[10] * table[11]
    cdef Py_ssize_t IT = blocks[0], JT = blocks[1], IB = blocks[2]
    cdef bint shared_filters = blocks[3], shared_patches = blocks[4]
    cdef Py_ssize_t E = (m + 2) * (m + 2), g, i, j, k, panel, row_panel, panels, row_end, task, rows
    cdef int NR = panel_width(image), mr = panel_rows(M)
    cdef Py_ssize_t row_panels = (M + mr - 1) // mr, tile_panels = (tiles + NR - 1) // NR
    cdef Py_ssize_t u_step = C * mr + SPACING, v_step = C * NR + SPACING, p_step = IB * mr * NR + SPACING
    cdef Py_ssize_t row_blocks = (row_panels + IT - 1) // IT, tile_blocks = (tile_panels + JT - 1) // JT
    cdef Py_ssize_t tasks = groups * tile_blocks * row_blocks, segment_step = 5 * NR + 1
    cdef real* check = scratch
    cdef real* line = check + NR
    cdef real* packed = line + LINES * NR
    cdef real* products = packed + (0 if shared_filters else PACKED_CHANNELS * 9 * mr)
    cdef real* own_filters = products + E * p_step
    cdef real* own_patches = own_filters + (0 if shared_filters else IB * E * u_step)
    cdef const real* u
    cdef const real* v
    for task in range(tasks * worker // workers, tasks * (worker + 1) // workers):
        g = task // (tile_blocks * row_blocks)
        panel = task // row_blocks % tile_blocks * JT
        panels = min(JT, tile_panels - panel)
        row_panel = task % row_blocks * IT
        row_end = min(row_panels, row_panel + IT)
        find_panels(table, panel, panels, NR, segments)
        if shared_patches:
            v = V + (g * tile_panels + panel) * E * v_step
        else:
            for j in range(panels):
                transform_images(
                    image, own_patches + j * E * v_step, table, m, g, 0, C, segments + j * segment_step, v_step, line
                )
            v = own_patches
        i = row_panel
        while i < row_end:
            rows = min(IB, row_end - i)
            if shared_filters:
                u = U + (g * row_panels + i) * E * u_step
            else:
                for k in range(rows):
                    transform_filters(weight, own_filters + k * E * u_step, table, m, g, i + k, u_step, packed)
                u = own_filters
            for j in range(panels):
                multiply(
                    u, v + j * E * v_step, products, m, mr, C, rows, tiles - (panel + j) * NR, u_step, v_step, p_step
                )
                transform_results(
                    products, bias, out, table, m, g, i * mr, min(M, (i + rows) * mr), segments + j * segment_step,
                    p_step, activation, line, check,
                )
            i += rows


cdef void share_filters(
    const real* weight, real* U, const Py_ssize_t* table, int m, real* scratch, Py_ssize_t worker, Py_ssize_t workers
) noexcept nogil:
    """U of this worker's share of all panels of rows."""
    cdef Py_ssize_t M = table[4], E = (m + 2) * (m + 2), task
    cdef int mr = panel_rows(M)
    cdef Py_ssize_t row_panels = (M + mr - 1) // mr, u_step = table[5] * mr + SPACING, tasks = table[3] * row_panels
    for task in range(tasks * worker // workers, tasks * (worker + 1) // workers):
        transform_filters(
            weight, U + task * E * u_step, table, m, task // row_panels, task % row_panels, u_step, scratch
        )


cdef void share_patches(
    const real* image, real* V, const Py_ssize_t* table, int m, real* line, Py_ssize_t* segments, Py_ssize_t worker,
    Py_ssize_t workers,
) noexcept nogil:
    """V of this worker's share of the channels of every panel of tiles."""
    cdef Py_ssize_t C = table[5], tiles = table[0] * table[10] * table[11], task
    cdef int NR = panel_width(image)
    cdef Py_ssize_t E = (m + 2) * (m + 2), tile_panels = (tiles + NR - 1) // NR, v_step = C * NR + SPACING
    for task in range(table[3] * tile_panels):
        find_panels(table, task % tile_panels, 1, NR, segments)
        transform_images(
            image, V + task * E * v_step, table, m, task // tile_panels, C * worker // workers,
            C * (worker + 1) // workers, segments, v_step, line,
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
    cdef int m = plan.m, NR = panel_width(out_start), mr = panel_rows(table[4])
    cdef Py_ssize_t E = (m + 2) * (m + 2), groups = table[3], M = table[4], C = table[5], worker
    cdef Py_ssize_t tiles = table[0] * table[10] * table[11], row_panels = (M + mr - 1) // mr
    cdef Py_ssize_t tile_panels = (tiles + NR - 1) // NR
    block_table = blocking.product_blocks(E, groups, M, C, tiles, mr, NR, sizeof(real), packed is not None)
    cdef const Py_ssize_t* blocks = <const Py_ssize_t*>address(block_table)
    cdef Py_ssize_t u_size = E * (C * mr + SPACING), v_size = E * (C * NR + SPACING)
    cdef Py_ssize_t line_size = LINES * NR, packed_size = PACKED_CHANNELS * 9 * mr
    cdef Py_ssize_t shared_patches = groups * tile_panels * v_size if blocks[4] else 0
    cdef Py_ssize_t scratch_step = whole_lines(
        NR + line_size + packed_size + E * (blocks[2] * mr * NR + SPACING)
        + (0 if blocks[3] else blocks[2] * u_size) + (0 if blocks[4] else blocks[1] * v_size)
    )
    cdef Py_ssize_t segment_step = blocks[1] * (5 * NR + 1)
    order = ("winograd", m, mr, M)
    filters, filled = room(packed, order, groups * row_panels * u_size if blocks[3] else 1, out.dtype)
    workspace = empty(shared_patches + num_threads * scratch_step, out.dtype)
    segment_table = np.empty(num_threads * segment_step, np.intp)
    cdef Py_ssize_t* segments = <Py_ssize_t*>address(segment_table)
    cdef real* U = <real*>address(filters)
    cdef real* V = <real*>address(workspace)
    cdef real* scratch = V + shared_patches
    check = workspace[shared_patches:].reshape(num_threads, -1)[:, :NR]
    check[...] = 0
    if blocks[3] and not filled:
        for worker in prange(num_threads, nogil=True, num_threads=num_threads, schedule="static", chunksize=1):
            share_filters(weight_start, U, table, m, scratch + worker * scratch_step + NR, worker, num_threads)
        keep(packed, order, filters)
    if blocks[4]:
        for worker in prange(num_threads, nogil=True, num_threads=num_threads, schedule="static", chunksize=1):
            share_patches(
                image_start, V, table, m, scratch + worker * scratch_step + NR, segments + worker * segment_step,
                worker, num_threads,
            )
    for worker in prange(num_threads, nogil=True, num_threads=num_threads, schedule="static", chunksize=1):
        winograd_tasks(
            image_start, weight_start, U, V, bias_start, out_start, table, m, blocks, activation,
            scratch + worker * scratch_step, segments + worker * segment_step, worker, num_threads,
        )
    return not np.isnan(check).any()


@handing_over_to(plain_sums)
@taking_dilation
def conv2d(
    m, /, *, x, weight, bias, out, stride, padding, dilation, groups, activation, max_pool, packed, int num_threads
):
    """Forward convolution with tiles of m x m."""
    cdef int clamp = ACTIVATIONS[activation]
    plan = geometry.forward(m, x.shape, weight.shape, out.shape, padding, groups, max_pool)
    if out.itemsize == 4:
        return run_plan(plan, x, weight, bias, out, <float*>address(out), clamp, packed, num_threads)
    return run_plan(plan, x, weight, bias, out, <double*>address(out), clamp, packed, num_threads)


@handing_over_to(plain_sums)
@taking_dilation
def conv2d_grad_input(m, /, *, dy, weight, out, stride, padding, dilation, groups, int num_threads):
    """Gradient of the input with tiles of m x m."""
    plan = geometry.grad_input(m, dy.shape, weight.shape, out.shape, padding, groups)
    if out.itemsize == 4:
        return run_plan(plan, dy, weight, None, out, <float*>address(out), 0, None, num_threads)
    return run_plan(plan, dy, weight, None, out, <double*>address(out), 0, None, num_threads)


cdef void transform_channels(
    const real* planes, real* target, Py_ssize_t plane_step, int kind, int m, Py_ssize_t H, Py_ssize_t W,
    Py_ssize_t top, Py_ssize_t left, Py_ssize_t lanes, const Py_ssize_t* segment, Py_ssize_t target_step,
    Py_ssize_t e_step, real* columns_of_lanes,
) noexcept nogil:
    """Patches of one segment of tiles in `lanes` channels, lanes of `target`; the last argument is scratch."""
    cdef int VL = panel_width(planes) // 2
    cdef Py_ssize_t size = m + 2 if kind == IMAGE else m, columns = segment[3] * m + size - m, i, j, h
    cdef Py_ssize_t column = left + segment[2] * m, begin, end
    cdef real* row = columns_of_lanes
    for i in range(size):
        h = top + segment[1] * m + i
        if h < 0 or h >= H:
            begin = end = columns
        else:
            begin = min(columns, max(0, -column))
            end = max(begin, min(columns, W - column))
        for j in range(begin * VL):
            row[j] = 0
        if begin < end:
            transpose(planes + h * W + column + begin, plane_step, lanes, end - begin, row + begin * VL, VL, VL)
        for j in range(end * VL, columns * VL):
            row[j] = 0
        row += columns * VL
    patches(
        kind, m, segment[3], lanes, columns_of_lanes, m * VL, columns * VL, VL, target + segment[4] * target_step,
        target_step, e_step,
    )


cdef void share_channels(
    const real* dy, const real* image, real* Y, real* V, const Py_ssize_t* table, int m, Py_ssize_t tiles,
    Py_ssize_t count, const Py_ssize_t* segments, real* scratch, Py_ssize_t worker, Py_ssize_t workers,
) noexcept nogil:
    """Patches of this worker's share of the channels of dy, and of the image, in one chunk of tiles."""
    cdef Py_ssize_t P = table[1], Q = table[2], groups = table[3], M = table[4], C = table[5]
    cdef Py_ssize_t H = table[6], W = table[7], across = table[20], channels = table[21], place = table[22]
    cdef Py_ssize_t E = (m + 2) * (m + 2), task, unit, g, panel, first, part, c
    cdef int NR = panel_width(image), mr = panel_rows(M), VL = NR // 2
    cdef Py_ssize_t y_step = tiles * mr + SPACING, v_step = tiles * NR + SPACING
    cdef Py_ssize_t row_panels = (M + mr - 1) // mr, parts = (mr + VL - 1) // VL, blocks = (C + VL - 1) // VL
    cdef Py_ssize_t column_panels = (C + NR - 1) // NR, tasks = groups * row_panels * parts * count
    cdef const Py_ssize_t* segment
    for task in range(tasks * worker // workers, tasks * (worker + 1) // workers):
        segment = segments + task % count * 5
        unit = task // count
        panel = unit // parts % row_panels
        g = unit // (parts * row_panels)
        first = unit % parts * VL
        if panel * mr + first >= M:
            continue
        transform_channels(
            dy + ((segment[0] * groups + g) * M + panel * mr + first) * P * Q,
            Y + (g * row_panels + panel) * E * y_step + first, P * Q, GRADIENT, m, P, Q, 0, 0,
            min(VL, mr - first, M - panel * mr - first), segment, mr, y_step, scratch,
        )
    tasks = groups * blocks * count
    for task in range(tasks * worker // workers, tasks * (worker + 1) // workers):
        segment = segments + task % count * 5
        unit = task // count
        g = unit // blocks
        first = unit % blocks * VL
        part = first // place
        c = first % place
        transform_channels(
            image + ((segment[0] * groups + g) * channels + c) * H * W,
            V + (g * column_panels + first // NR) * E * v_step + first % NR, H * W, IMAGE, m, H, W,
            table[8] + part // across * 3, table[9] + part % across * 3, min(VL, channels - c), segment, NR, v_step,
            scratch,
        )


cdef void weight_results(
    const real* products, real* out, const Py_ssize_t* table, int m, Py_ssize_t g, Py_ssize_t row_panel,
    Py_ssize_t column_panel, Py_ssize_t p_step, real* check,
) noexcept nogil:
    """The 3 x 3 gradients of one tile of products."""
    cdef Py_ssize_t M = table[4], C = table[5], R = table[18], S = table[19], across = table[20], channels = table[21]
    cdef Py_ssize_t place = table[22], i, j, t, column, c, r, s, lanes
    cdef int NR = panel_width(out), mr = panel_rows(M), VL = NR // 2, half
    cdef real* taps = check + NR
    cdef real* target
    for i in range(min(mr, M - row_panel * mr)):
        for half in range(2):
            column = column_panel * NR + half * VL
            if column >= C:
                break
            c = column % place
            lanes = min(VL, channels - c)
            patches(
                WEIGHT, m, 1, lanes, products + i * NR + half * VL, 0, (m + 2) * p_step, p_step, taps, 0, VL
            )
            for j in range(lanes, VL):
                for t in range(9):
                    taps[t * VL + j] = 0
            watch(taps, 9, check)
            target = out + ((g * M + row_panel * mr + i) * channels + c) * R * S
            if R == 3 and S == 3:
                transpose(taps, VL, 9, lanes, target, 9, 9)
                continue
            for t in range(9):
                r = column // place // across * 3 + t // 3
                s = column // place % across * 3 + t % 3
                if r < R and s < S:
                    put_steps(target + r * S + s, taps + t * VL, R * S, lanes)


cdef void weight_tasks(
    const real* Y, const real* V, real* products, real* out, const Py_ssize_t* table, int m, Py_ssize_t tiles,
    const Py_ssize_t* blocks, bint first_chunk, bint last_chunk, real* scratch, Py_ssize_t worker, Py_ssize_t workers,
) noexcept nogil:
    """products[m, c] (+)= Y . V over one chunk of tiles, for this worker's share of the tasks (g, rows, columns, es).

    A task that has all E products of the last chunk goes on to the results.
    """
    cdef Py_ssize_t groups = table[3], M = table[4], C = table[5], IB = blocks[1], JB = blocks[2], splits = blocks[3]
    cdef Py_ssize_t E = (m + 2) * (m + 2), task, tasks, g, row_first, column_first, e, i, j, pair
    cdef int NR = panel_width(Y), mr = panel_rows(M)
    cdef Py_ssize_t row_panels = (M + mr - 1) // mr, column_panels = (C + NR - 1) // NR, p_step = mr * NR + SPACING
    cdef Py_ssize_t i_blocks = (row_panels + IB - 1) // IB, j_blocks = (column_panels + JB - 1) // JB
    cdef Py_ssize_t y_step = tiles * mr + SPACING, v_step = tiles * NR + SPACING
    tasks = groups * i_blocks * j_blocks * splits
    for task in range(tasks * worker // workers, tasks * (worker + 1) // workers):
        g = task // (i_blocks * j_blocks * splits)
        row_first = task // (j_blocks * splits) % i_blocks * IB
        column_first = task // splits % j_blocks * JB
        for e in range(E * (task % splits) // splits, E * (task % splits + 1) // splits):
            for i in range(row_first, min(row_panels, row_first + IB)):
                for j in range(column_first, min(column_panels, column_first + JB)):
                    pair = (g * row_panels + i) * column_panels + j
                    micro(
                        mr, <int>min(NR, C - j * NR), tiles, Y + ((g * row_panels + i) * E + e) * y_step,
                        V + ((g * column_panels + j) * E + e) * v_step, NR, products + (pair * E + e) * p_step, NR,
                        not first_chunk,
                    )
        if last_chunk and splits == 1:
            for i in range(row_first, min(row_panels, row_first + IB)):
                for j in range(column_first, min(column_panels, column_first + JB)):
                    pair = (g * row_panels + i) * column_panels + j
                    weight_results(products + pair * E * p_step, out, table, m, g, i, j, p_step, scratch)


cdef void weight_parts(
    const real* dy, const real* image, real* Y, real* V, real* products, Py_ssize_t part_size, real* out,
    const Py_ssize_t* table, int m, const Py_ssize_t* blocks, Py_ssize_t* segments, real* scratch, Py_ssize_t worker,
    Py_ssize_t workers,
) noexcept nogil:
    """products[part] = Y . V over the tiles of each part in this worker's share, chunk by chunk; all is its own."""
    cdef Py_ssize_t tile_rows = table[0] * table[10], tiles_w = table[11], chunk = blocks[0], parts = blocks[4]
    cdef Py_ssize_t part, first, tile, end, length, count
    cdef int NR = panel_width(out)
    for part in range(parts * worker // workers, parts * (worker + 1) // workers):
        first = tile_rows * part // parts * tiles_w
        end = tile_rows * (part + 1) // parts * tiles_w
        tile = first
        while tile < end:
            length = min(chunk, end - tile)
            count = find_segments(table, tile, tile + length, SEGMENT, segments)
            share_channels(dy, image, Y, V, table, m, length, count, segments, scratch + NR, 0, 1)
            weight_tasks(
                Y, V, products + part * part_size, out, table, m, length, blocks, tile == first, False, scratch, 0, 1
            )
            tile += length


cdef void share_weight_results(
    real* products, Py_ssize_t parts, Py_ssize_t part_size, real* out, const Py_ssize_t* table, int m, real* scratch,
    Py_ssize_t worker, Py_ssize_t workers,
) noexcept nogil:
    """Add up the products of all parts, in their order, and turn them into results, this worker's share."""
    cdef Py_ssize_t M = table[4], C = table[5], E = (m + 2) * (m + 2), task, tasks, part, e, i, size
    cdef int NR = panel_width(out), mr = panel_rows(M)
    cdef Py_ssize_t row_panels = (M + mr - 1) // mr, column_panels = (C + NR - 1) // NR, p_step = mr * NR + SPACING
    cdef real* total
    cdef real* addend
    tasks = table[3] * row_panels * column_panels
    for task in range(tasks * worker // workers, tasks * (worker + 1) // workers):
        total = products + task * E * p_step
        size = min(mr, M - task // column_panels % row_panels * mr) * NR
        for part in range(1, parts):
            for e in range(E):
                addend = total + part * part_size + e * p_step
                for i in range(size):
                    total[e * p_step + i] += addend[i]
        weight_results(
            total, out, table, m, task // (row_panels * column_panels), task // column_panels % row_panels,
            task % column_panels, p_step, scratch,
        )


cdef bint run_weight_plan(plan, dy, image, out, real* out_start, int num_threads) except -1:
    """Run a `geometry.Plan` of the weight gradient; False if a result may not be finite."""
    if not HAS_TRANSFORMS:
        return False
    cdef const real* dy_start = <const real*>address(dy)
    cdef const real* image_start = <const real*>address(image)
    cdef const Py_ssize_t* table = <const Py_ssize_t*>address(plan.table)
    cdef int m = plan.m, NR = panel_width(out_start), mr = panel_rows(table[4])
    cdef Py_ssize_t E = (m + 2) * (m + 2), groups = table[3], M = table[4], C = table[5], worker
    cdef Py_ssize_t tiles = table[0] * table[10] * table[11]
    cdef Py_ssize_t row_panels = groups * ((M + mr - 1) // mr), column_panels = groups * ((C + NR - 1) // NR)
    block_table = blocking.weight_blocks(E, groups, M, C, table[0] * table[10], table[11], mr, NR, sizeof(real))
    cdef const Py_ssize_t* blocks = <const Py_ssize_t*>address(block_table)
    cdef Py_ssize_t chunk = blocks[0], parts = blocks[4], y_size = whole_lines(row_panels * E * (chunk * mr + SPACING))
    cdef Py_ssize_t v_size = column_panels * E * (chunk * NR + SPACING)
    cdef Py_ssize_t part_size = row_panels * column_panels // groups * E * (mr * NR + SPACING)
    cdef Py_ssize_t scratch_step = NR + max(6 * (SEGMENT * m + 2), 9) * (NR // 2), tile, end, count
    cdef Py_ssize_t partners = min(num_threads, parts) if parts > 1 else 1  # with patches of their own
    cdef Py_ssize_t patches_size = partners * (y_size + v_size)
    workspace = empty(patches_size + parts * part_size + num_threads * scratch_step, out.dtype)
    segment_table = np.empty(partners * chunk * 5, np.intp)
    cdef Py_ssize_t* segments = <Py_ssize_t*>address(segment_table)
    cdef real* Y = <real*>address(workspace)
    cdef real* V = Y + y_size
    cdef real* products = Y + patches_size
    cdef real* scratch = products + parts * part_size
    check = workspace[patches_size + parts * part_size:].reshape(num_threads, -1)[:, :NR]
    check[...] = 0
    if parts > 1:
        for worker in prange(partners, nogil=True, num_threads=partners, schedule="static", chunksize=1):
            weight_parts(
                dy_start, image_start, Y + worker * (y_size + v_size), V + worker * (y_size + v_size), products,
                part_size, out_start, table, m, blocks, segments + worker * chunk * 5, scratch + worker * scratch_step,
                worker, partners,
            )
    tile = 0 if parts == 1 else tiles
    while tile < tiles:
        end = min(tiles, tile + chunk)
        count = find_segments(table, tile, end, SEGMENT, segments)
        for worker in prange(num_threads, nogil=True, num_threads=num_threads, schedule="static", chunksize=1):
            share_channels(
                dy_start, image_start, Y, V, table, m, end - tile, count, segments,
                scratch + worker * scratch_step + NR, worker, num_threads,
            )
        for worker in prange(num_threads, nogil=True, num_threads=num_threads, schedule="static", chunksize=1):
            weight_tasks(
                Y, V, products, out_start, table, m, end - tile, blocks, tile == 0, end == tiles,
                scratch + worker * scratch_step, worker, num_threads,
            )
        tile = end
    if blocks[3] > 1 or parts > 1:
        for worker in prange(num_threads, nogil=True, num_threads=num_threads, schedule="static", chunksize=1):
            share_weight_results(
                products, parts, part_size, out_start, table, m, scratch + worker * scratch_step, worker, num_threads
            )
    return not np.isnan(check).any()


@handing_over_to(plain_weight_sums)
@taking_dilation
def conv2d_grad_weight(m, /, *, dy, x, out, stride, padding, dilation, groups, int num_threads):
    """Gradient of the weights with tiles of m x m."""
    plan = geometry.grad_weight(m, x.shape, out.shape, dy.shape, padding, groups, VECTOR_BYTES // out.itemsize)
    if out.itemsize == 4:
        return run_weight_plan(plan, dy, x, out, <float*>address(out), num_threads)
    return run_weight_plan(plan, dy, x, out, <double*>address(out), num_threads)
