/* Included by micro.h once per dtype, with REAL, BITS, EXPONENT and NAME defined; no include guard by intent. */

#if defined(__GNUC__)
typedef REAL NAME(vec) __attribute__((vector_size(VECTOR_BYTES)));
typedef REAL NAME(mem) __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(REAL)), may_alias)); /* unaligned */
#define VL (VECTOR_BYTES / (int)sizeof(REAL))

INLINE NAME(vec) NAME(load)(const REAL *p) { return *(const NAME(mem) *)p; }
INLINE void NAME(store)(REAL *p, NAME(vec) v) { *(NAME(mem) *)p = v; }

INLINE void NAME(micro_rows)(const int mr, ptrdiff_t L, const REAL *a, const REAL *b, REAL *c, ptrdiff_t ldc,
                             int accumulate) {
    NAME(vec) acc[MR][2];
    UNROLL for (int i = 0; i < mr; i++) {
        acc[i][0] = accumulate ? NAME(load)(c + i * ldc) : (NAME(vec)){0};
        acc[i][1] = accumulate ? NAME(load)(c + i * ldc + VL) : (NAME(vec)){0};
    }
    for (ptrdiff_t l = 0; l < L; l++, a += mr, b += 2 * VL) {
        NAME(vec) b0 = NAME(load)(b), b1 = NAME(load)(b + VL);
        UNROLL for (int i = 0; i < mr; i++) {
            acc[i][0] += a[i] * b0;
            acc[i][1] += a[i] * b1;
        }
    }
    UNROLL for (int i = 0; i < mr; i++) {
        NAME(store)(c + i * ldc, acc[i][0]);
        NAME(store)(c + i * ldc + VL, acc[i][1]);
    }
}

/* The row count is a constant in each case, so that the sums stay in registers. */
static void NAME(micro)(int mr, ptrdiff_t L, const REAL *a, const REAL *b, REAL *c, ptrdiff_t ldc, int accumulate) {
#define ROWS(n) case n: NAME(micro_rows)(n, L, a, b, c, ldc, accumulate); break;
    switch (mr) {
        ROWS(1) ROWS(2) ROWS(3) ROWS(4) ROWS(5) ROWS(6)
#if MR > 6
        ROWS(7) ROWS(8) ROWS(9) ROWS(10) ROWS(11) ROWS(12)
#endif
#if MR > 12
        ROWS(13) ROWS(14)
#endif
    }
#undef ROWS
}

/* Copy NR elements, all of them whatever the piece's length: the next piece overwrites the excess. */
INLINE void NAME(copy_panel_row)(REAL *target, const REAL *source) {
    NAME(vec) v0 = NAME(load)(source), v1 = NAME(load)(source + VL);
    NAME(store)(target, v0);
    NAME(store)(target + VL, v1);
}

/* Copy n elements; short runs with a mask, where the level has masks: a call of memcpy costs more than they do. */
INLINE void NAME(copy_run)(REAL *target, const REAL *source, ptrdiff_t n) {
    for (; n >= VL; n -= VL, target += VL, source += VL) NAME(store)(target, NAME(load)(source));
#if defined(__AVX512F__)
    if (n > 0) {
        __mmask16 mask = (__mmask16)((1u << (n * (int)sizeof(REAL) / 4)) - 1);
        _mm512_mask_storeu_epi32(target, mask, _mm512_maskz_loadu_epi32(mask, source));
    }
#else
    for (ptrdiff_t j = 0; j < n; j++) target[j] = source[j];
#endif
}

/* tile[mr, vectors * VL] = bias + A . B where row l of B is read where it lies, at source + offset[l]. */
INLINE void NAME(direct_rows)(const int mr, const int vectors, ptrdiff_t L, const REAL *a, const REAL *source,
                              const ptrdiff_t *offset, const REAL *bias, REAL *tile) {
    NAME(vec) acc[MR][4];
    UNROLL for (int i = 0; i < mr; i++)
        UNROLL for (int j = 0; j < vectors; j++) acc[i][j] = (NAME(vec)){0} + (bias ? bias[i] : 0);
    for (ptrdiff_t l = 0; l < L; l++, a += mr) {
        NAME(vec) b[4];
        UNROLL for (int j = 0; j < vectors; j++) b[j] = NAME(load)(source + offset[l] + j * VL);
        UNROLL for (int i = 0; i < mr; i++)
            UNROLL for (int j = 0; j < vectors; j++) acc[i][j] += a[i] * b[j];
    }
    UNROLL for (int i = 0; i < mr; i++)
        UNROLL for (int j = 0; j < vectors; j++) NAME(store)(tile + (i * vectors + j) * VL, acc[i][j]);
}

