"""How the weight gradient splits its sum; the blocks of its product are those of every product, ``gemm.blocking``."""

#: The weight gradient makes at least this many tasks, by splitting the sum over pixels into chunks. Fixed, and not
#: the number of threads: the chunks decide the rounding.
WEIGHT_TASKS = 8
#: Pixels of a chunk at least: its sums are stored and added up once more.
FEWEST_PIXELS = 512


def pixel_chunks(column_panels: int, pixels: int) -> int:
    """Chunks of the sum over pixels in the weight gradient, from the shape alone."""
    return max(1, min(-(-WEIGHT_TASKS // column_panels), pixels // FEWEST_PIXELS))
