"""Matrix product in Cython: packed panels and the micro-kernel of micro.h. Contract in the family's ``__init__``.

Both are packed once, panel by panel; a task multiplies a block of A's panels by a block of B's, which stays in L2:

    for each block of L:
        for each panel of A (mr rows), kept in L1, for each panel of B (NR columns): one micro-kernel call

Each worker takes a contiguous share of the tasks, which have nothing in common, so results do not depend on the
number of threads.
"""

import numpy as np

from cython.parallel cimport prange

from fastcnn_kernels.gemm.micro cimport MR, micro, pack_rows, panel_rows, panel_width, real

from fastcnn_kernels.gemm import blocking, geometry
from fastcnn_kernels.memory import empty


cdef void multiply_tile(
    int mr, Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t L, const real* a, const real* b,
    real* c, Py_ssize_t ldc, const real* bias, bint accumulate, real* tile,
) noexcept nogil:
    """One micro-kernel call; a tile that sticks out of C, or starts from a bias, goes through `tile`."""
    cdef Py_ssize_t i, j
    cdef int NR = panel_width(a)
    cdef bint through_tile = rows < mr or columns < NR or bias != NULL
    if not through_tile:
        micro(mr, NR, L, a, b, NR, c, ldc, accumulate)
        return
    for i in range(mr):
        for j in range(NR):
            if i >= rows or j >= columns:
                tile[i * NR + j] = 0
            elif bias != NULL:
                tile[i * NR + j] = bias[j]
            elif accumulate:
                tile[i * NR + j] = c[i * ldc + j]
            else:
                tile[i * NR + j] = 0
    micro(mr, columns, L, a, b, NR, tile, NR, True)
    for i in range(rows):
        for j in range(columns):
            c[i * ldc + j] = tile[i * NR + j]


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
    const real* a_packed, const real* b_packed, const real* bias, real* c, real* tiles, Py_ssize_t Z, Py_ssize_t ZA,
    Py_ssize_t ZB, Py_ssize_t M, Py_ssize_t N, Py_ssize_t L, const Py_ssize_t* blocks, Py_ssize_t worker,
    Py_ssize_t workers,
) noexcept nogil:
    """Multiply this worker's share of C's blocks."""
    cdef int NR = panel_width(a_packed), mr = panel_rows(M)
    cdef Py_ssize_t I = blocks[0] * mr, J = blocks[1] * NR, LB = blocks[2]
    cdef Py_ssize_t a_size = (M + mr - 1) // mr * mr * L, b_size = (N + NR - 1) // NR * NR * L
    cdef Py_ssize_t i_blocks = (M + I - 1) // I, j_blocks = (N + J - 1) // J, tasks = Z * i_blocks * j_blocks
    cdef Py_ssize_t task, z, i0, j0, step, l0, count, row_panel, panel, i, j
    cdef const real* a
    cdef const real* b
    for task in range(tasks * worker // workers, tasks * (worker + 1) // workers):
        z = task // (i_blocks * j_blocks)
        i0 = task % i_blocks * I
        j0 = task // i_blocks % j_blocks * J
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


def matmul(
    *, const real[:, :, ::1] a not None, const real[:, :, ::1] b not None, const real[::1] bias,
    real[:, :, ::1] out not None, bint transpose_a, bint transpose_b, int num_threads,
):
    """``out = A @ B + bias``."""
    cdef Py_ssize_t Z = out.shape[0], M = out.shape[1], N = out.shape[2], L = a.shape[1 if transpose_a else 2]
    cdef Py_ssize_t ZA = a.shape[0], ZB = b.shape[0], worker
    cdef int NR = panel_width(&out[0, 0, 0]), mr = panel_rows(M)
    cdef const Py_ssize_t[::1] blocks = blocking.product_blocks(Z, M, N, L, mr, NR, sizeof(real))
    cdef const Py_ssize_t[::1] along_a = geometry.along(L, M if transpose_a else 1)
    cdef const Py_ssize_t[::1] along_b = geometry.along(L, 1 if transpose_b else N)
    dtype = np.float32 if real is float else np.float64
    cdef real[::1] a_packed = empty(ZA * ((M + mr - 1) // mr) * mr * L, dtype)
    cdef real[::1] b_packed = empty(ZB * ((N + NR - 1) // NR) * NR * L, dtype)
    cdef real[::1] tiles = empty(num_threads * MR * NR, dtype)
    cdef int packers = blocking.packing_threads((ZA * M + ZB * N) * L, num_threads)
    cdef const real* bias_start = &bias[0] if bias is not None else NULL
    for worker in prange(packers, nogil=True, num_threads=packers, schedule="static", chunksize=1):
        pack_panels(&a[0, 0, 0], &a_packed[0], ZA, M, mr, L, 1 if transpose_a else L, &along_a[0], worker, packers)
        pack_panels(&b[0, 0, 0], &b_packed[0], ZB, N, NR, L, L if transpose_b else 1, &along_b[0], worker, packers)
    for worker in prange(num_threads, nogil=True, num_threads=num_threads, schedule="static", chunksize=1):
        multiply_blocks(
            &a_packed[0], &b_packed[0], bias_start, &out[0, 0, 0], &tiles[0], Z, ZA, ZB, M, N, L, &blocks[0], worker,
            num_threads,
        )
