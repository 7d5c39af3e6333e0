"""Named convolution layers: every edge of the kernels, and the layers that the published figures are about.

A layer makes one case per op: ``cases_of(layer)``.
"""

from typing import NamedTuple

from fastcnn_kernels.cases import Case


class Layer(NamedTuple):
    """A convolution layer by its sizes; C and K are totals over the groups."""

    name: str
    group: str
    N: int
    C: int
    H: int
    W: int
    K: int
    R: int
    S: int
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @property
    def output(self) -> tuple[int, int]:
        """Output height P and width Q."""
        (sh, sw), (dh, dw), (top, bottom, left, right) = self.stride, self.dilation, self.padding
        P = (self.H + top + bottom - dh * (self.R - 1) - 1) // sh + 1
        Q = (self.W + left + right - dw * (self.S - 1) - 1) // sw + 1
        return P, Q


def layer(name, group, N, C, H, K, R, stride=1, padding=0, dilation=1, groups=1) -> Layer:
    """Square layer."""
    return Layer(
        name, group, N, C, H, H, K, R, R, (stride, stride), (padding,) * 4, (dilation, dilation), groups
    )  # fmt: skip


def cases_of(layer: Layer, bias: bool = False) -> list[Case]:
    """The forward pass and the three gradients of a layer."""
    N, C, H, W, K, R, S = layer[2:9]
    P, Q = layer.output
    options = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation, "groups": layer.groups}
    Cg = C // layer.groups
    x, weight, y = (N, C, H, W), (K, Cg, R, S), (N, K, P, Q)
    flops = 2 * N * K * P * Q * Cg * R * S
    forward = {"x": x, "weight": weight, "bias": (K,), "out": y}
    if not bias:
        del forward["bias"]
    no_bias = {} if bias else {"bias": None}
    plain = {"activation": None, "max_pool": 1, "packed": None}
    return [
        Case(layer.name, layer.group, "conv2d", forward, options | plain | no_bias, flops, Cg * R * S + bias),
        Case(
            layer.name, layer.group, "conv2d_grad_input", {"dy": y, "weight": weight, "out": x}, options, flops,
            K // layer.groups * R * S,
        ),
        Case(
            layer.name, layer.group, "conv2d_grad_weight", {"dy": y, "x": x, "out": weight}, options, flops, N * P * Q
        ),
        Case(layer.name, layer.group, "conv2d_grad_bias", {"dy": y, "out": (K,)}, {}, N * K * P * Q, N * P * Q),
    ]  # fmt: skip


