/* Included by micro.h once per dtype, with REAL, BITS, EXPONENT and NAME defined; no include guard by intent. */

#if defined(__GNUC__)
typedef REAL NAME(vec) __attribute__((vector_size(VECTOR_BYTES)));
typedef REAL NAME(mem) __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(REAL)), may_alias)); /* unaligned */
typedef SIGNED NAME(index) __attribute__((vector_size(VECTOR_BYTES)));
#define VL LANES
/* Mask of the first n lanes, of none if n < 0 and of all if n > VL. */
#define FIRST(n) ((uint16_t)((n) >= VL ? (1u << VL) - 1 : (n) <= 0 ? 0u : (1u << (n)) - 1))

INLINE NAME(vec) NAME(load)(const REAL *p) { return *(const NAME(mem) *)p; }
INLINE void NAME(store)(REAL *p, NAME(vec) v) { *(NAME(mem) *)p = v; }

INLINE void NAME(micro_rows)(const int mr, const int vectors, ptrdiff_t L, const REAL *a, const REAL *b,
                             ptrdiff_t b_step, REAL *c, ptrdiff_t ldc, int accumulate) {
    NAME(vec) acc[MR][2];
    UNROLL for (int i = 0; i < mr; i++)
        UNROLL for (int j = 0; j < vectors; j++) { /* C is met last: its lines arrive meanwhile */
            acc[i][j] = (NAME(vec)){0};
            __builtin_prefetch(c + i * ldc + j * VL, 1);
        }
    for (ptrdiff_t l = 0; l < L; l++, a += mr, b += b_step) {
        PREFETCH(a + STEPS_AHEAD_A * mr);
        UNROLL for (int j = 0; j < vectors; j += LINE_BYTES / VECTOR_BYTES) PREFETCH(b + STEPS_AHEAD_B * b_step + j * VL);
        NAME(vec) row[2];
        UNROLL for (int j = 0; j < vectors; j++) row[j] = NAME(load)(b + j * VL);
        UNROLL for (int i = 0; i < mr; i++)
            UNROLL for (int j = 0; j < vectors; j++) acc[i][j] += a[i] * row[j];
    }
    UNROLL for (int i = 0; i < mr; i++)
        UNROLL for (int j = 0; j < vectors; j++) {
            REAL *const target = c + i * ldc + j * VL;
            NAME(store)(target, accumulate ? NAME(load)(target) + acc[i][j] : acc[i][j]);
        }
}

/* One case per row count, which is a constant in each, so that the sums stay in registers. */
#if MR > 12
#define ROW_COUNTS(CASE) CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) \
    CASE(12) CASE(13) CASE(14)
#elif MR > 6
#define ROW_COUNTS(CASE) CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) \
    CASE(12)
#else
#define ROW_COUNTS(CASE) CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)
#endif

/* One case for every number of rows and of vectors of a direct tile: the rows of WIDE_ROWS and MIDDLE_ROWS. */
#define UP_TO_2(CASE, n) CASE(n, 1) CASE(n, 2)
#define UP_TO_3(CASE, n) UP_TO_2(CASE, n) CASE(n, 3)
#define UP_TO_4(CASE, n) UP_TO_3(CASE, n) CASE(n, 4)
#if MR > 6
#define TILE_SIZES(CASE) UP_TO_4(CASE, 1) UP_TO_4(CASE, 2) UP_TO_4(CASE, 3) UP_TO_4(CASE, 4) UP_TO_4(CASE, 5) \
    UP_TO_4(CASE, 6) UP_TO_3(CASE, 7) UP_TO_3(CASE, 8) UP_TO_3(CASE, 9) UP_TO_2(CASE, 10) UP_TO_2(CASE, 11) \
    UP_TO_2(CASE, 12) MORE_SIZES(CASE)
#else
#define TILE_SIZES(CASE) UP_TO_4(CASE, 1) UP_TO_4(CASE, 2) UP_TO_3(CASE, 3) UP_TO_3(CASE, 4) UP_TO_2(CASE, 5) \
    UP_TO_2(CASE, 6)
#endif
#if MR > 12
#define MORE_SIZES(CASE) UP_TO_2(CASE, 13) UP_TO_2(CASE, 14)
#else
#define MORE_SIZES(CASE)
#endif

/* Columns behind the wanted ones come out too, up to a whole vector. */
static void NAME(micro)(int mr, int columns, ptrdiff_t L, const REAL *a, const REAL *b, ptrdiff_t b_step, REAL *c,
                        ptrdiff_t ldc, int accumulate) {
#define ONE(n) case n: NAME(micro_rows)(n, 1, L, a, b, b_step, c, ldc, accumulate); break;
#define TWO(n) case n: NAME(micro_rows)(n, 2, L, a, b, b_step, c, ldc, accumulate); break;
    if (columns > VL) switch (mr) { ROW_COUNTS(TWO) }
    else switch (mr) { ROW_COUNTS(ONE) }
#undef ONE
#undef TWO
}

/* A vector of which only the lanes in the mask are read, or written. */
INLINE NAME(vec) NAME(load_masked)(uint16_t mask, const REAL *p) {
#if defined(__AVX512F__)
    return (NAME(vec))MASKED_LOAD(mask, p);
#else
    NAME(vec) v = {0};
    for (int j = 0; j < VL; j++)
        if (mask >> j & 1) v[j] = p[j];
    return v;
#endif
}
/* Likewise, the others from v. */
INLINE NAME(vec) NAME(load_merged)(NAME(vec) v, uint16_t mask, const REAL *p) {
#if defined(__AVX512F__)
    return (NAME(vec))MASKED_MERGE(v, mask, p);
#else
    for (; mask; mask &= mask - 1) v[__builtin_ctz(mask)] = p[__builtin_ctz(mask)];
    return v;
#endif
}
INLINE void NAME(store_masked)(uint16_t mask, REAL *p, NAME(vec) v) {
#if defined(__AVX512F__)
    MASKED_STORE(p, mask, v);
#else
    for (int j = 0; j < VL; j++)
        if (mask >> j & 1) p[j] = v[j];
#endif
}

