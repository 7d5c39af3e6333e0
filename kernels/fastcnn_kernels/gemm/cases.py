"""Named shapes of the matrix product: every edge of the tiles, the dense layers, and squares."""

from fastcnn_kernels.cases import Case


def matmul(name, group, M, N, L, Z=1, *, shared="", transpose_a=False, transpose_b=False, bias=False) -> Case:
    """One product (Z, M, L) @ (Z, L, N); `shared` names the operand that the batch has one of."""
    ZA, ZB = 1 if shared == "a" else Z, 1 if shared == "b" else Z
    shapes = {
        "a": (ZA, L, M) if transpose_a else (ZA, M, L),
        "b": (ZB, N, L) if transpose_b else (ZB, L, N),
        "bias": (N,),
        "out": (Z, M, N),
    }
    options = {"transpose_a": transpose_a, "transpose_b": transpose_b}
    if not bias:
        del shapes["bias"]
        options["bias"] = None
    return Case(name, group, "matmul", shapes, options, 2 * Z * M * N * L, L + bias)


#: One of each edge: sizes around the register tiles (6, 12, 14 rows; 8, 16, 32 columns) and the blocks of L.
EDGES = [
    matmul("one element", "edge", 1, 1, 1),
    matmul("one row", "edge", 1, 65, 33),
    matmul("one column", "edge", 65, 1, 33),
    matmul("length one", "edge", 15, 33, 1, bias=True),
    matmul("one tile of 14 x 32", "edge", 14, 32, 40),
    matmul("one more than a tile", "edge", 15, 33, 40, transpose_b=True, bias=True),
    matmul("one less than a tile", "edge", 13, 31, 40, transpose_a=True),
    matmul("length past one block", "edge", 17, 40, 1100, transpose_b=True, bias=True),
    matmul("rows past one block", "edge", 460, 20, 9),
    matmul("columns past one block", "edge", 9, 530, 12, transpose_a=True, transpose_b=True),
    matmul("batch", "edge", 7, 9, 11, Z=5),
    matmul("batch with a shared operand", "edge", 7, 9, 11, Z=5, shared="a", bias=True),
    matmul("rows packed by tasks", "edge", 460, 350, 400),
    matmul("rows packed by tasks, side by side", "edge", 461, 33, 390, transpose_a=True, bias=True),
    matmul("rows packed by tasks, of a batch", "edge", 80, 300, 41, Z=3, shared="b", transpose_a=True, bias=True),
    matmul("columns packed by tasks", "edge", 30, 1030, 400, transpose_b=True, bias=True),
    matmul("columns packed by tasks, side by side", "edge", 29, 1030, 400, bias=True),
    matmul("columns packed by tasks, of a batch", "edge", 40, 600, 390, Z=2),
    matmul("columns packed by tasks, of a shared operand", "edge", 40, 600, 390, Z=3, shared="a"),
    matmul("packed beforehand, a shared operand", "edge", 31, 70, 390, Z=2, shared="b", transpose_a=True),
    matmul("small, one tile", "edge", 6, 16, 1),
    matmul("small, rows and columns that overlap", "edge", 11, 23, 40),
    matmul("small, columns that overlap the tile of four vectors", "edge", 25, 100, 33, transpose_a=True),
    matmul("small, blocks of the sum", "edge", 14, 70, 400, Z=3, shared="a"),
    matmul("small, a batch of fewer rows than workers", "edge", 7, 130, 20, Z=2, transpose_a=True),
    matmul("small, fewer columns than lanes", "edge", 13, 5, 40, transpose_a=True),
    matmul("small, fewer columns than lanes, blocks of the sum", "edge", 7, 3, 400, Z=2),
    matmul("stream, blocks of panels", "edge", 14, 2501, 20, bias=True),
    matmul("stream of a batch, blocks of panels", "edge", 9, 1900, 33, Z=3, transpose_a=True),
    matmul("stream of whole vectors, blocks of panels", "edge", 8, 2496, 20, bias=True),
    matmul("stream past shared rows", "edge", 10, 300, 17, Z=5, shared="a", bias=True),
    matmul("dots of one row with rows of 4 KiB", "edge", 1, 21, 1024, Z=2, transpose_b=True, bias=True),
    matmul("dots of one column with rows of 4 KiB", "edge", 21, 1, 1024),
    matmul("outer products, whole tiles", "edge", 17, 96, 48, transpose_b=True),
    matmul("outer products, a tile that overlaps", "edge", 64, 101, 49, transpose_b=True, bias=True),
    matmul("outer products with the columns", "edge", 97, 40, 50, bias=True),
    matmul("outer products with the columns of a batch", "edge", 97, 40, 300, Z=3, bias=True),
    matmul("outer products of a batch", "edge", 33, 98, 48, Z=3, transpose_b=True, bias=True),
    matmul("outer products of a shared operand", "edge", 20, 97, 51, Z=3, shared="a", transpose_b=True),
]

#: Forward and both gradients of the essay's and LeNet-5's dense layers, then squares.
LAYERS = [
    matmul("essay W1 forward", "dense", 64, 32, 400, bias=True),
    matmul("essay W1 gradient", "dense", 400, 32, 64, transpose_a=True),
    matmul("LeNet-5 fc1 forward", "dense", 64, 120, 400, transpose_b=True, bias=True),
    matmul("LeNet-5 fc1 dx", "dense", 64, 400, 120),
    matmul("LeNet-5 fc1 dw", "dense", 120, 400, 64, transpose_a=True),
    matmul("square 512", "square", 512, 512, 512),
    matmul("square 1024", "square", 1024, 1024, 1024),
]

CASES = EDGES + LAYERS
