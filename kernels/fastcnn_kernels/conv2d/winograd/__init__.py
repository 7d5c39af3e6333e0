"""Convolution with 3 x 3 taps and stride 1 in 2.25 to 4 times fewer multiplications.

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

Results differ from plain sums in the last digits, so that a choice between algorithms is visible there; ``docs`` of
`fastcnn.use_algorithm` say how much. Where a result is not finite or very large, the call is computed again by plain
sums: one NaN would fill its tile.

Packed order, tiles in panels of NR, rows in panels of mr, e running over the E products:

    U [group][row panel][e][channel][mr]    V [tile panel][e][channel][NR]
    products [e][row panel][mr][NR]
"""

from fastcnn_kernels.cpu import level_folder

__path__.append(level_folder(__path__[0]))
