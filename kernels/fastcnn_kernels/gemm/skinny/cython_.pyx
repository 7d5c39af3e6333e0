"""Skinny products in Cython. Contract in ``gemm``; which operand is the large one is decided in ``geometry``.

Dots, where the rows of the large matrix run along the sum: a tile of rows x columns dot products at a time, in the
lanes of one vector each, as in the weight gradient of ``conv2d/direct``.

Outer, where they run along the sum as well and there are more of the few: a tile of OUTER_ROWS rows of the large
matrix, element by element, meets vectors of the few, which are packed with their rows side by side.

Stream, where they run along the result: STREAM_ROWS of them are read side by side from left to right and multiplied
into sums, which stay in cache and go to the result at the end:

    for each block of panels:   for each block of L:   for each panel of columns:
        sums[F, NR] += few[F, block] . many[block, NR]
"""

from cython.parallel cimport prange

from fastcnn_kernels.address cimport address
from fastcnn_kernels.gemm.micro cimport (
    DOT_COLUMNS, DOT_ROWS, MOST_DOTS, OUTER_ROWS, OUTER_VECTORS, VECTOR_BYTES, copy_run, dot, outer, panel_width,
    real, stream, transpose, zero_run
)
from fastcnn_kernels.gemm.panels cimport even_tile, panel_rows

import numpy as np

from fastcnn_kernels.gemm.blocking import L_BLOCK
from fastcnn_kernels.gemm.skinny import blocking, geometry
from fastcnn_kernels.memory import empty

cdef Py_ssize_t BYTES_OF_SUMS = blocking.BYTES_OF_SUMS, STREAM_ROWS = blocking.STREAM_ROWS


