"""Block sizes and limits of the direct kernels, each with its reason."""

#: The padded planes of a task, and the rows of dy beside them, stay in L2 with room for the output passing through.
L2_BYTES_FOR_PLANES = 256 * 1024
#: A layer makes at least this many tasks if it has the rows; fixed, as chunks of the weight gradient decide rounding.
TASKS = 16
#: Chunks of the weight gradient's sum: more than the threads of most machines, few enough to add up quickly.
WEIGHT_CHUNKS = 16


def rows_per_block(bytes_per_row: int, rows: int, tasks_per_block: int) -> int:
    """Output rows per task: as many as fit, fewer while there would be fewer than `TASKS` tasks."""
    fitting = max(1, L2_BYTES_FOR_PLANES // bytes_per_row)
    wanted = -(-rows // -(-TASKS // tasks_per_block))
    blocks = -(-rows // max(1, min(fitting, wanted)))
    return -(-rows // blocks)
