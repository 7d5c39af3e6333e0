"""1x1 convolution as the matrix product that it is, of unpacked operands.

Same ops and contract as ``conv2d``: out[n] = W . x[n] and dx[n] = W^T . dy[n], a plane of pixels being a row of B. The
tiles are those of ``gemm.small``: weights are read element by element, pixels in vectors, each where it lies.
"""

from fastcnn_kernels.cpu import level_folder

__path__.append(level_folder(__path__[0]))
