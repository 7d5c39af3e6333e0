"""Matrix product in Cython: packed panels and the micro-kernel of micro.h. Contract in the family's ``__init__``.

A is packed once, panel by panel; a task packs a block of B's panels and multiplies it by a block of A's:

    for each block of L, `L_BLOCK` long:         B block: JB panels of NR columns, kept in L2
        for each panel of A (mr rows), for each panel of B: one micro-kernel call

Each worker takes a contiguous share of the tasks, which have nothing in common, so results do not depend on the
number of threads.
"""

import numpy as np

from cython.parallel cimport prange

from fastcnn_kernels.gemm.micro cimport MR, copy_panel_row, micro, pack_rows, panel_rows, panel_width, real

from fastcnn_kernels.gemm import blocking, geometry
from fastcnn_kernels.memory import empty


cdef void pack_b(
    const real* b, real* packed, Py_ssize_t columns, Py_ssize_t L, Py_ssize_t l_step, Py_ssize_t column_step
) noexcept nogil:
    """Pack `columns` <= NR columns of B into one panel; missing columns are zeros."""
    cdef Py_ssize_t j, l
    cdef int NR = panel_width(b)
    if columns == NR and column_step == 1:
        for l in range(L):
            copy_panel_row(packed + l * NR, b + l * l_step)
        return
    for j in range(NR):
        if j < columns:
            for l in range(L):
                packed[l * NR + j] = b[l * l_step + j * column_step]
        else:
            for l in range(L):
                packed[l * NR + j] = 0


cdef void multiply_tile(
    int mr, Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t L, const real* a, const real* b,
    real* c, Py_ssize_t ldc, const real* bias, bint accumulate, real* tile,
) noexcept nogil:
    """One micro-kernel call; a tile that sticks out of C, or starts from a bias, goes through `tile`."""
    cdef Py_ssize_t i, j
    cdef int NR = panel_width(a)
    cdef bint through_tile = rows < mr or columns < NR or bias != NULL
    if not through_tile:
        micro(mr, L, a, b, NR, c, ldc, accumulate)
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
    micro(mr, L, a, b, NR, tile, NR, True)
    for i in range(rows):
        for j in range(columns):
            c[i * ldc + j] = tile[i * NR + j]


