"""Block sizes of the convolution kernels, each with its reason. Sizes are in elements, budgets in bytes."""

#: The packed pixel panels of a task stay in a core's L2 (1 MiB, 512 KiB on older cores) beside the weights.
L2_BYTES_FOR_PANELS = 256 * 1024
#: Panels per task at most: bounds the work of a task, so that few-channel layers still make enough tasks.
PANELS_PER_TASK = 16
#: Pixels per step of the weight gradient: a panel of 256 x 32 floats is 32 KiB, and C is revisited once per step.
PIXEL_BLOCK = 256
#: The weight gradient makes at least this many tasks, by splitting the sum over pixels into chunks. Fixed, and not
#: the number of threads: the chunks decide the rounding.
WEIGHT_TASKS = 8


def panels_per_task(kd: int, NR: int, itemsize: int) -> int:
    """Pixel panels that a task packs and multiplies, for a sum over `kd` products."""
    return max(1, min(PANELS_PER_TASK, L2_BYTES_FOR_PANELS // (kd * NR * itemsize)))


def pixel_chunks(column_panels: int, pixels: int) -> int:
    """Chunks of the sum over pixels in the weight gradient, from the shape alone."""
    return max(1, min(-(-WEIGHT_TASKS // column_panels), pixels // (2 * PIXEL_BLOCK)))
