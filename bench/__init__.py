"""Speed of the kernels: every row against the naive one (`test_kernels`, `naive`), the library against its peers.

Run from the repository's root::

    pytest bench                      time every row on a quick selection of layers (--all-layers: on all)
    pytest bench --benchmark-disable  run each of them once, as a test
    python -m bench.naive             each twin over the naive NumPy row, side by side
    python -m bench.peers             the library beside PyTorch, ONNX Runtime and im2col + BLAS
    python -m bench.peers --gemm FILE matrix products and dense layers beside NumPy and PyTorch
    python -m bench.roofline RESULT   one layer of each class of stored peers over the machine's measured peak
    python -m bench.overhead          microseconds per call on tiny arrays, and of the import
    python -m bench.tables            rewrite the tables of README.md and bench/RESULTS.md from bench/results/*/*.json
"""

import os

# OpenBLAS's idle threads spin for 2**26 ticks and more (seen: over 60 ms of CPU time) and would disturb whoever comes
# next; with 2**22 they park in about 5 ms, inside the pause of `timing`. NumPy reads it when it is loaded, later.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "22")
