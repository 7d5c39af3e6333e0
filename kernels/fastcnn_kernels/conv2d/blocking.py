"""Blocks of the general convolution: those of every product (``gemm``), but for few pixels beside many filters."""

import numpy as np

from fastcnn_kernels.gemm.blocking import even, product_blocks
from fastcnn_kernels.memory import planned

#: All pixels up to this size may fill L2 in every task, if panels of filters are more than twice as many as theirs:
#: packing the pixels again in each task then costs less than filters that are packed to memory and come back.
PIXELS_IN_L2 = 1 << 20
#: Tasks that share out the filters then: each packs the pixels, two threads four times.
TASKS_OF_FILTERS = 8


@planned
def pixel_blocks(groups, M, pixels, L, mr, NR, itemsize):
    """As `product_blocks`: panels of filters and of pixels per task, and rows of the sum at a time."""
    panels, pixel_panels = -(-M // mr), -(-pixels // NR)
    blocks = product_blocks(groups, M, pixels, L, mr, NR, itemsize)
    length = int(blocks[2])
    if 2 * pixel_panels < panels and pixel_panels * length * NR * itemsize <= PIXELS_IN_L2 and pixel_panels > blocks[1]:
        return np.array([even(panels, -(-panels * groups // TASKS_OF_FILTERS)), pixel_panels, length], np.intp)
    return blocks
