/* The transforms of Winograd's convolution, vector by vector. Equations in the family's __init__.
 *
 * One-dimensional transforms come from the points 0, +-a, +-b and infinity (m = 4) or 0, +-1 and infinity (m = 2); each
 * is applied along both axes of a patch. The body is transforms_body.h, included once per dtype.
 */
#ifndef FASTCNN_TRANSFORMS_H
#define FASTCNN_TRANSFORMS_H
#include "fastcnn_kernels/gemm/micro.h"

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

/* The list F(0), F(1), ... of one entry per lane. */
#define LIST2(F, i) F(i), F(i + 1)
#define LIST4(F, i) LIST2(F, i), LIST2(F, i + 2)
#define LIST8(F, i) LIST4(F, i), LIST4(F, i + 4)
#define LIST16(F, i) LIST8(F, i), LIST8(F, i + 8)

#define REAL float
#define NAME(x) x##_f32
#define LANES (VECTOR_BYTES / 4)
#if VECTOR_BYTES == 64
#define EACH_LANE(F) LIST16(F, 0)
#elif VECTOR_BYTES == 32
#define EACH_LANE(F) LIST8(F, 0)
#else
#define EACH_LANE(F) LIST4(F, 0)
#endif
#define MUCH 0x1p27f /* a value of 2^101 times as much is infinite */
#include "transforms_body.h"
#undef REAL
#undef NAME
#undef LANES
#undef EACH_LANE
#undef MUCH

#define REAL double
#define NAME(x) x##_f64
#define LANES (VECTOR_BYTES / 8)
#if VECTOR_BYTES == 64
#define EACH_LANE(F) LIST8(F, 0)
#elif VECTOR_BYTES == 32
#define EACH_LANE(F) LIST4(F, 0)
#else
#define EACH_LANE(F) LIST2(F, 0)
#endif
#define MUCH 0x1p200
#include "transforms_body.h"
#undef REAL
#undef NAME
#undef LANES
#undef EACH_LANE
#undef MUCH
#endif
