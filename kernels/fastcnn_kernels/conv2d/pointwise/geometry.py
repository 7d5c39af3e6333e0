"""Which layers are small products of unpacked operands, from shapes alone, shared by the twins."""

from fastcnn_kernels.conv2d.pointwise import blocking
from fastcnn_kernels.gemm.small.blocking import FEWEST_ROWS


def cannot(*, weight, out, padding, groups, max_pool=1, **_):
    """Decline what the kernels do not compute."""
    if weight.shape[2:] != (1, 1) or any(padding):
        return "takes 1 x 1 taps, and no padding"
    if max_pool > 1:
        return "the pixels of a window may lie in several tiles"
    if out.shape[1] // groups < FEWEST_ROWS:
        return f"{out.shape[1] // groups} channels a group are less than a tile"
    return ""


def refuses(*, out, groups, x=None, dy=None, **call):
    """Decline what the kernels do not compute, and layers on which others are faster (limits in `blocking`)."""
    source, pixels = (dy, dy) if x is None else (x, out)
    return cannot(out=out, groups=groups, **call) or blocking.declines(
        out.shape[1] // groups, source.shape[1] // groups, pixels.shape[2] * pixels.shape[3], len(out), groups,
        out.itemsize,
    )  # fmt: skip