/* Copy n elements; short runs with a mask, where the level has masks: a call of memcpy costs more than they do. */
INLINE void NAME(copy_run)(REAL *target, const REAL *source, ptrdiff_t n) {
    for (; n >= VL; n -= VL, target += VL, source += VL) NAME(store)(target, NAME(load)(source));
#if defined(__AVX512F__)
    if (n > 0) NAME(store_masked)(FIRST(n), target, NAME(load_masked)(FIRST(n), source));
#else
    for (ptrdiff_t j = 0; j < n; j++) target[j] = source[j];
#endif
}

/* Index vectors are lists of constants: GCC builds those filled in loops anew on every call. */
#if defined(__AVX512F__)
/* target[j] = source[2 j] for j < n. */
INLINE void NAME(take_even)(REAL *target, const REAL *source, ptrdiff_t n) {
#define EVEN(j, s) 2 * (j)
    const NAME(index) even = {EACH_LANE(EVEN, 0)};
    for (; n > 0; n -= VL, target += VL, source += 2 * VL) {
        const ptrdiff_t rest = 2 * n - 1; /* elements to read */
        const NAME(vec) low = NAME(load_masked)(FIRST(rest), source);
        const NAME(vec) high = NAME(load_masked)(FIRST(rest - VL), source + VL);
        NAME(store_masked)(FIRST(n), target, (NAME(vec))PERMUTE_TWO(low, (__m512i)even, high));
    }
}

/* target[2 j] = source[j] for j < n; what lies between stays. */
INLINE void NAME(put_even)(REAL *target, const REAL *source, ptrdiff_t n) {
#define HALF(j, s) (j) / 2
    const NAME(index) twice = {EACH_LANE(HALF, 0)};
    for (; n > 0; n -= VL / 2, target += VL, source += VL / 2) {
        const NAME(vec) value = NAME(load_masked)(FIRST(n < VL / 2 ? n : VL / 2), source);
        NAME(store_masked)(FIRST(2 * n) & 0x5555, target, (NAME(vec))PERMUTE((__m512i)twice, value));
    }
}
#undef EVEN
#undef HALF
#endif

/* tile[mr, vectors * VL] = bias + A . B where row l of B is read where it lies, at source + offset[l]. */
INLINE void NAME(direct_rows)(const int mr, const int vectors, ptrdiff_t L, const REAL *a, const REAL *source,
                              const ptrdiff_t *offset, const REAL *bias, REAL *tile) {
    NAME(vec) acc[MR][4];
    UNROLL for (int i = 0; i < mr; i++)
        UNROLL for (int j = 0; j < vectors; j++) acc[i][j] = (NAME(vec)){0} + (bias ? bias[i] : 0);
    for (ptrdiff_t l = 0; l < L; l++, a += mr) {
        if (mr > WIDE_ROWS) /* fewer rows would wait for the loads themselves */
            UNROLL for (int j = 0; j < vectors; j += LINE_BYTES / VECTOR_BYTES)
                PREFETCH(source + offset[l + STEPS_AHEAD_B < L ? l + STEPS_AHEAD_B : l] + j * VL);
        NAME(vec) b[4];
        UNROLL for (int j = 0; j < vectors; j++) b[j] = NAME(load)(source + offset[l] + j * VL);
        UNROLL for (int i = 0; i < mr; i++)
            UNROLL for (int j = 0; j < vectors; j++) acc[i][j] += a[i] * b[j];
    }
    UNROLL for (int i = 0; i < mr; i++)
        UNROLL for (int j = 0; j < vectors; j++) NAME(store)(tile + (i * vectors + j) * VL, acc[i][j]);
}

static void NAME(direct)(int mr, int vectors, ptrdiff_t L, const REAL *a, const REAL *source, const ptrdiff_t *offset,
                         const REAL *bias, REAL *tile) {
#define CASE(n, v) case (n) * 4 + (v): NAME(direct_rows)(n, v, L, a, source, offset, bias, tile); break;
    switch (mr * 4 + vectors) { TILE_SIZES(CASE) }
#undef CASE
}

/* tile[rows of pixels, vectors * VL channels] = bias + sum over l of source[offset[l] + pixel] by row l of b: the pixels
 * are broadcast where they lie. */
INLINE void NAME(spread_rows)(const int rows, const int vectors, ptrdiff_t L, const REAL *source,
                              const ptrdiff_t *offset, const REAL *b, const REAL *bias, REAL *tile) {
    NAME(vec) acc[MR][2];
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int j = 0; j < vectors; j++) acc[i][j] = bias ? NAME(load)(bias + j * VL) : (NAME(vec)){0};
    for (ptrdiff_t l = 0; l < L; l++, b += vectors * VL) {
        UNROLL for (int j = 0; j < vectors; j += LINE_BYTES / VECTOR_BYTES)
            PREFETCH(b + STEPS_AHEAD_B * vectors * VL + j * VL);
        const REAL *pixel = source + offset[l];
        NAME(vec) row[2];
        UNROLL for (int j = 0; j < vectors; j++) row[j] = NAME(load)(b + j * VL);
        UNROLL for (int i = 0; i < rows; i++)
            UNROLL for (int j = 0; j < vectors; j++) acc[i][j] += pixel[i] * row[j];
    }
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int j = 0; j < vectors; j++) NAME(store)(tile + (i * vectors + j) * VL, acc[i][j]);
}

