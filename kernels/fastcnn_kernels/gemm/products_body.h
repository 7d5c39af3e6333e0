/* The products of one dtype, each a tile of sums in registers. Included by micro.h once per dtype, after vectors_body.h; no
 * include guard by intent. */

#if defined(__GNUC__)
/* Store sums, added to what is there if `accumulate`. */
INLINE void NAME(put)(REAL *target, NAME(vec) sums, int accumulate) {
    NAME(store)(target, accumulate ? NAME(load)(target) + sums : sums);
}

/* The rows of A lie side by side, a_step for each l, of which mr are met. Row l of B lies at b + l * b_step; or, if it
 * `packs`, at b + offset[l], and is packed on the way: its line is asked for a few steps ahead, and what lies `far` behind it,
 * which is met later, into L2. */
INLINE void NAME(micro_rows)(const int mr, const int vectors, const int packs, ptrdiff_t L, const REAL *a, ptrdiff_t a_step,
                             const REAL *b, ptrdiff_t b_step, const ptrdiff_t *offset, ptrdiff_t far, REAL *packed,
                             REAL *c, ptrdiff_t ldc, int accumulate) {
    NAME(vec) acc[MOST_ROWS][2];
    const REAL *line = c;
    UNROLL for (int i = 0; i < mr; i++, line += ldc) {
        STEP_BY_STEP(line);
        UNROLL for (int j = 0; j < vectors; j++) { /* C is met last: its lines arrive meanwhile */
            acc[i][j] = (NAME(vec)){0};
            __builtin_prefetch(line + j * VL, 1);
        }
    }
    for (ptrdiff_t l = 0; l < L; l++, a += a_step, b += b_step) {
        PREFETCH(a + STEPS_AHEAD_A * a_step);
        const REAL *right = packs ? b + offset[l] : b;
        const REAL *ahead = packs ? b + offset[l + STEPS_AHEAD_B < L ? l + STEPS_AHEAD_B : l] : b + STEPS_AHEAD_B * b_step;
        UNROLL for (int j = 0; j < vectors; j += LINE_BYTES / VECTOR_BYTES) {
            PREFETCH(ahead + j * VL);
            if (packs) PREFETCH_FAR(right + far + j * VL);
        }
        if (packs) PREFETCH(ahead + vectors * VL - 1); /* rows where they lie begin anywhere in a line */
        NAME(vec) row[2];
        UNROLL for (int j = 0; j < vectors; j++) {
            row[j] = NAME(load)(right + j * VL);
            if (packs) NAME(store)(packed + (l * vectors + j) * VL, row[j]);
        }
        UNROLL for (int i = 0; i < mr; i++)
            UNROLL for (int j = 0; j < vectors; j++) acc[i][j] += a[i] * row[j];
    }
    UNROLL for (int i = 0; i < mr; i++, c += ldc) {
        STEP_BY_STEP(c);
        UNROLL for (int j = 0; j < vectors; j++) NAME(put)(c + j * VL, acc[i][j], accumulate);
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

#if MR > 12
#define ROW_COUNTS_OF_ONE(CASE) CASE(15) CASE(16)
#elif MOST_ROWS > MR
#define ROW_COUNTS_OF_ONE(CASE) CASE(7) CASE(8)
#else
#define ROW_COUNTS_OF_ONE(CASE)
#endif

/* A panel of A is a_step >= mr rows high. Columns behind the wanted ones come out too, up to a whole vector. */
static void NAME(micro)(int mr, int columns, ptrdiff_t L, const REAL *a, ptrdiff_t a_step, const REAL *b,
                        ptrdiff_t b_step, REAL *c, ptrdiff_t ldc, int accumulate) {
#define CASE(n, vectors) \
    case n: NAME(micro_rows)(n, vectors, 0, L, a, a_step, b, b_step, NULL, 0, NULL, c, ldc, accumulate); break;
#define ONE(n) CASE(n, 1)
#define TWO(n) CASE(n, 2)
    if (columns > VL) switch (mr) { ROW_COUNTS(TWO) }
    else switch (mr) { ROW_COUNTS(ONE) }
#undef CASE
#undef ONE
#undef TWO
}

/* micro of NR columns: row l of B lies at b + offset[l] and is packed on the way, NR columns to each row. */
static void NAME(micro_packing)(int mr, ptrdiff_t L, const REAL *a, ptrdiff_t a_step, const REAL *b,
                                const ptrdiff_t *offset, ptrdiff_t far, REAL *packed, REAL *c, ptrdiff_t ldc,
                                int accumulate) {
#define CASE(n) case n: NAME(micro_rows)(n, 2, 1, L, a, a_step, b, 0, offset, far, packed, c, ldc, accumulate); break;
    switch (mr) { ROW_COUNTS(CASE) }
#undef CASE
}

/* micro for `panels` of NR columns side by side in B, whose tiles of sums lie one after the other in C. Rows are read along
 * the panels, so what is asked for ahead is the next panel, where there is time to; not rows further down, met much later. */
INLINE void NAME(stream_rows)(const int mr, ptrdiff_t panels, ptrdiff_t L, const REAL *a, ptrdiff_t a_step, const REAL *b,
                              ptrdiff_t b_step, REAL *c, int accumulate) {
    for (; panels > 0; panels--, b += 2 * VL) {
        NAME(vec) acc[MR][2];
        UNROLL for (int i = 0; i < mr; i++)
            UNROLL for (int j = 0; j < 2; j++) acc[i][j] = (NAME(vec)){0};
        const REAL *left = a, *right = b;
        for (ptrdiff_t l = 0; l < L; l++, left += a_step, right += b_step) {
            if (mr > WIDE_ROWS)
                UNROLL for (int j = 2; j < 4; j += LINE_BYTES / VECTOR_BYTES) PREFETCH(right + j * VL);
            const NAME(vec) row[2] = {NAME(load)(right), NAME(load)(right + VL)};
            UNROLL for (int i = 0; i < mr; i++)
                UNROLL for (int j = 0; j < 2; j++) acc[i][j] += left[i] * row[j];
        }
        UNROLL for (int i = 0; i < mr; i++)
            UNROLL for (int j = 0; j < 2; j++, c += VL) NAME(put)(c, acc[i][j], accumulate);
    }
}

static void NAME(stream)(int mr, ptrdiff_t panels, ptrdiff_t L, const REAL *a, ptrdiff_t a_step, const REAL *b,
                         ptrdiff_t b_step, REAL *c, int accumulate) {
#define CASE(n) case n: NAME(stream_rows)(n, panels, L, a, a_step, b, b_step, c, accumulate); break;
    switch (mr) { ROW_COUNTS(CASE) }
#undef CASE
}

/* micro where rows of B and of C are `vectors` long, constants to the compiler; beside one there are up to MOST_ROWS. */
static void NAME(micro_dense)(int mr, int vectors, int columns, ptrdiff_t L, const REAL *a, ptrdiff_t a_step,
                              const REAL *b, REAL *c, int accumulate) {
#define CASE(n, wanted, of) \
    case n: NAME(micro_rows)(n, wanted, 0, L, a, a_step, b, of * VL, NULL, 0, NULL, c, of * VL, accumulate); break;
#define SINGLE(n) CASE(n, 1, 1)
#define HALF(n) CASE(n, 1, 2)
#define WHOLE(n) CASE(n, 2, 2)
    if (vectors == 1) switch (mr) { ROW_COUNTS(SINGLE) ROW_COUNTS_OF_ONE(SINGLE) }
    else if (columns <= VL) switch (mr) { ROW_COUNTS(HALF) }
    else switch (mr) { ROW_COUNTS(WHOLE) }
#undef CASE
#undef SINGLE
#undef HALF
#undef WHOLE
}

/* c[OUTER_ROWS, columns] (+)= a . b, neither of them packed: element l of row i of a lies at i * row_step + l * a_step,
 * row l of b at l * b_step. The last vector of columns need not be `whole`. */
INLINE void NAME(outer_rows)(const int vectors, const int whole, int columns, ptrdiff_t L, const REAL *a,
                             ptrdiff_t row_step, ptrdiff_t a_step, const REAL *b, ptrdiff_t b_step, REAL *c,
                             ptrdiff_t ldc, int accumulate) {
    const uint16_t lanes = FIRST(columns - (vectors - 1) * VL);
    const int full = whole ? vectors : vectors - 1;
    NAME(vec) acc[OUTER_ROWS][OUTER_VECTORS];
    UNROLL for (int i = 0; i < OUTER_ROWS; i++)
        UNROLL for (int j = 0; j < vectors; j++) acc[i][j] = (NAME(vec)){0};
    /* Down the columns of A no prefetcher follows; lines that share a set of L1 are as few as its ways hold. */
    const ptrdiff_t ahead = row_step == 1 ? STEPS_AHEAD_B * a_step : 0;
    for (ptrdiff_t l = 0; l < L; l++, a += a_step, b += b_step) {
        PREFETCH(a + ahead);
        NAME(vec) row[OUTER_VECTORS];
        UNROLL for (int j = 0; j < vectors; j++)
            row[j] = j < full ? NAME(load)(b + j * VL) : NAME(load_masked)(lanes, b + j * VL);
        UNROLL for (int i = 0; i < OUTER_ROWS; i++)
            UNROLL for (int j = 0; j < vectors; j++) acc[i][j] += a[i * row_step] * row[j];
    }
    UNROLL for (int i = 0; i < OUTER_ROWS; i++, c += ldc) {
        STEP_BY_STEP(c);
        UNROLL for (int j = 0; j < vectors; j++) {
            REAL *target = c + j * VL;
            if (j < full) NAME(put)(target, acc[i][j], accumulate);
            else NAME(store_masked)(lanes, target, accumulate ? NAME(load_masked)(lanes, target) + acc[i][j] : acc[i][j]);
        }
    }
}

static void NAME(outer)(int columns, ptrdiff_t L, const REAL *a, ptrdiff_t row_step, ptrdiff_t a_step, const REAL *b,
                        ptrdiff_t b_step, REAL *c, ptrdiff_t ldc, int accumulate) {
#define CASE(n, whole) \
    case 2 * (n) + (whole): NAME(outer_rows)(n, whole, columns, L, a, row_step, a_step, b, b_step, c, ldc, accumulate); break;
    switch ((columns + VL - 1) / VL * 2 + (columns % VL == 0)) {
        CASE(1, 0) CASE(1, 1) CASE(2, 0) CASE(2, 1)
#if OUTER_VECTORS > 2
        CASE(3, 0) CASE(3, 1) CASE(4, 0) CASE(4, 1)
#endif
    }
#undef CASE
}
#else
static void NAME(micro)(int mr, int columns, ptrdiff_t L, const REAL *a, ptrdiff_t a_step, const REAL *b,
                        ptrdiff_t b_step, REAL *c, ptrdiff_t ldc, int accumulate) {
    for (int i = 0; i < mr; i++)
        for (int j = 0; j < columns; j++) {
            REAL sum = accumulate ? c[i * ldc + j] : 0;
            for (ptrdiff_t l = 0; l < L; l++) sum += a[l * a_step + i] * b[l * b_step + j];
            c[i * ldc + j] = sum;
        }
}
static void NAME(micro_packing)(int mr, ptrdiff_t L, const REAL *a, ptrdiff_t a_step, const REAL *b,
                                const ptrdiff_t *offset, ptrdiff_t far, REAL *packed, REAL *c, ptrdiff_t ldc,
                                int accumulate) {
    for (ptrdiff_t l = 0; l < L; l++)
        for (int j = 0; j < 2 * VL; j++) packed[l * 2 * VL + j] = b[offset[l] + j];
    NAME(micro)(mr, 2 * VL, L, a, a_step, packed, 2 * VL, c, ldc, accumulate);
}
static void NAME(stream)(int mr, ptrdiff_t panels, ptrdiff_t L, const REAL *a, ptrdiff_t a_step, const REAL *b,
                         ptrdiff_t b_step, REAL *c, int accumulate) {
    for (; panels > 0; panels--, b += 2 * VL, c += mr * 2 * VL)
        NAME(micro)(mr, 2 * VL, L, a, a_step, b, b_step, c, 2 * VL, accumulate);
}
static void NAME(micro_dense)(int mr, int vectors, int columns, ptrdiff_t L, const REAL *a, ptrdiff_t a_step,
                              const REAL *b, REAL *c, int accumulate) {
    NAME(micro)(mr, columns, L, a, a_step, b, vectors * VL, c, vectors * VL, accumulate);
}
static void NAME(outer)(int columns, ptrdiff_t L, const REAL *a, ptrdiff_t row_step, ptrdiff_t a_step, const REAL *b,
                        ptrdiff_t b_step, REAL *c, ptrdiff_t ldc, int accumulate) {
    for (int i = 0; i < OUTER_ROWS; i++)
        for (int j = 0; j < columns; j++) {
            REAL sum = 0;
            for (ptrdiff_t l = 0; l < L; l++) sum += a[i * row_step + l * a_step] * b[l * b_step + j];
            c[i * ldc + j] = accumulate ? c[i * ldc + j] + sum : sum;
        }
}
#endif