cdef void multiply_block(
    const real* a, const real* b, const real* bias, real* c, real* scratch, int mr,
    Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t L, Py_ssize_t N, Py_ssize_t l_step, Py_ssize_t column_step,
    Py_ssize_t L_BLOCK,
) noexcept nogil:
    """C[rows, columns] from packed panels of A and an unpacked block of B."""
    cdef int NR = panel_width(b)
    cdef real* tile = scratch
    cdef real* packed = scratch + MR * NR
    cdef Py_ssize_t step, l0, lc, i, j, row_panel, panel, panels = (columns + NR - 1) // NR
    for step in range((L + L_BLOCK - 1) // L_BLOCK):
        l0 = step * L_BLOCK
        lc = min(L_BLOCK, L - l0)
        for panel in range(panels):
            j = panel * NR
            pack_b(
                b + l0 * l_step + j * column_step, packed + j * lc, min(NR, columns - j), lc, l_step, column_step
            )
        for row_panel in range((rows + mr - 1) // mr):
            i = row_panel * mr
            for panel in range(panels):
                j = panel * NR
                multiply_tile(
                    mr, min(mr, rows - i), min(NR, columns - j), lc, a + i * L + l0 * mr, packed + j * lc,
                    c + i * N + j, N, bias + j if bias != NULL and l0 == 0 else NULL, l0 > 0, tile,
                )


cdef void pack_panels(
    const real* a, real* a_packed, Py_ssize_t ZA, Py_ssize_t M, Py_ssize_t L, Py_ssize_t row_step,
    const Py_ssize_t* along, Py_ssize_t worker, Py_ssize_t workers,
) noexcept nogil:
    """Pack this worker's share of A's panels."""
    cdef int mr = panel_rows(M)
    cdef Py_ssize_t task, z, i, panels = (M + mr - 1) // mr
    for task in range(ZA * panels * worker // workers, ZA * panels * (worker + 1) // workers):
        z = task // panels
        i = task % panels * mr
        pack_rows(
            a + z * M * L + i * row_step, a_packed + (z * panels * mr + i) * L, min(mr, M - i), mr, L, row_step, along
        )


cdef void multiply_blocks(
    const real* a_packed, const real* b, const real* bias, real* c, real* scratch, Py_ssize_t scratch_step,
    Py_ssize_t Z, Py_ssize_t ZA, Py_ssize_t ZB, Py_ssize_t M, Py_ssize_t N, Py_ssize_t L, bint transpose_b,
    Py_ssize_t I_BLOCK, Py_ssize_t J_BLOCK, Py_ssize_t L_BLOCK, Py_ssize_t worker, Py_ssize_t workers,
) noexcept nogil:
    """Multiply this worker's share of C's blocks."""
    cdef int mr = panel_rows(M)
    cdef Py_ssize_t task, z, i, j, a_size = (M + mr - 1) // mr * mr * L
    cdef Py_ssize_t i_blocks = (M + I_BLOCK - 1) // I_BLOCK, j_blocks = (N + J_BLOCK - 1) // J_BLOCK
    cdef Py_ssize_t tasks = Z * i_blocks * j_blocks
    for task in range(tasks * worker // workers, tasks * (worker + 1) // workers):
        z = task // (i_blocks * j_blocks)
        i = task // j_blocks % i_blocks * I_BLOCK
        j = task % j_blocks * J_BLOCK
        multiply_block(
            a_packed + (z if ZA > 1 else 0) * a_size + i * L,
            b + (z if ZB > 1 else 0) * N * L + j * (L if transpose_b else 1),
            bias + j if bias != NULL else NULL, c + (z * M + i) * N + j, scratch + worker * scratch_step, mr,
            min(I_BLOCK, M - i), min(J_BLOCK, N - j), L, N,
            1 if transpose_b else N, L if transpose_b else 1, L_BLOCK,
        )


def matmul(
    *, const real[:, :, ::1] a not None, const real[:, :, ::1] b not None, const real[::1] bias,
    real[:, :, ::1] out not None, bint transpose_a, bint transpose_b, int num_threads,
):
    """``out = A @ B + bias``."""
    cdef Py_ssize_t Z = out.shape[0], M = out.shape[1], N = out.shape[2], L = a.shape[1 if transpose_a else 2]
    cdef Py_ssize_t ZA = a.shape[0], ZB = b.shape[0]
    cdef int NR = panel_width(&out[0, 0, 0]), mr = panel_rows(M)
    cdef Py_ssize_t I_BLOCK, J_BLOCK, L_BLOCK, scratch_step, worker
    dtype = np.float32 if real is float else np.float64
    I_BLOCK, J_BLOCK, L_BLOCK = blocking.matmul_blocks(mr, NR, L, sizeof(real))
    scratch_step = MR * NR + min(L, L_BLOCK) * J_BLOCK
    cdef real[::1] a_packed = empty(ZA * ((M + mr - 1) // mr) * mr * L, dtype)
    cdef real[::1] scratch = empty(num_threads * scratch_step, dtype)
    cdef const Py_ssize_t[::1] along = geometry.along(L, M if transpose_a else 1)
    cdef int packers = blocking.packing_threads(ZA * M * L, num_threads)
    cdef const real* bias_start = &bias[0] if bias is not None else NULL
    for worker in prange(packers, nogil=True, num_threads=packers, schedule="static", chunksize=1):
        pack_panels(&a[0, 0, 0], &a_packed[0], ZA, M, L, 1 if transpose_a else L, &along[0], worker, packers)
    for worker in prange(num_threads, nogil=True, num_threads=num_threads, schedule="static", chunksize=1):
        multiply_blocks(
            &a_packed[0], &b[0, 0, 0], bias_start, &out[0, 0, 0], &scratch[0], scratch_step, Z, ZA, ZB, M, N, L,
            transpose_b, I_BLOCK, J_BLOCK, L_BLOCK, worker, num_threads,
        )