cdef void dot_columns(
    const real* few, const real* many, const real* bias, real* out, const Py_ssize_t* table, const Py_ssize_t* offset,
    Py_ssize_t worker, Py_ssize_t workers,
) noexcept nogil:
    """Do this worker's share of the tiles of columns: out[i, j] = bias + few[i] . many[j]."""
    cdef real tile[MOST_DOTS]
    cdef Py_ssize_t Z = table[0], F = table[1], K = table[2], L = table[3], VL = panel_width(few) // 2
    cdef Py_ssize_t rows = even_tile(F, DOT_ROWS)
    cdef Py_ssize_t columns = even_tile(K, table[10]) if rows == 1 else DOT_COLUMNS  # even shares of workers
    cdef Py_ssize_t whole = L // VL * VL, tiles = (K + columns - 1) // columns
    cdef Py_ssize_t task, z, first, width, row_tile, row, height, i, j, l
    cdef bint in_place = whole == L and bias == NULL and table[7] == 1
    cdef const real* left
    cdef const real* right
    cdef real* target
    cdef real total
    for task in range(Z * tiles * worker // workers, Z * tiles * (worker + 1) // workers):
        z = task // tiles
        first = task % tiles * columns
        width = min(columns, K - first)
        right = many + z * table[5] + first * L
        for row_tile in range((F + rows - 1) // rows):
            row = row_tile * rows
            height = min(rows, F - row)
            left = few + z * table[4] + row * L
            target = out + z * F * K + row * table[6] + first * table[7]
            if in_place:
                for i in range(height):
                    zero_run(target + i * table[6], width)
                dot(<int>height, <int>width, 1, whole, left, L, 0, right, 0, offset, target, table[6])
                continue
            zero_run(tile, rows * columns)
            if whole > 0:
                dot(<int>height, <int>width, 1, whole, left, L, 0, right, 0, offset, tile, columns)
            for i in range(height):
                for j in range(width):
                    total = tile[i * columns + j]
                    for l in range(whole, L):
                        total += left[i * L + l] * right[j * L + l]
                    if bias != NULL:
                        total += bias[(row + i) * table[8] + (first + j) * table[9]]
                    target[i * table[6] + j * table[7]] = total


cdef Py_ssize_t outer_width(Py_ssize_t F, Py_ssize_t VL) noexcept nogil:
    """Lanes of the vectors that the few rows are packed into side by side, in as few groups as hold them."""
    return even_tile((F + VL - 1) // VL, OUTER_VECTORS) * VL


cdef void pack_side_by_side(
    const real* few, real* packed, Py_ssize_t F, Py_ssize_t L, Py_ssize_t width
) noexcept nogil:
    """Pack the few rows as columns, in groups of `width`."""
    cdef Py_ssize_t first = 0
    while first < F:
        transpose(few + first * L, L, min(width, F - first), L, packed + first * L, width, width)
        first += width


cdef void outer_rows(
    const real* few, const real* many, const real* bias, real* out, const Py_ssize_t* table, Py_ssize_t block,
    real* scratch, Py_ssize_t worker, Py_ssize_t workers,
) noexcept nogil:
    """Do this worker's share of the tiles of rows of `many`: out[i, j] = bias + few[i] . many[j], in blocks of the sum.

    The last tile begins early enough to be whole, and stores what is its own. Each worker packs the few rows for
    itself, which takes less time than fetching them from another core.
    """
    cdef Py_ssize_t Z = table[0], F = table[1], K = table[2], L = table[3], VL = panel_width(few) // 2
    cdef Py_ssize_t width = outer_width(F, VL), groups = (F + width - 1) // width
    cdef Py_ssize_t tiles = (K + OUTER_ROWS - 1) // OUTER_ROWS, task, z, first, start, group, count, rows, i, j
    cdef Py_ssize_t packed_z = -1, step, l0
    cdef real* tile = scratch
    cdef real* packed = scratch + OUTER_ROWS * OUTER_VECTORS * VL
    cdef real* row
    cdef real* target
    for task in range(Z * tiles * worker // workers, Z * tiles * (worker + 1) // workers):
        z = task // tiles
        if packed_z < 0 or (z > packed_z and table[4] > 0):
            pack_side_by_side(few + z * table[4], packed, F, L, width)
            packed_z = z
        first = task % tiles * OUTER_ROWS
        start = min(first, K - OUTER_ROWS)
        rows = min(OUTER_ROWS, K - first)
        for group in range(groups):
            count = min(width, F - group * width)
            for step in range((L + block - 1) // block):
                l0 = step * block
                outer(
                    <int>width, min(block, L - l0), many + z * table[5] + start * L + l0, L, 1,
                    packed + (group * L + l0) * width, width, tile, width, l0 > 0,
                )
            row = tile + (first - start) * width
            target = out + z * F * K + group * width * table[6] + first * table[7]
            if bias != NULL:
                for j in range(rows):
                    for i in range(count):
                        row[j * width + i] += bias[(group * width + i) * table[8] + (first + j) * table[9]]
            if table[6] == 1:
                for j in range(rows):
                    copy_run(target + j * table[7], row + j * width, count)
            else:
                transpose(row, width, rows, count, target, table[6], rows)


cdef Py_ssize_t columns_before(const real* many, const Py_ssize_t* table) noexcept nogil:
    """Columns by which rows of `many` begin behind whole vectors, if all do alike and it matters; else 0."""
    cdef bint alike = table[11] and table[2] * sizeof(real) % VECTOR_BYTES == 0
    return <size_t>many % VECTOR_BYTES // sizeof(real) if alike else 0


cdef void stream_columns(
    const real* few, const real* many, const real* bias, real* out, const Py_ssize_t* table,
    Py_ssize_t block, real* scratch, Py_ssize_t worker, Py_ssize_t workers,
) noexcept nogil:
    """Do this worker's share of the panels of columns: out[i, j] = bias + sum_l few[i, l] many[l, j].

    The sums of a block of panels wait in the scratch: in out, the core next door would prefetch their lines away. The
    few rows are packed by each worker, as in `outer_rows`. Panels begin at whole vectors: the first one reads some
    columns of the second, the last one of the one before it, and only a matrix of less than one panel is copied.
    """
    cdef Py_ssize_t Z = table[0], F = table[1], K = table[2], L = table[3]
    cdef int NR = panel_width(few), mr = panel_rows(F)
    cdef Py_ssize_t row_panels = (F + mr - 1) // mr, tile = mr * NR, before = columns_before(many, table)
    cdef Py_ssize_t panels = (before + K + NR - 1) // NR
    cdef Py_ssize_t task = Z * panels * worker // workers, last = Z * panels * (worker + 1) // workers
    cdef Py_ssize_t z, packed_z = -1, step, l0, count, first, end, panel, neighbours, i, j, l, start, columns
    cdef Py_ssize_t right_step
    cdef const real* right
    cdef const real* row
    cdef real* target
    cdef real* packed = scratch
    cdef real* packed_few = packed + STREAM_ROWS * NR
    cdef real* sums = packed_few + (row_panels * mr * L + NR - 1) // NR * NR
    while task < last:
        z = task // panels
        first = task % panels
        end = min(panels, first + min(block, last - task))
        if packed_z < 0 or (z > packed_z and table[4] > 0):
            pack_side_by_side(few + z * table[4], packed_few, F, L, mr)
            packed_z = z
        for step in range((L + STREAM_ROWS - 1) // STREAM_ROWS):
            l0 = step * STREAM_ROWS
            count = min(STREAM_ROWS, L - l0)
            panel = first
            while panel < end:
                right = many + z * table[5] + l0 * K + max(0, min(panel * NR - before, K - NR))
                right_step = K
                if K < NR:
                    for l in range(count):
                        copy_run(packed + l * NR, right + l * K, K)
                        zero_run(packed + l * NR + K, NR - K)
                    right = packed
                    right_step = NR
                neighbours = 1  # if panels of rows take turns, and where the first or last one begins elsewhere
                if row_panels == 1 and panel * NR >= before:
                    neighbours = max(1, min(end, (before + K) // NR) - panel)
                for i in range(row_panels):
                    stream(
                        <int>min(mr, F - i * mr), neighbours, count, packed_few + (i * L + l0) * mr, mr, right,
                        right_step, sums + ((panel - first) * row_panels + i) * tile, l0 > 0,
                    )
                panel += neighbours
        for i in range(F):
            for panel in range(first, end):
                start = max(0, panel * NR - before)
                columns = min(K, (panel + 1) * NR - before) - start
                row = sums + (panel - first) * row_panels * tile + i * NR + start - max(0, min(start, K - NR))
                target = out + (z * F + i) * K + start
                copy_run(target, row, columns)
                if bias != NULL:
                    for j in range(columns):
                        target[j] += bias[start + j]
        task += end - first


cdef int run_dots(
    const Py_ssize_t* table, const Py_ssize_t* offset, const real* few, const real* many, const real* bias, real* out,
    int num_threads,
) except -1:
    """Run a plan of dot products."""
    cdef int worker
    if num_threads == 1:
        with nogil:
            dot_columns(few, many, bias, out, table, offset, 0, 1)
        return 0
    for worker in prange(num_threads, nogil=True, num_threads=num_threads, schedule="static", chunksize=1):
        dot_columns(few, many, bias, out, table, offset, worker, num_threads)


cdef int run_outer(
    const Py_ssize_t* table, const real* few, const real* many, const real* bias, real* out, dtype, int num_threads
) except -1:
    """Run a plan of outer products."""
    cdef Py_ssize_t F = table[1], L = table[3], VL = panel_width(out) // 2, worker
    cdef Py_ssize_t width = outer_width(F, VL)
    cdef Py_ssize_t scratch_step = OUTER_ROWS * OUTER_VECTORS * VL + (F + width - 1) // width * width * L
    cdef Py_ssize_t block = even_tile(L, L_BLOCK)
    num_threads = min(num_threads, <int>(table[0] * ((table[2] + OUTER_ROWS - 1) // OUTER_ROWS)))  # each has its copy
    workspace = empty(num_threads * scratch_step, dtype)
    cdef real* scratch = <real*>address(workspace)
    if num_threads == 1:
        with nogil:
            outer_rows(few, many, bias, out, table, block, scratch, 0, 1)
        return 0
    for worker in prange(num_threads, nogil=True, num_threads=num_threads, schedule="static", chunksize=1):
        outer_rows(few, many, bias, out, table, block, scratch + worker * scratch_step, worker, num_threads)


cdef int run_stream(
    const Py_ssize_t* table, const real* few, const real* many, const real* bias, real* out, dtype, int num_threads
) except -1:
    """Run a plan that streams the large matrix past the few rows."""
    cdef Py_ssize_t F = table[1], L = table[3], worker
    cdef int NR = panel_width(out), mr = panel_rows(F)
    cdef Py_ssize_t panels = (columns_before(many, table) + table[2] + NR - 1) // NR, rows = (F + mr - 1) // mr * mr
    num_threads = min(num_threads, <int>(table[0] * panels))  # each has its copy
    cdef Py_ssize_t sum_bytes = rows * NR * sizeof(real), block = min(panels, max(1, BYTES_OF_SUMS // sum_bytes))
    cdef Py_ssize_t scratch_step = (STREAM_ROWS + (rows * L + NR - 1) // NR + block * rows) * NR
    workspace = empty(num_threads * scratch_step, dtype)
    cdef real* scratch = <real*>address(workspace)
    if num_threads == 1:
        with nogil:
            stream_columns(few, many, bias, out, table, block, scratch, 0, 1)
        return 0
    for worker in prange(num_threads, nogil=True, num_threads=num_threads, schedule="static", chunksize=1):
        stream_columns(
            few, many, bias, out, table, block, scratch + worker * scratch_step, worker, num_threads
        )


cdef int run_form(
    str form, table_array, offset_array, few, many, bias, real* out, int num_threads
) except -1:
    """Run a `geometry.Plan`."""
    cdef const Py_ssize_t* table = <const Py_ssize_t*>address(table_array)
    cdef const Py_ssize_t* offset = <const Py_ssize_t*>address(offset_array)
    cdef const real* few_start = <const real*>address(few)
    cdef const real* many_start = <const real*>address(many)
    cdef const real* bias_start = <const real*>address(bias)
    if form == "dots":
        run_dots(table, offset, few_start, many_start, bias_start, out, num_threads)
    elif form == "outer":
        run_outer(table, few_start, many_start, bias_start, out, few.dtype, num_threads)
    else:
        run_stream(table, few_start, many_start, bias_start, out, few.dtype, num_threads)


cdef int multiply(form, a, b, bias, out, bint transpose_a, bint transpose_b, int num_threads) except -1:
    """``out = A @ B + bias`` in a form, None for the best one."""
    swapped, turned, form, table, offset = <tuple>geometry.plan(
        a.shape, b.shape, out.shape, transpose_a, transpose_b, out.itemsize, form
    )
    few, many = (b, a) if swapped else (a, b)
    if turned:
        few = np.ascontiguousarray(few.swapaxes(1, 2))
    if out.itemsize == 4:
        run_form(form, table, offset, few, many, bias, <float*>address(out), num_threads)
    else:
        run_form(form, table, offset, few, many, bias, <double*>address(out), num_threads)


def matmul_by(form, *, a, b, bias, out, bint transpose_a, bint transpose_b, int num_threads):
    """``out = A @ B + bias`` as "dots", of B transposed, or as "stream", of operands that both lie as they are."""
    multiply(form, a, b, bias, out, transpose_a, transpose_b, num_threads)


def matmul(*, a, b, bias, out, bint transpose_a, bint transpose_b, int num_threads):
    """``out = A @ B + bias``."""
    multiply(None, a, b, bias, out, transpose_a, transpose_b, num_threads)
