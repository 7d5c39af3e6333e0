"""Products small enough for cache: neither operand is packed.

Same op and contract as ``matmul``. Packing an element takes about as long as multiplying it twenty times, so both
operands are read where they lie: A element by element, rows of B in vectors.
"""

from fastcnn_kernels.cpu import level_folder

__path__.append(level_folder(__path__[0]))
