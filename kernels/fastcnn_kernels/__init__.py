"""The kernels behind fastcnn: one folder per op family, one table (`table.KERNELS`); see kernels/README.md."""

import importlib.util

from fastcnn_kernels import openmp

if importlib.util.find_spec("fastcnn_kernels.recycled") is None:
    raise ImportError("fastcnn_kernels is not compiled: install the package instead of importing its sources")
openmp.load()
