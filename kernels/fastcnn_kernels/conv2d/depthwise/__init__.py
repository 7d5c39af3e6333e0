"""Depthwise convolution and its gradients, each channel with filters of its own, straight from row to row.

Same ops and contract as ``conv2d``, for one input channel a group, or one channel and one filter in all, square filters
of 3 or 5 taps a side, stride 1 or 2. A row of the image is loaded once for all rows of the result that it takes part
in; all results of a small plane stay in registers. Masks stand for the padding.
"""

from fastcnn_kernels.cpu import level_folder

__path__.append(level_folder(__path__[0]))
