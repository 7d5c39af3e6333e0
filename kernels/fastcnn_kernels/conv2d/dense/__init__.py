"""Convolution whose filters cover the image: each image gives one pixel, so that the layer is a dense one.

Same ops and contract as ``conv2d``: out = x W^T + bias as dot products, dx = dy W as a stream of W, dW = dy^T x, images
and filters being rows of matrices. In the first two, the digits of an image do not depend on how many there are.
"""

from fastcnn_kernels.cpu import level_folder

__path__.append(level_folder(__path__[0]))
