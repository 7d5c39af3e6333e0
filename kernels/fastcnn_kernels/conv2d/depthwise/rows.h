/* Rows of a plane convolved with one small filter, the sums of a few rows staying in registers while the rows of the
 * image pass, so that each is loaded once for all of them. The body is rows_body.h.
 *
 * The filter is square, of 3 or 5 taps a side; `vectors` is 1 or 2, for whole planes up to WHOLE_VECTORS.
 */
#ifndef FASTCNN_ROWS_H
#define FASTCNN_ROWS_H

#define ROWS 7 /* of a tile: 14 sums, beside 9 taps and 4 vectors; 7, 14, 28 and 56 rows leave no remainder */
#define WHOLE_VECTORS 4 /* of a small plane: beside them the masked loads of 9 or 25 taps, whose masks come from L1 */
#define SCATTER_ROWS 8 /* of an input gradient with stride 2, each of two vectors */
#define PLANE_ROWS(size) ((size) == 3 ? ROWS : 4) /* rows of dy beside the 9 or 25 sums of a weight gradient */
#define DOT_MASKS 7 /* masks of a vector of dy: at most 6 vectors of the plane, and its own */
#if defined(__GNUC__)
#define HAS_ROWS 1
#else
#define HAS_ROWS 0 /* plain compilers: the kernels hand every call over */
#endif
#define BODY "fastcnn_kernels/conv2d/depthwise/rows_body.h"
#include "fastcnn_kernels/gemm/each_dtype.h"
#undef BODY
#endif
