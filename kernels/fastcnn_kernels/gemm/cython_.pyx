"""Matrix product in Cython: packed panels and the micro-kernel of micro.h. Contract in the family's ``__init__``.

Both are packed once, panel by panel; a task multiplies a block of A's panels by a block of B's, which stays in L2.
Blocks of B follow each other for one block of A, which comes from memory once and then from L3:

    for each block of L:
        for each panel of A (mr rows), kept in L1, for each panel of B (NR columns): one micro-kernel call

Each worker takes a contiguous share of the tasks, which have nothing in common, so results do not depend on the
number of threads.
"""

from cython.parallel cimport prange

from fastcnn_kernels.address cimport address
from fastcnn_kernels.gemm.micro cimport MR, VECTOR_BYTES, copy_run, micro, pack_rows, panel_width, real

from fastcnn_kernels.gemm import geometry
from fastcnn_kernels.gemm.blocking import packing_threads
from fastcnn_kernels.memory import empty


cdef void multiply_tile(
    int mr, Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t L, const real* a, const real* b,
    real* c, Py_ssize_t ldc, const real* bias, bint accumulate, real* tile,
) noexcept nogil:
    """One micro-kernel call; a tile that sticks out of C, or has a bias to add, goes through `tile`."""
    cdef Py_ssize_t i, j
    cdef int NR = panel_width(a)
    if rows == mr and columns == NR and bias == NULL:
        micro(mr, NR, L, a, b, NR, c, ldc, accumulate)
        return
    micro(mr, columns, L, a, b, NR, tile, NR, False)
    for i in range(rows):
        if accumulate:
            for j in range(columns):
                c[i * ldc + j] += tile[i * NR + j]
        elif bias != NULL:
            for j in range(columns):
                c[i * ldc + j] = bias[j] + tile[i * NR + j]
        else:
            copy_run(c + i * ldc, tile + i * NR, columns)


