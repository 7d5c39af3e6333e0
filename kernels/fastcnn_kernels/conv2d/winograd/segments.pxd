"""What the products and the weight gradient of Winograd's algorithm share in Cython: runs of tiles, whole lines."""

cdef enum:
    SPACING = 16  # elements between the E matrices of a panel beyond their size, or their starts meet in few cache sets


cdef inline Py_ssize_t whole_lines(Py_ssize_t n) noexcept nogil:
    """Elements of the cache lines that n take: what lies behind them begins at a line as well."""
    return (n + 15) // 16 * 16


cdef inline Py_ssize_t find_segments(
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
