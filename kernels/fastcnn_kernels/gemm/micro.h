/* The register-blocked micro-kernel of every dense kernel here, and the few vector loops around it.
 *
 *     C[mr, NR] (+)= A[mr, L] . B[L, NR]
 *
 * packed order of one panel of A (mr rows) and of B (NR columns), l running downwards:
 *
 *     a: l=0 | a00 a10 .. a(mr-1)0 |          b: l=0 | b00 b01 .. b0(NR-1) |
 *        l=1 | a01 a11 .. a(mr-1)1 |             l=1 | b10 b11 .. b1(NR-1) |
 * (Rows of B need not be packed: they may be b_step apart; or they are packed by the first product that meets them.)
 *
 * The mr x NR sums live in registers: mr rows of two vectors, plus two vectors of B and one broadcast element of A.
 * AVX-512 has 32 registers: 14 rows x 2 + 2 + the broadcast folded into the multiply's memory operand. AVX2 and SSE2
 * have 16: 6 x 2 + 2 + 1. NEON has 32: 12 x 2 + 2 + 1. (Layout after BLIS.)
 *
 * The type-generic bodies are vectors_body.h, copies_body.h, products_body.h, tiles_body.h and dots_body.h, each included
 * once per dtype. Vectors are GCC/Clang vector extensions; any other compiler takes the plain loops.
 */
