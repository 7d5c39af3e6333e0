"""Direct convolution for few channels per group: depthwise, grouped, and the first layers of networks.

Same ops and contract as ``conv2d``. Nothing is packed but the weights: the micro-kernel reads every tap as a shifted
row of the padded image.
"""

from fastcnn_kernels.cpu import level_folder

__path__.append(level_folder(__path__[0]))