static void NAME(spread)(int rows, int vectors, ptrdiff_t L, const REAL *source, const ptrdiff_t *offset, const REAL *b,
                         const REAL *bias, REAL *tile) {
#define ONE(n) case n: NAME(spread_rows)(n, 1, L, source, offset, b, bias, tile); break;
#define TWO(n) case n: NAME(spread_rows)(n, 2, L, source, offset, b, bias, tile); break;
    if (vectors == 2) switch (rows) { ROW_COUNTS(TWO) }
    else switch (rows) { ROW_COUNTS(ONE) }
#undef ONE
#undef TWO
}

/* tile[mr, vectors * VL] (+)= sum over the pixels of images, lines and columns of a[mr] by the vectors at b + offset[j];
 * the rows of a are a_step apart. */
INLINE void NAME(pixel_rows)(const int mr, const int vectors, ptrdiff_t images, ptrdiff_t lines, ptrdiff_t columns,
                             const REAL *a, ptrdiff_t a_step, const REAL *b, ptrdiff_t image_step,
                             ptrdiff_t line_step, ptrdiff_t column_step, const ptrdiff_t *offset, REAL *tile, int accumulate) {
    NAME(vec) acc[MR][4];
    ptrdiff_t start[4];
    UNROLL for (int j = 0; j < vectors; j++) start[j] = offset[j];
    UNROLL for (int i = 0; i < mr; i++)
        UNROLL for (int j = 0; j < vectors; j++) acc[i][j] = (NAME(vec)){0};
    for (ptrdiff_t image = 0; image < images; image++)
        for (ptrdiff_t line = 0; line < lines; line++) {
            const REAL *pixel = b + image * image_step + line * line_step;
            for (ptrdiff_t column = 0; column < columns; column++, a += a_step, pixel += column_step) {
                PREFETCH(a + STEPS_AHEAD_A * a_step);
                NAME(vec) row[4];
                UNROLL for (int j = 0; j < vectors; j++) row[j] = NAME(load)(pixel + start[j]);
                UNROLL for (int i = 0; i < mr; i++)
                    UNROLL for (int j = 0; j < vectors; j++) acc[i][j] += a[i] * row[j];
            }
        }
    UNROLL for (int i = 0; i < mr; i++)
        UNROLL for (int j = 0; j < vectors; j++) {
            REAL *const target = tile + (i * vectors + j) * VL;
            NAME(store)(target, accumulate ? NAME(load)(target) + acc[i][j] : acc[i][j]);
        }
}

static void NAME(pixel_sums)(int mr, int vectors, ptrdiff_t images, ptrdiff_t lines, ptrdiff_t columns, const REAL *a,
                             ptrdiff_t a_step, const REAL *b, ptrdiff_t image_step, ptrdiff_t line_step, ptrdiff_t column_step,
                             const ptrdiff_t *offset, REAL *tile, int accumulate) {
#define CASE(n, v) case (n) * 4 + (v): NAME(pixel_rows)(n, v, images, lines, columns, a, a_step, b, image_step, line_step, \
                                                        column_step, offset, tile, accumulate); break;
    switch (mr * 4 + vectors) { TILE_SIZES(CASE) }
#undef CASE
}

/* tile[OUTER_ROWS, vectors * VL] (+)= many . few: row i of `many` lies at i * step, row l of `few` has vectors * VL. */
INLINE void NAME(outer_rows)(const int vectors, ptrdiff_t L, const REAL *many, ptrdiff_t step, const REAL *few,
                             REAL *tile, int accumulate) {
    NAME(vec) acc[OUTER_ROWS][OUTER_VECTORS];
    UNROLL for (int i = 0; i < OUTER_ROWS; i++)
        UNROLL for (int j = 0; j < vectors; j++) acc[i][j] = (NAME(vec)){0};
    for (ptrdiff_t l = 0; l < L; l++, few += vectors * VL) {
        NAME(vec) b[OUTER_VECTORS];
        UNROLL for (int j = 0; j < vectors; j++) b[j] = NAME(load)(few + j * VL);
        UNROLL for (int i = 0; i < OUTER_ROWS; i++)
            UNROLL for (int j = 0; j < vectors; j++) acc[i][j] += many[i * step + l] * b[j];
    }
    UNROLL for (int i = 0; i < OUTER_ROWS; i++)
        UNROLL for (int j = 0; j < vectors; j++) {
            REAL *const target = tile + (i * vectors + j) * VL;
            NAME(store)(target, accumulate ? NAME(load)(target) + acc[i][j] : acc[i][j]);
        }
}

static void NAME(outer)(int vectors, ptrdiff_t L, const REAL *many, ptrdiff_t step, const REAL *few, REAL *tile,
                        int accumulate) {
#define CASE(n) case n: NAME(outer_rows)(n, L, many, step, few, tile, accumulate); break;
    switch (vectors) {
        CASE(1) CASE(2)
#if OUTER_VECTORS > 2
        CASE(3) CASE(4)
#endif
    }
#undef CASE
}

/* c[mr, vectors * VL] = bias + sum over channels and taps of a source, read where it lies: vector j of tap t at
 * source + channel * channel_step + offset[t] + j * VL, in the lanes of masks[j][t]. masks[j][taps] has those of c. */
