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
#: Tasks of a product that packs in them, at least, where it has so many panels: two threads then differ by a sixteenth.
TASKS = 16
#: Panels of A from which on the tasks share them out, while each has all of a short B.
SHARED_ROWS = 4


def even(size: int, largest: int) -> int:
    """Tile that splits `size` evenly over as few tiles of at most `largest` as hold it."""
    return -(-size // -(-size // largest))


def panels_in_l2(length, NR, itemsize):
    """Panels of B, `length` rows of it long, that stay in L2 at a time."""
    return max(1, min(PANELS_OF_B, L2_BYTES_FOR_B // (length * NR * itemsize)))


def even_share(Z, panels, most, num_threads):
    """Panels of a task, up to `most` and as many as leave the busiest worker least, where Z matrices have `panels`."""

    def busiest(size):
        blocks = -(-panels // size)
        firsts = (Z * blocks * worker // num_threads for worker in range(num_threads + 1))
        shares = np.diff([task // blocks * panels + panels * (task % blocks) // blocks for task in firsts])
        return shares.max()

    return min((-(-panels // blocks) for blocks in range(-(-panels // most), panels + 1)), key=busiest)


def product_blocks(Z, M, N, L, mr, NR, itemsize, num_threads):
    """Panels of A and of B per task of Z products of packed operands, and rows of B met at a time.

    Tasks pack nothing: they share out the rows, or the columns where those are few. No digit depends on it.
    """
    row_panels, column_panels, length = -(-M // mr), -(-N // NR), even(L, L_BLOCK)
    if column_panels <= PANELS_OF_B and row_panels >= SHARED_ROWS:
        return np.array([even_share(Z, row_panels, PANELS_OF_A, num_threads), column_panels, length], np.intp)
    columns = even_share(Z, column_panels, panels_in_l2(length, NR, itemsize), num_threads)
    return np.array([row_panels, columns, length], np.intp)


#: A task's own block of A in L2, beside a block of B.
L2_BYTES_FOR_A = 512 * 1024
#: Who packs the larger operand of a matrix product: all threads beforehand, or each task a block of it.
BEFOREHAND, ROWS_IN_TASKS, COLUMNS_IN_TASKS = 0, 1, 2


@planned
def matrix_blocks(Z, ZA, ZB, M, N, L, mr, NR, itemsize, num_threads):
    """As `product_blocks`, and who packs: packed where it is multiplied, the larger operand never leaves L2.

    Tasks are then blocks of it alone, which takes enough of them, and an operand that the batch does not share. The
    panels of B are those that stay in L2 at a time; a task whose rows are its own has all of them.
    """
    row_panels, column_panels, length = -(-M // mr), -(-N // NR), even(L, L_BLOCK)
    rows_in_tasks = ZB < Z or (ZA == Z and M > N)
    share = Z * (row_panels if rows_in_tasks else column_panels) // TASKS
    if share == 0:
        return np.append(product_blocks(Z, M, N, L, mr, NR, itemsize, num_threads), BEFOREHAND)
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
