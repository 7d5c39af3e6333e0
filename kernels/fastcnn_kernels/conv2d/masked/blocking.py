"""Block sizes and limits of the masked kernels, each with its reason."""

from functools import lru_cache

import numpy as np

from fastcnn_kernels.conv2d.direct.blocking import channels_in_lanes
from fastcnn_kernels.memory import planned

#: The masks of a layer stay in L2 beside the data: 2 bytes for a vector and tap. (The weight gradient has those of 12
#: more taps, and reads few of them where taps are few.)
MASKED_TAPS = 1 << 19
#: A block of tiles re-reads its pixels for every panel of weights: with the rows above and below they fill L2's half.
L2_BYTES_FOR_PIXELS = 128 * 1024
#: Tiles per task at most: results that go to memory go there in long stretches.
TILES_PER_TASK = 256
#: A call makes at least this many tasks if it has the tiles.
TASKS = 16


@lru_cache
def tiles_per_task(tiles: int, channels: int, tile_bytes: int, tasks_per_tile: int, num_threads: int) -> int:
    """Tiles of pixels that a task multiplies by one panel of weights.

    All of a plane that fits, where panels and images alone make even shares: the last tile of a plane is narrower, and
    of one image each thread then has the panels that it has packed itself.
    """
    most = min(TILES_PER_TASK, L2_BYTES_FOR_PIXELS // (channels * tile_bytes))
    if tiles <= most and tasks_per_tile % num_threads == 0:
        return tiles
    most = max(1, min(most, tiles * tasks_per_tile // TASKS))
    blocks = -(-tiles // most)
    return -(-tiles // blocks)


def rows_per_task(tiles: int, tile_width: int, width: int, rows: int) -> int:
    """Rows of a task whose windows are pooled: as many as its tiles hold, an even number."""
    return min(rows, max(2, tiles * tile_width // width // 2 * 2))


#: Vectors of pixels that a tile of dot products stays in registers for: its rows fit L1 and L2, and loading and storing
#: its sums costs a tenth of it.
DOT_VECTORS = 256
#: Tasks of the weight gradient, if it has as many groups and rows; fixed, as the chunks of images that make up for few
#: of them decide the rounding.
WEIGHT_TASKS = 8
#: Groups of large planes share a task, which then reads memory in order, while their sums fit half of L1. For small
#: planes loading and storing the sums costs more than that gains.
L1_BYTES_FOR_SUMS = 16 * 1024


@planned
def weight_blocks(N, groups, M, L, vectors, tile_rows, vector_bytes):
    """For `masked_dots`: chunks of the sum over images; groups and rows of a task; images and vectors of a visit."""
    row_tiles = -(-M // tile_rows)
    row_blocks = max(1, min(row_tiles, WEIGHT_TASKS // groups))
    rows = min(M, -(-row_tiles // row_blocks) * tile_rows)
    images = max(1, DOT_VECTORS // vectors)
    shared = max(1, min(-(-groups // WEIGHT_TASKS), L1_BYTES_FOR_SUMS // (M * L * vector_bytes))) if images == 1 else 1
    tasks = -(-groups // shared) * -(-M // rows)
    parts = -(-vectors // DOT_VECTORS)
    return np.array([max(1, min(N, WEIGHT_TASKS // tasks)), shared, rows, images, -(-vectors // parts)], np.intp)


#: Rows (output channels of a group; input channels for dx) up to which packing the pixels does not pay; and up to which
#: it does not for sums as short.
FEW_ROWS, FEW_ROWS_OF_SHORT_SUMS, SHORT_SUM = 64, 96, 32
#: A tile of few rows reads so many planes that their pages leave the TLB: with several taps a padded copy pays.
FEW_PLANES, FEW_ROWS_OF_A_TILE = 32, 6
#: Lanes of the tiles for each pixel they yield, beyond which they cost more than packing saves: the last vector of a
#: small plane is mostly empty, and so are the ends of rows shorter than the image's. Fewer rows save more, and a tile
#: of few rows has no limit. Channels may be lanes instead.
MOST_LANES_PER_PIXEL, MOST_LANES_OF_16_ROWS = 1.3, 1.6
#: Image and result that come from memory, not from L3, are better read in the long stretches that packing reads, once
#: there are as many rows to make up for it. With one tap a plane is read but once, and so many at a time are too many
#: streams.
L3_BYTES, ROWS_OVER_MEMORY, PLANES_OVER_MEMORY = 24 << 20, 32, 64


def declines_product(M: int, channels: int, taps: int, lanes_per_pixel: float, nbytes: int, VL: int) -> str:
    """Why another product is the faster one, or ""."""
    if M <= FEW_ROWS_OF_A_TILE:
        if channels > FEW_PLANES and taps > 1:
            return f"{M} rows over {channels} planes of several taps: a copy of the image pays"
        return ""
    short = channels * taps <= SHORT_SUM
    if M > (FEW_ROWS_OF_SHORT_SUMS if short else FEW_ROWS):
        return f"{M} channels a group share each packed pixel, over sums of {channels * taps}: packing pays"
    few = M <= 16 and not channels_in_lanes(M, channels * taps, VL)
    if lanes_per_pixel > (MOST_LANES_OF_16_ROWS if few else MOST_LANES_PER_PIXEL):
        return f"{lanes_per_pixel:.2f} lanes for each pixel of a plane: packing pays"
    streams = taps == 1 and channels >= PLANES_OVER_MEMORY
    if (streams or (M > ROWS_OVER_MEMORY and not short)) and nbytes > L3_BYTES:
        return f"{nbytes} bytes of image and result: reading them in long stretches pays"
    return ""


#: Size of the gradient (M x L) up to which dot products beat the channels-last product: their sums leave L1 beyond it.
#: In a group, up to which masks beat copied rows.
LARGEST_GRADIENT, LARGEST_GRADIENT_OF_A_GROUP = 36_000, 500
#: Pixels of all images for each of its sums: fewer, and adding up lanes costs more than transposing.
FEWEST_PIXELS_PER_SUM = 0.05


#: From as many pixels a plane, pixels in all and products a pixel on, rows of whole vectors are better read without
#: masks, from a padded copy.
PIXELS_OF_A_COPY, PIXELS_OF_COPIES, PRODUCTS_OF_A_COPY = 4096, 1 << 15, 100


def declines_weight_gradient(M: int, L: int, taps: int, plane: int, pixels: int, groups: int, whole: bool) -> str:
    """Why dot products over the pixels of all images, `plane` each, are not the faster weight gradient, or "".

    `whole` says that a row of pixels is whole vectors.
    """
    if groups > 1 and M * L > LARGEST_GRADIENT_OF_A_GROUP:
        return f"{M} x {L} dot products a group: copied rows pay"
    if M * L > LARGEST_GRADIENT or (groups == 1 and pixels < FEWEST_PIXELS_PER_SUM * M * L):
        return f"{M} x {L} dot products over {pixels} pixels: transposing pays"
    large = plane >= PIXELS_OF_A_COPY and pixels >= PIXELS_OF_COPIES
    if whole and large and taps > 1 and M * taps >= PRODUCTS_OF_A_COPY:
        return f"rows of whole vectors, {plane} pixels a plane: copies without masks pay"
    return ""
