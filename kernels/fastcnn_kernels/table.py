"""KERNELS: the one list of kernels, per op in order of preference; the NumPy oracle closes each op.

Dispatch, tests and benches loop over it. A new kernel is a function in its family's backend file and a row here.
"""

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple

#: Backend -> the modules it needs beyond NumPy. All of them missing from the installation is a reason to decline;
#: one that is there and fails to import is an error.
BACKENDS = {
    "cython": (
        "fastcnn_kernels.gemm.cython_",
        "fastcnn_kernels.gemm.skinny.cython_",
        "fastcnn_kernels.gemm.small.cython_",
        "fastcnn_kernels.conv2d.cython_",
        "fastcnn_kernels.conv2d.channels_last.cython_",
        "fastcnn_kernels.conv2d.dense.cython_",
        "fastcnn_kernels.conv2d.depthwise.cython_",
        "fastcnn_kernels.conv2d.direct.cython_",
        "fastcnn_kernels.conv2d.masked.cython_",
        "fastcnn_kernels.conv2d.pointwise.cython_",
        "fastcnn_kernels.conv2d.winograd.cython_",
        "fastcnn_kernels.conv2d.winograd.grad_weight.cython_",
        "fastcnn_kernels.conv2d.winograd.remainders.cython_",
    ),
    "numba": ("numba",),
    "numpy": (),
}

#: How a convolution arrives at its sums: term by term, or by Winograd's algorithm with tiles of 2 x 2 or 4 x 4.
ALGORITHMS = ("direct", "winograd2", "winograd4")


def takes_everything(**call: Any) -> str:
    """Refusal function of a kernel without restrictions."""
    return ""


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
    algorithm : str
        One of `ALGORITHMS`: how it arrives at the sums, which decides their last digits.
    tile : tuple of int
        Leading arguments of the callable: the size of Winograd's tiles.
    dtypes : tuple of str
        Names of the dtypes it takes.
    refuses : callable
        Called with the op's keywords; returns ``""`` or the reason why this kernel declines them, most often because
        another one is faster.
    cannot : callable
        The part of `refuses` that is no matter of speed: what this kernel would get wrong.
    parallel_work : int or None
        Operations from which on a call is faster on several threads; None: as of most kernels of the backend.
    """

    name: str
    op: str
    backend: str
    module: str
    function: str
    dtypes: tuple[str, ...] = ("float32", "float64")
    algorithm: str = "direct"
    tile: tuple[int, ...] = ()
    refuses: Callable[..., str] = takes_everything
    cannot: Callable[..., str] = takes_everything
    parallel_work: int | None = None

    @property
    def load(self) -> Callable[..., None]:
        """The kernel's callable."""
        function = _load(self.module, self.function)
        return partial(function, *self.tile) if self.tile else function

    def load_parts(self) -> tuple[Callable[..., Any], Callable[..., None]]:
        """What `load` is made of: a kernel, and the one that takes over if it returns False."""
        function = _load(self.module, self.function)
        kernel, other = getattr(function, "parts", (function, function))
        return partial(kernel, *self.tile) if self.tile else kernel, other


@cache
def _load(module: str, function: str) -> Callable[..., Any]:
    return getattr(importlib.import_module(module), function)


@cache
def unavailable(backend: str) -> str:
    """Return ``""`` if `backend` can be used here, else the reason why not.

    Raises
    ------
    ImportError
        If only some of its modules are there: a broken installation.
    """
    missing = [module for module in BACKENDS[backend] if importlib.util.find_spec(module) is None]
    text = f"{' and '.join(missing)} not installed" if missing else ""
    if missing and len(missing) < len(BACKENDS[backend]):
        raise ImportError(f"backend {backend!r} is incomplete: {text}")
    return text


def _refusal(module: str, function: str = "refuses") -> Callable[..., str]:
    """A function of a family's geometry, whose module is imported only when it is called."""

    def refuses(**call: Any) -> str:
        return _load(module, function)(**call)

    return refuses


class Family(NamedTuple):
    """Kernels of several ops in one folder, in each backend; the fields are those of `Kernel`."""

    name: str
    folder: str
    refuses: Callable[..., str] = takes_everything
    cannot: Callable[..., str] = takes_everything
    algorithm: str = "direct"
    tile: tuple[int, ...] = ()
    parallel_work: dict[str, int] | None = None  # by backend


