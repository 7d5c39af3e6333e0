"""What a named shape of any op family offers to tests and benches."""

from typing import Any, NamedTuple

import numpy as np


class Case(NamedTuple):
    """One call of one op, by shapes.

    Attributes
    ----------
    name : str
        Unique within the op.
    group : str
        Class of layers it stands for.
    op : str
        Op of the kernel table.
    shapes : dict of str to tuple
        Shape of every array argument, ``out`` included.
    options : dict
        The other keywords of the op, ``num_threads`` apart.
    flops : int
        Multiplications and additions, of the unpadded layer.
    terms : int
        Length n of the longest sum behind one output: the theorem bound is ``gamma_(n+1) M``.
    """

    name: str
    group: str
    op: str
    shapes: dict[str, tuple[int, ...]]
    options: dict[str, Any]
    flops: int
    terms: int

    def nbytes(self, itemsize: int) -> int:
        """Bytes of all arrays, each counted once."""
        return sum(int(np.prod(shape)) for shape in self.shapes.values()) * itemsize

    def arguments(self, dtype: Any, rng: np.random.Generator, integers: bool = False) -> dict[str, Any]:
        """Random arguments; with `integers`, values whose sums are exact in `dtype`. ``out`` starts as NaN."""

        def draw(shape):
            return (rng.integers(-4, 5, shape) if integers else rng.standard_normal(shape)).astype(dtype)

        arrays = {name: np.full(shape, np.nan, dtype) if name == "out" else draw(shape)
                  for name, shape in self.shapes.items()}  # fmt: skip
        return arrays | self.options
