"""Which of a backend's convolution kernels takes a layer: a case on each side of each limit."""

import numpy as np
import pytest

import fastcnn as fc
from fastcnn import threads
from fastcnn_kernels import cpu
from fastcnn_kernels.conv2d import blocking as general
from fastcnn_kernels.conv2d.channels_last import blocking as channels_last
from fastcnn_kernels.conv2d.dense import blocking as dense
from fastcnn_kernels.conv2d.direct import blocking as direct
from fastcnn_kernels.conv2d.masked import blocking as masked
from fastcnn_kernels.conv2d.pointwise import blocking as pointwise
from fastcnn_kernels.gemm import blocking as gemm
from fastcnn_kernels.gemm.cases import EDGES
from fastcnn_kernels.gemm.geometry import DOT_COLUMNS_OF_ONE_ROW
from fastcnn_kernels.gemm.skinny import blocking as skinny
from fastcnn_kernels.gemm.small import blocking as small

V4 = "x86-64-v4"
#: Rows of the large matrix that outer products ask for.
MANY = skinny.MANY_ROWS_OF_OUTER
#: Columns of a stream, and length of the sums of as many dot products as there may be rows.
WIDE, LONG = skinny.COLUMNS_OF_STREAM, skinny.FEW_ROWS_OF_DOTS * skinny.LENGTH_PER_ROW
#: Lengths of sums, and rows, of float64 that make no small product.
DEEP = small.L2_BYTES_FOR_B // 8 // (WIDE - 1) + 1
TALL = small.MOST_WORK_BYTES // 8 // (2 * skinny.LENGTH_OF_OUTER * skinny.MOST_ROWS_OF_OUTER) + 1


