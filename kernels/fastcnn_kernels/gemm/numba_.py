"""Matrix product in Numba: packed panels and the micro-kernel of numba_micro. Contract in the family's ``__init__``.

The twin of ``cython_.pyx``: the same functions in the same order; the algorithm is described there. An array and a
start index stand for a C pointer.
"""

from fastcnn_kernels.gemm import blocking, geometry
from fastcnn_kernels.gemm.numba_micro import (
    MR,
    VECTOR_BYTES,
    copy_panel_row,
    copy_run,
    gather_steps,
    micro,
    panel_width,
    zero_run,
)
from fastcnn_kernels.memory import empty
from fastcnn_kernels.numba_support import compiled, flat, threaded


@compiled
def even_tile(size, largest):
    """Tile that splits `size` evenly over as few tiles of at most `largest` as hold it."""
    tiles = (size + largest - 1) // largest
    return (size + tiles - 1) // tiles


@compiled
def panel_rows(M):
    """Rows per panel of A."""
    return even_tile(M, MR)


@compiled
def pack_rows(a, a_start, packed, packed_start, rows, mr, L, row_step, l_offset, l_start):
    """Pack `rows` <= mr rows ``a[i * row_step + l_offset[l]]`` into one panel; missing rows are zeros."""
    if row_step == 1:
        for l in range(L):
            copy_run(packed, packed_start + l * mr, a, a_start + l_offset[l_start + l], rows)
            zero_run(packed, packed_start + l * mr + rows, mr - rows)
        return
    for block in range(0, L, 64):  # a stretch of the panel that stays in L1 while its rows are filled in
        count = min(L - block, 64)
        target = packed_start + block * mr
        for i in range(mr):
            if i < rows:
                gather_steps(packed, target + i, mr, a, a_start + i * row_step, l_offset, l_start + block, count)
            else:
                for l in range(count):
                    packed[target + l * mr + i] = 0


@compiled
def pack_b(b, b_start, packed, packed_start, columns, L, l_step, column_step):
    """Pack `columns` <= NR columns of B into one panel; missing columns are zeros."""
    NR = panel_width(b)
    if columns == NR and column_step == 1:
        for l in range(L):
            copy_panel_row(packed, packed_start + l * NR, b, b_start + l * l_step)
        return
    for j in range(NR):
        if j < columns:
            for l in range(L):
                packed[packed_start + l * NR + j] = b[b_start + l * l_step + j * column_step]
        else:
            for l in range(L):
                packed[packed_start + l * NR + j] = 0


@compiled
def multiply_tile(
    mr, rows, columns, L, a, a_start, b, b_start, c, c_start, ldc, bias, bias_start, has_bias, accumulate, tile,
    tile_start,
):  # fmt: skip
    """One micro-kernel call; a tile that sticks out of C, or starts from a bias, goes through `tile`."""
    NR = panel_width(a)
    through_tile = rows < mr or columns < NR or has_bias
    if not through_tile:
        micro(mr, L, a, a_start, b, b_start, NR, c, c_start, ldc, accumulate)
        return
    for i in range(mr):
        for j in range(NR):
            if i >= rows or j >= columns:
                tile[tile_start + i * NR + j] = 0
            elif has_bias:
                tile[tile_start + i * NR + j] = bias[bias_start + j]
            elif accumulate:
                tile[tile_start + i * NR + j] = c[c_start + i * ldc + j]
            else:
                tile[tile_start + i * NR + j] = 0
    micro(mr, L, a, a_start, b, b_start, NR, tile, tile_start, NR, True)
    for i in range(rows):
        for j in range(columns):
            c[c_start + i * ldc + j] = tile[tile_start + i * NR + j]


