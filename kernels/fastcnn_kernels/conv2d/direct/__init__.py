"""Direct convolution: few channels in or out of a group, and strided layers of several taps.

Same ops and contract as ``conv2d``. Nothing is packed but the weights: a micro-kernel reads every tap as a shifted row
of the padded image, in vectors of pixels, or pixel by pixel against vectors of output channels.
"""

from fastcnn_kernels.cpu import level_folder

__path__.append(level_folder(__path__[0]))