#: One of each edge that the kernels' tiles, runs and remainders have.
EDGES = [
    Layer("one pixel", "edge", 1, 1, 1, 1, 1, 1, 1),
    Layer("one channel, one row", "edge", 2, 1, 1, 37, 1, 1, 3, padding=(0, 0, 1, 1)),
    Layer("one column", "edge", 1, 3, 37, 1, 2, 3, 1, padding=(1, 1, 0, 0)),
    Layer("filter as large as the image", "edge", 2, 3, 5, 4, 7, 5, 4),
    Layer("dense layer, more images than a stream takes", "edge", 35, 70, 1, 1, 29, 1, 1, stride=(2, 1)),
    Layer("dense layer of long sums, few outputs", "edge", 9, 40, 5, 6, 3, 5, 6),
    Layer("only padding in some windows", "edge", 1, 2, 2, 2, 3, 2, 2, padding=(3, 3, 3, 3)),
    Layer("one output channel", "edge", 2, 5, 9, 8, 1, 3, 3, padding=(1, 1, 1, 1)),
    Layer("15 output channels", "edge", 2, 4, 9, 8, 15, 3, 3, padding=(1, 1, 1, 1)),
    Layer("29 output channels", "edge", 1, 4, 6, 6, 29, 3, 3),
    Layer("row of exactly one panel", "edge", 1, 2, 3, 32, 4, 1, 1),
    Layer("row of one panel and one pixel", "edge", 2, 2, 3, 33, 4, 3, 3, padding=(1, 1, 1, 1)),
    Layer("rows far shorter than a panel", "edge", 9, 3, 4, 3, 5, 2, 2),
    Layer("stride larger than the filter", "edge", 2, 3, 17, 19, 4, 2, 3, stride=(3, 5)),
    Layer("1x1 with stride", "edge", 2, 4, 9, 11, 6, 1, 1, stride=(2, 3)),
    Layer("stride that leaves rows unread", "edge", 1, 2, 10, 12, 3, 3, 3, stride=(4, 4)),
    Layer("stride with dilation", "edge", 2, 3, 15, 16, 4, 3, 3, stride=(2, 3), dilation=(3, 2), padding=(2, 1, 0, 3)),
    Layer("dilation that shares no remainder", "edge", 1, 2, 14, 14, 3, 3, 3, stride=(2, 2), dilation=(2, 2)),
    Layer("asymmetric padding", "edge", 2, 3, 8, 7, 4, 4, 3, padding=(2, 0, 1, 3)),
    Layer("padding wider than the filter", "edge", 1, 2, 5, 5, 3, 2, 2, padding=(3, 2, 4, 5)),
    Layer("three groups", "edge", 2, 6, 8, 9, 12, 3, 3, padding=(1, 1, 1, 1), groups=3),
    Layer("depthwise", "edge", 2, 7, 9, 10, 7, 3, 3, padding=(1, 1, 1, 1), groups=7),
    Layer("depthwise with small planes", "edge", 3, 5, 7, 7, 5, 3, 3, padding=(1, 1, 1, 1), groups=5),
    Layer("depthwise with small planes cut short", "edge", 2, 3, 6, 9, 3, 5, 5, padding=(1, 2, 2, 2), groups=3),
    Layer("depthwise with multiplier and stride", "edge", 2, 5, 9, 10, 15, 3, 2, stride=(2, 2), groups=5),
    Layer("sum packed at once", "edge", 2, 32, 5, 13, 9, 1, 1),
    Layer("sum packed in turns", "edge", 2, 33, 5, 13, 9, 1, 1),
    Layer("sum of two blocks", "edge", 2, 45, 6, 11, 15, 3, 3, padding=(1, 1, 1, 1)),
    Layer("sum long enough for chunks", "edge", 5, 1, 30, 30, 2, 3, 3, padding=(1, 1, 1, 1)),
    Layer("images several at a time", "edge", 40, 2, 7, 7, 3, 3, 3, padding=(1, 1, 1, 1)),
    Layer("images of groups several at a time", "edge", 21, 32, 6, 6, 32, 2, 2, groups=16),
    Layer("taps shifted beyond a row", "edge", 2, 1, 1, 400, 2, 1, 190),
    Layer("images of a chunk beyond those at a time", "edge", 140, 1, 5, 7, 2, 2, 2),
    Layer("rows of whole vectors", "edge", 16, 1, 24, 48, 2, 3, 3, padding=(1, 1, 1, 1)),
    Layer("slabs of 32 and 3 channels", "edge", 2, 35, 6, 9, 30, 3, 3, padding=(1, 1, 1, 1)),
    Layer("blocks of panels and of slabs", "edge", 1, 70, 5, 5, 60, 1, 1),
    Layer("chunks of a sum, two taps a vector", "edge", 12, 5, 16, 21, 17, 3, 3, padding=(1, 1, 1, 0)),
    Layer("row in several blocks", "edge", 1, 17, 1, 700, 16, 1, 5, padding=(0, 0, 2, 1)),
    Layer("rows in several blocks", "edge", 2, 33, 3, 610, 5, 2, 3, stride=(1, 2), padding=(1, 0, 0, 2)),
    Layer("output channels in lanes", "edge", 2, 30, 11, 16, 26, 3, 3, stride=(2, 2), padding=(1, 1, 1, 1)),
    Layer("output channels in lanes of one vector", "edge", 2, 13, 5, 31, 16, 3, 3, padding=(1, 0, 2, 2)),
    Layer("rows of whole vectors, one by one", "edge", 2, 8, 9, 128, 18, 3, 4, stride=(2, 2), padding=(1, 1, 1, 1)),
    Layer("rows one by one, many channels", "edge", 2, 13, 5, 64, 27, 3, 3, padding=(1, 0, 1, 1)),
    Layer(
        "rows one by one in some products only", "edge", 2, 17, 6, 127, 17, 3, 3, stride=(2, 2), padding=(1, 1, 1, 1)
    ),
    Layer("blocks of panels and of slabs of groups", "edge", 2, 140, 5, 6, 60, 1, 1, groups=2),
    Layer("rows in two stretches", "edge", 16, 1, 36, 37, 2, 3, 3, padding=(1, 1, 1, 1)),
    Layer("panels of one run, sums of two blocks", "edge", 2, 800, 5, 13, 58, 1, 1, groups=2),
    Layer("panels of one run, results in steps", "edge", 2, 26, 3, 131, 32, 1, 3, stride=(2, 2), padding=(0, 0, 1, 1)),
    Layer("1x1, fewer pixels than lanes", "edge", 2, 7, 1, 5, 13, 1, 1),
    Layer("1x1, tiles that overlap", "edge", 3, 16, 7, 13, 26, 1, 1, groups=2),
    Layer("1x1 with stride, tiles that overlap", "edge", 2, 14, 9, 11, 16, 1, 1, stride=(2, 3), groups=2),
    Layer("1x1, stride larger than the image", "edge", 2, 7, 3, 2, 9, 1, 1, stride=(4, 5)),
    Layer("1x1, sums of two blocks", "edge", 1, 400, 3, 6, 9, 1, 1),
    Layer("1x1, rows of dy in place, chunks of a sum", "edge", 5, 17, 15, 23, 40, 1, 1),
    Layer("1x1, rows of x in place, chunks of a sum", "edge", 5, 80, 15, 23, 34, 1, 1, groups=2),
    Layer("1x1, a row in several blocks", "edge", 2, 7, 2, 613, 15, 1, 1),
    Layer("1x1, planes that alias, two slabs", "edge", 1, 37, 32, 32, 70, 1, 1),
]

