"""Dilated layers as plain ones: pixels that share their remainders modulo the dilation form an image of their own.

Tap r of row i reads row i + dilation r, which has the remainder of i. So a dilated layer is a layer of dilation 1 over
as many images as there are remainders, without padding: its zeros are copied with the rest.

    gather     source (N, C, H, W)  ->  images (remainders of rows, of columns, N, C, rows, columns)
    scatter    images               ->  out (N, K, P, Q)
"""

from fastcnn_kernels.cpu import level_folder

__path__.append(level_folder(__path__[0]))
