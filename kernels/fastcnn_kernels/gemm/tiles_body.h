/* Tiles of sums of one dtype whose operands are read where they lie: convolutions without packed pixels. Included by micro.h
 * once per dtype, after products_body.h; no include guard by intent. */

#if defined(__GNUC__)
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

/* c[mr, vectors * VL] = bias + A . B where row l of B is read where it lies, at source + offset[l]. */
INLINE void NAME(direct_rows)(const int mr, const int vectors, ptrdiff_t L, const REAL *a, const REAL *source,
                              const ptrdiff_t *offset, const REAL *bias, REAL *c, ptrdiff_t ldc) {
    NAME(vec) acc[MR][4];
    const REAL *line = c;
    if (ldc != vectors * VL && L >= SUM_OF_LINES) /* no tile, which is in L1: its lines arrive meanwhile */
        UNROLL for (int i = 0; i < mr; i++, line += ldc) {
            STEP_BY_STEP(line);
            UNROLL for (int j = 0; j < vectors; j++) __builtin_prefetch(line + j * VL, 1);
        }
    UNROLL for (int i = 0; i < mr; i++)
        UNROLL for (int j = 0; j < vectors; j++) acc[i][j] = (NAME(vec)){0};
    for (ptrdiff_t l = 0; l < L; l++, a += mr) {
        if (mr > WIDE_ROWS) /* fewer rows would wait for the loads themselves */
            UNROLL for (int j = 0; j < vectors; j += LINE_BYTES / VECTOR_BYTES)
                PREFETCH(source + offset[l + STEPS_AHEAD_B < L ? l + STEPS_AHEAD_B : l] + j * VL);
        NAME(vec) b[4];
        UNROLL for (int j = 0; j < vectors; j++) b[j] = NAME(load)(source + offset[l] + j * VL);
        UNROLL for (int i = 0; i < mr; i++)
            UNROLL for (int j = 0; j < vectors; j++) acc[i][j] += a[i] * b[j];
    }
    UNROLL for (int i = 0; i < mr; i++, c += ldc) {
        STEP_BY_STEP(c);
        UNROLL for (int j = 0; j < vectors; j++) NAME(store)(c + j * VL, bias ? acc[i][j] + bias[i] : acc[i][j]);
    }
}

static void NAME(direct)(int mr, int vectors, ptrdiff_t L, const REAL *a, const REAL *source, const ptrdiff_t *offset,
                         const REAL *bias, REAL *c, ptrdiff_t ldc) {
#define CASE(n, v) case (n) * 4 + (v): NAME(direct_rows)(n, v, L, a, source, offset, bias, c, ldc); break;
    switch (mr * 4 + vectors) { TILE_SIZES(CASE) }
#undef CASE
}

/* tile[rows of pixels, vectors * VL channels] = bias + sum over l of source[offset[l] + pixel] by row l of b: the pixels
 * are broadcast where they lie. */
INLINE void NAME(spread_rows)(const int rows, const int vectors, ptrdiff_t L, const REAL *source,
                              const ptrdiff_t *offset, const REAL *b, const REAL *bias, REAL *tile) {
    NAME(vec) acc[MR][2];
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int j = 0; j < vectors; j++) acc[i][j] = (NAME(vec)){0};
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
        UNROLL for (int j = 0; j < vectors; j++)
            NAME(store)(tile + (i * vectors + j) * VL, bias ? acc[i][j] + NAME(load)(bias + j * VL) : acc[i][j]);
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
        UNROLL for (int j = 0; j < vectors; j++) NAME(put)(tile + (i * vectors + j) * VL, acc[i][j], accumulate);
}

static void NAME(pixel_sums)(int mr, int vectors, ptrdiff_t images, ptrdiff_t lines, ptrdiff_t columns, const REAL *a,
                             ptrdiff_t a_step, const REAL *b, ptrdiff_t image_step, ptrdiff_t line_step, ptrdiff_t column_step,
                             const ptrdiff_t *offset, REAL *tile, int accumulate) {
#define CASE(n, v) case (n) * 4 + (v): NAME(pixel_rows)(n, v, images, lines, columns, a, a_step, b, image_step, line_step, \
                                                        column_step, offset, tile, accumulate); break;
    switch (mr * 4 + vectors) { TILE_SIZES(CASE) }
