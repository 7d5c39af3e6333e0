"""The right answer of a case and the error a row may make on it.

Theorem (Higham 2002, section 3.1): a sum of n products, in any order, with or without FMA, is off by at most
gamma_(n+1) M; gamma_k = k u / (1 - k u), u is the unit roundoff, M the sum of the products' magnitudes.
"""

from typing import Any, NamedTuple

import numpy as np

from fastcnn_kernels import table
from fastcnn_kernels.cases import Case


class Problem(NamedTuple):
    """A case with data, its answer and the bound of the error.

    Attributes
    ----------
    case : Case
    arguments : dict
        Keywords of the op, ``num_threads`` apart.
    reference : ndarray of float64
        The naive row's answer in float64.
    bound : ndarray of float64
        Largest error of each element.
    """

    case: Case
    arguments: dict[str, Any]
    reference: np.ndarray
    bound: np.ndarray

    def check(self, kernel: table.Kernel, num_threads: int) -> None:
        """Run a row once and compare.

        Raises
        ------
        AssertionError
            If an element is off by more than the bound, or is NaN.
        """
        self.arguments["out"].fill(np.nan)
        kernel.load(**self.arguments, num_threads=num_threads)
        assert_within(self.arguments["out"], self.reference, self.bound, f"{kernel.name} on {self.case.name}")


def problem(case: Case, dtype: str) -> Problem:
    """Draw a case's data and work out its answer."""
    arguments = case.arguments(dtype, np.random.default_rng(0))
    magnitude = _oracle(case.op, arguments, of=np.abs)
    return Problem(case, arguments, _oracle(case.op, arguments), error_bound(dtype, case.terms, magnitude))


def error_bound(dtype: str, terms: int, magnitude: np.ndarray) -> np.ndarray:
    """Bound between an answer in `dtype` and the reference: the sum of both theorem bounds.

    Parameters
    ----------
    dtype : {"float32", "float64"}
    terms : int
        Length of the longest sum.
    magnitude : ndarray of float64
        The op applied to absolute values.
    """
    gammas = (((terms + 1) * u / (1 - (terms + 1) * u)) for u in (np.finfo(dtype).eps / 2, 2.0**-53))
    return sum(gammas) * magnitude + terms * float(np.finfo(dtype).tiny)


def assert_within(answer: np.ndarray, reference: np.ndarray, bound: np.ndarray, what: str) -> None:
    """Compare an answer with the reference.

    Raises
    ------
    AssertionError
        If an element is off by more than `bound`, or is NaN.
    """
    error = np.abs(answer - reference)
    if not (error <= bound).all():
        worst = np.nanmax(error / bound)
        raise AssertionError(f"{what}: error is {worst:.3g} of the bound, {np.isnan(error).sum()} NaN")


def _oracle(op: str, arguments: dict[str, Any], of=np.asarray) -> np.ndarray:
    wide = {
        name: of(value.astype(np.float64)) if isinstance(value, np.ndarray) else value
        for name, value in arguments.items()
    }
    table.kernels_of(op)[-1].load(**wide, num_threads=1)
    return wide["out"]
