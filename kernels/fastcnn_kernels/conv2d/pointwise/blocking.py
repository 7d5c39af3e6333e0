"""Limits of the products of unpacked weights and pixels, each with its reason; measured with AVX-512's lanes."""

from fastcnn_kernels.conv2d.masked.blocking import FEW_ROWS
from fastcnn_kernels.gemm.blocking import L_BLOCK
from fastcnn_kernels.gemm.small.blocking import FEWEST_ROWS, LITTLE_WORK

#: Bytes of weights that come from L2 or L3 in a call: all of them pass for every tile of pixels, so many bytes wide, of
#: every image. Packed, they would meet several tiles in L1; if they pass once, packing is one more pass.
BYTES_OF_PASSES, TILE_BYTES = 1 << 21, 256
#: Image and result that come from memory are better read and written in longer stretches than those of a tile.
BYTES_OF_PIXELS = 3 << 20


def declines(M: int, L: int, pixels: int, images: int, groups: int, itemsize: int) -> str:
    """Why packing or long runs of pixels are the faster way to M channels as sums over L, a group, or ""."""
    if L > L_BLOCK and M <= FEW_ROWS:
        return f"sums of {L} for {M} channels: `masked` adds them up in one block, and takes larger batches"
    if 2 * images * groups * M * L * pixels > LITTLE_WORK and images * groups * M < 2 * FEWEST_ROWS:
        return f"{M} channels are one tile, which cannot be shared out"
    passes = images * -(-pixels * itemsize // TILE_BYTES)
    if passes > 1 and groups * M * L * itemsize * passes > BYTES_OF_PASSES:
        return f"weights of {M} x {L} for {pixels} pixels of {images} images: packing pays"
    nbytes = images * groups * (M + L) * pixels * itemsize
    if nbytes > BYTES_OF_PIXELS:
        return f"{nbytes} bytes of image and result: reading them in long stretches pays"
    return ""
