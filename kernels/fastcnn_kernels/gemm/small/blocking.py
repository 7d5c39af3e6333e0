"""Limits of the products of unpacked operands, each with its reason; measured with AVX-512's lanes."""

#: Rows of A at least: a register tile. Columns of B that fill a vector, of any dtype and CPU level.
FEWEST_ROWS, FEWEST_COLUMNS = 6, 16
#: Where columns fill no vector: products a sum for each of them from which on dot products are faster, and rows of a
#: transposed A up to which packing it takes longer.
PRODUCTS_PER_COLUMN, MOST_ROWS_OF_FEW_COLUMNS = 32, 1024
#: Operations, times the bytes of an element, up to which packing takes longer than reading rows of B that lie apart;
#: bytes of B up to which they come from L2.
MOST_WORK_BYTES, L2_BYTES_FOR_B = 1 << 26, 1 << 19
#: Operations up to which awkward shapes are none: more of them are shared out, which a single tile of rows cannot be,
#: and a second tile, one vector wide, computes most columns of the first again.
LITTLE_WORK = 1 << 20


def declines(M: int, N: int, L: int, Z: int, itemsize: int, transpose_a: bool) -> str:
    """Why packing or another way to read the operands is the faster one for Z products, or ""."""
    if N < FEWEST_COLUMNS and (M > MOST_ROWS_OF_FEW_COLUMNS if transpose_a else N * PRODUCTS_PER_COLUMN <= L):
        return f"{N} columns of {M} sums of {L} products: packing or dot products pay"
    work, lanes = 2 * M * N * L, 64 // itemsize
    if work * itemsize > MOST_WORK_BYTES or N * L * itemsize > L2_BYTES_FOR_B:
        return f"{M} x {N} results of {L} products: packing pays"
    if Z * work > LITTLE_WORK and Z * M < 2 * FEWEST_ROWS:
        return f"{M} rows are one tile, which cannot be shared out"
    if work > LITTLE_WORK and lanes < N < 2 * lanes:
        return f"{N} columns: a second tile would compute most of the first again"
    return ""
