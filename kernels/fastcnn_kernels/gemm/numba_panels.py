"""Panels: how many rows each has, and packing them; the twin is ``panels.pxd``. Their order is in ``micro.h``."""

from fastcnn_kernels.gemm.numba_copies import prefetch_far, take_steps, zero_run
from fastcnn_kernels.gemm.numba_llvm import MR, STREAMS, VECTOR_BYTES
from fastcnn_kernels.gemm.numba_transposes import transpose
from fastcnn_kernels.numba_support import compiled, threaded


@compiled
def even_tile(size, largest):
    """Tile that splits `size` evenly over as few tiles of at most `largest` as hold it."""
    tiles = (size + largest - 1) // largest
    return (size + tiles - 1) // tiles


@compiled
def panel_rows(M):
    """Rows of a panel of A, up to MR; of the last one only those that are left are multiplied."""
    return even_tile(M, MR)


@compiled
def panel_pitch(mr, VL):
    """Elements from a row of a transposed panel to the next: whole vectors, where transposing writes vectors."""
    return (mr + VL - 1) // VL * VL if VECTOR_BYTES == 64 else mr


@compiled
def rows_side_by_side(rows):
    """Rows packed side by side; a few more than `STREAMS` all at once, as beginning a panel takes time as well."""
    return rows if rows <= 2 * STREAMS else STREAMS


@compiled
def pack_rows(a, a_start, packed, packed_start, rows, mr, L, row_step, l_offset, l_start, ahead):
    """Pack `rows` <= mr rows ``a[i * row_step + l_offset[l]]`` into one panel; missing rows are zeros.

    What is contiguous, along the rows or along runs of the sum, is read as such. Of rows that lie side by side, what
    lies `ahead` steps of the sum ahead is asked for.
    """
    l = 0
    while l < L:
        first = l
        l += 1
        if row_step > 1:
            while l < L and l_offset[l_start + l] == l_offset[l_start + l - 1] + 1:
                l += 1
        elif ahead > 0:
            later = a_start + l_offset[l_start + first + ahead]
            prefetch_far(a, later)
            prefetch_far(a, later + rows - 1)
        if l == first + 1:
            start = packed_start + first * mr
            take_steps(packed, start, a, a_start + l_offset[l_start + first], row_step, rows)
            zero_run(packed, start + rows, mr - rows)
            continue
        transpose(
            a, a_start + l_offset[l_start + first], row_step, rows, l - first, packed,
            packed_start + first * mr, mr, mr,
        )  # fmt: skip


@compiled
def pack_block(matrix, start, packed, packed_start, rows, panel, first, last, L, row_step, along, l_start):
    """Pack panels [first, last) of a matrix of so many rows: L elements of each row.

    Where rows lie side by side, a few elements of all of them are read, then those that follow.
    """
    turn = rows_side_by_side(L) if row_step == 1 else L
    for part in range(0, L, turn):
        for index in range(first, last):
            i = index * panel
            pack_rows(
                matrix, start + i * row_step, packed, packed_start + ((index - first) * L + part) * panel,
                min(panel, rows - i), panel, min(turn, L - part), row_step, along, l_start + part,
                max(0, min(turn, L - part - turn)),
            )  # fmt: skip


@threaded
def pack_panels(matrix, packed, Z, z_step, rows, panel, L, row_step, along, worker, workers):
    """Pack this worker's share of the panels of Z matrices."""
    panels = (rows + panel - 1) // panel
    task, last = Z * panels * worker // workers, Z * panels * (worker + 1) // workers
    while task < last:
        z = task // panels
        end = min(last, (z + 1) * panels)
        pack_block(
            matrix, z * z_step, packed, task * panel * L, rows, panel, task - z * panels, end - z * panels, L,
            row_step, along, 0,
        )  # fmt: skip
        task = end
