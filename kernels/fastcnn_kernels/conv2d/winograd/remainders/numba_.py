"""Copies from and to the images of remainders, in Numba. Layouts in the family's ``__init__``."""

from fastcnn_kernels.gemm.numba_copies import put_steps, take_steps, zero_run
from fastcnn_kernels.numba_support import flat, threaded


@threaded
def gather_planes(source, images, planes, H, W, rows, columns, down, across, dh, dw, worker, workers):
    """Fill this worker's share of the planes of all images; `down` and `across` are those of `geometry.axis`."""
    for plane in range(planes * worker // workers, planes * (worker + 1) // workers):
        for a in range(len(down)):
            above, count = down[a, 0], down[a, 1]
            for b in range(len(across)):
                target = ((a * len(across) + b) * planes + plane) * rows * columns
                row = (plane * H + down[a, 2]) * W + across[b, 2]
                left = across[b, 0]
                right = left + across[b, 1]
                zero_run(images, target, above * columns)
                target += above * columns
                for i in range(count):
                    zero_run(images, target, left)
                    take_steps(images, target + left, source, row + i * dh * W, dw, right - left)
                    zero_run(images, target + right, columns - right)
                    target += columns
                zero_run(images, target, (rows - above - count) * columns)


@threaded
def scatter_planes(images, out, planes, P, Q, rows, columns, dh, dw, worker, workers):
    """Fill this worker's share of the planes of the result."""
    across_count = min(dw, Q)
    for plane in range(planes * worker // workers, planes * (worker + 1) // workers):
        for p in range(P):
            for b in range(across_count):
                row = (((p % dh * across_count + b) * planes + plane) * rows + p // dh) * columns
                put_steps(out, (plane * P + p) * Q + b, dw, images, row, (Q - b + dw - 1) // dw)


def gather(source, images, down, across, dilation, num_threads):
    """Fill the images of all remainders from a source."""
    N, C, H, W = source.shape
    gather_planes(num_threads, flat(source), flat(images), N * C, H, W, *images.shape[2:], down, across, *dilation)


def scatter(images, out, dilation, num_threads):
    """Put the pixels of the images where they belong."""
    N, K, P, Q = out.shape
    scatter_planes(num_threads, flat(images), flat(out), N * K, P, Q, *images.shape[2:], *dilation)
