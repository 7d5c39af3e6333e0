"""Tasks of the depthwise kernels."""

#: A call makes about this many tasks if it has the rows: a few per thread even out.
TASKS = 16
#: Rows of a task at least, and their divisor: whole tiles and pooled windows, and few rows that two tasks read.
LEAST_ROWS = 14


def rows_per_task(planes: int, rows: int) -> int:
    """Rows of a task: the whole plane, unless there are too few planes."""
    parts = -(-TASKS // planes)
    return rows if parts == 1 else max(LEAST_ROWS, -(-rows // parts // LEAST_ROWS) * LEAST_ROWS)


#: Pixels of one channel that its sums stay in registers for: adding up their lanes then costs little. Images of large
#: planes are visited one by one, a task's channels in a row, so that memory is read in order.
VISIT_PIXELS = 1024


def weight_blocks(images: int, planes: int, pixels: int) -> tuple[int, int, int]:
    """Chunks of images, channels of a task, images of a visit; fixed by the shape, as they decide the rounding."""
    return min(images, -(-TASKS // planes)), -(-planes // TASKS), -(-VISIT_PIXELS // pixels)