#undef CASE
}

/* The same, where row i of a is a run of pixels, a_row behind the one before, and an image's rows begin a_image behind those
 * of the last one. While a line of each row passes, each is asked for the line after the next. */
INLINE void NAME(plane_rows)(const int mr, const int vectors, ptrdiff_t images, ptrdiff_t pixels, const REAL *a,
                             ptrdiff_t a_row, ptrdiff_t a_image, const REAL *b, ptrdiff_t image_step, ptrdiff_t pixel_step,
                             const ptrdiff_t *offset, REAL *tile, int accumulate) {
    enum { LINE = LINE_BYTES / sizeof(REAL), THIRDS = (MR + 2) / 3 };
    NAME(vec) acc[MR][4];
    ptrdiff_t start[4];
    UNROLL for (int j = 0; j < vectors; j++) start[j] = offset[j];
    UNROLL for (int i = 0; i < mr; i++)
        UNROLL for (int j = 0; j < vectors; j++) acc[i][j] = (NAME(vec)){0};
    for (ptrdiff_t image = 0; image < images; image++) {
        const REAL *pixel = b + image * image_step, *row[THIRDS]; /* the other rows are a scaled step from these */
        UNROLL for (int k = 0; k < (mr + 2) / 3; k++) row[k] = a + image * a_image + 3 * k * a_row;
        for (ptrdiff_t p = 0; p < pixels; p++, pixel += pixel_step) {
            const REAL *ahead = row[0] + p % LINE * a_row + LINES_AHEAD * LINE;
            UNROLL for (int i = 0; i < mr; i += LINE) PREFETCH(ahead + i * a_row);
            NAME(vec) right[4];
            UNROLL for (int j = 0; j < vectors; j++) right[j] = NAME(load)(pixel + start[j]);
            UNROLL for (int i = 0; i < mr; i++)
                UNROLL for (int j = 0; j < vectors; j++) acc[i][j] += row[i / 3][i % 3 * a_row] * right[j];
            UNROLL for (int k = 0; k < (mr + 2) / 3; k++) row[k]++;
        }
    }
    UNROLL for (int i = 0; i < mr; i++)
        UNROLL for (int j = 0; j < vectors; j++) NAME(put)(tile + (i * vectors + j) * VL, acc[i][j], accumulate);
}

static void NAME(plane_sums)(int mr, int vectors, ptrdiff_t images, ptrdiff_t pixels, const REAL *a, ptrdiff_t a_row,
                             ptrdiff_t a_image, const REAL *b, ptrdiff_t image_step, ptrdiff_t pixel_step,
                             const ptrdiff_t *offset, REAL *tile, int accumulate) {
#define CASE(n, v) case (n) * 4 + (v): NAME(plane_rows)(n, v, images, pixels, a, a_row, a_image, b, image_step, pixel_step, \
                                                        offset, tile, accumulate); break;
    switch (mr * 4 + vectors) { TILE_SIZES(CASE) }
#undef CASE
}

/* c[mr, vectors * VL] = bias + sum over channels and taps of a source, read where it lies: vector j of tap t at
 * source + channel * channel_step + offset[t] + j * VL, in the lanes of masks[j][t]. masks[j][taps] has those of c. */
INLINE void NAME(masked_rows)(const int mr, const int vectors, ptrdiff_t channels, ptrdiff_t taps, const REAL *a,
                              const REAL *source, ptrdiff_t channel_step, const ptrdiff_t *offset,
                              const uint16_t *masks, const REAL *bias, REAL *c, ptrdiff_t ldc) {
    NAME(vec) acc[MR][4];
    UNROLL for (int i = 0; i < mr; i++)
        UNROLL for (int j = 0; j < vectors; j++) acc[i][j] = (NAME(vec)){0};
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
    UNROLL for (int i = 0; i < mr; i++, c += ldc) {
        STEP_BY_STEP(c);
        UNROLL for (int j = 0; j < vectors; j++)
            NAME(store_masked)(masks[j * (taps + 1) + taps], c + j * VL, bias ? acc[i][j] + bias[i] : acc[i][j]);
    }
}