#: This project's own selection of layers, in nine classes.
HEADLINE = [
    layer("essay conv 1->1 20x20 batch 1", "few-channel", 1, 1, 20, 1, 3, padding=1),
    layer("essay conv 1->1 20x20 batch 64", "few-channel", 64, 1, 20, 1, 3, padding=1),
    layer("LeNet-5 conv1", "few-channel", 64, 1, 28, 6, 5, padding=2),
    layer("LeNet-5 conv2", "few-channel", 64, 6, 14, 16, 5),
    layer("digits 8x8 1->16", "few-channel", 64, 1, 8, 16, 3, padding=1),
    layer("ResNet-50 conv1 7x7/2", "few-channel", 8, 3, 224, 64, 7, stride=2, padding=3),
    layer("MobileNet conv1 3x3/2", "few-channel", 8, 3, 224, 32, 3, stride=2, padding=1),
    layer("VGG conv1_1", "few-channel", 4, 3, 224, 64, 3, padding=1),
    layer("segmentation head 64->2 1x1", "few-channel", 2, 64, 128, 2, 1),
    layer("ResNet-50 56x56 64", "3x3", 8, 64, 56, 64, 3, padding=1),
    layer("ResNet-50 28x28 128", "3x3", 8, 128, 28, 128, 3, padding=1),
    layer("ResNet-50 14x14 256", "3x3", 8, 256, 14, 256, 3, padding=1),
    layer("ResNet-50 7x7 512", "3x3", 8, 512, 7, 512, 3, padding=1),
    layer("CIFAR 32x32 32", "3x3", 64, 32, 32, 32, 3, padding=1),
    layer("CIFAR ResNet-20 16x16 32", "3x3", 64, 32, 16, 32, 3, padding=1),
    layer("VGG conv3 56x56 256 batch 1", "3x3", 1, 256, 56, 256, 3, padding=1),
    layer("ResNet-50 56x56 64->256", "1x1", 8, 64, 56, 256, 1),
    layer("ResNet-50 14x14 1024->256", "1x1", 8, 1024, 14, 256, 1),
    layer("ResNet-50 7x7 512->2048", "1x1", 8, 512, 7, 2048, 1),
    layer("MobileNetV2 28x28 192->32", "1x1", 8, 192, 28, 32, 1),
    layer("ResNet-50 3x3/2 128 56x56", "strided", 8, 128, 56, 128, 3, stride=2, padding=1),
    layer("ResNet-50 1x1/2 512->1024", "strided", 8, 512, 28, 1024, 1, stride=2),
    layer("Inception 5x5 48->64 35x35", "large-kernel", 8, 48, 35, 64, 5, padding=2),
    layer("DeepLab 3x3 dilation 2 256", "dilated", 2, 256, 28, 256, 3, padding=2, dilation=2),
    layer("MobileNetV2 dw 3x3 144 56x56", "depthwise", 8, 144, 56, 144, 3, padding=1, groups=144),
    layer("MobileNetV2 dw 3x3/2 192 28x28", "depthwise", 8, 192, 28, 192, 3, stride=2, padding=1, groups=192),
    layer("MobileNetV3 dw 5x5 120 28x28", "depthwise", 8, 120, 28, 120, 5, padding=2, groups=120),
    layer("MobileNetV2 dw 3x3 960 7x7", "depthwise", 8, 960, 7, 960, 3, padding=1, groups=960),
    layer("ResNeXt 3x3 32 groups of 4 56x56", "grouped", 4, 128, 56, 128, 3, padding=1, groups=32),
    layer("ResNeXt 3x3 32 groups of 16 14x14", "grouped", 8, 512, 14, 512, 3, padding=1, groups=32),
    layer("ResNet-18 14x14 256 batch 1", "latency", 1, 256, 14, 256, 3, padding=1),
    layer("MLPerf Tiny ResNet-8 32x32 16 batch 1", "latency", 1, 16, 32, 16, 3, padding=1),
]

LAYERS = EDGES + HEADLINE
