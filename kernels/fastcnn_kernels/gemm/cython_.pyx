"""Matrix product in Cython: packed panels and the micro-kernel of micro.h. Contract in the family's ``__init__``.

The smaller operand is packed beforehand, panel by panel. A task packs a block of the larger one for itself, in L2, and
multiplies it by all of the other (``blocking.matrix_blocks``; small products pack both beforehand). Columns that lie
side by side it packs while it multiplies them by the first rows:

    for each block of L:   pack a block of A, or of B
        for each block of B, which stays in L2:
            for each panel of A (mr rows), kept in L1, for each panel of B (NR columns): one micro-kernel call

Each worker takes a contiguous share of the tasks, which have nothing in common. Products packed beforehand have as many
tasks as suit the number of threads; results do not depend on it, as the blocks of L do not.
"""

from cython.parallel cimport prange

from fastcnn_kernels.address cimport address
from fastcnn_kernels.gemm.micro cimport (
    MR, PANELS_AHEAD, VECTOR_BYTES, copy_run, micro, micro_packing, panel_width, real
)
from fastcnn_kernels.gemm.panels cimport pack_block, pack_panels

from fastcnn_kernels.gemm import blocking, geometry
from fastcnn_kernels.memory import empty

cdef Py_ssize_t ROWS_IN_TASKS = blocking.ROWS_IN_TASKS, COLUMNS_IN_TASKS = blocking.COLUMNS_IN_TASKS


cdef void multiply_tile(
    int rows, int columns, Py_ssize_t L, const real* a, int mr, real* packed, const real* b,
    const Py_ssize_t* along_b, real* c, Py_ssize_t ldc, const real* bias, bint accumulate, real* tile,
) noexcept nogil:
    """One micro-kernel call; a tile that sticks out of C, or has a bias to add, goes through `tile`.

    The columns are packed; or, if `b` is not NULL, they are packed here, from ``b + along_b[l]``.
    """
    cdef Py_ssize_t i, j
    cdef int NR = panel_width(a)
    cdef bint in_place = columns == NR and bias == NULL
    cdef real* sums = c if in_place else tile
    cdef Py_ssize_t step = ldc if in_place else NR
    if b != NULL:
        micro_packing(rows, L, a, mr, b, along_b, PANELS_AHEAD * NR, packed, sums, step, accumulate and in_place)
    else:
        micro(rows, columns, L, a, mr, packed, NR, sums, step, accumulate and in_place)
    if in_place:
        return
    for i in range(rows):
        if accumulate:
            for j in range(columns):
                c[i * ldc + j] += tile[i * NR + j]
        elif bias != NULL:
            for j in range(columns):
                c[i * ldc + j] = bias[j] + tile[i * NR + j]
        else:
            copy_run(c + i * ldc, tile + i * NR, columns)


