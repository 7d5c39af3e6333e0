/* Includes BODY once per dtype, with what vector code needs: REAL, NAME, masks of lanes and shuffles; no include guard
 * by intent. */
#include "fastcnn_kernels/gemm/micro.h"

#define VL LANES
/* Mask of the first n lanes, of none if n < 0 and of all if n > VL; of lanes low to high - 1. */
#define FIRST(n) ((uint16_t)((n) >= VL ? (1u << VL) - 1 : (n) <= 0 ? 0u : (1u << (n)) - 1))
#define BETWEEN(low, high) ((uint16_t)(FIRST(high) & ~FIRST(low)))
/* The list F(0), F(1), ... of one entry per lane. */
#define LIST2(F, i) F(i), F(i + 1)
#define LIST4(F, i) LIST2(F, i), LIST2(F, i + 2)
#define LIST8(F, i) LIST4(F, i), LIST4(F, i + 4)
#define LIST16(F, i) LIST8(F, i), LIST8(F, i + 8)
/* Lane j of the result is lane LANE(j) of x followed by y. */
#if defined(__clang__)
#define SHUFFLE(x, y, LANE) __builtin_shufflevector(x, y, EACH_LANE(LANE))
#else
#define SHUFFLE(x, y, LANE) __builtin_shuffle(x, y, (NAME(index)){EACH_LANE(LANE)})
#endif
#define EVEN(j) 2 * (j)
#define ODD(j) 2 * (j) + 1
#define NEXT(j) (j) + 1
#define ZIP_LOW(j) (j) / 2 + (j) % 2 * VL
#define ZIP_HIGH(j) VL / 2 + (j) / 2 + (j) % 2 * VL

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
#include BODY
#undef REAL
#undef NAME
#undef LANES
#undef EACH_LANE

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
#include BODY
#undef REAL
#undef NAME
#undef LANES
#undef EACH_LANE

#undef VL
#undef FIRST
#undef BETWEEN
#undef LIST2
#undef LIST4
#undef LIST8
#undef LIST16
#undef SHUFFLE
#undef EVEN
#undef ODD
#undef NEXT
#undef ZIP_LOW
#undef ZIP_HIGH
