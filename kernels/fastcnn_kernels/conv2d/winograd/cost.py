"""Which algorithm is the fastest for a layer with 3 x 3 taps, or a few more: a cost model of its shape alone.

Costs are in multiply-adds at full speed (2 flops each; 0.0097 ns on the two cores they were fitted on, for 2,500
measured calls). With E = (m + 2)^2 products a tile, of ``lanes`` tiles in all, M rows and C channels of the sum:

    plain sums     start + R S C pixels (M + 1) + packing R S M C
    Winograd       start + E [ D lanes M + transform (D + M) lanes + filters M D ]

D is C times the parts of 3 x 3 in a filter. The weight gradient has C and tiles the other way round, and its products
of all M D filters pass through memory if L3 does not hold them.
Stride 2 has the same terms with 81 products (`strided`).
Nothing else enters, not the number of threads either, so that a layer is computed in the same way on every machine.
"""

from typing import NamedTuple

from fastcnn_kernels.conv2d.winograd.remainders.geometry import batch
from fastcnn_kernels.memory import planned

#: Vectors of the fitted machine, which make the choice the same on every other one.
VECTOR_BYTES = 64
#: Products of the weight gradient up to this size stay in L3.
L3_BYTES = 16 << 20


class _Prices(NamedTuple):
    """Coefficients of one direction, in multiply-adds."""

    plain: tuple[int, int]  # start of a call, packing of an element of the weights
    tiles: dict[int, tuple[int, int, int]]  # m -> start, transform of a lane, of an element of the filters


#: Plain sums where the masked kernel computes them: it packs the weights alone, each once.
_MASKED = (600_000, 10)
_PRODUCT = _Prices((1_500_000, 40), {4: (2_050_000, 14, 9), 2: (1_850_000, 11, 13)})
#: Tiles of stride 2, by hand, to 75 layers in each direction: the picks cost 1.02 of the best, 1.01 for the weights.
_STRIDED = (2_050_000, 8, 12)
_STRIDED_WEIGHTS = (2_800_000, 20, 36)
#: Plain sums of the channels-last kernel, transforms of patches that stay with their core: by hand, to 107 layers.
_WEIGHTS = _Prices((1_500_000, 36), {4: (2_800_000, 12, 12), 2: (2_500_000, 12, 22)})
#: Start of the weight gradient by tiles of 4 x 4 in groups, which are each one worker's own: by hand, to 152 layers.
_START_OF_GROUPS = 1_900_000
#: What an element of the filters costs in the weight gradient if its products leave L3.
_FILTER_FROM_MEMORY = 28
#: What the images of a dilated layer's remainders cost: once a call, and for each pixel on its way into one or out of
#: it. By hand, to 14 layers.
_COPIES, _COPY = 800_000, 40


def _up(size: int, step: int) -> int:
    return -(-size // step) * step


@planned
def costs(
    weights: bool,
    groups: int,
    N: int,
    M: int,
    C: int,
    taps: tuple[int, int],
    result: tuple[int, int],
    itemsize: int,
    packed: bool = False,
    dilation: tuple[int, int] = (1, 1),
    masked: bool = False,
) -> dict[int, int]:
    """Cost by tile size, 0 standing for plain sums, by the `masked` kernel or another one.

    ``result`` is P x Q, or H x W for the input gradient.
    """
    prices, lanes_of_vector, (P, Q) = _WEIGHTS if weights else _PRODUCT, VECTOR_BYTES // itemsize, result
    (R, S), parts = taps, -(-taps[0] // 3) * -(-taps[1] // 3)
    start, packing = _MASKED if masked else prices.plain
    packing = 0 if packed else packing
    cost = {0: start + groups * R * S * C * (N * P * Q * (M + 1) + packing * M)}
    copies = _COPIES + _COPY * groups * (M + C) * N * P * Q if dilation != (1, 1) else 0
    N, (P, Q) = batch(N, result, dilation)
    for m, (start, transform, filters) in prices.tiles.items():
        E, tiles = (m + 2) ** 2, N * -(-P // m) * -(-Q // m)
        if weights:
            channels, products = parts * _up(C, lanes_of_vector), M * C * parts
            filters = _FILTER_FROM_MEMORY if E * groups * products * itemsize > L3_BYTES else filters
            start = _START_OF_GROUPS if groups > 1 and m == 4 else start
            moved = channels + _up(M, lanes_of_vector)
            per_group = tiles * (channels * M + transform * moved) + filters * products
        else:
            lanes, D, filters = _up(tiles, lanes_of_vector), C * parts, 0 if packed else filters
            per_group = lanes * (D * M + transform * (D + M)) + filters * M * D
        cost[m] = start + copies + groups * E * per_group
    return cost


@planned
def strided(
    direction: str,
    groups: int,
    pixels: int,
    tiles: int,
    M: int,
    C: int,
    itemsize: int,
    packed: bool = False,
) -> dict[int, int]:
    """Cost by tile size of a layer with stride 2 in the direction "down", or of its gradients "up" and "weights".

    ``pixels`` are those of the smaller plane, in all images. Its tiles have 81 matrices of filters, 81 on the side of
    the larger plane and 25 on that of the smaller one. (Filters that leave L2 have no price: the other terms grow.)
    """
    weights, lanes_of_vector = direction == "weights", VECTOR_BYTES // itemsize
    plain_start, packing = (_WEIGHTS if weights else _PRODUCT).plain
    start, transform, filters = _STRIDED_WEIGHTS if weights else _STRIDED
    if packed:
        packing = filters = 0
    plain = plain_start + groups * 9 * C * (pixels * (M + 1) + packing * M)
    if weights:
        channels = _up(C, lanes_of_vector)
    else:
        tiles, channels = _up(tiles, lanes_of_vector), C
    moved = 25 * channels + 81 * M if direction == "up" else 81 * channels + 25 * M
    per_group = tiles * (81 * channels * M + transform * moved) + filters * 81 * M * C
    return {0: plain, 4: start + groups * per_group}


#: Plain sums stay unless others are as much cheaper: what the model cannot tell apart keeps its last digits.
LEAST_GAIN = 0.97


def declines(m: int, cost: dict[int, int]) -> str:
    """Say why tiles of m x m are not the fastest, or ""."""
    best = min(cost, key=cost.__getitem__)
    if cost[best] > LEAST_GAIN * cost[0]:
        best = 0
    if best == m:
        return ""
    other = f"tiles of {best} x {best}" if best else "plain sums"
    return f"costs as much as {cost[m] / 1e6:.2f} million multiply-adds, {other} {cost[best] / 1e6:.2f} million"
