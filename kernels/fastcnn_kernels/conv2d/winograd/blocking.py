"""Blocks of Winograd's convolution, each with its reason; when it is the faster one. Budgets in bytes."""

import numpy as np

from fastcnn_kernels.memory import planned

#: Elements between the E matrices of a block beyond their size: their starts would otherwise meet in few cache sets.
SPACING = 16
#: Transformed patches of all tiles may take this much: they then wait in L3 while every panel of rows passes.
WHOLE_BYTES = 10 << 20
#: Panels of rows that must pass patches in L3: fewer do not pay their way there, and patches stay with their task.
SHARING_PANELS = 4
#: Transformed patches of one task: half of L2.
BLOCK_BYTES = 512 << 10
#: Products waiting for the result's transform: a quarter of L2.
PRODUCT_BYTES = 256 << 10
#: Tasks at least, where the shape has so many panels: two threads then differ by an eighth at most.
TASKS = 8


def _even(size: int, largest: int) -> int:
    """Tile that splits `size` evenly over as few tiles of at most `largest` as hold it."""
    return -(-size // -(-size // largest))


@planned
def product_blocks(E, groups, M, C, tiles, mr, NR, itemsize, packed):
    """Panels of rows and of tiles per task; those multiplied at a time; 1 if U is shared, 1 if V is.

    What is not shared is transformed inside the task, whose part of it no other task meets. `packed` filters are.
    """
    row_panels, tile_panels = -(-M // mr), -(-tiles // NR)
    panel_bytes = E * C * NR * itemsize
    patches_bytes = groups * tile_panels * panel_bytes
    if row_panels >= SHARING_PANELS and groups * row_panels >= TASKS and patches_bytes <= WHOLE_BYTES:
        rows, columns, shared_filters, shared_patches = 1, tile_panels, packed, 1
    else:
        columns = _even(tile_panels, max(1, min(BLOCK_BYTES // panel_bytes, tile_panels * groups // TASKS)))
        rows, shared_filters, shared_patches = row_panels, 1, 0
    pair = E * mr * NR * itemsize
    step_columns = min(columns, 2)
    step_rows = max(1, min(rows, PRODUCT_BYTES // (pair * step_columns)))
    return np.array([rows, columns, step_rows, step_columns, shared_filters, shared_patches], np.intp)


#: Transformed patches of dy and of the image that wait in L3 at a time.
CHUNK_BYTES = 10 << 20
#: Panels of rows and of columns that a task of the weight gradient multiplies: each patch met twice or four times.
WEIGHT_ROWS, WEIGHT_COLUMNS = 4, 2


@planned
def weight_blocks(E, groups, M, C, tiles, mr, NR, itemsize):
    """Tiles of a chunk, panels of rows and of columns per task, and parts into which a task's E products are split."""
    row_panels, column_panels = -(-M // mr), -(-C // NR)
    tile_bytes = E * groups * (row_panels * mr + column_panels * NR) * itemsize
    chunk = _even(tiles, max(1, CHUNK_BYTES // tile_bytes))
    rows, columns = _even(row_panels, WEIGHT_ROWS), _even(column_panels, WEIGHT_COLUMNS)
    tasks = groups * -(-row_panels // rows) * -(-column_panels // columns)
    splits = 1 if tasks >= TASKS else 4
    return np.array([chunk, rows, columns, splits], np.intp)
