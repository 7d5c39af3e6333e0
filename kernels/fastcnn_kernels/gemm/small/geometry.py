"""Which products are small, from shapes alone, shared by the twins."""

from fastcnn_kernels.gemm.small import blocking


def cannot(*, bias, out, transpose_b, **_):
    """Decline what the kernel does not compute."""
    if bias is not None or transpose_b:
        return "takes B as it lies, and no bias"
    if out.shape[1] < blocking.FEWEST_ROWS:
        return f"{out.shape[1]} rows are less than a tile"
    return ""


def refuses(*, a, bias, out, transpose_a, transpose_b, **_):
    """Decline what the kernel does not compute, and products for which others are faster (limits in `blocking`)."""
    Z, M, N = out.shape
    L = a.shape[1 if transpose_a else 2]
    return cannot(bias=bias, out=out, transpose_b=transpose_b) or blocking.declines(
        M, N, L, Z, out.itemsize, transpose_a
    )
