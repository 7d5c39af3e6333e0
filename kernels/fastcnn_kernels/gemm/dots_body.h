/* Tiles of dot products of one dtype, whose sums are vectors until their lanes are added up. Included by micro.h once per
 * dtype, after vectors_body.h; no include guard by intent. */

#if defined(__GNUC__)
/* acc[i, j] += a[i * a_step + pixel] * column[j][pixel], lane by lane, from `pixel` up to n: `together` vectors of a column,
 * then those of the next one. Returns the first pixel of the rest. */
INLINE ptrdiff_t NAME(dot_steps)(const int rows, const int columns, const int together, ptrdiff_t pixel, ptrdiff_t n,
                                 const REAL *a, ptrdiff_t a_step, const REAL *const *column,
                                 NAME(vec) (*acc)[DOT_COLUMNS_OF_ONE_ROW]) {
    for (; pixel + together * VL <= n; pixel += together * VL) {
        NAME(vec) row[DOT_ROWS][DOT_VECTORS_OF_ONE_ROW];
        UNROLL for (int i = 0; i < rows; i++)
            UNROLL for (int v = 0; v < together; v++) {
                row[i][v] = NAME(load)(a + i * a_step + pixel + v * VL);
                IN_REGISTER(row[i][v]);
            }
        UNROLL for (int j = 0; j < columns; j++)
            UNROLL for (int v = 0; v < together; v++) {
                const NAME(vec) value = NAME(load)(column[j] + pixel + v * VL);
                UNROLL for (int i = 0; i < rows; i++) acc[i][j] += row[i][v] * value;
            }
    }
    return pixel;
}

/* Pixels before the first vector that fills a cache line, where that is the same for all columns, otherwise 0. A vector that
 * lies across two lines is loaded as slowly as two vectors: columns in L2 take 1.2 to 1.3 times as long to read. Columns of two
 * vectors are read faster as they lie. */
INLINE ptrdiff_t NAME(pixels_to_line)(const int columns, const REAL *const *column, ptrdiff_t n) {
#if defined(__AVX512F__)
    uintptr_t apart = 0;
    if (n <= 2 * VL) return 0;
    UNROLL for (int j = 1; j < columns; j++) apart |= (uintptr_t)column[j] - (uintptr_t)column[0];
    return apart % LINE_BYTES == 0 ? -(uintptr_t)column[0] % LINE_BYTES / sizeof(REAL) : 0;
#else
    return 0; /* shorter vectors lie across lines half as often, and have no masks */
#endif
}

/* acc[j] += a[pixel] * column[j][pixel] in the lanes of the mask. */
INLINE void NAME(dot_masked)(const int columns, uint16_t mask, const REAL *a, const REAL *const *column, ptrdiff_t pixel,
                             NAME(vec) *acc) {
    const NAME(vec) row = NAME(load_masked)(mask, a + pixel);
    UNROLL for (int j = 0; j < columns; j++) acc[j] += row * NAME(load_masked)(mask, column[j] + pixel);
}

/* sums[i, j] += a[i * a_step + pixel] . b[offset[j] + pixel] over lines of n pixels, n > 0 a multiple of VL. */
INLINE void NAME(dot_tile)(const int rows, const int columns, ptrdiff_t lines, ptrdiff_t n, const REAL *a,
                           ptrdiff_t a_step, ptrdiff_t a_line, const REAL *b, ptrdiff_t b_line,
                           const ptrdiff_t *offset, REAL *sums, ptrdiff_t sums_step) {
    NAME(vec) acc[DOT_ROWS][DOT_COLUMNS_OF_ONE_ROW];
    const REAL *column[DOT_COLUMNS_OF_ONE_ROW];
    UNROLL for (int j = 0; j < columns; j++) column[j] = b + offset[j];
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int j = 0; j < columns; j++) acc[i][j] = (NAME(vec)){0};
    /* Of one line only: the next may begin elsewhere in a cache line. */
    const ptrdiff_t head = rows == 1 && lines == 1 ? NAME(pixels_to_line)(columns, column, n) : 0;
    const uint16_t rest = FIRST(VL - head);
    for (ptrdiff_t line = 0; line < lines; line++, a += a_line) {
        if (head > 0) NAME(dot_masked)(columns, (uint16_t)~rest, a, column, head - VL, acc[0]);
        ptrdiff_t pixel = head;
        if (rows == 1) { /* waits for memory, which is read fastest in long stretches */
            pixel = NAME(dot_steps)(1, columns, DOT_VECTORS_OF_ONE_ROW, pixel, n, a, a_step, column, acc);
            pixel = NAME(dot_steps)(1, columns, DOT_VECTORS_OF_ONE_ROW / 2, pixel, n, a, a_step, column, acc);
        }
        pixel = NAME(dot_steps)(rows, columns, 1, pixel, n, a, a_step, column, acc);
        if (head > 0) NAME(dot_masked)(columns, rest, a, column, pixel, acc[0]);
        UNROLL for (int j = 0; j < columns; j++) column[j] += b_line;
    }
    if (head > 0) UNROLL for (int j = 0; j < columns; j++) acc[0][j] = NAME(turned)(acc[0][j], head);
    const int count = rows * columns;
    UNROLL for (int first = 0; first < count; first += VL) {
        NAME(vec) v[VL];
        REAL lane[VL];
        UNROLL for (int k = 0; k < VL; k++)
            v[k] = first + k < count ? acc[(first + k) / columns][(first + k) % columns] : (NAME(vec)){0};
        NAME(store)(lane, NAME(lanes_sums)(v));
        UNROLL for (int k = 0; k < VL; k++)
            if (first + k < count) sums[(first + k) / columns * sums_step + (first + k) % columns] += lane[k];
    }
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
 * row. Rows of masks: lanes in which a is read, then those of the taps, in turn, as often as the widest tile needs them;
 * column j reads b at offset[j] in those of tap first + j. */
