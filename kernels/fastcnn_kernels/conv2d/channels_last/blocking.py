"""Block sizes of the channels-last weight gradient, each with its reason."""

from fastcnn_kernels.gemm.blocking import even

#: Channels of a slab: two vectors of the widest kind. A pixel of it is a stretch of one cache line or two.
SLAB_CHANNELS = 32
#: Pixels multiplied at a time: those of the slab that a tap meets stay in L1 while all rows of dy pass. The rest of the
#: slab, of which strides skip most, stays in L2, and so does dy.
L1_BYTES_FOR_TAP, L2_BYTES_FOR_SLAB, L2_BYTES_FOR_DY = 32 * 1024, 128 * 1024, 512 * 1024
#: More pixels save nothing: their sums are loaded and stored once for so many products.
MOST_PIXELS = 512
#: A call makes at least this many tasks. Fixed, and not the number of threads: chunks of the sum decide its rounding.
TASKS = 8
#: Pixels of a chunk at least, as many as are taken at a time at most, and bytes of the sums of all chunks at most: they
#: are stored and added up once more.
FEWEST_PIXELS, MOST_BYTES_OF_SUMS = MOST_PIXELS, 1 << 21


def split(groups, panels, slabs, pixels, sums_bytes, dy_size, image_size):
    """Chunks of the sum over pixels, blocks of panels and of slabs: each task has one of each, of one group.

    Blocks of panels transpose the image once each, blocks of slabs dy; the cheaper way is taken.
    """
    chunks = max(1, min(-(-TASKS // groups), pixels // FEWEST_PIXELS, MOST_BYTES_OF_SUMS // sums_bytes))
    wanted = -(-TASKS // (groups * chunks))
    ways = [(min(panels, -(-wanted // blocks)), blocks) for blocks in range(1, min(slabs, wanted) + 1)]
    of_panels, of_slabs = min(
        ways, key=lambda way: (-min(wanted, way[0] * way[1]), image_size * way[0] + dy_size * way[1])
    )
    return chunks, even(panels, -(-panels // of_panels)), even(slabs, -(-slabs // of_slabs))


def block_of_pixels(N, P, Q, rows, channels, stride, itemsize):
    """Images, output rows and columns taken at a time: part of a row, or rows, or images if they are small.

    `rows` are those of dy in a task, `channels` those of a slab, of which an output has `stride` pixels.
    """
    slab_pixels = min(L1_BYTES_FOR_TAP, L2_BYTES_FOR_SLAB // stride) // (channels * itemsize)
    pixels = max(1, min(MOST_PIXELS, slab_pixels, L2_BYTES_FOR_DY // (rows * itemsize)))
    lines = even(P, max(1, pixels // Q))
    return even(N, max(1, pixels // (P * Q))) if lines == P else 1, lines, even(Q, pixels)


#: Share of the lanes that hold sums, at least, if a filter row or a single tap has few vectors, the last partly empty.
#: (The lanes are AVX-512's, with which the limits were measured.)
FEWEST_LANES, FEW_VECTORS = 0.75, 2
#: Sums of a group, M x L, from which on transposing both operands pays, and beside a padded copy of the image. A single
#: tap meets each transposed value for fewer products: two vectors of channels have to share them, and operands that L2
#: holds are better read as they lie until there are many rows and channels.
FEWEST_SUMS, FEWEST_SUMS_BESIDE_COPY = 1024, 400
FEWEST_CHANNELS_OF_ONE_TAP, FEWEST_SUMS_IN_L2, L2_BYTES = 32, 8192, 2 << 20


def pays(M, channels, taps, dilation_w, itemsize, nbytes, fewest_sums=FEWEST_SUMS):
    """Why nothing else but Winograd's algorithm is faster, or ""; `taps` are R x S, `nbytes` those of the operands."""
    (R, S), lanes = taps, 64 // itemsize
    run = channels * S if dilation_w == 1 else channels
    vectors, sums = -(-run // lanes), M * channels * R * S
    if sums < fewest_sums or (vectors <= FEW_VECTORS and run < FEWEST_LANES * vectors * lanes):
        return ""
    in_l2 = sums < FEWEST_SUMS_IN_L2 and nbytes < L2_BYTES
    if R * S == 1 and (in_l2 or channels < FEWEST_CHANNELS_OF_ONE_TAP):
        return ""
    return f"{M} x {channels} channels fill vectors in channels-last order"
