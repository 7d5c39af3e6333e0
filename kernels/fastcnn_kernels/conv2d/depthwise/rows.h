/* Rows of a plane convolved with one small filter, the sums of a few rows staying in registers while the rows of the
 * image pass, so that each is loaded once for all of them. The body is rows_body.h.
 *
 * The filter is square, of 3 or 5 taps a side; `vectors` is 1 or 2.
 */
#ifndef FASTCNN_ROWS_H
#define FASTCNN_ROWS_H

#define ROWS 7 /* of a tile: 14 sums, beside 9 taps and 4 vectors; 7, 14, 28 and 56 rows leave no remainder */
/* Columns of taps that stay in registers: all 9 taps find room, of 25 those that one load serves. */
#define TAP_COLUMNS(size, stride) ((size) == 3 ? 3 : (stride))
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