INLINE void NAME(masked_rows)(const int mr, const int vectors, ptrdiff_t channels, ptrdiff_t taps, const REAL *a,
                              const REAL *source, ptrdiff_t channel_step, const ptrdiff_t *offset,
                              const uint16_t *masks, const REAL *bias, REAL *c, ptrdiff_t ldc) {
    NAME(vec) acc[MR][4];
    UNROLL for (int i = 0; i < mr; i++)
        UNROLL for (int j = 0; j < vectors; j++) acc[i][j] = (NAME(vec)){0} + (bias ? bias[i] : 0);
    const ptrdiff_t ahead = ((STEPS_AHEAD_B - 1) / taps + 1) * channel_step;
    for (ptrdiff_t channel = 0; channel < channels; channel++, source += channel_step)
        for (ptrdiff_t t = 0; t < taps; t++, a += mr) {
            if (mr > WIDE_ROWS)
                UNROLL for (int j = 0; j < vectors; j += LINE_BYTES / VECTOR_BYTES)
                    PREFETCH(source + ahead + offset[t] + j * VL);
            NAME(vec) b[4];
            UNROLL for (int j = 0; j < vectors; j++)
                b[j] = NAME(load_masked)(masks[j * (taps + 1) + t], source + offset[t] + j * VL);
            UNROLL for (int i = 0; i < mr; i++)
                UNROLL for (int j = 0; j < vectors; j++) acc[i][j] += a[i] * b[j];
        }
    UNROLL for (int i = 0; i < mr; i++)
        UNROLL for (int j = 0; j < vectors; j++)
            NAME(store_masked)(masks[j * (taps + 1) + taps], c + i * ldc + j * VL, acc[i][j]);
}

static void NAME(masked)(int mr, int vectors, ptrdiff_t channels, ptrdiff_t taps, const REAL *a, const REAL *source,
                         ptrdiff_t channel_step, const ptrdiff_t *offset, const uint16_t *masks, const REAL *bias,
                         REAL *c, ptrdiff_t ldc) {
#define CASE(n, v) case (n) * 4 + (v): NAME(masked_rows)(n, v, channels, taps, a, source, channel_step, offset, masks, \
                                                         bias, c, ldc); break;
    switch (mr * 4 + vectors) { TILE_SIZES(CASE) }
#undef CASE
}

/* Sum of the lanes, halves added to halves. */
INLINE REAL NAME(lanes_sum)(NAME(vec) v) {
#if defined(__AVX512F__)
    return REDUCE_ADD(v); /* GCC takes the loops below lane by lane */
#else
    REAL lane[VL];
    memcpy(lane, &v, sizeof v);
    UNROLL for (int half = VL / 2; half > 0; half /= 2)
        UNROLL for (int j = 0; j < half; j++) lane[j] += lane[j + half];
    return lane[0];
#endif
}

/* sums[i, j] += a[i * a_step + pixel] . b[offset[j] + pixel] over lines of n pixels, n a multiple of VL. */
INLINE void NAME(dot_tile)(const int rows, const int columns, ptrdiff_t lines, ptrdiff_t n, const REAL *a,
                           ptrdiff_t a_step, ptrdiff_t a_line, const REAL *b, ptrdiff_t b_line,
                           const ptrdiff_t *offset, REAL *sums, ptrdiff_t sums_step) {
    NAME(vec) acc[DOT_ROWS][DOT_COLUMNS_OF_ONE_ROW];
    const REAL *column[DOT_COLUMNS_OF_ONE_ROW];
    UNROLL for (int j = 0; j < columns; j++) column[j] = b + offset[j];
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int j = 0; j < columns; j++) acc[i][j] = (NAME(vec)){0};
    for (ptrdiff_t line = 0; line < lines; line++, a += a_line) {
        for (ptrdiff_t p = 0; p < n; p += VL) {
            NAME(vec) row[DOT_ROWS];
            UNROLL for (int i = 0; i < rows; i++) row[i] = NAME(load)(a + i * a_step + p);
            UNROLL for (int j = 0; j < columns; j++) {
                NAME(vec) value = NAME(load)(column[j] + p);
                UNROLL for (int i = 0; i < rows; i++) acc[i][j] += row[i] * value;
            }
        }
        UNROLL for (int j = 0; j < columns; j++) column[j] += b_line;
    }
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int j = 0; j < columns; j++) sums[i * sums_step + j] += NAME(lanes_sum)(acc[i][j]);
}

#define SIX(CASE, r) CASE(r, 1) CASE(r, 2) CASE(r, 3) CASE(r, 4) CASE(r, 5) CASE(r, 6)
#define ONE_ROW(CASE) SIX(CASE, 1) CASE(1, 7) CASE(1, 8) CASE(1, 9) CASE(1, 10) CASE(1, 11) CASE(1, 12)
#if DOT_ROWS > 2
#define DOT_TILES(CASE) ONE_ROW(CASE) SIX(CASE, 2) SIX(CASE, 3) SIX(CASE, 4)
#else
#define DOT_TILES(CASE) ONE_ROW(CASE) SIX(CASE, 2)
#endif

static void NAME(dot)(int rows, int columns, ptrdiff_t lines, ptrdiff_t n, const REAL *a, ptrdiff_t a_step,
                      ptrdiff_t a_line, const REAL *b, ptrdiff_t b_line, const ptrdiff_t *offset, REAL *sums,
                      ptrdiff_t sums_step) {
#define CASE(r, c) case (r) * 16 + (c): NAME(dot_tile)(r, c, lines, n, a, a_step, a_line, b, b_line, offset, sums, \
                                                       sums_step); break;
    switch (rows * 16 + columns) { DOT_TILES(CASE) }
