"""Blocks of Winograd's convolution, each with its reason; when it is the faster one. Budgets in bytes."""

import numpy as np

from fastcnn_kernels.gemm.blocking import even
from fastcnn_kernels.memory import planned

#: Panels of rows whose filters pass the patches of a panel of tiles in a task, where tiles alone make too few tasks.
ROWS_OF_A_TASK = 4
#: Panels of rows multiplied at a time: their products wait in L2 for the result's transform. More of them where patches
#: of a panel of tiles do not stay in L2, and pass from L3 for each.
ROWS, ROWS_OF_LONG_SUMS = 2, 4
PATCHES_IN_L2 = 3 << 19
#: With fewer panels of tiles than this filters are met so few times that they stay in L2, and patches come from L3.
FEW_PANELS = 5
#: Tasks at least, where the shape has so many panels: two threads then differ by an eighth at most.
TASKS = 8


@planned
def product_blocks(panel_bytes, groups, M, tiles, mr, columns, packed):
    """Panels of rows and of tiles per task; panels of rows multiplied at a time; 1 if U is shared, 1 if V is.

    What is not shared is transformed inside the task, whose part of it no other task meets. `packed` filters are.
    The patches of a panel of tiles take ``panel_bytes``.
    """
    row_panels, tile_panels = -(-M // mr), -(-tiles // columns)
    enough_tiles = groups * tile_panels >= TASKS
    if tile_panels < FEW_PANELS and row_panels >= TASKS and not enough_tiles:
        rows = 1 if tile_panels == 1 else ROWS
        return np.array([rows, tile_panels, rows, packed, 1], np.intp)
    rows = row_panels if enough_tiles else even(row_panels, ROWS_OF_A_TASK)
    step = ROWS if panel_bytes <= PATCHES_IN_L2 else ROWS_OF_LONG_SUMS
    return np.array([rows, 1, min(rows, step), 1, rows < row_panels], np.intp)


#: Transformed patches of dy and of the image that wait in L3 at a time, while all workers multiply them.
CHUNK_BYTES = 10 << 20
#: Products of a group of the weight gradient up to this size: a worker has its own of some part of the tiles,
#: transforms as many bytes of patches as they take or as stay in L2 beside them, multiplies those, goes on. No patch
#: then leaves its core. Above it, all workers share patches and products.
PRODUCTS_OF_PART, CHUNK_IN_L2 = 3 << 20, 3 << 18
#: Products of all parts, which are added up in the end; parts at most and at least in all groups, about, as those of
#: a group are a power of two, which two threads share evenly; and tiles of a part at least, on average.
PRODUCTS_OF_PARTS, MOST_PARTS, LEAST_PARTS, TILES_OF_PART = 5 << 20, 8, 4, 32
#: Panels of rows and of columns that a task of the weight gradient multiplies: each patch met twice or four times.
WEIGHT_ROWS, WEIGHT_COLUMNS = 4, 2


def _chunk(tile_rows, tiles_w, tile_bytes, budget):
    """Tiles of an even split of `tile_rows` rows of tiles, by whole rows; pieces of a row beyond twice the budget."""
    rows = even(tile_rows, max(1, budget // (tiles_w * tile_bytes)))
    return max(1, min(rows * tiles_w, 2 * budget // tile_bytes))


@planned
def weight_blocks(E, E_dy, groups, M, C, tile_rows, tiles_w, mr, columns, itemsize):
    """Tiles of a chunk, panels of rows and of columns per task, splits of a task's E products, parts of each group.

    A part of the tiles of a group is one worker's alone; with 0 parts, all workers share all groups. There are E
    matrices of patches of the image, and E_dy of dy, in panels of `columns` and `mr` channels.
    """
    row_panels, column_panels = -(-M // mr), -(-C // columns)
    tile_bytes = (E_dy * row_panels * mr + E * column_panels * columns) * itemsize
    rows_of_task, columns_of_task = even(row_panels, WEIGHT_ROWS), even(column_panels, WEIGHT_COLUMNS)
    products_bytes = E * row_panels * column_panels * mr * columns * itemsize
    parts = max(LEAST_PARTS, min(MOST_PARTS, PRODUCTS_OF_PARTS // (groups * products_bytes)))
    parts = max(1, min(-(-parts // groups), tile_rows, tile_rows * tiles_w // TILES_OF_PART))
    parts = 1 << parts.bit_length() - 1
    if groups * parts > 1 and products_bytes <= PRODUCTS_OF_PART:
        chunk = _chunk(-(-tile_rows // parts), tiles_w, tile_bytes, max(CHUNK_IN_L2, products_bytes))
        return np.array([chunk, rows_of_task, columns_of_task, 1, parts], np.intp)
    chunk = _chunk(tile_rows, tiles_w, groups * tile_bytes, CHUNK_BYTES)
    tasks = groups * -(-row_panels // rows_of_task) * -(-column_panels // columns_of_task)
    splits = 1 if tasks >= TASKS else 4
    return np.array([chunk, rows_of_task, columns_of_task, splits, 0], np.intp)
