"""How pixels are packed; the blocks are those of every product (``gemm``)."""

#: Rows of the sum packed for one panel of pixels after the other: each lies in a plane of its own, and so many streams
#: are what the prefetchers and the TLB of L1 keep up with.
STREAMS = 16


def streams(rows: int) -> int:
    """Rows packed side by side; a few more than `STREAMS` all at once, as beginning a panel takes time as well."""
    return rows if rows <= 2 * STREAMS else STREAMS
