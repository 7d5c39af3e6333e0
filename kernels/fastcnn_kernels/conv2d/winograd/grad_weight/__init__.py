"""Winograd's weight gradient. Contract, equations and sources in ``winograd``, whose geometry and blocks it shares."""

from fastcnn_kernels.cpu import level_folder

__path__.append(level_folder(__path__[0]))
