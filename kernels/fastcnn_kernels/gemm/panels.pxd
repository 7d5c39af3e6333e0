"""Panels: how many rows each has, and packing them; the twin is ``numba_panels.py``. Their order is in ``micro.h``."""

from fastcnn_kernels.gemm.micro cimport MR, PREFETCH_FAR, STREAMS, VECTOR_BYTES, real, take_steps, transpose, zero_run


cdef inline Py_ssize_t even_tile(Py_ssize_t size, Py_ssize_t largest) noexcept nogil:
    """Tile that splits `size` evenly over as few tiles of at most `largest` as hold it."""
    cdef Py_ssize_t tiles = (size + largest - 1) // largest
    return (size + tiles - 1) // tiles


cdef inline int panel_rows(Py_ssize_t M) noexcept nogil:
    """Rows of a panel of A, up to MR; of the last one only those that are left are multiplied."""
    return <int>even_tile(M, MR)


cdef inline Py_ssize_t panel_pitch(int mr, Py_ssize_t VL) noexcept nogil:
    """Elements from a row of a transposed panel to the next: whole vectors, where transposing writes vectors."""
    return (mr + VL - 1) // VL * VL if VECTOR_BYTES == 64 else mr


cdef inline Py_ssize_t rows_side_by_side(Py_ssize_t rows) noexcept nogil:
    """Rows packed side by side; a few more than `STREAMS` all at once, as beginning a panel takes time as well."""
    return rows if rows <= 2 * STREAMS else STREAMS


cdef inline void pack_rows(
    const real* a, real* packed, Py_ssize_t rows, int mr, Py_ssize_t L, Py_ssize_t row_step, const Py_ssize_t* l_offset,
    Py_ssize_t ahead
) noexcept nogil:
    """Pack `rows` <= mr rows ``a[i * row_step + l_offset[l]]`` into one panel; missing rows are zeros.

    What is contiguous, along the rows or along runs of the sum, is read as such. Of rows that lie side by side, what
    lies `ahead` steps of the sum ahead is asked for.
    """
    cdef Py_ssize_t l = 0, first
    while l < L:
        first = l
        l += 1
        if row_step > 1:
            while l < L and l_offset[l] == l_offset[l - 1] + 1:
                l += 1
        elif ahead > 0:
            PREFETCH_FAR(a + l_offset[first + ahead])
            PREFETCH_FAR(a + l_offset[first + ahead] + rows - 1)
        if l == first + 1:
            take_steps(packed + first * mr, a + l_offset[first], row_step, rows)
            zero_run(packed + first * mr + rows, mr - rows)
            continue
        transpose(a + l_offset[first], row_step, rows, l - first, packed + first * mr, mr, mr)


cdef inline void pack_block(
    const real* matrix, real* packed, Py_ssize_t rows, int panel, Py_ssize_t first, Py_ssize_t last, Py_ssize_t L,
    Py_ssize_t row_step, const Py_ssize_t* along,
) noexcept nogil:
    """Pack panels [first, last) of a matrix of so many rows: L elements of each row.

    Where rows lie side by side, a few elements of all of them are read, then those that follow.
    """
    cdef Py_ssize_t turn = rows_side_by_side(L) if row_step == 1 else L, part, index, i
    for part in range((L + turn - 1) // turn):
        part = part * turn
        for index in range(first, last):
            i = index * panel
            pack_rows(
                matrix + i * row_step, packed + ((index - first) * L + part) * panel, min(panel, rows - i), panel,
                min(turn, L - part), row_step, along + part, max(0, min(turn, L - part - turn)),
            )


cdef inline void pack_panels(
    const real* matrix, real* packed, Py_ssize_t Z, Py_ssize_t z_step, Py_ssize_t rows, int panel, Py_ssize_t L,
    Py_ssize_t row_step, const Py_ssize_t* along, Py_ssize_t worker, Py_ssize_t workers,
) noexcept nogil:
    """Pack this worker's share of the panels of Z matrices."""
    cdef Py_ssize_t panels = (rows + panel - 1) // panel, z, end
    cdef Py_ssize_t task = Z * panels * worker // workers, last = Z * panels * (worker + 1) // workers
    while task < last:
        z = task // panels
        end = min(last, (z + 1) * panels)
        pack_block(
            matrix + z * z_step, packed + task * panel * L, rows, panel, task - z * panels, end - z * panels, L,
            row_step, along,
        )
        task = end
