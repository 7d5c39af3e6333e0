"""Block sizes and limits of the skinny products, each with its reason."""

from fastcnn_kernels.gemm.geometry import DOT_COLUMNS_OF_ONE_ROW

#: Rows up to which dot products with the unpacked matrix beat packing it: a packed element then meets few panels.
#: Adding up the lanes of a sum costs as much as 24 elements of it for each row, so sums have to be that long.
FEW_ROWS_OF_DOTS, LENGTH_PER_ROW = 64, 24
#: Rows from and up to which outer products with the unpacked matrix, broadcast element by element, beat dot products
#: and packing it, if it has so many rows and the sums are long enough to make up for storing them transposed.
FEWEST_ROWS_OF_OUTER, MOST_ROWS_OF_OUTER, MANY_ROWS_OF_OUTER, LENGTH_OF_OUTER = 17, 64, 96, 48
#: Rows up to which streaming the unpacked matrix beats packing it: 1.1 to 1.5 times at 20 to 32 rows, but in double
#: precision no longer at 42. Below so many columns a row of it is too short a stretch to read.
FEW_ROWS_OF_STREAM, COLUMNS_OF_STREAM = 32, 256
#: Rows of the large matrix read side by side: as many streams as the prefetchers follow.
STREAM_ROWS = 16
#: Sums that wait while the rows of the large matrix pass, and are loaded and stored once for each `STREAM_ROWS`: they
#: stay in L2, and rows are read in stretches of 2 KiB and more (16 KiB of sums: 0.9 of the speed; 256 KiB: the same).
BYTES_OF_SUMS = 64 * 1024

#: Rows of so many bytes lie in the same sets of an L1 cache of 8 ways: as many are read side by side, since of more the
#: rest of a line is gone before it is asked for. That takes 1.1 to 1.4 times as long where L2 and L3 deliver the lines,
#: and makes no difference for a matrix too large for them (32 MiB of L3 where it was measured).
ALIASING_ROWS, L1_WAYS, BYTES_OF_L3 = 4096, 8, 32 << 20


def dots_pay(rows: int, L: int) -> bool:
    """Whether tiles of dot products are the faster way to multiply so many rows."""
    return rows <= FEW_ROWS_OF_DOTS and rows * LENGTH_PER_ROW <= L


def columns_of_one_row(K: int, L: int, itemsize: int) -> int:
    """Rows of K of the large matrices, L elements each, that dot products with one row read side by side."""
    aliasing = L * itemsize % ALIASING_ROWS == 0 and K * L * itemsize <= BYTES_OF_L3
    return L1_WAYS if aliasing else DOT_COLUMNS_OF_ONE_ROW


def outer_pays(rows: int, many: int, L: int) -> bool:
    """Whether outer products are the faster way to multiply so many rows by `many` others."""
    fits = FEWEST_ROWS_OF_OUTER <= rows <= MOST_ROWS_OF_OUTER
    return fits and many >= MANY_ROWS_OF_OUTER and L >= LENGTH_OF_OUTER


def stream_pays(rows: int, columns: int) -> bool:
    """Whether a stream of the matrix is the faster way to multiply so many rows by it."""
    return rows <= FEW_ROWS_OF_STREAM and columns >= COLUMNS_OF_STREAM


#: Rows up to which, and columns from which on, panels begin at whole vectors: one that lies across two cache lines is
#: loaded as slowly as two. With more rows the products take the time, and the additional panel costs.
ROWS_OF_WHOLE_VECTORS = 8


def begins_at_vectors(rows: int, columns: int) -> bool:
    """Whether the panels of a stream begin where vectors do in memory, wherever the matrix begins."""
    return rows <= ROWS_OF_WHOLE_VECTORS and columns >= COLUMNS_OF_STREAM
