"""Block sizes of the channels-last weight gradient, each with its reason."""

from fastcnn_kernels.gemm.blocking import even

#: Channels of a slab: two vectors of the widest kind. A pixel of it is a stretch of one cache line or two.
SLAB_CHANNELS = 32
#: Pixels multiplied at a time: those of the slab that a tap meets stay in L1 while all rows of dy pass. The rest of the
#: slab, of which strides skip most, stays in L2, and so does dy, of which several threads have a part each.
L1_BYTES_FOR_TAP, L2_BYTES_FOR_SLAB, L2_BYTES_FOR_DY = 32 * 1024, 128 * 1024, 1 << 20
#: Rows of dy counted there at most: of more, tiles would have too few pixels, and panels come from L3 in their order.
MOST_ROWS_OF_DY = 1024
#: More pixels save nothing: their sums are loaded and stored once for so many products.
MOST_PIXELS = 512
#: Chunks of the sum over pixels: tasks for so many threads. Fixed, not the number of threads: they decide its rounding.
MOST_CHUNKS = 8
#: Pixels of a chunk at least, as many as are taken at a time at most, and bytes of the sums of all chunks at most: they
#: are stored and added up once more.
FEWEST_PIXELS, MOST_BYTES_OF_SUMS = MOST_PIXELS, 1 << 21


def chunks_of_sum(groups, pixels, sums_bytes):
    """Chunks of the sum over pixels, from shapes alone."""
    return max(1, min(-(-MOST_CHUNKS // groups), pixels // FEWEST_PIXELS, MOST_BYTES_OF_SUMS // sums_bytes))


#: Multiply-adds in the time of transposing an element from beyond L2, and of adding to a sum there.
COST_OF_TRANSPOSING, COST_OF_FAR_SUM = 32, 11
#: Planes so many bytes apart share sets of L1, of which a tile's rows need more lines than it has ways: reading them
#: where they lie then pays for one slab only.
ALIASING_PLANES = 4096
#: Bytes of dw up to which turning the sums of x and dy takes less time than it saves.
MOST_BYTES_TURNED = 1 << 19


def roles(M, channels, pixels, itemsize):
    """Whether rows of tiles that are planes of so many pixels are read where they lie, and whether they are those of x.

    Those of dy would be the image then: what costs less time a pixel is the image.
    """
    lanes = 64 // itemsize

    def cost(rows, columns):
        return rows * -(-columns // lanes) * lanes + COST_OF_TRANSPOSING * columns

    turned = M * channels * itemsize <= MOST_BYTES_TURNED and cost(channels, M) < cost(M, channels)
    one_slab = (M if turned else channels) <= SLAB_CHANNELS
    in_place = one_slab or pixels * itemsize % ALIASING_PLANES != 0
    return in_place, in_place and turned


#: Sums of a task that stay in L2 from block to block of pixels.
L2_BYTES_FOR_SUMS = 1 << 20


def panels_and_slabs(parts, panels, slabs, sums, pixels, pixel_blocks, dy_size, image_size, itemsize, num_threads):
    """Panels and slabs of a task. They do not change the digits, so that they may depend on the threads.

    Tasks are one of the `parts` (groups and chunks), a block of panels and one of slabs. Blocks of panels transpose the
    image once each, blocks of slabs dy; the way that keeps the threads busy for the shortest time is taken. Sizes are
    those of a part.
    """

    def busiest_thread(way):
        blocks_of_panels, blocks_of_slabs = -(-panels // way[0]), -(-slabs // way[1])
        tasks = -(-parts * blocks_of_panels * blocks_of_slabs // num_threads)
        share_of_panels, share_of_slabs = way[0] / panels, way[1] / slabs
        transposed = image_size * share_of_slabs + dy_size * share_of_panels
        sums_of_task = sums * share_of_panels * share_of_slabs
        far_sums = sums_of_task * pixel_blocks if sums_of_task * itemsize > L2_BYTES_FOR_SUMS else 0
        return tasks * (sums_of_task * pixels + COST_OF_TRANSPOSING * transposed + COST_OF_FAR_SUM * far_sums)

    # even cuts, and one for each thread: few enough to try every pair
    blocks = sorted({1, 2, 4, 8, 16, num_threads})
    return min(((-(-panels // i), -(-slabs // j)) for i in blocks for j in blocks), key=busiest_thread)


def block_of_pixels(N, P, Q, rows, channels, stride, itemsize):
    """Images, output rows and columns taken at a time: part of a row, or rows, or images if they are small.

    `rows` are those of tiles, `channels` those of a slab, of which an output has `stride` pixels.
    """
    slab_pixels = min(L1_BYTES_FOR_TAP, L2_BYTES_FOR_SLAB // stride) // (channels * itemsize)
    pixels = max(1, min(MOST_PIXELS, slab_pixels, L2_BYTES_FOR_DY // (min(rows, MOST_ROWS_OF_DY) * itemsize)))
    lines = even(P, max(1, pixels // Q))
    return even(N, max(1, pixels // (P * Q))) if lines == P else 1, lines, even(Q, pixels)


#: Share of the lanes that hold sums, at least, if a filter row or a single tap has few vectors, the last partly empty.
#: (The lanes are AVX-512's, with which the limits were measured.)
FEWEST_LANES, FEW_VECTORS = 0.75, 2
#: Sums of a group, M x L, from which on transposing operands pays, and beside a padded copy of the image. A single
#: tap meets each transposed value for fewer products: two vectors of channels (AVX-512's) have to share them, and
#: operands that L2 holds are better read as they lie until there are many rows and channels.
FEWEST_SUMS, FEWEST_SUMS_BESIDE_COPY = 1024, 400
FEWEST_BYTES_OF_ONE_TAP, FEWEST_SUMS_IN_L2, L2_BYTES = 128, 8192, 2 << 20


def pays(M, channels, taps, dilation_w, itemsize, nbytes, fewest_sums=FEWEST_SUMS):
    """Why nothing else but Winograd's algorithm is faster, or ""; `taps` are R x S, `nbytes` those of the operands."""
    (R, S), lanes = taps, 64 // itemsize
    run = channels * S if dilation_w == 1 else channels
    vectors, sums = -(-run // lanes), M * channels * R * S
    if sums < fewest_sums or (vectors <= FEW_VECTORS and run < FEWEST_LANES * vectors * lanes):
        return ""
    in_l2 = sums < FEWEST_SUMS_IN_L2 and nbytes < L2_BYTES
    if R * S == 1 and (in_l2 or channels * itemsize < FEWEST_BYTES_OF_ONE_TAP):
        return ""
    return f"{M} x {channels} channels fill vectors in channels-last order"