@compiled
def multiply_block(
    a, a_start, b, b_start, bias, bias_start, has_bias, c, c_start, scratch, scratch_start, mr, rows, columns, L, N,
    l_step, column_step, L_BLOCK,
):  # fmt: skip
    """C[rows, columns] from packed panels of A and an unpacked block of B."""
    NR = panel_width(b)
    packed = scratch_start + MR * NR
    for step in range((L + L_BLOCK - 1) // L_BLOCK):
        l0 = step * L_BLOCK
        lc = min(L_BLOCK, L - l0)
        for panel in range((columns + NR - 1) // NR):
            j = panel * NR
            pack_b(
                b, b_start + l0 * l_step + j * column_step, scratch, packed + j * lc, min(NR, columns - j), lc, l_step,
                column_step,
            )  # fmt: skip
        for row_panel in range((rows + mr - 1) // mr):
            i = row_panel * mr
            for panel in range((columns + NR - 1) // NR):
                j = panel * NR
                multiply_tile(
                    mr, min(mr, rows - i), min(NR, columns - j), lc, a, a_start + i * L + l0 * mr, scratch,
                    packed + j * lc, c, c_start + i * N + j, N, bias, bias_start + j, has_bias and l0 == 0, l0 > 0,
                    scratch, scratch_start,
                )  # fmt: skip


@threaded
def pack_panels(a, a_packed, ZA, M, L, row_step, along, worker, workers):
    """Pack this worker's share of A's panels."""
    mr = panel_rows(M)
    panels = (M + mr - 1) // mr
    for task in range(ZA * panels * worker // workers, ZA * panels * (worker + 1) // workers):
        z = task // panels
        i = task % panels * mr
        pack_rows(
            a, z * M * L + i * row_step, a_packed, (z * panels * mr + i) * L, min(mr, M - i), mr, L, row_step, along,
            0,
        )  # fmt: skip


@threaded
def multiply_blocks(
    a_packed, b, bias, has_bias, c, scratch, scratch_step, Z, ZA, ZB, M, N, L, transpose_b, I_BLOCK, J_BLOCK, L_BLOCK,
    worker, workers,
):  # fmt: skip
    """Multiply this worker's share of C's blocks."""
    mr = panel_rows(M)
    a_size = (M + mr - 1) // mr * mr * L
    i_blocks = (M + I_BLOCK - 1) // I_BLOCK
    j_blocks = (N + J_BLOCK - 1) // J_BLOCK
    tasks = Z * i_blocks * j_blocks
    for task in range(tasks * worker // workers, tasks * (worker + 1) // workers):
        z = task // (i_blocks * j_blocks)
        i = task // j_blocks % i_blocks * I_BLOCK
        j = task % j_blocks * J_BLOCK
        multiply_block(
            a_packed, (z if ZA > 1 else 0) * a_size + i * L,
            b, (z if ZB > 1 else 0) * N * L + j * (L if transpose_b else 1), bias, j, has_bias,
            c, (z * M + i) * N + j, scratch, worker * scratch_step, mr, min(I_BLOCK, M - i), min(J_BLOCK, N - j), L, N,
            1 if transpose_b else N, L if transpose_b else 1, L_BLOCK,
        )  # fmt: skip


def matmul(*, a, b, bias, out, transpose_a, transpose_b, num_threads):
    """``out = A @ B + bias``."""
    (Z, M, N), L = out.shape, a.shape[1 if transpose_a else 2]
    NR, mr = 2 * VECTOR_BYTES // out.itemsize, panel_rows(M)
    I_BLOCK, J_BLOCK, L_BLOCK = blocking.matmul_blocks(Z, M, N, L, mr, NR, out.itemsize)
    scratch_step = MR * NR + min(L, L_BLOCK) * J_BLOCK
    a_packed = empty(a.shape[0] * -(-M // mr) * mr * L, out.dtype)
    scratch = empty(num_threads * scratch_step, out.dtype)
    pack_panels(
        blocking.packing_threads(a.size, num_threads), flat(a), a_packed, a.shape[0], M, L, 1 if transpose_a else L,
        geometry.along(L, M if transpose_a else 1),
    )  # fmt: skip
    multiply_blocks(
        num_threads, a_packed, flat(b), a_packed if bias is None else flat(bias), bias is not None, flat(out), scratch,
        scratch_step, Z, a.shape[0], b.shape[0], M, N, L, transpose_b, I_BLOCK, J_BLOCK, L_BLOCK,
    )  # fmt: skip
