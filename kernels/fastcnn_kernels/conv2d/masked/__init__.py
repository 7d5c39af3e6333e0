"""Convolution with stride 1 on the image as it lies: masks stand for the padding.

Same ops and contract as ``conv2d``. Where the rows of image and result are equally long, a plane is one long run of
pixels and a tap is a shift of it; the lanes that a shift would take from a neighbouring row, or from outside the plane,
are masked out of the load. Nothing is copied but the weights.
"""

from fastcnn_kernels.cpu import level_folder

__path__.append(level_folder(__path__[0]))
