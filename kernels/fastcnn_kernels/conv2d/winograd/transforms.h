/* The transforms of Winograd's convolution, vector by vector. Equations in the family's __init__.
 *
 * One-dimensional transforms come from the points 0, +-a, +-b and infinity (m = 4), 0, +-1 and infinity (m = 2), or
 * +-c, +-d and infinity (stride 2); each is applied along both axes of a patch. The body is transforms_body.h.
 */
#ifndef FASTCNN_TRANSFORMS_H
#define FASTCNN_TRANSFORMS_H

/* Tiles of layers with stride 2, where another m is one of stride 1. DOWN has 4 x 4 pixels of the smaller plane as its
 * result, UP (the input gradient) 8 x 8 of the larger one. Even and odd pixels of the larger plane are planes of their
 * own, with 2 taps or 1: 5 points serve both, of which one tap needs the finite ones only. */
enum { UP = 5, DOWN = 9 };
/* Pixels of a patch, from one patch to the next, of a result; products that a result comes from. All along one axis. */
#define PATCH(m) ((m) == DOWN || (m) == UP ? (m) : (m) + 2)
#define STEP(m) ((m) == DOWN ? 8 : (m) == UP ? 4 : (m))
#define SIDE(m) ((m) == DOWN ? 4 : (m) == UP ? 8 : (m))
#define SUMS(m) ((m) == DOWN ? 5 : (m) == UP ? 9 : (m) + 2)

/* Kinds of transform, and from how many values to how many they go. */
enum {
    IMAGE, /* PATCH -> PATCH, of a patch of the image */
    FILTER, /* 3 -> m + 2 or 9, of the weights */
    RESULT, /* SUMS -> SIDE, of the products */
    GRADIENT, /* SIDE -> SUMS, of dy, for the weight gradient */
    WEIGHT /* PATCH -> 3, of the products of the weight gradient */
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
/* Likewise for stride 2: the points, and the factors of c and d, with a minus those of -c and -d. */
#define PC 0.5
#define PD 1.5
#define PC2 (PC * PC)
#define PD2 (PD * PD)
#define NC (1 / (2 * PC * (PC2 - PD2)))
#define ND (1 / (2 * PD * (PD2 - PC2)))

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
