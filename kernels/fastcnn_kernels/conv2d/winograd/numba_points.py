"""The one-dimensional transforms of transforms.h for Numba, of lists of LLVM vectors: points, factors, and sums."""

from llvmlite import ir

from fastcnn_kernels.conv2d.winograd.geometry import DOWN, UP
from fastcnn_kernels.gemm.numba_llvm import multiply_add

#: Kinds of transform, and the points of m = 4 and of stride 2, as in transforms.h.
IMAGE, FILTER, RESULT, GRADIENT, WEIGHT = range(5)
PA, PB = 0.625, 1.5
PA2, PB2 = PA * PA, PB * PB
N0, NA, NB = 1 / (PA2 * PB2), 1 / (2 * PA2 * (PA2 - PB2)), 1 / (2 * PB2 * (PB2 - PA2))
PC, PD = 0.5, 1.5
PC2, PD2 = PC * PC, PD * PD
NC, ND = 1 / (2 * PC * (PC2 - PD2)), 1 / (2 * PD * (PD2 - PC2))


class Arithmetic:
    """Vector operations with constants."""

    def __init__(self, builder, vector_type):
        self.builder, self.type = builder, vector_type
        self.add, self.sub = builder.fadd, builder.fsub

    def scale(self, factor, x):
        """Return factor * x."""
        return self.builder.fmul(self.constant(factor), x)

    def plus(self, total, factor, x):
        """Return total + factor * x."""
        return multiply_add(self.builder, self.constant(factor), x, total)

    def constant(self, value):
        """Return a vector of one value."""
        return ir.Constant(self.type, [ir.Constant(self.type.element, value)] * self.type.count)


def _four_points(v, x):
    """Four points of a plane of stride 2 in an image, from 4 pixels."""
    even_c, odd_c = v.plus(x[3], -PD2, x[1]), v.plus(x[2], -PD2, x[0])
    even_d, odd_d = v.plus(x[3], -PC2, x[1]), v.plus(x[2], -PC2, x[0])
    return [
        v.plus(even_c, PC, odd_c), v.plus(even_c, -PC, odd_c), v.plus(even_d, PD, odd_d), v.plus(even_d, -PD, odd_d)
    ]  # fmt: skip


def _four_pixels(v, x):
    """The way back, in the results."""
    even_c, odd_c, even_d, odd_d = v.add(x[0], x[1]), v.sub(x[0], x[1]), v.add(x[2], x[3]), v.sub(x[2], x[3])
    return [
        v.add(even_c, even_d),
        v.plus(v.scale(PC, odd_c), PD, odd_d),
        v.plus(v.scale(PC2, even_c), PD2, even_d),
        v.plus(v.scale(PC * PC2, odd_c), PD * PD2, odd_d),
    ]


def _strided(v, kind, m, x):
    """`transform` for tiles of stride 2."""
    if kind == IMAGE:
        even, odd = (x[::2], x[1::2]) if m == DOWN else (x, [])
        infinite = v.plus(v.plus(even[4], -(PC2 + PD2), even[2]), PC2 * PD2, even[0])
        return [*_four_points(v, even), infinite, *(_four_points(v, odd) if odd else [])]
    if kind == FILTER:
        even = [
            v.scale(factor, value)
            for factor, point in ((NC, PC), (ND, PD))
            for value in (v.plus(x[0], point, x[2]), v.sub(v.scale(point, x[2]), x[0]))
        ]
        return [*even, x[2], *(v.scale(factor, x[1]) for factor in (NC, -NC, ND, -ND))]
    if kind == GRADIENT:
        even_c, odd_c = v.plus(x[0], PC2, x[2]), v.scale(PC, v.plus(x[1], PC2, x[3]))
        even_d, odd_d = v.plus(x[0], PD2, x[2]), v.scale(PD, v.plus(x[1], PD2, x[3]))
        return [
            v.scale(NC, v.add(odd_c, even_c)), v.scale(NC, v.sub(odd_c, even_c)), v.scale(ND, v.add(odd_d, even_d)),
            v.scale(ND, v.sub(odd_d, even_d)), x[3],
        ]  # fmt: skip
    if kind == WEIGHT:
        first, middle = (v.add(v.add(x[i], x[i + 1]), v.add(x[i + 2], x[i + 3])) for i in (0, 5))
        return [first, middle, v.add(v.plus(v.scale(PC, v.sub(x[0], x[1])), PD, v.sub(x[2], x[3])), x[4])]
    even = _four_pixels(v, x)
    even[3] = v.add(even[3], x[4])
    if m == DOWN:
        return even
    # the first pixel of a patch of dy is met by the one tap, then by the two
    return [y for pair in zip(_four_pixels(v, x[5:]), even, strict=True) for y in pair]


