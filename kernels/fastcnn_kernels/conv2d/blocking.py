"""How pixels are packed and the weight gradient splits its sum; the blocks are those of every product (``gemm``)."""

#: Rows of the sum packed for one panel of pixels after the other: each lies in a plane of its own, and so many streams
#: are what the prefetchers and the TLB of L1 keep up with.
STREAMS = 16


def streams(rows: int) -> int:
    """Rows packed side by side; a few more than `STREAMS` all at once, as beginning a panel takes time as well."""
    return rows if rows <= 2 * STREAMS else STREAMS


#: The weight gradient makes at least this many tasks, by splitting the sum over pixels into chunks. Fixed, and not
#: the number of threads: the chunks decide the rounding.
WEIGHT_TASKS = 8
#: Pixels of a chunk at least: its sums are stored and added up once more.
FEWEST_PIXELS = 512


#: Channels of a single tap from which on packing pays, given as many pixels: dy is packed once for all of them.
MANY_CHANNELS, MANY_PIXELS = 128, 4096


def shared_packing(L: int, taps: int, pixels: int) -> str:
    """Why the packed weight gradient is faster than dot products over unpacked pixels, or ""."""
    if taps > 1 or L < MANY_CHANNELS or pixels < MANY_PIXELS:
        return ""
    return f"{L} channels over {pixels} pixels share each packed value: packing pays"


def pixel_chunks(column_panels: int, pixels: int) -> int:
    """Chunks of the sum over pixels in the weight gradient, from the shape alone."""
    return max(1, min(-(-WEIGHT_TASKS // column_panels), pixels // FEWEST_PIXELS))
