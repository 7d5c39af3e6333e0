"""Block sizes and limits of the direct kernels, each with its reason."""

from fastcnn_kernels.gemm.blocking import even_share

#: The padded planes of a task, and the rows of dy beside them, stay in L2 with room for the output passing through.
L2_BYTES_FOR_PLANES = 256 * 1024
#: A layer makes at least this many tasks if it has the rows, unless `rows_beside_filters` decides; fixed, as chunks of
#: the weight gradient decide rounding.
TASKS = 16
#: Chunks of the weight gradient's sum: more than the threads of most machines, few enough to add up quickly.
WEIGHT_CHUNKS = 16
#: Pixels whose rows of dy stay in L1 while all taps pass, unless one row is longer; and images that make them up at
#: most: lanes are added up after so many.
DOT_PIXELS, DOT_IMAGES = 1024, 8

#: Rows of whole vectors, at least so many, are tiled one by one: their results are stored line by line. They begin at
#: whole vectors of their planes, so that fewer loads cross lines of cache.
VECTORS_OF_A_ROW = 4


def row_by_row(Q: int, VL: int) -> bool:
    """Whether output rows of Q pixels are tiled one by one."""
    return Q % VL == 0 and Q >= VECTORS_OF_A_ROW * VL


#: What a panel of filters costs besides its rows, in rows (here and in the masked kernels): a tile of
#: fewer rows has more vectors, and no empty rows, with which it could not be stored in place. MobileNet's first layer,
#: 32 channels, gains 4 % by it. In the masked kernels, tiles of 8 rows by 3 vectors gain 3 to 25 % over 11 or 13 by 2
#: for 32 and 64 channels (sums of 144 or of 2): they read less per product, and store to as many planes as an L1 cache
#: has ways. Planes a multiple of 4 KiB apart share these: 64 of 128 x 128 pixels take half the time.
ROWS_PER_PANEL = 0.25


def images_at_a_time(rows_step: int, blocks: int, images: int, bytes_per_image: int) -> int:
    """Images whose planes are multiplied at a time: several, if each takes one block of `rows_step` copied pixels.

    `images` are those of a chunk, `bytes_per_image` their planes and rows of dy.
    """
    if blocks > 1 or rows_step == 0:
        return 1
    return max(1, min(DOT_IMAGES, images, DOT_PIXELS // rows_step, 2 * L2_BYTES_FOR_PLANES // bytes_per_image))


def rows_per_block(bytes_per_row: int, rows: int, tasks_per_block: int) -> int:
    """Output rows per task: as many as fit, fewer while there would be fewer than `TASKS` tasks."""
    fitting = max(1, L2_BYTES_FOR_PLANES // bytes_per_row)
    wanted = -(-rows // -(-TASKS // tasks_per_block))
    blocks = -(-rows // max(1, min(fitting, wanted)))
    return -(-rows // blocks)


#: (Which row takes a layer is decided by AVX-512's lanes, with which the limits were measured.)
#: Output channels from which on they are lanes rather than rows of a tile, if they fill so much of the lanes, over sums
#: long enough to make up for turning the results. Of rows tiled one by one, the pixels are: 1.04 to 1.3 times faster.
FEWEST_LANES, FEWEST_FULL, LONG_SUM = 16, 0.75, 96
#: Their filters pass once for each block of rows: they have to stay in L2, unless several products share the planes.
L2_BYTES_FOR_FILTERS = 2 << 20
#: Filters of so many bytes come from L3 for each block of rows, of which there are then as few as make even shares.
BYTES_OF_LARGE_FILTERS = 4 << 20


def rows_beside_filters(bytes_per_row: int, rows: int, tasks_per_block: int, num_threads: int) -> int:
    """`rows_per_block` of large filters."""
    return even_share(tasks_per_block, rows, max(1, L2_BYTES_FOR_PLANES // bytes_per_row), num_threads)


def channels_in_lanes(M: int, L: int, VL: int) -> bool:
    """Whether M output channels are the lanes of a tile, and pixels its rows, given the longest sum."""
    return M >= FEWEST_LANES and M >= FEWEST_FULL * -(-M // VL) * VL and L >= LONG_SUM


#: Rows (output channels of a group; input channels for dx) up to which nothing amortises packing the pixels.
FEW_ROWS = 8
#: With groups each packed pixel meets fewer rows still, and a group's planes fit L1.
FEW_ROWS_OF_A_GROUP = 32
#: The products of a strided input gradient read the same planes, which packing copies once for each.
ROWS_OF_SEVERAL_PRODUCTS = 128


#: Sums of a strided forward pass up to which its planes, which stay in cache, are read faster than packed.
SHORT_STRIDED_SUM = 160


def declines_product(M: int, L: int, taps: int, products: int, groups: int, strided: bool, itemsize: int) -> str:
    """Why the direct product is not the faster one for M rows of sums of at most L products, or ""."""
    if strided and L <= SHORT_STRIDED_SUM:
        return ""
    if channels_in_lanes(M, L, 64 // itemsize) and taps > 1:
        if products > 1 or M * L * itemsize <= L2_BYTES_FOR_FILTERS:
            return ""
        return f"filters of {M} x {L} leave the cache: packing pixels pays"
    few = FEW_ROWS_OF_A_GROUP if groups > 1 else FEW_ROWS
    if M <= (ROWS_OF_SEVERAL_PRODUCTS if products > 1 else few):
        return ""
    return f"{M} channels a group share each packed pixel, over sums of {L}: packing pays"


#: Pixels of all images, and for each of its sums, from which on dot products of several taps beat the channels-last
#: product: fewer, and adding up lanes and chunks costs more than transposing.
FEWEST_PIXELS, FEWEST_PIXELS_PER_SUM = 2048, 2


def declines_weight_gradient(M: int, L: int, taps: int, pixels: int, groups: int) -> str:
    """Why dot products over the pixels of all images are not the faster weight gradient, or ""."""
    if groups > 1 or (taps > 1 and pixels >= max(FEWEST_PIXELS, FEWEST_PIXELS_PER_SUM * M * L)):
        return ""
    return f"{M} x {L} sums over {pixels} pixels: transposing pays"