#ifndef FASTCNN_MICRO_H
#define FASTCNN_MICRO_H
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__AVX512F__) && defined(__GNUC__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#define MR 14
#elif defined(__AVX2__)
#define VECTOR_BYTES 32
#define MR 6
#elif defined(__aarch64__)
#define VECTOR_BYTES 16
#define MR 12
#else
#define VECTOR_BYTES 16
#define MR 6
#endif
/* Rows of a tile of one vector: as many as it has floats, where they are more. */
#define MOST_ROWS (VECTOR_BYTES / 4 > MR ? VECTOR_BYTES / 4 : MR)
/* Rows up to which the loads take the time, not the products: nothing is asked for ahead. Direct kernels: up to which
 * a tile is four and three vectors wide, beyond them two: v (mr + 1) + 1 registers. The
 * last tile of a plane takes the vectors it needs. The tile of dot products; what it reads of a column before the next one. */
#if MR > 6
#define WIDE_ROWS 6
#define MIDDLE_ROWS 9
#define DOT_ROWS 4
#define DOT_VECTORS_OF_ONE_ROW 8
#else
#define WIDE_ROWS 2
#define MIDDLE_ROWS 4
#define DOT_ROWS 2
#define DOT_VECTORS_OF_ONE_ROW 4
#endif
#define TILE_VECTORS(mr) ((mr) <= WIDE_ROWS ? 4 : (mr) <= MIDDLE_ROWS ? 3 : 2)
#define DOT_COLUMNS 6
/* Outer products: rows, each element broadcast where it lies, by vectors. */
#define OUTER_ROWS 6
#if MR > 6
#define OUTER_VECTORS 4
#else
#define OUTER_VECTORS 2
#endif
#define DOT_COLUMNS_OF_ONE_ROW 12
/* Dot products of the largest tile. */
enum { MOST_DOTS = DOT_ROWS * DOT_COLUMNS > DOT_COLUMNS_OF_ONE_ROW ? DOT_ROWS * DOT_COLUMNS : DOT_COLUMNS_OF_ONE_ROW };
/* Masks of a vector for dot products of so many taps. */
#define MASKS_OF(taps) ((taps) + DOT_COLUMNS_OF_ONE_ROW)
#define NR_F32 (2 * VECTOR_BYTES / 4)
#define NR_F64 (2 * VECTOR_BYTES / 8)

#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")
/* Keeps the compiler from computing all addresses of a walk ahead: they would not fit registers. */
#define STEP_BY_STEP(p) __asm__("" : "+r"(p))
/* Keeps the compiler from reading a vector again from memory for each multiplication. */
#if defined(__AVX512F__)
#define IN_REGISTER(v) __asm__("" : "+v"(v))
#elif defined(__SSE2__)
#define IN_REGISTER(v) __asm__("" : "+x"(v))
#elif defined(__aarch64__)
#define IN_REGISTER(v) __asm__("" : "+w"(v))
#else
#define IN_REGISTER(v) (void)0
#endif
#else
#define INLINE static inline
#define UNROLL
#endif

/* Rows of the sum packed for one panel after the other: each lies in a row or plane of its own, and so many streams are what
 * the prefetchers and the TLB of L1 keep up with. */
#define STREAMS 16
/* Steps of the sum to ask ahead: a panel of A comes from L3 when it is first met, B and the planes of taps from L2. */
#define STEPS_AHEAD_A 16
#define STEPS_AHEAD_B 8
/* Panels of B to ask ahead while they are packed: their lines arrive from memory while the present ones are multiplied. */
#define PANELS_AHEAD 4
#define LINE_BYTES 64
/* Lines to ask ahead of rows that are read where they lie, beyond L2 when they are first met. */
#define LINES_AHEAD 2
/* Products of a sum from which on they leave time to ask for the lines of the results. */
#define SUM_OF_LINES 8
#if defined(__GNUC__)
#define PREFETCH(address) __builtin_prefetch(address)
#define PREFETCH_FAR(address) __builtin_prefetch(address, 0, 2) /* into L2 */
#else
#define PREFETCH_FAR(address) (void)0
#define PREFETCH(address) (void)0
#endif

#define VL LANES
/* Mask of the first n lanes, of none if n < 0 and of all if n > VL. */
#define FIRST(n) ((uint16_t)((n) >= VL ? (1u << VL) - 1 : (n) <= 0 ? 0u : (1u << (n)) - 1))

/* GCC picks the instructions for a shuffle whose lanes are constants; Clang has another name for it. */
#if defined(__clang__)
#define SHUFFLE_TWO(x, y, lanes) ((NAME(vec))PERMUTE_TWO(x, (__m512i)(lanes), y))
#else
#define SHUFFLE_TWO(x, y, lanes) __builtin_shuffle(x, y, lanes)
#endif

#define REAL float
#define LANES (VECTOR_BYTES / 4)
#define EACH_LANE(F, s) F(0, s), F(1, s), F(2, s), F(3, s), F(4, s), F(5, s), F(6, s), F(7, s), F(8, s), F(9, s), \
    F(10, s), F(11, s), F(12, s), F(13, s), F(14, s), F(15, s)
#define BITS uint32_t
#define SIGNED int32_t
#define EXPONENT 0x7f800000u
#define NAME(x) x##_f32
#define MASKED_LOAD _mm512_maskz_loadu_ps
#define MASKED_MERGE _mm512_mask_loadu_ps
#define MASKED_STORE _mm512_mask_storeu_ps
#define COMPRESS _mm512_maskz_compress_ps
#define PERMUTE _mm512_permutexvar_ps
#define PERMUTE_TWO _mm512_permutex2var_ps
#define REDUCE_ADD _mm512_reduce_add_ps
#define LARGER _mm512_max_ps
#define SMALLER _mm512_min_ps
#include "vectors_body.h"
#include "copies_body.h"
#include "products_body.h"
#include "tiles_body.h"
#include "dots_body.h"
#undef MASKED_LOAD
#undef MASKED_MERGE
#undef MASKED_STORE
#undef COMPRESS
#undef PERMUTE
#undef PERMUTE_TWO
#undef REDUCE_ADD
#undef LARGER
#undef SMALLER
#undef REAL
#undef LANES
#undef EACH_LANE
#undef BITS
#undef SIGNED
#undef EXPONENT
#undef NAME

#define REAL double
#define LANES (VECTOR_BYTES / 8)
#define EACH_LANE(F, s) F(0, s), F(1, s), F(2, s), F(3, s), F(4, s), F(5, s), F(6, s), F(7, s)
#define BITS uint64_t
#define SIGNED int64_t
#define EXPONENT 0x7ff0000000000000u
#define NAME(x) x##_f64
#define MASKED_LOAD _mm512_maskz_loadu_pd
#define MASKED_MERGE _mm512_mask_loadu_pd
#define MASKED_STORE _mm512_mask_storeu_pd
#define COMPRESS _mm512_maskz_compress_pd
#define PERMUTE _mm512_permutexvar_pd
#define PERMUTE_TWO _mm512_permutex2var_pd
#define REDUCE_ADD _mm512_reduce_add_pd
#define LARGER _mm512_max_pd
#define SMALLER _mm512_min_pd
#include "vectors_body.h"
#include "copies_body.h"
#include "products_body.h"
#include "tiles_body.h"
#include "dots_body.h"
#undef MASKED_LOAD
#undef MASKED_MERGE
#undef MASKED_STORE
#undef COMPRESS
#undef PERMUTE
#undef PERMUTE_TWO
#undef REDUCE_ADD
#undef LARGER
#undef SMALLER
#undef REAL
#undef LANES
#undef EACH_LANE
#undef BITS
#undef SIGNED
#undef EXPONENT
#undef NAME

#undef VL
#undef FIRST
#endif