def _limited(name: str, folder: str, parallel_work: dict[str, int] | None = None) -> Family:
    """Family whose geometry says what it refuses, and what it cannot do."""
    geometry = f"fastcnn_kernels.{folder}.geometry"
    return Family(name, folder, _refusal(geometry), _refusal(geometry, "cannot"), parallel_work=parallel_work)


def _winograd(m: int, folder: str = "conv2d.winograd") -> Family:
    geometry = "fastcnn_kernels.conv2d.winograd.geometry"
    refuses, cannot = _refusal(geometry, f"refuses{m}"), _refusal(geometry, "cannot4" if m == 4 else "cannot")
    return Family(f"winograd{m}", folder, refuses, cannot, f"winograd{m}", (m,))


#: Kernels that read a large matrix, at a few operations an element: two cores read it sooner. (Numba's with OpenMP, as
#: where GCC's or LLVM's runtime is installed; its own workqueue takes up to 90 us to start.)
_READING = {"cython": 200_000, "numba": 400_000}
#: Operands packed by two cores are fetched from both.
_PACKING = {"cython": 5_000_000, "numba": 5_000_000}
#: Families of an op in order of preference.
_MATMUL = [
    _limited("small", "gemm.small", {"cython": 1_000_000}),
    Family("skinny", "gemm.skinny", _refusal("fastcnn_kernels.gemm.skinny.geometry"), parallel_work=_READING),
    Family("", "gemm", parallel_work=_PACKING),
]
_SPARSE = _refusal("fastcnn_kernels.conv2d.geometry")
_DENSE = _limited("dense", "conv2d.dense", _READING)
_NOT_DEPTHWISE = _refusal("fastcnn_kernels.conv2d.depthwise.geometry", "cannot")
_DEPTHWISE = Family("depthwise", "conv2d.depthwise", _NOT_DEPTHWISE, _NOT_DEPTHWISE)
_POINTWISE = _limited("pointwise", "conv2d.pointwise", {"cython": 500_000})
_MASKED = _limited("masked", "conv2d.masked")
_DIRECT = Family("direct", "conv2d.direct", _refusal("fastcnn_kernels.conv2d.direct.geometry"), _SPARSE)
_CONV2D = [
    _DENSE,
    _DEPTHWISE,
    _winograd(4),
    _winograd(2),
    _POINTWISE,
    _MASKED,
    _DIRECT,
    Family("", "conv2d", _SPARSE, _SPARSE),
]
_GRAD_WEIGHT = [
    _DENSE,
    _DEPTHWISE,
    _winograd(4, "conv2d.winograd.grad_weight"),
    _winograd(2, "conv2d.winograd.grad_weight"),
    _MASKED,
    _DIRECT,
    Family("", "conv2d.channels_last", _SPARSE, _SPARSE),
]


def _rows(op: str, families: list[Family]) -> list[Kernel]:
    """Rows of an op: each family in Cython, each in Numba, the oracle, which lies in the outermost folder."""
    rows = [
        Kernel(
            "_".join(filter(None, (op, family.name, backend))),
            op,
            backend,
            f"fastcnn_kernels.{family.folder}.{backend}_",
            op,
            algorithm=family.algorithm,
            tile=family.tile,
            refuses=family.refuses,
            cannot=family.cannot,
            parallel_work=(family.parallel_work or {}).get(backend),
        )
        for backend in ("cython", "numba")
        for family in families
    ]
    return [
        *rows,
        Kernel(f"{op}_numpy", op, "numpy", f"fastcnn_kernels.{families[-1].folder.split('.')[0]}.numpy_", op),
    ]


KERNELS: list[Kernel] = [
    *_rows("matmul", _MATMUL),
    *_rows("conv2d", _CONV2D),
    *_rows("conv2d_grad_input", _CONV2D),
    *_rows("conv2d_grad_weight", _GRAD_WEIGHT),
    *_rows("conv2d_grad_bias", [Family("", "conv2d")]),
]


def kernels_of(op: str) -> list[Kernel]:
    """Rows of `op`, in order of preference."""
    return [kernel for kernel in KERNELS if kernel.op == op]
