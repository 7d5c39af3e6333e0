"""Blocks of the general convolution, each with its reason; sizes are in elements, budgets in bytes."""

import numpy as np

from fastcnn_kernels.gemm.blocking import L_BLOCK, even, panels_in_l2
from fastcnn_kernels.memory import planned

#: All pixels up to this size may fill L2, if panels of filters are more than twice as many as theirs: filters that come
#: back for every few panels of pixels would cost more.
PIXELS_IN_L2 = 1 << 20
#: Sums that wait for the next block of the sum stay in L2.
SUMS_IN_L2 = 1 << 20
#: Panels of filters that a worker packs at a time: where they lie side by side, their rows are read in long stretches.
PANELS_OF_FILTERS = 8
#: Multiply-adds in the time of packing a pixel and a weight; weights that several workers meet go through memory.
COST_OF_PIXEL, COST_OF_WEIGHT, COST_OF_SHARED_WEIGHT = 16, 24, 36


@planned
def pixel_blocks(groups, M, pixels, L, mr, NR, itemsize, num_threads, packed):
    """Panels of filters in a part, of pixels at a time, rows of the sum, and panels of filters that a worker packs.

    Workers share out the panels of pixels beside each part of each group's filters. With fewer parts pixels are packed
    less often, with more the shares are even, or each worker meets filters of its own, and packs them (else 0, as where
    they come `packed`): the busiest worker decides. As no digit depends on it, the threads may.
    """
    panels, pixel_panels, length = -(-M // mr), -(-pixels // NR), even(L, L_BLOCK)
    most = panels_in_l2(length, NR, itemsize)
    if 2 * pixel_panels < panels and pixel_panels * length * NR * itemsize <= PIXELS_IN_L2:
        most = pixel_panels
    block = even(pixel_panels, most)
    fewest = 1 if length == L else min(panels, -(-panels * block * mr * NR * itemsize // SUMS_IN_L2))

    def packs_alone(rows):
        return not packed and block == pixel_panels and groups * -(-panels // rows) % num_threads == 0

    def busiest_worker(rows):
        share = -(-groups * -(-panels // rows) * pixel_panels // num_threads)
        cost = 0 if packed else COST_OF_WEIGHT if packs_alone(rows) else COST_OF_SHARED_WEIGHT
        return share * NR * (rows * mr + COST_OF_PIXEL) + groups * panels * mr * cost / num_threads

    rows = min((-(-panels // parts) for parts in range(fewest, panels + 1)), key=busiest_worker)
    return np.array([rows, block, length, min(rows, PANELS_OF_FILTERS) if packs_alone(rows) else 0], np.intp)
