"""Which products are small, from shapes alone, shared by the twins."""

from fastcnn_kernels.gemm.small import blocking


def cannot(*, bias, out, transpose_b, **_):
    """Decline what the kernel does not compute."""
    M, N = out.shape[1:]
    if bias is not None or transpose_b:
        return "takes B as it lies, and no bias"
    if M < blocking.FEWEST_ROWS or N < blocking.FEWEST_COLUMNS:
        return f"{M} x {N} results are less than a tile"
    return ""


def refuses(*, a, bias, out, transpose_a, transpose_b, **_):
    """Decline products for which packing pays."""
    (M, N), L = out.shape[1:], a.shape[1 if transpose_a else 2]
    most = blocking.MOST_WORK if N >= blocking.WIDE else blocking.MOST_WORK_OF_NARROW
    if 2 * M * N * L > most or N * L > blocking.MOST_OF_B:
        return f"{M} x {N} results of {L} products: packing pays"
    return cannot(bias=bias, out=out, transpose_b=transpose_b)