#undef CASE
}

/* sums[i, j] += a[i] * b[j], lane by lane, over the vectors of several images; sums are vectors, sums_step from row to
 * row. Column j reads b at offset[j] in the lanes of masks[vector][tap[j]], row i reads a in those of masks[vector][taps]. */
INLINE void NAME(masked_dot_tile)(const int rows, const int columns, ptrdiff_t images, ptrdiff_t vectors, const REAL *a,
                                  ptrdiff_t a_step, ptrdiff_t a_image, const REAL *b, ptrdiff_t b_image,
                                  const ptrdiff_t *offset, const ptrdiff_t *tap, const uint16_t *masks, ptrdiff_t taps,
                                  REAL *sums, ptrdiff_t sums_step) {
    NAME(vec) acc[DOT_ROWS][DOT_COLUMNS_OF_ONE_ROW];
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int j = 0; j < columns; j++) acc[i][j] = NAME(load)(sums + i * sums_step + j * VL);
    for (ptrdiff_t n = 0; n < images; n++, a += a_image, b += b_image) {
        const uint16_t *mask = masks;
        for (ptrdiff_t p = 0; p < vectors * VL; p += VL, mask += taps + 1) {
            NAME(vec) row[DOT_ROWS];
            if (taps == 1 && mask[0] == FIRST(VL)) { /* all lanes: reading masks takes longer than the products */
                UNROLL for (int i = 0; i < rows; i++) row[i] = NAME(load)(a + i * a_step + p);
                UNROLL for (int j = 0; j < columns; j++) {
                    NAME(vec) value = NAME(load)(b + offset[j] + p);
                    UNROLL for (int i = 0; i < rows; i++) acc[i][j] += row[i] * value;
                }
                continue;
            }
            UNROLL for (int i = 0; i < rows; i++) row[i] = NAME(load_masked)(mask[taps], a + i * a_step + p);
            UNROLL for (int j = 0; j < columns; j++) {
                NAME(vec) value = NAME(load_masked)(mask[tap[j]], b + offset[j] + p);
                UNROLL for (int i = 0; i < rows; i++) acc[i][j] += row[i] * value;
            }
        }
    }
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int j = 0; j < columns; j++) NAME(store)(sums + i * sums_step + j * VL, acc[i][j]);
}

static void NAME(masked_dot)(int rows, int columns, ptrdiff_t images, ptrdiff_t vectors, const REAL *a,
                             ptrdiff_t a_step, ptrdiff_t a_image, const REAL *b, ptrdiff_t b_image,
                             const ptrdiff_t *offset, const ptrdiff_t *tap, const uint16_t *masks, ptrdiff_t taps,
                             REAL *sums, ptrdiff_t sums_step) {
#define CASE(r, c) case (r) * 16 + (c): NAME(masked_dot_tile)(r, c, images, vectors, a, a_step, a_image, b, b_image, \
                                                              offset, tap, masks, taps, sums, sums_step); break;
    switch (rows * 16 + columns) { DOT_TILES(CASE) }
#undef CASE
}

/* out[i] = sum of the lanes of vector i. */
static void NAME(add_lanes)(const REAL *sums, REAL *out, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; i++) out[i] = NAME(lanes_sum)(NAME(load)(sums + i * VL));
}
#undef DOT_TILES
#undef ONE_ROW
#undef SIX
#undef ROW_COUNTS
#undef TILE_SIZES
#undef MORE_SIZES
#undef UP_TO_2
#undef UP_TO_3
#undef UP_TO_4
#undef VL
#undef FIRST
#else
static void NAME(micro)(int mr, int columns, ptrdiff_t L, const REAL *a, const REAL *b, ptrdiff_t b_step, REAL *c,
                        ptrdiff_t ldc, int accumulate) {
    for (int i = 0; i < mr; i++)
        for (int j = 0; j < columns; j++) {
            REAL sum = accumulate ? c[i * ldc + j] : 0;
            for (ptrdiff_t l = 0; l < L; l++) sum += a[l * mr + i] * b[l * b_step + j];
            c[i * ldc + j] = sum;
        }
}
INLINE void NAME(copy_run)(REAL *target, const REAL *source, ptrdiff_t n) {
    for (ptrdiff_t j = 0; j < n; j++) target[j] = source[j];
}

static void NAME(direct)(int mr, int vectors, ptrdiff_t L, const REAL *a, const REAL *source, const ptrdiff_t *offset,
                         const REAL *bias, REAL *tile) {
    const int width = vectors * VECTOR_BYTES / (int)sizeof(REAL);
    for (int i = 0; i < mr; i++)
        for (int j = 0; j < width; j++) {
            REAL sum = bias ? bias[i] : 0;
            for (ptrdiff_t l = 0; l < L; l++) sum += a[l * mr + i] * source[offset[l] + j];
            tile[i * width + j] = sum;
        }
}

static void NAME(spread)(int rows, int vectors, ptrdiff_t L, const REAL *source, const ptrdiff_t *offset, const REAL *b,
                         const REAL *bias, REAL *tile) {
    const int width = vectors * VECTOR_BYTES / (int)sizeof(REAL);
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < width; j++) {
            REAL sum = bias ? bias[j] : 0;
            for (ptrdiff_t l = 0; l < L; l++) sum += source[offset[l] + i] * b[l * width + j];
            tile[i * width + j] = sum;
        }
}

