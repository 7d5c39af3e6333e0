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
