"""The right answer of a case and the error a row may make on it."""

from typing import Any, NamedTuple

import numpy as np

from fastcnn_kernels import table
from fastcnn_kernels.cases import Case
from fastcnn_kernels.oracle import error_bound, oracle


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
    reference, magnitude = (oracle(case.op, arguments, np.float64, of) for of in (np.asarray, np.abs))
    return Problem(case, arguments, reference, error_bound(dtype, case.terms, magnitude))


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