cdef void pack_panels(
    const real* matrix, real* packed, Py_ssize_t Z, Py_ssize_t rows, int panel, Py_ssize_t L, Py_ssize_t row_step,
    const Py_ssize_t* along, Py_ssize_t worker, Py_ssize_t workers,
) noexcept nogil:
    """Pack this worker's share of the panels of A, or of B, whose columns are the rows here."""
    cdef Py_ssize_t task, z, i, panels = (rows + panel - 1) // panel
    for task in range(Z * panels * worker // workers, Z * panels * (worker + 1) // workers):
        z = task // panels
        i = task % panels * panel
        pack_rows(
            matrix + z * rows * L + i * row_step, packed + (z * panels * panel + i) * L, min(panel, rows - i), panel, L,
            row_step, along,
        )


cdef void multiply_blocks(
    const real* a_packed, const real* b_packed, const real* bias, real* c, real* tiles, const Py_ssize_t* table,
    const Py_ssize_t* blocks, Py_ssize_t worker, Py_ssize_t workers,
) noexcept nogil:
    """Multiply this worker's share of C's blocks."""
    cdef Py_ssize_t Z = table[0], ZA = table[1], ZB = table[2], M = table[3], N = table[4], L = table[5]
    cdef int NR = panel_width(a_packed), mr = <int>table[8]
    cdef Py_ssize_t I = blocks[0] * mr, J = blocks[1] * NR, LB = blocks[2]
    cdef Py_ssize_t a_size = (M + mr - 1) // mr * mr * L, b_size = (N + NR - 1) // NR * NR * L
    cdef Py_ssize_t i_blocks = (M + I - 1) // I, j_blocks = (N + J - 1) // J, tasks = Z * i_blocks * j_blocks
    cdef Py_ssize_t task, z, i0, j0, step, l0, count, row_panel, panel, i, j
    cdef const real* a
    cdef const real* b
    for task in range(tasks * worker // workers, tasks * (worker + 1) // workers):
        z = task // (i_blocks * j_blocks)
        i0 = task // j_blocks % i_blocks * I
        j0 = task % j_blocks * J
        a = a_packed + (z if ZA > 1 else 0) * a_size
        b = b_packed + (z if ZB > 1 else 0) * b_size
        for step in range((L + LB - 1) // LB):
            l0 = step * LB
            count = min(LB, L - l0)
            for row_panel in range((min(I, M - i0) + mr - 1) // mr):
                i = i0 + row_panel * mr
                for panel in range((min(J, N - j0) + NR - 1) // NR):
                    j = j0 + panel * NR
                    multiply_tile(
                        mr, min(mr, M - i), min(NR, N - j), count, a + i * L + l0 * mr, b + j * L + l0 * NR,
                        c + (z * M + i) * N + j, N, bias + j if bias != NULL and l0 == 0 else NULL, l0 > 0,
                        tiles + worker * MR * NR,
                    )


cdef int run_product(plan, a, b, bias, real* out, int num_threads) except -1:
    """Pack both operands of a `geometry.Plan` and multiply them."""
    cdef const Py_ssize_t* table = <const Py_ssize_t*>address(plan.table)
    cdef const Py_ssize_t* blocks = <const Py_ssize_t*>address(plan.blocks)
    cdef const Py_ssize_t* along_a = <const Py_ssize_t*>address(plan.along_a)
    cdef const Py_ssize_t* along_b = <const Py_ssize_t*>address(plan.along_b)
    cdef const real* a_start = <const real*>address(a)
    cdef const real* b_start = <const real*>address(b)
    cdef const real* bias_start = <const real*>address(bias)
    cdef Py_ssize_t ZA = table[1], ZB = table[2], M = table[3], N = table[4], L = table[5], worker
    cdef Py_ssize_t row_step = table[6], column_step = table[7]
    cdef int NR = panel_width(out), mr = <int>table[8]
    cdef Py_ssize_t a_size = ZA * ((M + mr - 1) // mr) * mr * L, b_size = ZB * ((N + NR - 1) // NR) * NR * L
    workspace = empty(b_size + a_size + num_threads * MR * NR, a.dtype)
    cdef real* b_packed = <real*>address(workspace)
    cdef real* a_packed = b_packed + b_size
    cdef real* tiles = a_packed + a_size
    cdef int packers = packing_threads((ZA * M + ZB * N) * L, num_threads)
    if num_threads == 1:  # a parallel region of one thread takes a microsecond
        with nogil:
            pack_panels(a_start, a_packed, ZA, M, mr, L, row_step, along_a, 0, 1)
            pack_panels(b_start, b_packed, ZB, N, NR, L, column_step, along_b, 0, 1)
            multiply_blocks(a_packed, b_packed, bias_start, out, tiles, table, blocks, 0, 1)
        return 0
    for worker in prange(packers, nogil=True, num_threads=packers, schedule="static", chunksize=1):
        pack_panels(a_start, a_packed, ZA, M, mr, L, row_step, along_a, worker, packers)
        pack_panels(b_start, b_packed, ZB, N, NR, L, column_step, along_b, worker, packers)
    for worker in prange(num_threads, nogil=True, num_threads=num_threads, schedule="static", chunksize=1):
        multiply_blocks(a_packed, b_packed, bias_start, out, tiles, table, blocks, worker, num_threads)


def matmul(*, a, b, bias, out, bint transpose_a, bint transpose_b, int num_threads):
    """``out = A @ B + bias``."""
    cdef int itemsize = out.itemsize
    plan = geometry.plan(
        a.shape, b.shape, out.shape, transpose_a, transpose_b, MR, 2 * VECTOR_BYTES // itemsize, itemsize
    )
    if itemsize == 4:
        run_product(plan, a, b, bias, <float*>address(out), num_threads)
    else:
        run_product(plan, a, b, bias, <double*>address(out), num_threads)
