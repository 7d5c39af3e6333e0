"""Block sizes of the matrix product, each with its reason. Sizes are in elements, budgets in bytes.

Register tiles (mr x NR) are fixed per CPU level in micro.h and, from the same table of registers, in numba_micro.py.
"""

#: A packed block of B shares the 1 MiB (or 512 KiB) L2 of a core with the panels of A streaming past it.
L2_BYTES_FOR_B = 256 * 1024
#: One panel of B (L_BLOCK x 32 floats = 128 KiB) must leave L2 room for one of A; C is revisited once per L_BLOCK.
L_BLOCK = 1024
#: Panels of A per task: 32 x 14 rows use each packed element of B 448 times, yet leave tasks to share out.
PANELS_OF_A = 32
#: Panels of B per task at most: keeps enough tasks for the threads when L is short.
PANELS_OF_B = 16


def matmul_blocks(mr: int, NR: int, L: int, itemsize: int) -> tuple[int, int, int]:
    """Rows of A, columns of B and length of the sum per task."""
    panel_bytes = min(L, L_BLOCK) * NR * itemsize
    return mr * PANELS_OF_A, NR * max(1, min(PANELS_OF_B, L2_BYTES_FOR_B // panel_bytes)), L_BLOCK


#: Fewer elements are packed by one thread: it takes about as long as waking the others (2 us, Numba 4).
PARALLEL_PACKING = 1 << 14


def packing_threads(elements: int, num_threads: int) -> int:
    """Threads that pack so many elements."""
    return num_threads if elements >= PARALLEL_PACKING else 1