static void NAME(pixel_sums)(int mr, int vectors, ptrdiff_t images, ptrdiff_t lines, ptrdiff_t columns, const REAL *a,
                             ptrdiff_t a_step, const REAL *b, ptrdiff_t image_step, ptrdiff_t line_step, ptrdiff_t column_step,
                             const ptrdiff_t *offset, REAL *tile, int accumulate) {
    const int VL = VECTOR_BYTES / (int)sizeof(REAL), width = vectors * VL;
    for (int i = 0; i < mr; i++)
        for (int j = 0; j < width; j++) {
            REAL sum = 0;
            for (ptrdiff_t l = 0; l < images * lines * columns; l++)
                sum += a[l * a_step + i] * b[l / (lines * columns) * image_step + l / columns % lines * line_step
                                         + l % columns * column_step + offset[j / VL] + j % VL];
            tile[i * width + j] = accumulate ? tile[i * width + j] + sum : sum;
        }
}

static void NAME(outer)(int vectors, ptrdiff_t L, const REAL *many, ptrdiff_t step, const REAL *few, REAL *tile,
                        int accumulate) {
    const int width = vectors * VECTOR_BYTES / (int)sizeof(REAL);
    for (int i = 0; i < OUTER_ROWS; i++)
        for (int j = 0; j < width; j++) {
            REAL sum = 0;
            for (ptrdiff_t l = 0; l < L; l++) sum += many[i * step + l] * few[l * width + j];
            tile[i * width + j] = accumulate ? tile[i * width + j] + sum : sum;
        }
}

static void NAME(dot)(int rows, int columns, ptrdiff_t lines, ptrdiff_t n, const REAL *a, ptrdiff_t a_step,
                      ptrdiff_t a_line, const REAL *b, ptrdiff_t b_line, const ptrdiff_t *offset, REAL *sums,
                      ptrdiff_t sums_step) {
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++)
            for (ptrdiff_t line = 0; line < lines; line++)
                for (ptrdiff_t p = 0; p < n; p++)
                    sums[i * sums_step + j] += a[i * a_step + line * a_line + p] * b[offset[j] + line * b_line + p];
}

static void NAME(masked)(int mr, int vectors, ptrdiff_t channels, ptrdiff_t taps, const REAL *a, const REAL *source,
                         ptrdiff_t channel_step, const ptrdiff_t *offset, const uint16_t *masks, const REAL *bias,
                         REAL *c, ptrdiff_t ldc) {
    const int VL = VECTOR_BYTES / (int)sizeof(REAL), width = vectors * VL;
    for (int i = 0; i < mr; i++)
        for (int j = 0; j < width; j++) {
            const uint16_t *mask = masks + j / VL * (taps + 1);
            REAL sum = bias ? bias[i] : 0;
            for (ptrdiff_t l = 0; l < channels * taps; l++)
                if (mask[l % taps] >> j % VL & 1)
                    sum += a[l * mr + i] * source[l / taps * channel_step + offset[l % taps] + j];
            if (mask[taps] >> j % VL & 1) c[i * ldc + j] = sum;
        }
}

static void NAME(masked_dot)(int rows, int columns, ptrdiff_t images, ptrdiff_t vectors, const REAL *a,
                             ptrdiff_t a_step, ptrdiff_t a_image, const REAL *b, ptrdiff_t b_image,
                             const ptrdiff_t *offset, const ptrdiff_t *tap, const uint16_t *masks, ptrdiff_t taps,
                             REAL *sums, ptrdiff_t sums_step) {
    const int VL = VECTOR_BYTES / (int)sizeof(REAL);
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++)
            for (ptrdiff_t p = 0; p < images * vectors * VL; p++) {
                const ptrdiff_t n = p / (vectors * VL), pixel = p % (vectors * VL);
                const uint16_t *mask = masks + pixel / VL * (taps + 1);
                if (mask[tap[j]] >> pixel % VL & 1)
                    sums[i * sums_step + j * VL + pixel % VL] +=
                        a[i * a_step + n * a_image + pixel] * b[offset[j] + n * b_image + pixel];
            }
}

static void NAME(add_lanes)(const REAL *sums, REAL *out, ptrdiff_t n) {
    const int VL = VECTOR_BYTES / (int)sizeof(REAL);
    for (ptrdiff_t i = 0; i < n; i++) {
        out[i] = 0;
        for (int j = 0; j < VL; j++) out[i] += sums[i * VL + j];
    }
}
#endif

/* target[j] = source[j * step], and target[j * step] = source[j], for j < n. */
#if defined(__GNUC__) && defined(__AVX512F__)
#define PAIRS(copy) if (step == 2) { copy(target, source, n); return; }
#else
#define PAIRS(copy)
#endif
INLINE void NAME(take_steps)(REAL *target, const REAL *source, ptrdiff_t step, ptrdiff_t n) {
    if (step == 1) { NAME(copy_run)(target, source, n); return; }
    PAIRS(NAME(take_even))
    for (ptrdiff_t j = 0; j < n; j++) target[j] = source[j * step];
}
INLINE void NAME(put_steps)(REAL *target, const REAL *source, ptrdiff_t step, ptrdiff_t n) {
    if (step == 1) { NAME(copy_run)(target, source, n); return; }
    PAIRS(NAME(put_even))
    for (ptrdiff_t j = 0; j < n; j++) target[j * step] = source[j];
}
#undef PAIRS

