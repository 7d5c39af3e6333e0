"""Block sizes of the matrix product, each with its reason. Sizes are in elements, budgets in bytes.

Register tiles (mr x NR) are fixed per CPU level in micro.h and, from the same table of registers, in numba_llvm.py.
"""

import numpy as np

from fastcnn_kernels.memory import planned

#: A packed block of B shares the 1 MiB (or 512 KiB) L2 of a core with the panels of A streaming past it.
L2_BYTES_FOR_B = 256 * 1024
#: A panel of A (14 x 384 floats = 21 KiB) stays in L1 while the panels of B stream past it from L2. It depends on
#: nothing but the sum, as the blocks of a sum decide its rounding.
L_BLOCK = 384
#: Panels of A per task: 32 x 14 rows use each packed element of B 448 times, yet leave tasks to share out.
PANELS_OF_A = 32
#: Panels of B per task at most: keeps enough tasks for the threads when L is short.
PANELS_OF_B = 16
#: Tasks of a product at least, where it has so many panels: two threads then differ by a sixteenth at most.
TASKS = 16
#: Tasks that share out the rows of A while each has all of a short B.
TASKS_OF_ROWS = 4


def even(size: int, largest: int) -> int:
    """Tile that splits `size` evenly over as few tiles of at most `largest` as hold it."""
    return -(-size // -(-size // largest))


def panels_in_l2(length, NR, itemsize):
    """Panels of B, `length` rows of it long, that stay in L2 at a time."""
    return max(1, min(PANELS_OF_B, L2_BYTES_FOR_B // (length * NR * itemsize)))


def product_blocks(Z, M, N, L, mr, NR, itemsize):
    """Panels of A and of B per task of Z products of packed operands, and rows of B met at a time."""
    row_panels, column_panels, length = -(-M // mr), -(-N // NR), even(L, L_BLOCK)
    rows = even(row_panels, PANELS_OF_A)
    columns = even(column_panels, panels_in_l2(length, NR, itemsize))
    if Z * -(-row_panels // rows) * -(-column_panels // columns) >= TASKS:
        return np.array([rows, columns, length], np.intp)
    if column_panels <= PANELS_OF_B and row_panels >= TASKS_OF_ROWS:
        return np.array([even(row_panels, -(-row_panels * Z // TASKS_OF_ROWS)), column_panels, length], np.intp)
    others = Z * -(-row_panels // rows)
    columns = even(column_panels, max(1, column_panels * others // TASKS))
    others = Z * -(-column_panels // columns)
    if others * -(-row_panels // rows) < TASKS:
        rows = even(row_panels, max(1, row_panels * others // TASKS))
    return np.array([rows, columns, length], np.intp)


#: A task's own block of A in L2, beside a block of B.
L2_BYTES_FOR_A = 512 * 1024
#: Who packs the larger operand of a matrix product: all threads beforehand, or each task a block of it.
BEFOREHAND, ROWS_IN_TASKS, COLUMNS_IN_TASKS = 0, 1, 2


@planned
def matrix_blocks(Z, ZA, ZB, M, N, L, mr, NR, itemsize):
    """As `product_blocks`, and who packs: packed where it is multiplied, the larger operand never leaves L2.

    Tasks are then blocks of it alone, which takes enough of them, and an operand that the batch does not share. The
    panels of B are those that stay in L2 at a time; a task whose rows are its own has all of them.
    """
    row_panels, column_panels, length = -(-M // mr), -(-N // NR), even(L, L_BLOCK)
    rows_in_tasks = ZB < Z or (ZA == Z and M > N)
    share = Z * (row_panels if rows_in_tasks else column_panels) // TASKS
    if share == 0:
        return np.append(product_blocks(Z, M, N, L, mr, NR, itemsize), BEFOREHAND)
    most_rows = max(1, min(PANELS_OF_A, L2_BYTES_FOR_A // (length * mr * itemsize)))
    most_columns = panels_in_l2(length, NR, itemsize)
    if rows_in_tasks:
        rows, columns = even(row_panels, min(most_rows, share)), even(column_panels, most_columns)
        return np.array([rows, columns, length, ROWS_IN_TASKS], np.intp)
    return np.array([row_panels, even(column_panels, min(most_columns, share)), length, COLUMNS_IN_TASKS], np.intp)


#: Fewer elements are packed by one thread: it takes about as long as waking the others (2 us, Numba 4).
PARALLEL_PACKING = 1 << 14


def packing_threads(elements: int, num_threads: int) -> int:
    """Threads that pack so many elements."""
    return num_threads if elements >= PARALLEL_PACKING else 1
