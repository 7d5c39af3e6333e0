"""Limits of the products of unpacked operands, each with its reason; measured with AVX-512's lanes."""

#: Rows of A at least: a register tile.
FEWEST_ROWS = 6
#: Columns that are few: up to so many, dot products are faster from so many products a sum for each column on. They do
#: not take a transposed A, which is packed sooner than read down its columns if these are far apart, or if it is large.
FEW_COLUMNS, PRODUCTS_PER_COLUMN, MOST_ROWS_OF_FEW_COLUMNS, BYTES_OF_FEW_COLUMNS = 15, 32, 1024, 1 << 22
#: Operations, times the bytes of an element, up to which packing takes longer than reading rows of B that lie apart;
#: bytes of B up to which they come from L2.
MOST_WORK_BYTES, L2_BYTES_FOR_B = 1 << 26, 1 << 19
#: Operations up to which awkward shapes are none: more of them are shared out, which a single tile of rows cannot be,
#: and a second tile, one vector wide, computes most columns of the first again.
LITTLE_WORK = 1 << 20


def declines(M: int, N: int, L: int, Z: int, itemsize: int, transpose_a: bool) -> str:
    """Why packing or another way to read the operands is the faster one for Z products, or ""."""
    if N <= FEW_COLUMNS and not transpose_a and N * PRODUCTS_PER_COLUMN <= L:
        return f"{N} columns of sums of {L} products: dot products pay"
    if N <= FEW_COLUMNS and transpose_a and (M > MOST_ROWS_OF_FEW_COLUMNS or M * L * itemsize > BYTES_OF_FEW_COLUMNS):
        return f"{N} columns of sums down the columns of {L} x {M}: packing pays"
    work, lanes = 2 * M * N * L, 64 // itemsize
    if work * itemsize > MOST_WORK_BYTES or N * L * itemsize > L2_BYTES_FOR_B:
        return f"{M} x {N} results of {L} products: packing pays"
    if Z * work > LITTLE_WORK and Z * M < 2 * FEWEST_ROWS:
        return f"{M} rows are one tile, which cannot be shared out"
    if work > LITTLE_WORK and lanes < N < 2 * lanes:
        return f"{N} columns: a second tile would compute most of the first again"
    return ""
