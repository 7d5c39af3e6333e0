"""KERNELS: the one list of kernels, per op in order of preference; the NumPy oracle closes each op.

Dispatch, tests and benches loop over it. A new kernel is a function in its family's backend file and a row here.
"""

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

#: Backend -> the modules it needs beyond NumPy. All of them missing from the installation is a reason to decline;
#: one that is there and fails to import is an error.
BACKENDS = {
    "cython": ("fastcnn_kernels.gemm.cython_", "fastcnn_kernels.conv2d.cython_"),
    "numba": ("numba",),
    "numpy": (),
}


def takes_everything(**call: Any) -> str:
    """Refusal function of a kernel without restrictions."""
    return ""


def conv2d_refuses(**call: Any) -> str:
    """Refusal function of the compiled convolution kernels; a family is imported only when it is called."""
    from fastcnn_kernels.conv2d import geometry

    return geometry.refuses(**call)


@dataclass(frozen=True)
class Kernel:
    """One row: a kernel of one op on one backend.

    Attributes
    ----------
    name : str
        Unique; what tests, benches and error messages call it.
    op : str
        Op it computes; the op's contract is in its family's ``__init__``.
    backend : str
        Key of `BACKENDS`.
    module, function : str
        Where the callable is; imported on first use.
    dtypes : tuple of str
        Names of the dtypes it takes.
    refuses : callable
        Called with the op's keywords; returns ``""`` or the reason why this kernel declines them.
    """

    name: str
    op: str
    backend: str
    module: str
    function: str
    dtypes: tuple[str, ...] = ("float32", "float64")
    refuses: Callable[..., str] = takes_everything

    @property
    def load(self) -> Callable[..., None]:
        """The kernel's callable."""
        return _load(self.module, self.function)


@cache
def _load(module: str, function: str) -> Callable[..., None]:
    return getattr(importlib.import_module(module), function)


@cache
def unavailable(backend: str) -> str:
    """Return ``""`` if `backend` can be used here, else the reason why not."""
    missing = [module for module in BACKENDS[backend] if importlib.util.find_spec(module) is None]
    return f"{' and '.join(missing)} not installed" if missing else ""


def _rows(family: str, op: str, refuses: Callable[..., str] = takes_everything) -> list[Kernel]:
    """A row per backend; the NumPy row refuses nothing."""
    return [
        Kernel(
            f"{op}_{backend}", op, backend, f"fastcnn_kernels.{family}.{backend}_", op,
            refuses=takes_everything if backend == "numpy" else refuses,
        )
        for backend in BACKENDS
    ]  # fmt: skip


KERNELS: list[Kernel] = [
    *_rows("gemm", "matmul"),
    *_rows("conv2d", "conv2d", conv2d_refuses),
    *_rows("conv2d", "conv2d_grad_input", conv2d_refuses),
    *_rows("conv2d", "conv2d_grad_weight", conv2d_refuses),
    *_rows("conv2d", "conv2d_grad_bias"),
]


def kernels_of(op: str) -> list[Kernel]:
    """Rows of `op`, in order of preference."""
    return [kernel for kernel in KERNELS if kernel.op == op]