cdef void multiply_blocks(
    const real* a, const real* b, const real* a_packed, real* b_packed, const real* bias, real* c, real* scratch,
    const Py_ssize_t* table, const Py_ssize_t* along_a, const Py_ssize_t* along_b, const Py_ssize_t* blocks,
    Py_ssize_t worker, Py_ssize_t workers,
) noexcept nogil:
    """Multiply this worker's share of C's blocks; the scratch has a tile, and a block that is packed here."""
    cdef Py_ssize_t Z = table[0], ZA = table[1], ZB = table[2], M = table[3], N = table[4], L = table[5]
    cdef int NR = panel_width(a_packed), mr = <int>table[8]
    cdef Py_ssize_t I = blocks[0], J = blocks[1], LB = blocks[2]
    cdef bint rows_here = blocks[3] == ROWS_IN_TASKS, columns_here = blocks[3] == COLUMNS_IN_TASKS
    cdef Py_ssize_t row_panels = (M + mr - 1) // mr, column_panels = (N + NR - 1) // NR
    cdef Py_ssize_t i_blocks = (row_panels + I - 1) // I, width = column_panels if rows_here else J
    cdef Py_ssize_t j_blocks = (column_panels + width - 1) // width, tasks = Z * i_blocks * j_blocks
    cdef Py_ssize_t task, z, za, zb, i0, i1, j0, j1, step, l0, count, block, first, row_panel, panel, i, j
    cdef Py_ssize_t rows_step, columns_step, first_packed = 0
    cdef real* tile = scratch
    cdef real* packed = scratch + MR * NR
    cdef const real* rows
    cdef const real* unpacked
    cdef real* columns
    for task in range(tasks * worker // workers, tasks * (worker + 1) // workers):
        z = task // (i_blocks * j_blocks)
        za = z if ZA > 1 else 0
        zb = z if ZB > 1 else 0
        i = task // j_blocks % i_blocks
        i0 = row_panels * i // i_blocks  # the last panel, which may be smaller, is in a block of more of them
        i1 = row_panels * (i + 1) // i_blocks
        j = task % j_blocks
        j0 = column_panels * j // j_blocks
        j1 = column_panels * (j + 1) // j_blocks
        for step in range((L + LB - 1) // LB):
            l0 = step * LB
            count = min(LB, L - l0)
            if rows_here:
                pack_block(a + za * M * L, packed, M, mr, i0, i1, count, table[6], along_a + l0)
            elif columns_here:
                first_packed = j0 if table[7] > 1 else max(j0, N // NR)  # whole ones that lie side by side wait
                pack_block(
                    b + zb * N * L, packed + (first_packed - j0) * NR * count, N, NR, first_packed, j1, count, table[7],
                    along_b + l0,
                )
            rows = <const real*>packed if rows_here else a_packed + ((za * row_panels + i0) * L + l0) * mr
            columns = packed if columns_here else b_packed + ((zb * column_panels + j0) * L + l0) * NR
            rows_step = (count if rows_here else L) * mr
            columns_step = (count if columns_here else L) * NR
            for block in range((j1 - j0 + J - 1) // J):
                first = j0 + block * J
                for row_panel in range(i0, i1):
                    i = row_panel * mr
                    for panel in range(first, min(first + J, j1)):
                        j = panel * NR
                        unpacked = NULL
                        if columns_here and row_panel == i0 and panel < first_packed:
                            unpacked = b + zb * N * L + j
                        multiply_tile(
                            <int>min(mr, M - i), <int>min(NR, N - j), count, rows + (row_panel - i0) * rows_step, mr,
                            columns + (panel - j0) * columns_step, unpacked, along_b + l0, c + (z * M + i) * N + j, N,
                            bias + j if bias != NULL and l0 == 0 else NULL, l0 > 0, tile,
                        )


cdef int run_product(plan, a, b, bias, real* out, int num_threads) except -1:
    """Pack what a `geometry.Plan` has packed beforehand, and multiply."""
    cdef const Py_ssize_t* table = <const Py_ssize_t*>address(plan.table)
    cdef const Py_ssize_t* blocks = <const Py_ssize_t*>address(plan.blocks)
    cdef const Py_ssize_t* along_a = <const Py_ssize_t*>address(plan.along_a)
    cdef const Py_ssize_t* along_b = <const Py_ssize_t*>address(plan.along_b)
    cdef const real* a_start = <const real*>address(a)
    cdef const real* b_start = <const real*>address(b)
    cdef const real* bias_start = <const real*>address(bias)
    cdef Py_ssize_t M = table[3], N = table[4], L = table[5], row_step = table[6], column_step = table[7], worker
    cdef Py_ssize_t ZA = 0 if blocks[3] == ROWS_IN_TASKS else table[1]  # packed beforehand
    cdef Py_ssize_t ZB = 0 if blocks[3] == COLUMNS_IN_TASKS else table[2]
    cdef int NR = panel_width(out), mr = <int>table[8]
    cdef Py_ssize_t own = (blocks[0] * mr if ZA == 0 else blocks[1] * NR if ZB == 0 else 0) * blocks[2]
    cdef Py_ssize_t scratch_step = MR * NR + (own + NR - 1) // NR * NR, b_size = ZB * ((N + NR - 1) // NR) * NR * L
    workspace = empty(num_threads * scratch_step + b_size + ZA * ((M + mr - 1) // mr) * mr * L, a.dtype)
    cdef real* scratch = <real*>address(workspace)
    cdef real* b_packed = scratch + num_threads * scratch_step
    cdef real* a_packed = b_packed + b_size
    cdef int packers = blocking.packing_threads((ZA * M + ZB * N) * L, num_threads)
    if num_threads == 1:  # a parallel region of one thread takes a microsecond
        with nogil:
            pack_panels(a_start, a_packed, ZA, M * L, M, mr, L, row_step, along_a, 0, 1)
            pack_panels(b_start, b_packed, ZB, N * L, N, NR, L, column_step, along_b, 0, 1)
            multiply_blocks(
                a_start, b_start, a_packed, b_packed, bias_start, out, scratch, table, along_a, along_b, blocks, 0, 1
            )
        return 0
    for worker in prange(packers, nogil=True, num_threads=packers, schedule="static", chunksize=1):
        pack_panels(a_start, a_packed, ZA, M * L, M, mr, L, row_step, along_a, worker, packers)
        pack_panels(b_start, b_packed, ZB, N * L, N, NR, L, column_step, along_b, worker, packers)
    for worker in prange(num_threads, nogil=True, num_threads=num_threads, schedule="static", chunksize=1):
        multiply_blocks(
            a_start, b_start, a_packed, b_packed, bias_start, out, scratch + worker * scratch_step, table, along_a,
            along_b, blocks, worker, num_threads,
        )


def matmul(*, a, b, bias, out, bint transpose_a, bint transpose_b, int num_threads):
    """``out = A @ B + bias``."""
    cdef int itemsize = out.itemsize
    plan = geometry.plan(
        a.shape, b.shape, out.shape, transpose_a, transpose_b, MR, 2 * VECTOR_BYTES // itemsize, itemsize,
        num_threads,
    )
    if itemsize == 4:
        run_product(plan, a, b, bias, <float*>address(out), num_threads)
    else:
        run_product(plan, a, b, bias, <double*>address(out), num_threads)