static void NAME(direct)(int mr, ptrdiff_t L, const REAL *a, const REAL *source, const ptrdiff_t *offset,
                         const REAL *bias, REAL *tile) {
#define ROWS(n) case n: NAME(direct_rows)(n, n <= WIDE_ROWS ? 4 : 2, L, a, source, offset, bias, tile); break;
    switch (mr) {
        ROWS(1) ROWS(2) ROWS(3) ROWS(4) ROWS(5) ROWS(6)
#if MR > 6
        ROWS(7) ROWS(8) ROWS(9) ROWS(10) ROWS(11) ROWS(12)
#endif
#if MR > 12
        ROWS(13) ROWS(14)
#endif
    }
#undef ROWS
}

/* Sum of the lanes, halves added to halves. */
INLINE REAL NAME(lanes_sum)(NAME(vec) v) {
    REAL lane[VL];
    memcpy(lane, &v, sizeof v);
    UNROLL for (int half = VL / 2; half > 0; half /= 2)
        UNROLL for (int j = 0; j < half; j++) lane[j] += lane[j + half];
    return lane[0];
}

/* sums[i, j] += a[i * a_step + pixel] . b[offset[j] + pixel] over n pixels, n a multiple of VL. */
INLINE void NAME(dot_tile)(const int rows, const int columns, ptrdiff_t n, const REAL *a, ptrdiff_t a_step,
                           const REAL *b, const ptrdiff_t *offset, REAL *sums, ptrdiff_t sums_step) {
    NAME(vec) acc[DOT_ROWS][DOT_COLUMNS_OF_ONE_ROW];
    const REAL *column[DOT_COLUMNS_OF_ONE_ROW];
    UNROLL for (int j = 0; j < columns; j++) column[j] = b + offset[j];
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int j = 0; j < columns; j++) acc[i][j] = (NAME(vec)){0};
    for (ptrdiff_t p = 0; p < n; p += VL) {
        NAME(vec) row[DOT_ROWS];
        UNROLL for (int i = 0; i < rows; i++) row[i] = NAME(load)(a + i * a_step + p);
        UNROLL for (int j = 0; j < columns; j++) {
            NAME(vec) value = NAME(load)(column[j] + p);
            UNROLL for (int i = 0; i < rows; i++) acc[i][j] += row[i] * value;
        }
    }
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int j = 0; j < columns; j++) sums[i * sums_step + j] += NAME(lanes_sum)(acc[i][j]);
}

static void NAME(dot)(int rows, int columns, ptrdiff_t n, const REAL *a, ptrdiff_t a_step, const REAL *b,
                      const ptrdiff_t *offset, REAL *sums, ptrdiff_t sums_step) {
#define TILE(r, c) case (r) * 16 + (c): NAME(dot_tile)(r, c, n, a, a_step, b, offset, sums, sums_step); break;
#define SIX(r) TILE(r, 1) TILE(r, 2) TILE(r, 3) TILE(r, 4) TILE(r, 5) TILE(r, 6)
    switch (rows * 16 + columns) {
        SIX(1) TILE(1, 7) TILE(1, 8) TILE(1, 9) TILE(1, 10) TILE(1, 11) TILE(1, 12)
        SIX(2)
#if DOT_ROWS > 2
        SIX(3) SIX(4)
#endif
    }
#undef SIX
#undef TILE
}
#undef VL
#else
static void NAME(micro)(int mr, ptrdiff_t L, const REAL *a, const REAL *b, REAL *c, ptrdiff_t ldc, int accumulate) {
    const int NR = 2 * VECTOR_BYTES / (int)sizeof(REAL);
    for (int i = 0; i < mr; i++)
        for (int j = 0; j < NR; j++) {
            REAL sum = accumulate ? c[i * ldc + j] : 0;
            for (ptrdiff_t l = 0; l < L; l++) sum += a[l * mr + i] * b[l * NR + j];
            c[i * ldc + j] = sum;
        }
}
INLINE void NAME(copy_panel_row)(REAL *target, const REAL *source) { memcpy(target, source, 2 * VECTOR_BYTES); }

INLINE void NAME(copy_run)(REAL *target, const REAL *source, ptrdiff_t n) {
    for (ptrdiff_t j = 0; j < n; j++) target[j] = source[j];
}

static void NAME(direct)(int mr, ptrdiff_t L, const REAL *a, const REAL *source, const ptrdiff_t *offset,
                         const REAL *bias, REAL *tile) {
    const int width = (mr <= WIDE_ROWS ? 4 : 2) * VECTOR_BYTES / (int)sizeof(REAL);
    for (int i = 0; i < mr; i++)
        for (int j = 0; j < width; j++) {
            REAL sum = bias ? bias[i] : 0;
            for (ptrdiff_t l = 0; l < L; l++) sum += a[l * mr + i] * source[offset[l] + j];
            tile[i * width + j] = sum;
        }
}

static void NAME(dot)(int rows, int columns, ptrdiff_t n, const REAL *a, ptrdiff_t a_step, const REAL *b,
                      const ptrdiff_t *offset, REAL *sums, ptrdiff_t sums_step) {
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++)
            for (ptrdiff_t p = 0; p < n; p++) sums[i * sums_step + j] += a[i * a_step + p] * b[offset[j] + p];
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
