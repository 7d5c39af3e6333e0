/* The transforms of Winograd's convolution, vector by vector. Equations in the family's __init__.
 *
 * One-dimensional transforms come from the points 0, +-a, +-b and infinity (m = 4) or 0, +-1 and infinity (m = 2); each
 * is applied along both axes of a patch. The body is transforms_body.h.
 */
#ifndef FASTCNN_TRANSFORMS_H
#define FASTCNN_TRANSFORMS_H

/* Kinds of transform: from n values to n. */
enum {
    IMAGE, /* m + 2 -> m + 2, of a patch of the image */
    FILTER, /* 3 -> m + 2, of the weights */
    RESULT, /* m + 2 -> m, of the products */
    GRADIENT, /* m -> m + 2, of dy, for the weight gradient */
    WEIGHT /* m + 2 -> 3, of the products of the weight gradient */
};
/* The points and their squares: exact in binary, close to those of least error. */
#define PA 0.625
#define PB 1.5
#define PA2 (PA * PA)
#define PB2 (PB * PB)
/* 1 / product of the differences to the other points, for 0, +-a and +-b. */
#define N0 (1 / (PA2 * PB2))
#define NA (1 / (2 * PA2 * (PA2 - PB2)))
#define NB (1 / (2 * PB2 * (PB2 - PA2)))

#if defined(__GNUC__)
#define HAS_TRANSFORMS 1
#else
#define HAS_TRANSFORMS 0 /* plain compilers: the kernels hand every call over to the plain sums */
#endif

#define MUCH ((REAL)(sizeof(REAL) == 4 ? 0x1p27 : 0x1p200)) /* a value of 2^101 (2^824) times as much is infinite */
#define BODY "fastcnn_kernels/conv2d/winograd/transforms_body.h"
#include "fastcnn_kernels/gemm/each_dtype.h"
#undef BODY
#undef MUCH
#endif