static void NAME(masked)(int mr, int vectors, ptrdiff_t channels, ptrdiff_t taps, const REAL *a, const REAL *source,
                         ptrdiff_t channel_step, const ptrdiff_t *offset, const uint16_t *masks, const REAL *bias,
                         REAL *c, ptrdiff_t ldc) {
#define CASE(n, v) case (n) * 4 + (v): NAME(masked_rows)(n, v, channels, taps, a, source, channel_step, offset, masks, \
                                                         bias, c, ldc); break;
    switch (mr * 4 + vectors) { TILE_SIZES(CASE) }
#undef CASE
}

#undef ROW_COUNTS
#undef ROW_COUNTS_OF_ONE
#undef TILE_SIZES
#undef MORE_SIZES
#undef UP_TO_2
#undef UP_TO_3
#undef UP_TO_4
#else
static void NAME(direct)(int mr, int vectors, ptrdiff_t L, const REAL *a, const REAL *source, const ptrdiff_t *offset,
                         const REAL *bias, REAL *c, ptrdiff_t ldc) {
    for (int i = 0; i < mr; i++)
        for (int j = 0; j < vectors * VL; j++) {
            REAL sum = 0;
            for (ptrdiff_t l = 0; l < L; l++) sum += a[l * mr + i] * source[offset[l] + j];
            c[i * ldc + j] = bias ? sum + bias[i] : sum;
        }
}

static void NAME(spread)(int rows, int vectors, ptrdiff_t L, const REAL *source, const ptrdiff_t *offset, const REAL *b,
                         const REAL *bias, REAL *tile) {
    const int width = vectors * VL;
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < width; j++) {
            REAL sum = 0;
            for (ptrdiff_t l = 0; l < L; l++) sum += source[offset[l] + i] * b[l * width + j];
            tile[i * width + j] = bias ? sum + bias[j] : sum;
        }
}

static void NAME(pixel_sums)(int mr, int vectors, ptrdiff_t images, ptrdiff_t lines, ptrdiff_t columns, const REAL *a,
                             ptrdiff_t a_step, const REAL *b, ptrdiff_t image_step, ptrdiff_t line_step, ptrdiff_t column_step,
                             const ptrdiff_t *offset, REAL *tile, int accumulate) {
    const int width = vectors * VL;
    for (int i = 0; i < mr; i++)
        for (int j = 0; j < width; j++) {
            REAL sum = 0;
            for (ptrdiff_t l = 0; l < images * lines * columns; l++)
                sum += a[l * a_step + i] * b[l / (lines * columns) * image_step + l / columns % lines * line_step
                                         + l % columns * column_step + offset[j / VL] + j % VL];
            tile[i * width + j] = accumulate ? tile[i * width + j] + sum : sum;
        }
}

static void NAME(plane_sums)(int mr, int vectors, ptrdiff_t images, ptrdiff_t pixels, const REAL *a, ptrdiff_t a_row,
                             ptrdiff_t a_image, const REAL *b, ptrdiff_t image_step, ptrdiff_t pixel_step,
                             const ptrdiff_t *offset, REAL *tile, int accumulate) {
    const int width = vectors * VL;
    for (int i = 0; i < mr; i++)
        for (int j = 0; j < width; j++) {
            REAL sum = 0;
            for (ptrdiff_t l = 0; l < images * pixels; l++)
                sum += a[l / pixels * a_image + i * a_row + l % pixels]
                       * b[l / pixels * image_step + l % pixels * pixel_step + offset[j / VL] + j % VL];
            tile[i * width + j] = accumulate ? tile[i * width + j] + sum : sum;
        }
}

static void NAME(masked)(int mr, int vectors, ptrdiff_t channels, ptrdiff_t taps, const REAL *a, const REAL *source,
                         ptrdiff_t channel_step, const ptrdiff_t *offset, const uint16_t *masks, const REAL *bias,
                         REAL *c, ptrdiff_t ldc) {
    const int width = vectors * VL;
    for (int i = 0; i < mr; i++)
        for (int j = 0; j < width; j++) {
            const uint16_t *mask = masks + j / VL * (taps + 1);
            REAL sum = 0;
            for (ptrdiff_t l = 0; l < channels * taps; l++)
                if (mask[l % taps] >> j % VL & 1)
                    sum += a[l * mr + i] * source[l / taps * channel_step + offset[l % taps] + j];
            if (mask[taps] >> j % VL & 1) c[i * ldc + j] = bias ? sum + bias[i] : sum;
        }
}
#endif