def kernels(C, K, size, taps, groups=1, level=V4, batch=1, **options):
    """Names of the rows chosen for forward, dx and dw, without op and backend."""
    x = np.zeros((batch, C, size, size), np.float32)
    w = np.zeros((K, C // groups, taps, taps), np.float32)
    y = fc.conv2d(x, w, groups=groups, backend="numpy", **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu, "level", lambda: level)
        chosen = fc.explain("conv2d", x, w, groups=groups, **options).kernels
        chosen += fc.explain("conv2d_backward", y, x, w, groups=groups, **options).kernels[:2]
    ops = ("conv2d", "conv2d_grad_input", "conv2d_grad_weight")
    return [
        name.removeprefix(op).removesuffix("cython").strip("_") or "general"
        for op, name in zip(ops, chosen, strict=True)
    ]


@pytest.mark.parametrize("batch", [1, 8, 500])
def test_filters_that_cover_the_image_make_dense_layers(batch):
    """For any batch, since the digits of an image must not depend on how many there are."""
    channels = dense.SHORTEST_SUM
    assert kernels(channels, 3, 1, 1, batch=batch) == kernels(channels, 3, 1, 1, batch=batch, stride=2) == ["dense"] * 3
    assert kernels(channels // 4, 3, 2, 2, batch=batch) == ["dense"] * 3
    assert kernels(channels - 1, 3, 1, 1, batch=batch)[0] != "dense"
    assert kernels(channels - 1, 3, 1, 1, batch=batch)[1:] == ["dense"] * 2
    assert kernels(channels, 4, 1, 1, batch=batch, dilation=2) == ["dense"] * 3  # of a single tap
    for other in ({"size": 2}, {"groups": 2}, {"padding": 1}, {"size": 5, "taps": 3, "dilation": 2}):
        assert "dense" not in kernels(channels, 4, **{"size": 1, "taps": 1, "batch": batch} | other)


def test_pointwise_takes_one_tap_without_padding():
    channels = small.FEWEST_ROWS
    assert kernels(channels, channels, 9, 1)[:2] == kernels(channels, channels, 9, 1, stride=2)[:2] == ["pointwise"] * 2
    assert kernels(channels, channels - 1, 9, 1)[:2] == ["masked", "pointwise"]
    assert kernels(2 * channels - 1, 2 * channels, 9, 1)[:2] == ["pointwise"] * 2
    assert kernels(2 * channels - 2, 2 * channels, 9, 1, groups=2)[:2] == ["pointwise", "masked"]
    assert "pointwise" not in kernels(channels, channels, 9, 1, padding=1)
    assert "pointwise" not in kernels(channels, channels, 9, 2)
    image, weight = np.zeros((1, channels, 8, 8), np.float32), np.zeros((channels, channels, 1, 1), np.float32)
    assert fc.explain("conv2d", image, weight).kernels == ["conv2d_pointwise_cython"]
    assert fc.explain("conv2d", image, weight, max_pool=2).kernels != ["conv2d_pointwise_cython"]


def test_pointwise_weights_pass_for_every_tile_of_pixels():
    channels = 128
    passes = pointwise.BYTES_OF_PASSES // (4 * channels**2)
    assert kernels(channels, channels, 2, 1, batch=passes)[:2] == ["pointwise"] * 2
    assert "pointwise" not in kernels(channels, channels, 2, 1, batch=passes + 1)
    assert kernels(channels, channels, 8, 1, batch=passes)[:2] == ["pointwise"] * 2  # TILE_BYTES
    assert "pointwise" not in kernels(channels, channels, 9, 1, batch=passes)
    assert kernels(1024, 1024, 8, 1)[:2] == ["pointwise"] * 2  # twice as many bytes, which pass once
    assert "pointwise" not in kernels(1024, 1024, 8, 1, batch=2)


def test_pointwise_rows_of_one_tile_are_not_shared_out():
    channels, side = 2 * small.FEWEST_ROWS - 1, 64
    most = small.LITTLE_WORK // (2 * channels * side**2)
    assert [kernels(most + more, channels, side, 1)[0] for more in (0, 1)] == ["pointwise", "masked"]
    assert kernels(most + 1, channels + 1, side, 1)[0] == "pointwise"
    assert kernels(most + 1, channels, side, 1, batch=2)[0] == "pointwise"


def test_pointwise_digits_are_those_of_larger_batches():
    block, rows = gemm.L_BLOCK, masked.FEW_ROWS
    assert kernels(block, rows, 5, 1)[0] == kernels(block + 1, rows + 1, 5, 1)[0] == "pointwise"
    assert kernels(block + 1, rows, 5, 1)[0] != "pointwise"
    assert kernels(rows, block + 1, 5, 1)[1] != "pointwise"


def test_pointwise_pixels_stay_in_cache():
    channels = 2 * small.FEWEST_ROWS
    side = int((pointwise.BYTES_OF_PIXELS / (2 * 4 * channels)) ** 0.5)
    assert kernels(channels, channels, side, 1)[:2] == ["pointwise"] * 2
    assert "pointwise" not in kernels(channels, channels, side + 1, 1)


def test_masks_need_stride_1_and_rows_of_one_length():
    assert kernels(3, 3, 9, 3, padding=1) == ["masked"] * 3
    assert kernels(3, 3, 9, 3) == ["masked", "direct", "general"]
    assert kernels(3, 3, 50, 3, padding=2) == ["direct"] * 3
    assert kernels(3, 3, 91, 3, padding=1, stride=2) == ["direct"] * 3


def test_masks_need_avx512():
    assert kernels(3, 3, 46, 3, padding=1, level="x86-64-v3") == ["direct"] * 3


def test_masks_have_to_stay_in_cache():
    side = int((masked.MASKED_TAPS / 9) ** 0.5)
    assert kernels(2, 2, side, 3, padding=1) == ["masked"] * 3
    assert kernels(2, 2, side + 1, 3, padding=1) == ["direct"] * 3


@pytest.mark.parametrize(
    ("C", "K", "taps", "expected"),
    [
        (8, masked.FEW_ROWS, 3, "masked"),
        (8, masked.FEW_ROWS + 1, 3, "general"),
        (3, masked.FEW_ROWS_OF_SHORT_SUMS, 3, "masked"),  # sums of 27
        (3, masked.FEW_ROWS_OF_SHORT_SUMS + 1, 3, "general"),
        (4, masked.FEW_ROWS_OF_SHORT_SUMS, 3, "general"),  # of 36
        (masked.FEW_PLANES, masked.FEW_ROWS_OF_A_TILE, 3, "masked"),
        (masked.FEW_PLANES + 1, masked.FEW_ROWS_OF_A_TILE, 3, "direct"),
        (masked.FEW_PLANES + 1, masked.FEW_ROWS_OF_A_TILE + 1, 3, "masked"),
        (masked.FEW_PLANES + 1, masked.FEW_ROWS_OF_A_TILE - 1, 1, "masked"),  # more of one tap: pointwise
    ],
)
def test_masked_forward(C, K, taps, expected):
    assert kernels(C, K, 8, taps, padding="same")[0] == expected
    assert kernels(K, C, 8, taps, padding="same")[1] == expected  # rows are the channels of the result


def test_masked_tiles_have_to_be_full():
    assert kernels(4, 17, 12, 3)[0] == "masked"  # 8 vectors of 16 lanes for 10 x 10 pixels: 1.28
    assert kernels(4, 17, 9, 3)[0] == "general"  # 4 for 7 x 7: 1.31
    assert kernels(4, 16, 9, 3)[0] == "masked"
    assert kernels(4, 17, 5, 3, padding=1)[0] == "masked"  # 2 for 25: 1.28
    assert kernels(3, 16, 13, 5)[0] == "masked"  # 8 for 9 x 9: 1.58
    assert kernels(4, 16, 5, 3)[0] == "general"  # 1 for 3 x 3: 1.78
    assert kernels(4, masked.FEW_ROWS_OF_A_TILE, 5, 3)[0] == "masked"


def test_masked_tiles_of_few_rows_may_be_empty_but_for_one_lane():
    assert kernels(3, masked.FEW_ROWS_OF_A_TILE, 1, 3, padding=1, batch=8)[0] == "masked"
    assert kernels(3, masked.FEW_ROWS_OF_A_TILE + 1, 1, 3, padding=1, batch=8)[0] == "direct"


def test_masks_make_plain_sums_cheaper_than_tiles():
    assert kernels(20, 20, 32, 3, padding=1)[0] == "masked"
    assert kernels(20, 20, 33, 3, padding=(1, 2))[0] == "winograd4"  # longer rows: not masked


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (28, ["direct", "direct", "general"]),
        (29, ["winograd4", "winograd4", "general"]),
        (32, ["winograd4", "winograd4", "general"]),
        (33, ["direct", "direct", "general"]),  # the last tile of a row is nearly empty
        (64, ["winograd4", "winograd4", "winograd4"]),
        (65, ["winograd4", "winograd4", "general"]),
    ],
)
def test_tiles_of_stride_2_have_to_be_full(size, expected):
    assert kernels(64, 64, size, 3, stride=2, padding=1, batch=2) == expected


@pytest.mark.parametrize(
    ("row", "limit", "operands"),
    [
        ("matmul_cython", 5_000_000, lambda work: (np.ones((100, work // 20_000)), np.ones((100, work // 20_000)).T)),
        ("matmul_numba", 5_000_000, lambda work: (np.ones((100, work // 20_000)), np.ones((100, work // 20_000)).T)),
        ("matmul_small_cython", 1_000_000, lambda work: (np.ones((50, 50)), np.ones((50, work // 5_000)))),
        ("matmul_small_numba", 1_000_000, lambda work: (np.ones((50, 50)), np.ones((50, work // 5_000)))),
        ("matmul_skinny_cython", 200_000, lambda work: (np.ones((work // 200, 100)), np.ones(100))),
        ("matmul_skinny_numba", 400_000, lambda work: (np.ones((work // 200, 100)), np.ones(100))),
    ],
)
def test_products_of_little_work_stay_on_one_thread(row, limit, operands):
    backend, seen = row.rpartition("_")[2], []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threads, "acquire", lambda work, least: seen.append(work >= least) or 1)
        for work in (limit - 20_000, limit):
            assert fc.explain("matmul", *operands(work), backend=backend).kernels == [row]
            fc.matmul(*operands(work), backend=backend)
    assert seen == [False, True]


def test_masked_forward_over_memory():
    rows = masked.ROWS_OVER_MEMORY + 1
    side = int((masked.L3_BYTES / (2 * 4 * rows)) ** 0.5)
    assert rows > masked.SHORT_SUM  # which are as many channels
    assert kernels(rows, rows, side, 1)[0] == "masked"
    assert kernels(rows, rows, side + 1, 1)[0] == "general"
    assert kernels(rows, rows - 1, side + 2, 1)[0] == "masked"
    assert kernels(masked.SHORT_SUM, rows, side + 2, 1)[0] == "masked"


def test_masked_planes_over_memory():
    planes, rows = masked.PLANES_OVER_MEMORY, 16
    side = int((masked.L3_BYTES / (4 * (planes + rows))) ** 0.5)
    assert kernels(planes, rows, side, 1)[0] == "masked"
    assert kernels(planes, rows, side + 1, 1)[0] == "general"
    assert kernels(planes - 1, rows, side + 5, 1)[0] == "masked"
    assert kernels(rows, planes, side + 1, 1)[1] == "general"  # rows and planes of the input gradient


@pytest.mark.parametrize(
    ("C", "K", "size", "expected"),
    [
        (32, channels_last.FEWEST_SUMS_IN_L2 // 32 - 1, 21, "masked"),
        (32, channels_last.FEWEST_SUMS_IN_L2 // 32, 21, "general"),
        (32, 32, 90, "masked"),  # 2,073,600 bytes of operands: L2_BYTES
        (32, 32, 91, "general"),
        (channels_last.FEWEST_BYTES_OF_ONE_TAP // 4 - 1, 40, 91, "masked"),
        (40, channels_last.FEWEST_BYTES_OF_ONE_TAP // 4 - 1, 91, "masked"),
        (32, channels_last.FEWEST_SUMS // 32 - 1, 91, "masked"),
        (16, masked.LARGEST_GRADIENT // 16, 43, "masked"),
        (16, masked.LARGEST_GRADIENT // 16 + 1, 43, "general"),
        (16, 125, 10, "masked"),  # 100 pixels for 2000 sums
        (16, 126, 10, "general"),
    ],
)
def test_masked_weight_gradient_of_one_tap(C, K, size, expected):
    assert kernels(C, K, size, 1)[2] == expected


@pytest.mark.parametrize(
    ("batch", "C", "K", "size", "expected"),
    [
        (1, 8, 14, 9, "masked"),
        (1, 8, 15, 9, "general"),  # 1080 sums in three quarters of the lanes
        (1, 7, 20, 9, "masked"),
        (1, 11, 14, 9, "general"),  # 33 lanes: more than FEW_VECTORS
        (8, 3, 12, 64, "direct"),
        (8, 3, 11, 64, "masked"),  # 99 products a pixel
        (7, 3, 12, 64, "masked"),
        (8, 3, 12, 65, "masked"),  # no whole vectors
        (16, 3, 12, 48, "masked"),  # small planes
    ],
)
def test_masked_weight_gradient(batch, C, K, size, expected):
    assert kernels(C, K, size, 3, batch=batch, padding=1)[2] == expected


def test_masked_weight_gradient_of_groups():
    channels = masked.LARGEST_GRADIENT_OF_A_GROUP // 4
    assert kernels(2 * channels, 8, 9, 1, 2)[2] == "masked"
    assert kernels(2 * channels + 2, 8, 9, 1, 2)[2] == "direct"


@pytest.mark.parametrize(
    ("channels", "groups", "size", "expected"),
    [(8, 4, 28, "general"), (16, 4, 28, "winograd4"), (16, 6, 14, "general"), (16, 7, 14, "winograd4")],
)
def test_weight_gradients_of_groups(channels, groups, size, expected):
    """Half a vector of channels or a whole one; products that make up for the start of a call or do not."""
    assert kernels(channels * groups, channels * groups, size, 3, groups, padding=1)[2] == expected


@pytest.mark.parametrize(
    ("C", "K", "taps", "groups", "expected"),
    [
        (4, direct.FEW_ROWS, 3, 1, "direct"),
        (4, direct.FEW_ROWS + 1, 3, 1, "general"),
        (8, 4 * direct.FEW_ROWS_OF_A_GROUP, 1, 4, "direct"),
        (8, 4 * direct.FEW_ROWS_OF_A_GROUP + 4, 1, 4, "general"),
    ],
)
def test_direct_forward(C, K, taps, groups, expected):
    assert kernels(C, K, 19, taps, groups, padding=max(1, taps - 1))[0] == expected  # no masks: longer rows


@pytest.mark.parametrize(
    ("C", "K", "expected"),
    [
        (11, direct.FEWEST_LANES, "direct"),  # sums of 99
        (10, direct.FEWEST_LANES, "general"),  # of 90: LONG_SUM
        (11, direct.FEWEST_LANES - 1, "general"),
        (11, 24, "direct"),
        (11, 23, "general"),  # of 32 lanes: FEWEST_FULL
    ],
)
def test_output_channels_in_lanes(C, K, expected):
    assert kernels(C, K, 9, 3, padding=2)[0] == expected  # no masks: longer rows


def test_filters_have_to_stay_in_cache():
    channels = direct.L2_BYTES_FOR_FILTERS // (4 * 512 * 9)
    assert kernels(channels, 512, 19, 3, stride=2)[:2] == ["direct", "direct"]
    assert kernels(channels + 1, 512, 19, 3, stride=2)[:2] == ["general", "direct"]


def test_lanes_of_channels_are_better_than_emptier_tiles():
    assert kernels(6, direct.FEWEST_LANES, 14, 5)[0] == "direct"  # 1.44 lanes a pixel
    assert kernels(6, direct.FEWEST_LANES - 1, 14, 5)[0] == "masked"


def test_direct_strided_forward():
    most = direct.SHORT_STRIDED_SUM
    assert kernels(most, 64, 19, 1, stride=2, padding=1)[0] == "direct"  # not pointwise
    assert kernels(most + 1, 64, 19, 1, stride=2, padding=1)[0] == "general"
    assert kernels(most, 64, 19, 1, padding=1)[0] == "general"


def test_input_gradient_counts_the_channels_of_its_result():
    assert kernels(direct.FEW_ROWS, 100, 19, 1, stride=2, padding=1)[1] == "direct"
    assert kernels(direct.FEW_ROWS + 1, 100, 19, 1, stride=2, padding=1)[1] == "general"


def test_several_products_of_an_input_gradient_share_a_copy():
    assert kernels(direct.ROWS_OF_SEVERAL_PRODUCTS, 4, 19, 3, stride=2)[1] == "direct"
    assert kernels(direct.ROWS_OF_SEVERAL_PRODUCTS + 1, 4, 19, 3, stride=2)[1] == "general"
    assert kernels(direct.ROWS_OF_SEVERAL_PRODUCTS, 4, 19, 1, stride=2, padding=1)[1] == "general"  # one product


@pytest.mark.parametrize(
    ("C", "K", "size", "taps", "groups", "expected"),
    [
        (3, 16, 46, 3, 1, "direct"),  # 2116 pixels
        (3, 16, 45, 3, 1, "general"),  # 2025: FEWEST_PIXELS
        (3, 16, 46, 1, 1, "general"),  # one tap
        (3, 40, 47, 3, 1, "direct"),  # 2209 pixels for 1080 sums
        (3, 41, 47, 3, 1, "general"),
        (16, 2, 46, 3, 1, "direct"),  # 288 sums
        (16, 3, 46, 3, 1, "general"),  # 432: FEWEST_SUMS_BESIDE_COPY
        (6, 6, 3, 3, 2, "direct"),
        (14, 16, 3, 3, 2, "direct"),  # 21 of 32 lanes
        (16, 16, 3, 3, 2, "general"),
    ],
)
def test_direct_weight_gradient(C, K, size, taps, groups, expected):
    image = 2 * (size - 1) + taps  # stride 2 gives a result of `size`
    assert kernels(C, K, image, taps, groups, stride=2)[2] == expected


def test_reason_is_given():
    text = str(fc.explain("conv2d", np.zeros((1, 64, 9, 9)), np.zeros((512, 64, 3, 3)), stride=2))
    assert "conv2d_masked_cython declined: stride (2, 2): taps of neighbouring pixels are not neighbours" in text
    assert "conv2d_direct_cython declined: filters of 512 x 576 leave the cache: packing pixels pays" in text


@pytest.mark.parametrize(
    ("M", "L", "N", "transpose_a", "transpose_b", "expected"),
    [
        (skinny.FEW_ROWS_OF_STREAM, DEEP, WIDE, False, False, "skinny"),
        (skinny.FEW_ROWS_OF_STREAM + 1, DEEP, WIDE, False, False, ""),
        (skinny.FEW_ROWS_OF_STREAM, DEEP, WIDE - 1, False, False, ""),
        (skinny.FEW_ROWS_OF_DOTS, LONG, MANY - 1, False, True, "skinny"),
        (skinny.FEW_ROWS_OF_DOTS + 1, LONG + 99, 200, False, True, ""),
        (skinny.FEW_ROWS_OF_DOTS, LONG - 1, MANY - 1, False, True, ""),
        (MANY - 1, LONG, skinny.FEW_ROWS_OF_DOTS, False, False, "skinny"),
        (MANY - 1, LONG - 1, skinny.FEW_ROWS_OF_DOTS, False, False, ""),
        (skinny.MOST_ROWS_OF_OUTER, skinny.LENGTH_OF_OUTER, MANY, False, True, "skinny"),
        (skinny.MOST_ROWS_OF_OUTER + 1, skinny.LENGTH_OF_OUTER, MANY, False, True, ""),
        (skinny.MOST_ROWS_OF_OUTER, skinny.LENGTH_OF_OUTER - 1, MANY, False, True, ""),
        (skinny.MOST_ROWS_OF_OUTER, skinny.LENGTH_OF_OUTER, MANY - 1, False, True, ""),
        (skinny.FEWEST_ROWS_OF_OUTER, skinny.LENGTH_OF_OUTER, MANY, False, True, "skinny"),
        (skinny.FEWEST_ROWS_OF_OUTER - 1, skinny.LENGTH_OF_OUTER, MANY, False, True, ""),
        (TALL, skinny.LENGTH_OF_OUTER, skinny.MOST_ROWS_OF_OUTER, False, False, "skinny"),
        (TALL, skinny.LENGTH_OF_OUTER, skinny.MOST_ROWS_OF_OUTER, True, False, ""),
        (small.MOST_ROWS_OF_FEW_COLUMNS + 1, LONG, 1, True, False, ""),  # the large one lies across the sum
    ],
)
def test_skinny_products(M, L, N, transpose_a, transpose_b, expected):
    assert product(M, L, N, transpose_a, transpose_b) == expected


@pytest.mark.parametrize("itemsize", [4, 8])
def test_rows_of_a_single_tap_are_read_where_they_lie(itemsize):
    def roles(K, C, pixels):
        return channels_last.roles(K, C, pixels, itemsize)

    slab, aliasing = channels_last.SLAB_CHANNELS, channels_last.ALIASING_PLANES // itemsize
    assert roles(256, 64, 3136) == (True, False)
    assert roles(64, 256, 3136) == (True, True)
    assert roles(64, 64, 3136) == (True, False)
    assert roles(2 * slab, slab, aliasing) == (True, False)  # a single slab
    assert roles(slab, 2 * slab, aliasing) == (True, True)
    assert roles(2 * slab, slab + 1, aliasing) == roles(slab + 1, 2 * slab, 5 * aliasing) == (False, False)
    assert roles(2 * slab, slab + 1, aliasing + 1) == (True, False)
    most = channels_last.MOST_BYTES_TURNED // itemsize // slab
    assert roles(slab, most, 49) == (True, True)
    assert roles(slab, most + 1, 49) == (True, False)


@pytest.mark.parametrize("itemsize", [4, 8])
def test_aliasing_rows_are_read_as_many_at_a_time_as_l1_has_ways(itemsize):
    length = skinny.ALIASING_ROWS // itemsize
    rows = skinny.BYTES_OF_L3 // skinny.ALIASING_ROWS
    sizes = [(rows, length), (rows, length - 1), (rows + 1, length), (rows // 3, 3 * length)]
    columns = [skinny.columns_of_one_row(*size, itemsize) for size in sizes]
    assert columns == [skinny.L1_WAYS, DOT_COLUMNS_OF_ONE_ROW, DOT_COLUMNS_OF_ONE_ROW, skinny.L1_WAYS]


def test_parts_of_filters_and_panels_of_pixels():
    def blocks(panels, pixel_panels, L, num_threads=1, packed=False):
        return general.pixel_blocks(1, 14 * panels, 32 * pixel_panels, L, 14, 32, 4, num_threads, packed).tolist()

    most = general.PIXELS_IN_L2 // (gemm.L_BLOCK * 32 * 4)
    assert [blocks(3 * most, pixels, gemm.L_BLOCK)[1] == pixels for pixels in (most, most + 1)] == [True, False]
    assert blocks(2 * most, most, gemm.L_BLOCK)[1] < most

    L, pixels = gemm.L_BLOCK + 16, 40
    _, block, length, _ = blocks(1, pixels, L)
    most = general.SUMS_IN_L2 // (block * 14 * 32 * 4)
    assert [blocks(panels, pixels, L)[0] for panels in (most, most + 1)] == [most, most // 2 + 1]
    assert blocks(most + 1, pixels, length)[0] == most + 1  # no sum waits

    assert [blocks(40, 4, 64, threads)[::3] for threads in (1, 2, 4)] == [[40, 8], [20, 8], [10, 8]]
    assert blocks(3, 4, 64)[::3] == [3, 3]
    assert blocks(40, 4, 64, packed=True)[::3] == [40, 0]
    assert blocks(40, 1000, 64, 2)[::3] == [40, 0]  # each worker meets all filters


@pytest.mark.parametrize("case", [case for case in EDGES if "packed" in case.name], ids=lambda case: case.name)
@pytest.mark.parametrize("itemsize", [4, 8])
def test_who_packs_the_larger_matrix(case, itemsize):
    (ZA, *a), (ZB, *_), (Z, M, N) = (case.shapes[name] for name in ("a", "b", "out"))
    L, MR, NR = a[0 if case.options["transpose_a"] else 1], 14, 128 // itemsize
    packer = gemm.matrix_blocks(Z, ZA, ZB, M, N, L, gemm.even(M, MR), NR, itemsize, 2)[3]
    expected = {"rows": gemm.ROWS_IN_TASKS, "columns": gemm.COLUMNS_IN_TASKS, "packed": gemm.BEFOREHAND}
    assert packer == expected[case.name.split()[0]]


def test_tasks_leave_the_busiest_worker_least():
    assert [gemm.even_share(1, 19, 32, threads) for threads in (1, 2, 4)] == [19, 10, 5]
    assert gemm.even_share(1, 100, 32, 1) == 25  # no more than stay in L2
    assert gemm.even_share(3, 5, 32, 2) == 3  # seven panels and eight, while whole matrices would be five and ten
    by_rows, by_columns = (
        gemm.product_blocks(1, 14 * panels, 64, 9, 14, 32, 4, 2)[:2].tolist()
        for panels in (gemm.SHARED_ROWS, gemm.SHARED_ROWS - 1)
    )
    assert by_rows == [gemm.SHARED_ROWS // 2, 2]
    assert by_columns == [gemm.SHARED_ROWS - 1, 1]


def product(M, L, N, transpose_a=False, transpose_b=False, dtype=np.float64, batch=()):
    """Name of the family that multiplies matrices of these sizes."""
    a = np.zeros((*batch, L, M), dtype).swapaxes(-1, -2) if transpose_a else np.zeros((*batch, M, L), dtype)
    b = np.zeros((*batch, N, L), dtype).swapaxes(-1, -2) if transpose_b else np.zeros((*batch, L, N), dtype)
    (name,) = fc.explain("matmul", a, b).kernels
    return name.removeprefix("matmul_").removesuffix("cython").rstrip("_")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_small_products(dtype):
    size = np.dtype(dtype).itemsize
    work, elements_of_b, little = small.MOST_WORK_BYTES // size, small.L2_BYTES_FOR_B // size, small.LITTLE_WORK
    rows, columns, lanes = small.FEWEST_ROWS, small.FEW_COLUMNS + 1, 64 // size

    def family(M, L, N, **options):
        return product(M, L, N, dtype=dtype, **options)

    assert family(rows, 9, columns) == family(rows, 9, columns, transpose_a=True) == "small"
    assert family(rows - 1, 9, columns) == ""
    assert family(rows, 9, columns, transpose_b=True) == ""
    assert [family(256, work // (2 * 256 * 128) + more, 128) for more in (0, 1)] == ["small", ""]
    assert [family(15, elements_of_b // 128 + more, 128) for more in (0, 1)] == ["small", ""]
    one_tile = little // (2 * (2 * rows - 1) * 128)
    assert [family(2 * rows - 1, one_tile + more, 128) for more in (0, 1)] == ["small", ""]
    assert family(2 * rows, one_tile + 1, 128) == "small"
    assert family(2 * rows - 1, one_tile + 1, 128, batch=(2,)) == "small"
    few, products = columns - 1, (columns - 1) * small.PRODUCTS_PER_COLUMN
    assert [family(64, products - more, few) for more in (1, 0)] == ["small", "skinny"]
    most = small.MOST_ROWS_OF_FEW_COLUMNS
    assert [family(most + more, 9, few, transpose_a=True) for more in (0, 1)] == ["small", ""]
    length = small.BYTES_OF_FEW_COLUMNS // (size * most)
    assert [family(most, length + more, 1, transpose_a=True) for more in (0, 1)] == ["small", ""]
    narrow = little // (2 * 128 * (2 * lanes - 1))
    assert [family(128, narrow + more, 2 * lanes - 1) == "small" for more in (0, 1)] == [True, False]
    assert family(128, narrow + 1, 2 * lanes) == family(128, 2 * narrow + 2, columns) == "small"
