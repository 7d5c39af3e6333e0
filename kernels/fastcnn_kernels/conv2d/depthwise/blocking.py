"""Tasks of the depthwise kernels."""

#: A call makes about this many tasks if it has the rows: a few per thread even out.
TASKS = 16
#: Rows of a task at least, and their divisor: whole tiles, and few rows that two tasks read.
LEAST_ROWS = 8


def rows_per_task(planes: int, rows: int) -> int:
    """Rows of a task: the whole plane, unless there are too few planes."""
    parts = -(-TASKS // planes)
    return rows if parts == 1 else max(LEAST_ROWS, -(-rows // parts // LEAST_ROWS) * LEAST_ROWS)