INLINE void NAME(masked_dot_tile)(const int rows, const int columns, ptrdiff_t images, ptrdiff_t vectors, const REAL *a,
                                  ptrdiff_t a_step, ptrdiff_t a_image, const REAL *b, ptrdiff_t b_image,
                                  const ptrdiff_t *offset, const uint16_t *masks, ptrdiff_t first, ptrdiff_t taps,
                                  REAL *sums, ptrdiff_t sums_step) {
    NAME(vec) acc[DOT_ROWS][DOT_COLUMNS_OF_ONE_ROW];
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int j = 0; j < columns; j++) acc[i][j] = NAME(load)(sums + i * sums_step + j * VL);
    for (ptrdiff_t n = 0; n < images; n++, a += a_image, b += b_image) {
        const uint16_t *mask = masks, *of_tap = masks + 1 + first;
        for (ptrdiff_t p = 0; p < vectors * VL; p += VL, mask += MASKS_OF(taps), of_tap += MASKS_OF(taps)) {
            NAME(vec) row[DOT_ROWS];
            if (taps == 1 && mask[1] == FIRST(VL)) { /* all lanes: reading masks takes longer than the products */
                UNROLL for (int i = 0; i < rows; i++) row[i] = NAME(load)(a + i * a_step + p);
                UNROLL for (int j = 0; j < columns; j++) {
                    NAME(vec) value = NAME(load)(b + offset[j] + p);
                    UNROLL for (int i = 0; i < rows; i++) acc[i][j] += row[i] * value;
                }
                continue;
            }
            UNROLL for (int i = 0; i < rows; i++) row[i] = NAME(load_masked)(*mask, a + i * a_step + p);
            UNROLL for (int j = 0; j < columns; j++) {
                NAME(vec) value = NAME(load_masked)(of_tap[j], b + offset[j] + p);
                UNROLL for (int i = 0; i < rows; i++) acc[i][j] += row[i] * value;
            }
        }
    }
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int j = 0; j < columns; j++) NAME(store)(sums + i * sums_step + j * VL, acc[i][j]);
}

static void NAME(masked_dot)(int rows, int columns, ptrdiff_t images, ptrdiff_t vectors, const REAL *a,
                             ptrdiff_t a_step, ptrdiff_t a_image, const REAL *b, ptrdiff_t b_image,
                             const ptrdiff_t *offset, const uint16_t *masks, ptrdiff_t first, ptrdiff_t taps,
                             REAL *sums, ptrdiff_t sums_step) {
#define CASE(r, c) case (r) * 16 + (c): NAME(masked_dot_tile)(r, c, images, vectors, a, a_step, a_image, b, b_image, \
                                                              offset, masks, first, taps, sums, sums_step); break;
    switch (rows * 16 + columns) { DOT_TILES(CASE) }
#undef CASE
}

/* out[i] = sum of the lanes of vector i. */
static void NAME(add_lanes)(const REAL *sums, REAL *out, ptrdiff_t n) {
    ptrdiff_t i = 0;
    for (; i + VL <= n; i += VL) {
        NAME(vec) v[VL];
        UNROLL for (int k = 0; k < VL; k++) v[k] = NAME(load)(sums + (i + k) * VL);
        NAME(store)(out + i, NAME(lanes_sums)(v));
    }
    for (; i < n; i++) out[i] = NAME(lanes_sum)(NAME(load)(sums + i * VL));
}
#undef DOT_TILES
#undef ONE_ROW
#undef SIX
#else
static void NAME(dot)(int rows, int columns, ptrdiff_t lines, ptrdiff_t n, const REAL *a, ptrdiff_t a_step,
                      ptrdiff_t a_line, const REAL *b, ptrdiff_t b_line, const ptrdiff_t *offset, REAL *sums,
                      ptrdiff_t sums_step) {
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++)
            for (ptrdiff_t line = 0; line < lines; line++)
                for (ptrdiff_t p = 0; p < n; p++)
                    sums[i * sums_step + j] += a[i * a_step + line * a_line + p] * b[offset[j] + line * b_line + p];
}

static void NAME(masked_dot)(int rows, int columns, ptrdiff_t images, ptrdiff_t vectors, const REAL *a,
                             ptrdiff_t a_step, ptrdiff_t a_image, const REAL *b, ptrdiff_t b_image,
                             const ptrdiff_t *offset, const uint16_t *masks, ptrdiff_t first, ptrdiff_t taps,
                             REAL *sums, ptrdiff_t sums_step) {
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++)
            for (ptrdiff_t p = 0; p < images * vectors * VL; p++) {
                const ptrdiff_t n = p / (vectors * VL), pixel = p % (vectors * VL);
                const uint16_t *mask = masks + pixel / VL * MASKS_OF(taps);
                if (mask[1 + first + j] >> pixel % VL & 1)
                    sums[i * sums_step + j * VL + pixel % VL] +=
                        a[i * a_step + n * a_image + pixel] * b[offset[j] + n * b_image + pixel];
            }
}

static void NAME(add_lanes)(const REAL *sums, REAL *out, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; i++) {
        out[i] = 0;
        for (int j = 0; j < VL; j++) out[i] += sums[i * VL + j];
    }
}
#endif
