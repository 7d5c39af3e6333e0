"""The kernels behind fastcnn: one folder per op family, one table (`table.KERNELS`); see kernels/README.md."""

from fastcnn_kernels import openmp

openmp.load()