def transform(v, kind, m, x):
    """One-dimensional transform of a list of vectors; `v` is an `Arithmetic`."""
    if m in (DOWN, UP):
        return _strided(v, kind, m, x)
    if m == 4 and kind == IMAGE:
        even_a, odd_a = v.plus(x[4], -PB2, x[2]), v.plus(x[3], -PB2, x[1])
        even_b, odd_b = v.plus(x[4], -PA2, x[2]), v.plus(x[3], -PA2, x[1])
        first, last = (v.plus(v.plus(x[4 + i], -(PA2 + PB2), x[2 + i]), PA2 * PB2, x[i]) for i in (0, 1))
        return [
            first, v.plus(even_a, PA, odd_a), v.plus(even_a, -PA, odd_a), v.plus(even_b, PB, odd_b),
            v.plus(even_b, -PB, odd_b), last,
        ]  # fmt: skip
    if m == 4 and kind in (FILTER, GRADIENT):
        even_a, odd_a = v.plus(x[0], PA2, x[2]), v.scale(PA, x[1])
        even_b, odd_b = v.plus(x[0], PB2, x[2]), v.scale(PB, x[1])
        if kind == GRADIENT:
            odd_a, odd_b = v.plus(odd_a, PA * PA2, x[3]), v.plus(odd_b, PB * PB2, x[3])
        return [
            v.scale(N0, x[0]), v.scale(NA, v.add(even_a, odd_a)), v.scale(NA, v.sub(even_a, odd_a)),
            v.scale(NB, v.add(even_b, odd_b)), v.scale(NB, v.sub(even_b, odd_b)), x[-1],
        ]  # fmt: skip
    if m == 4:
        even_a, odd_a, even_b, odd_b = v.add(x[1], x[2]), v.sub(x[1], x[2]), v.add(x[3], x[4]), v.sub(x[3], x[4])
        y = [
            v.add(v.add(x[0], even_a), even_b),
            v.plus(v.scale(PA, odd_a), PB, odd_b),
            v.plus(v.scale(PA2, even_a), PB2, even_b),
        ]
        if kind == WEIGHT:
            return [*y[:2], v.add(y[2], x[5])]
        return [*y, v.plus(v.plus(x[5], PA * PA2, odd_a), PB * PB2, odd_b)]
    if kind == IMAGE:
        return [v.sub(x[2], x[0]), v.add(x[2], x[1]), v.sub(x[2], x[1]), v.sub(x[3], x[1])]
    if kind in (FILTER, GRADIENT):
        even = v.add(x[0], x[2]) if kind == FILTER else x[0]
        return [v.scale(-1.0, x[0]), v.scale(0.5, v.add(even, x[1])), v.scale(0.5, v.sub(even, x[1])), x[-1]]
    y = [v.add(v.add(x[0], x[1]), x[2]), v.sub(x[1], x[2])]
    if kind == WEIGHT:
        return [*y, v.add(v.add(x[1], x[2]), x[3])]
    return [y[0], v.add(y[1], x[3])]
