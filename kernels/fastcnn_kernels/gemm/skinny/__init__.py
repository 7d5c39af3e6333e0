"""Products of few rows with a large matrix: dense layers at small batch, matrix times vector.

Same op and contract as ``matmul``. Each element of the large matrix meets few others, so reading it is the work: it is
read where it lies, and at most the few rows are packed.
"""

from fastcnn_kernels.cpu import level_folder

__path__.append(level_folder(__path__[0]))
