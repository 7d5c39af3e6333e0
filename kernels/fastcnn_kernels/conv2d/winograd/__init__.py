"""Convolution with 3 x 3 taps in 2.25 to 4 times fewer multiplications with stride 1, 1.8 times with stride 2.

Same ops and contract as ``conv2d``. Winograd's minimal filtering (S. Winograd, Arithmetic Complexity of Computations,
1980; A. Lavin and S. Gray, arXiv 1509.09308): an m x m tile of the result comes from a patch of E = (m + 2)^2 pixels as

    Y = A^T [ sum_c (G g_c G^T) * (B^T d_c B) ] A          * element by element: E matrix products over the channels

with the matrices of Toom and Cook for the points 0, +-a, +-b, infinity (m = 4) or 0, +-1, infinity (m = 2):

    B^T   row p   coefficients of prod_{q != p} (x - q);  infinity: of prod_q (x - q)
    G     row p   (1, p, p^2) / prod_{q != p} (p - q);    infinity: (0, 0, 1)
    A^T   row i   p^i;                                     infinity: 0, and 1 in the last row

a = 5/8 and b = 3/2 are exact in binary and near those of least error (B. Barabasz et al., arXiv 1803.10986). The input
gradient is the same over dy with the taps reversed and the channels exchanged. The weight gradient exchanges the
roles: dy is the m x m filter, dw the 3 x 3 result, the sum runs over tiles, and B^T stays as it is.

Stride 2 (m = 4): even and odd pixels of the larger plane are planes of their own, along either axis. Tap 0 and tap 2
meet the even ones, tap 1 the odd ones:

    y[i] = (g0 x[2 i] + g2 x[2 i + 2]) + g1 x[2 i + 1]     * two taps: 5 points; one tap: the finite 4 of them

With the points +-c, +-d and infinity, a tile of 4 x 4 takes (5 + 4)^2 = 81 products for 144. Those of equal points add
up, so that they are 25 sums over the channels of 4, 2 or 1 planes, and one A^T brings them back. In the input gradient
25 transforms of dy meet 81 of the filters, and each plane has an A^T of its own; its result is 8 x 8 pixels, of which
the odd ones, with one tap, come first. The weight gradient has 81 products, too.

c = 1/2 and d = 3/2 had the least error of the points tried, with 0 among them or not.

Results differ from plain sums in the last digits, so that a choice between algorithms is visible there; ``docs`` of
`fastcnn.use_algorithm` say how much. Where a result is not finite or very large, the call is computed again by plain
sums: one NaN would fill its tile.

Packed order, tiles in panels of NR, rows in panels of mr, e running over the products (with stride 2, 25 forward and 81
in the input gradient, whose patches are 25 for all of them):

    U [group][row panel][e][plane][channel][mr]    V [tile panel][e][plane][channel][NR]
    products [e][row panel][mr][NR]
"""

from fastcnn_kernels.cpu import level_folder

__path__.append(level_folder(__path__[0]))