/* even[j] = row[2 j] and odd[j] = row[2 j + 1] for j < n, where row[i] is source[i] for begin <= i < end, else 0. */
static void NAME(split_row)(const REAL *source, ptrdiff_t begin, ptrdiff_t end, REAL *even, REAL *odd, ptrdiff_t n) {
#if defined(__GNUC__) && defined(__AVX512F__)
#define VL LANES
#define FIRST(n) ((uint16_t)((n) >= VL ? (1u << VL) - 1 : (n) <= 0 ? 0u : (1u << (n)) - 1))
#define EVEN(j, s) 2 * (j)
#define ODD(j, s) 2 * (j) + 1
    const NAME(index) evens = {EACH_LANE(EVEN, 0)}, odds = {EACH_LANE(ODD, 0)};
    for (; n > 0; n -= VL, even += VL, odd += VL, source += 2 * VL, begin -= 2 * VL, end -= 2 * VL) {
        const NAME(vec) low = NAME(load_masked)(FIRST(end) & ~FIRST(begin), source);
        const NAME(vec) high = NAME(load_masked)(FIRST(end - VL) & ~FIRST(begin - VL), source + VL);
        NAME(store_masked)(FIRST(n), even, (NAME(vec))PERMUTE_TWO(low, (__m512i)evens, high));
        NAME(store_masked)(FIRST(n), odd, (NAME(vec))PERMUTE_TWO(low, (__m512i)odds, high));
    }
#undef VL
#undef FIRST
#undef EVEN
#undef ODD
#else
    for (ptrdiff_t j = 0; j < n; j++) {
        even[j] = 2 * j >= begin && 2 * j < end ? source[2 * j] : 0;
        odd[j] = 2 * j + 1 >= begin && 2 * j + 1 < end ? source[2 * j + 1] : 0;
    }
#endif
}

/* Pack one panel: row l is made of runs, contiguous at source + l_offset[l] + run_offset[run], of which column
 * run_start[run] is the first; run_start[runs] closes the list, and zeros follow. */
static void NAME(pack_runs)(const REAL *source, REAL *packed, ptrdiff_t L, const ptrdiff_t *l_offset, ptrdiff_t runs,
                            const ptrdiff_t *run_start, const ptrdiff_t *run_offset) {
    const int NR = 2 * VECTOR_BYTES / (int)sizeof(REAL);
#if defined(__GNUC__) && defined(__AVX512F__)
    /* A vector is put together in a register, from a masked load of each run that it meets. */
    enum { VL = LANES };
#define BITS_BELOW(n) ((1u << (n)) - 1)
    for (int first = 0; first < NR; first += VL) {
        const REAL *base[VL + 1] = {source};
        uint16_t mask[VL + 1];
        int pieces = 0;
        for (ptrdiff_t run = 0; run < runs; run++) {
            const ptrdiff_t from = run_start[run] > first ? run_start[run] - first : 0;
            const ptrdiff_t to = run_start[run + 1] < first + VL ? run_start[run + 1] - first : VL;
            if (from >= to) continue;
            base[pieces] = source + run_offset[run] + first - run_start[run];
            mask[pieces++] = (uint16_t)(BITS_BELOW(to) & ~BITS_BELOW(from));
        }
        REAL *target = packed + first;
#define LOAD(k) (k ? NAME(load_merged)(v, mask[k], base[k] + l_offset[l]) \
                   : NAME(load_masked)(mask[k], base[k] + l_offset[l]))
#define ROWS(body) for (ptrdiff_t l = 0; l < L; l++, target += NR) { \
            NAME(vec) v = {0}; \
            body; \
            NAME(store)(target, v); \
        }
        switch (pieces) {
        case 0: ROWS(); break;
        case 1: ROWS(v = LOAD(0)); break;
        case 2: ROWS(v = LOAD(0); v = LOAD(1)); break;
        case 3: ROWS(v = LOAD(0); v = LOAD(1); v = LOAD(2)); break;
        default: ROWS(for (int k = 0; k < pieces; k++) v = NAME(load_merged)(v, mask[k], base[k] + l_offset[l]));
        }
#undef LOAD
#undef ROWS
    }
#undef BITS_BELOW
#else
    for (ptrdiff_t l = 0; l < L; l++, packed += NR) {
        for (ptrdiff_t run = 0; run < runs; run++)
            NAME(copy_run)(packed + run_start[run], source + l_offset[l] + run_offset[run],
                           run_start[run + 1] - run_start[run]);
        for (ptrdiff_t j = run_start[runs]; j < NR; j++) packed[j] = 0;
    }
#endif
}

/* target[j * target_step + i] = source[i * source_step + j] for i < rows and j < columns, zeros for rows <= i < width. */
#if defined(__GNUC__) && defined(__AVX512F__)
#define VL LANES
#define FIRST(n) ((uint16_t)((n) >= VL ? (1u << VL) - 1 : (n) <= 0 ? 0u : (1u << (n)) - 1))
/* GCC picks the instructions for a shuffle whose lanes are constants; Clang has another name for it. */
#if defined(__clang__)
#define SHUFFLE(x, y, lanes) ((NAME(vec))PERMUTE_TWO(x, (__m512i)(lanes), y))
#else
#define SHUFFLE(x, y, lanes) __builtin_shuffle(x, y, lanes)
#endif
/* Rows i and i + s exchange the lanes whose bit s tells them apart. */
#define LOW(j, s) ((j) & (s) ? VL + (j) - (s) : (j))
#define HIGH(j, s) ((j) & (s) ? VL + (j) : (j) + (s))
#define EXCHANGE(s) \
    UNROLL for (int i = 0; i < VL; i++) \
        if (!(i & s)) { \
            const NAME(vec) first = v[i], second = v[i + s]; \
            v[i] = SHUFFLE(first, second, ((NAME(index)){EACH_LANE(LOW, s)})); \
            v[i + s] = SHUFFLE(first, second, ((NAME(index)){EACH_LANE(HIGH, s)})); \
        }
