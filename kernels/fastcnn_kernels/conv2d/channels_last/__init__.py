"""Weight gradient over an image in channels-last order, in slabs of few channels.

Contract of ``conv2d_grad_weight`` in ``conv2d``. What the sums of a filter row meet at a pixel is then one run of
memory, tap after tap, of which a vector holds as many channels and taps as it has lanes:

    slab    [row][column][channel]              dy    [panel of mr rows, or two of 8][pixel][row]
    dw[m, (r, s, c)] = sum_pixel dy[pixel, m] slab[ pixel start + offset[r] + (s, c) ]

Each pixel costs one broadcast element of dy a row and one vector of the slab for all of a tile's products. Nothing is
copied once for each tap, as an im2col matrix is. With a single tap at stride 1, rows of dy are read where they lie, or
those of x against slabs of dy, and the sums are turned.
"""

from fastcnn_kernels.cpu import level_folder

__path__.append(level_folder(__path__[0]))
