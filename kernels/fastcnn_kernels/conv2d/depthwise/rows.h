/* Rows of a plane convolved with one small filter, the sums of a few rows staying in registers while the rows of the
 * image pass, so that each is loaded once for all of them. The body is rows_body.h.
 *
 * The filter is square, of 3 or 5 taps a side; `vectors` is 1, 2 or 4.
 */
#ifndef FASTCNN_ROWS_H
#define FASTCNN_ROWS_H

#define ROWS 4 /* rows of a tile: 4 rows of 4 vectors are 16 sums, beside 4 vectors of the image */
#define NARROW_ROWS 8 /* of a tile of one vector: small planes take fewer tiles */
/* Rows of dy beside the sums of a weight gradient; planes of 7, 14 and 28 rows leave no remainder. */
#define PLANE_ROWS(size) ((size) == 3 ? 7 : 4)
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