/* At most VL rows. */
static void NAME(transpose_part)(const REAL *source, ptrdiff_t source_step, ptrdiff_t rows, ptrdiff_t columns,
                                 REAL *target, ptrdiff_t target_step, ptrdiff_t width) {
    for (; columns > 0; columns -= VL, source += VL, target += VL * target_step) {
        const uint16_t mask = FIRST(columns);
        NAME(vec) v[VL];
        UNROLL for (int i = 0; i < VL; i++)
            v[i] = NAME(load_masked)(i < rows ? mask : 0, source + (i < rows ? i : 0) * source_step);
        EXCHANGE(1)
        EXCHANGE(2)
        EXCHANGE(4)
#if LANES > 8
        EXCHANGE(8)
#endif
        if (columns >= VL && width >= VL) {
            UNROLL for (int j = 0; j < VL; j++) NAME(store)(target + j * target_step, v[j]);
        } else {
            UNROLL for (int j = 0; j < VL; j++)
                if (j < columns) NAME(store_masked)(FIRST(width), target + j * target_step, v[j]);
        }
    }
}
#undef EXCHANGE
#undef LOW
#undef HIGH
#undef SHUFFLE
/* VL rows, and at least as many columns as 16 bytes hold. A vector takes those of four rows that lie far apart, brought
 * together by loads, which leaves half of the exchanges: those inside 16 bytes. The last columns may be done twice. */
static void NAME(transpose_whole)(const REAL *source, ptrdiff_t step, ptrdiff_t columns, REAL *target,
                                  ptrdiff_t target_step) {
    enum { B = 16 / sizeof(REAL) };
#define PIECE(i) _mm_loadu_ps((const float *)(from + (i) * step))
    for (ptrdiff_t done = 0; done < columns; done += B) {
        const ptrdiff_t first = done + B <= columns ? done : columns - B;
        const REAL *from = source + first;
        REAL *to = target + first * target_step;
        __m512 v[B];
        UNROLL for (int k = 0; k < B; k++) {
            v[k] = _mm512_insertf32x4(_mm512_castps128_ps512(PIECE(k)), PIECE(k + B), 1);
            v[k] = _mm512_insertf32x4(_mm512_insertf32x4(v[k], PIECE(k + 2 * B), 2), PIECE(k + 3 * B), 3);
        }
#if LANES > 8
        const __m512d low = (__m512d)_mm512_unpacklo_ps(v[0], v[1]), high = (__m512d)_mm512_unpackhi_ps(v[0], v[1]);
        const __m512d low2 = (__m512d)_mm512_unpacklo_ps(v[2], v[3]), high2 = (__m512d)_mm512_unpackhi_ps(v[2], v[3]);
        _mm512_storeu_pd(to, _mm512_unpacklo_pd(low, low2));
        _mm512_storeu_pd(to + target_step, _mm512_unpackhi_pd(low, low2));
        _mm512_storeu_pd(to + 2 * target_step, _mm512_unpacklo_pd(high, high2));
        _mm512_storeu_pd(to + 3 * target_step, _mm512_unpackhi_pd(high, high2));
#else
        _mm512_storeu_pd(to, _mm512_unpacklo_pd((__m512d)v[0], (__m512d)v[1]));
        _mm512_storeu_pd(to + target_step, _mm512_unpackhi_pd((__m512d)v[0], (__m512d)v[1]));
#endif
    }
#undef PIECE
}
#undef VL
#undef FIRST

static void NAME(transpose)(const REAL *source, ptrdiff_t source_step, ptrdiff_t rows, ptrdiff_t columns, REAL *target,
                            ptrdiff_t target_step, ptrdiff_t width) {
    for (; width > 0; width -= LANES, rows -= LANES, target += LANES, source += LANES * source_step)
        if (rows >= LANES && columns * sizeof(REAL) >= 16)
            NAME(transpose_whole)(source, source_step, columns, target, target_step);
        else
            NAME(transpose_part)(source, source_step, rows, columns, target, target_step, width);
}
#else
static void NAME(transpose)(const REAL *source, ptrdiff_t source_step, ptrdiff_t rows, ptrdiff_t columns, REAL *target,
                            ptrdiff_t target_step, ptrdiff_t width) {
    for (ptrdiff_t block = 0; block < columns; block += 64) /* a stretch of the target that stays in L1 */
        for (ptrdiff_t i = 0; i < width; i++)
            for (ptrdiff_t j = block; j < columns && j < block + 64; j++)
                target[j * target_step + i] = i >= rows ? 0 : source[i * source_step + j];
}
#endif

/* 1 if any of n values is NaN or infinite: its exponent bits are all ones. */
static int NAME(has_nonfinite)(const REAL *x, ptrdiff_t n) {
    int found = 0;
    for (ptrdiff_t i = 0; i < n; i++) {
        BITS bits;
        memcpy(&bits, x + i, sizeof bits);
        found |= (bits & EXPONENT) == EXPONENT;
    }
    return found;
}

/* Sum of n values in double precision over eight fixed lanes. */
static double NAME(lane_sum)(const REAL *x, ptrdiff_t n) {
    double lane[8] = {0};
    ptrdiff_t i = 0;
    for (; i + 8 <= n; i += 8)
        UNROLL for (int j = 0; j < 8; j++) lane[j] += x[i + j];
    for (int j = 0; i < n; i++, j++) lane[j] += x[i];
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}
