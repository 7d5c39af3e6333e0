/* Included once per dtype by each_dtype.h; no include guard by intent. */

#if defined(__GNUC__)
/* One-dimensional transform: y[j] at y[j * y_step], likewise x; m and kind are constants. */
INLINE void NAME(transform)(const int kind, const int m, const NAME(vec) *x, const int x_step, NAME(vec) *y,
                            const int y_step) {
#define X(i) x[(i) * x_step]
#define Y(i) y[(i) * y_step]
    if (m == 4 && kind == IMAGE) {
        const NAME(vec) even_a = X(4) - (REAL)PB2 * X(2), odd_a = (REAL)PA * (X(3) - (REAL)PB2 * X(1));
        const NAME(vec) even_b = X(4) - (REAL)PA2 * X(2), odd_b = (REAL)PB * (X(3) - (REAL)PA2 * X(1));
        Y(0) = X(4) - (REAL)(PA2 + PB2) * X(2) + (REAL)(PA2 * PB2) * X(0);
        Y(1) = even_a + odd_a;
        Y(2) = even_a - odd_a;
        Y(3) = even_b + odd_b;
        Y(4) = even_b - odd_b;
        Y(5) = X(5) - (REAL)(PA2 + PB2) * X(3) + (REAL)(PA2 * PB2) * X(1);
    } else if (m == 4 && (kind == FILTER || kind == GRADIENT)) {
        NAME(vec) even_a = X(0) + (REAL)PA2 * X(2), odd_a = (REAL)PA * X(1);
        NAME(vec) even_b = X(0) + (REAL)PB2 * X(2), odd_b = (REAL)PB * X(1);
        if (kind == GRADIENT) {
            odd_a += (REAL)(PA * PA2) * X(3);
            odd_b += (REAL)(PB * PB2) * X(3);
        }
        Y(0) = (REAL)N0 * X(0);
        Y(1) = (REAL)NA * (even_a + odd_a);
        Y(2) = (REAL)NA * (even_a - odd_a);
        Y(3) = (REAL)NB * (even_b + odd_b);
        Y(4) = (REAL)NB * (even_b - odd_b);
        Y(5) = X(kind == GRADIENT ? 3 : 2);
    } else if (m == 4) {
        const NAME(vec) even_a = X(1) + X(2), odd_a = X(1) - X(2), even_b = X(3) + X(4), odd_b = X(3) - X(4);
        Y(0) = X(0) + even_a + even_b;
        Y(1) = (REAL)PA * odd_a + (REAL)PB * odd_b;
        Y(2) = (REAL)PA2 * even_a + (REAL)PB2 * even_b;
        if (kind == WEIGHT)
            Y(2) += X(5);
        else
            Y(3) = (REAL)(PA * PA2) * odd_a + (REAL)(PB * PB2) * odd_b + X(5);
    } else if (kind == IMAGE) {
        Y(0) = X(2) - X(0);
        Y(1) = X(2) + X(1);
        Y(2) = X(2) - X(1);
        Y(3) = X(3) - X(1);
    } else if (kind == FILTER || kind == GRADIENT) {
        const NAME(vec) even = kind == FILTER ? X(0) + X(2) : X(0);
        Y(0) = -X(0);
        Y(1) = (REAL)0.5 * (even + X(1));
        Y(2) = (REAL)0.5 * (even - X(1));
        Y(3) = X(kind == FILTER ? 2 : 1);
    } else {
        Y(0) = X(0) + X(1) + X(2);
        Y(1) = X(1) - X(2);
        if (kind == WEIGHT)
            Y(2) = X(1) + X(2) + X(3);
        else
            Y(1) += X(3);
    }
#undef X
#undef Y
}

/* `count` patches of n x n vectors, of which only the first `lanes` count, transformed along both axes. */
INLINE void NAME(patches_of)(const int kind, const int m, ptrdiff_t count, ptrdiff_t lanes, const REAL *source,
                             ptrdiff_t source_step, ptrdiff_t row_step, ptrdiff_t column_step, REAL *target,
                             ptrdiff_t target_step, ptrdiff_t e_step) {
    const int in = kind == FILTER ? 3 : kind == GRADIENT ? m : m + 2, out = kind == WEIGHT ? 3 : m + 2;
    const uint16_t mask = FIRST(lanes);
    for (; count > 0; count--, source += source_step, target += target_step) {
        NAME(vec) half[6][6];
        UNROLL for (int j = 0; j < in; j++) {
            NAME(vec) x[6];
            UNROLL for (int i = 0; i < in; i++) {
                const REAL *p = source + i * row_step + j * column_step;
                x[i] = lanes >= VL ? NAME(load)(p) : NAME(load_masked)(mask, p);
            }
            NAME(transform)(kind, m, x, 1, &half[0][j], 6);
        }
        UNROLL for (int i = 0; i < out; i++) {
            NAME(vec) y[6];
            NAME(transform)(kind, m, half[i], 1, y, 1);
            UNROLL for (int j = 0; j < out; j++) {
                REAL *p = target + (i * out + j) * e_step;
                if (lanes >= VL) NAME(store)(p, y[j]); else NAME(store_masked)(mask, p, y[j]);
            }
        }
    }
}

static void NAME(patches)(int kind, int m, ptrdiff_t count, ptrdiff_t lanes, const REAL *source, ptrdiff_t source_step,
                          ptrdiff_t row_step, ptrdiff_t column_step, REAL *target, ptrdiff_t target_step,
                          ptrdiff_t e_step) {
#define CASE(k, tile) case (k) * 8 + (tile): NAME(patches_of)(k, tile, count, lanes, source, source_step, row_step, \
                                                             column_step, target, target_step, e_step); break;
    switch (kind * 8 + m) {
        CASE(IMAGE, 2) CASE(IMAGE, 4) CASE(FILTER, 2) CASE(FILTER, 4) CASE(GRADIENT, 2) CASE(GRADIENT, 4)
        CASE(WEIGHT, 2) CASE(WEIGHT, 4)
    }
#undef CASE
}

/* A row of patches of an H x W plane, transformed along its columns only: pixel (top + i, left + j) is row i of column
 * j; rows[e * pitch + j] for j < n, where all that lies outside the plane is zero. The last two columns, which the next
 * row of patches will overwrite, go to tails[(2 e + 0 or 1) * NR]. */
INLINE void NAME(image_rows_of)(const int m, const REAL *plane, ptrdiff_t H, ptrdiff_t W, ptrdiff_t top, ptrdiff_t left,
                                ptrdiff_t n, REAL *rows, ptrdiff_t pitch, REAL *tails) {
    for (ptrdiff_t j = 0; j < n; j += VL) {
        const ptrdiff_t column = left + j;
        const uint16_t mask = BETWEEN(-column, W - column);
        NAME(vec) x[6], y[6];
        UNROLL for (int i = 0; i < m + 2; i++) {
            const ptrdiff_t h = top + i;
            x[i] = (NAME(vec)){0};
            if (h >= 0 && h < H)
                x[i] = mask == FIRST(VL) ? NAME(load)(plane + h * W + column)
                                         : NAME(load_masked)(mask, plane + h * W + column);
        }
        NAME(transform)(IMAGE, m, x, 1, y, 1);
        UNROLL for (int i = 0; i < m + 2; i++) NAME(store)(rows + i * pitch + j, y[i]);
    }
    UNROLL for (int i = 0; i < m + 2; i++)
        UNROLL for (int j = 0; j < 2; j++) tails[(2 * i + j) * 2 * VL] = rows[i * pitch + n - 2 + j];
}

static void NAME(image_rows)(int m, const REAL *plane, ptrdiff_t H, ptrdiff_t W, ptrdiff_t top, ptrdiff_t left,
                             ptrdiff_t n, REAL *rows, ptrdiff_t pitch, REAL *tails) {
    if (m == 4) NAME(image_rows_of)(4, plane, H, W, top, left, n, rows, pitch, tails);
    else NAME(image_rows_of)(2, plane, H, W, top, left, n, rows, pitch, tails);
}

/* Transform those rows along themselves: lane t of target[e * e_step] is patch t, which begins at column t m. The bits
 * of `ends` are the last patches of their rows, which have their tails for the columns m and m + 1. */
INLINE void NAME(rows_to_lanes_of)(const int m, const REAL *rows, ptrdiff_t pitch, const REAL *tails, uint64_t ends,
                                   ptrdiff_t tiles, REAL *target, ptrdiff_t e_step) {
    for (ptrdiff_t t = 0; t < tiles; t += VL)
        UNROLL for (int i = 0; i < m + 2; i++) {
            const REAL *row = rows + i * pitch + t * m, *tail = tails + 2 * i * 2 * VL + t;
            NAME(vec) v[4], x[6], y[6];
            UNROLL for (int j = 0; j < m; j++) v[j] = NAME(load)(row + j * VL);
            if (m == 4) { /* every fourth element, by taking every second twice */
                const NAME(vec) e0 = SHUFFLE(v[0], v[1], EVEN), o0 = SHUFFLE(v[0], v[1], ODD);
                const NAME(vec) e1 = SHUFFLE(v[2], v[3], EVEN), o1 = SHUFFLE(v[2], v[3], ODD);
                x[0] = SHUFFLE(e0, e1, EVEN);
                x[1] = SHUFFLE(o0, o1, EVEN);
                x[2] = SHUFFLE(e0, e1, ODD);
                x[3] = SHUFFLE(o0, o1, ODD);
            } else {
                x[0] = SHUFFLE(v[0], v[1], EVEN);
                x[1] = SHUFFLE(v[0], v[1], ODD);
            }
            UNROLL for (int j = 0; j < 2; j++) { /* columns m and m + 1 are the next patch's first */
                const NAME(vec) next = SHUFFLE(x[j], NAME(load)(row + m * VL + j), NEXT);
                x[m + j] = NAME(load_merged)(next, (uint16_t)(ends >> t) & FIRST(VL), tail + j * 2 * VL);
            }
            NAME(transform)(IMAGE, m, x, 1, y, 1);
            UNROLL for (int j = 0; j < m + 2; j++) {
                REAL *p = target + (i * (m + 2) + j) * e_step + t;
                if (tiles - t >= VL) NAME(store)(p, y[j]); else NAME(store_masked)(FIRST(tiles - t), p, y[j]);
            }
        }
}

static void NAME(rows_to_lanes)(int m, const REAL *rows, ptrdiff_t pitch, const REAL *tails, uint64_t ends,
                                ptrdiff_t tiles, REAL *target, ptrdiff_t e_step) {
    if (m == 4) NAME(rows_to_lanes_of)(4, rows, pitch, tails, ends, tiles, target, e_step);
    else NAME(rows_to_lanes_of)(2, rows, pitch, tails, ends, tiles, target, e_step);
}

/* Turns lanes of check[VL] into NaN where any of n vectors is not finite, or much too large. */
#define WATCH(check, v) check += (v) * MUCH * 0
static void NAME(watch)(const REAL *values, ptrdiff_t n, REAL *check) {
    NAME(vec) large = NAME(load)(check);
    for (ptrdiff_t i = 0; i < n; i++) WATCH(large, NAME(load)(values + i * VL));
    NAME(store)(check, large);
}

/* Results of consecutive tiles, side by side: rows[i * pitch + t m + j] is pixel (i, j) of tile t; check as in `watch`. */
INLINE void NAME(lanes_to_rows_of)(const int m, const REAL *sums, ptrdiff_t e_step, ptrdiff_t tiles, REAL bias,
                                   REAL *rows, ptrdiff_t pitch, REAL *check) {
    NAME(vec) large = NAME(load)(check);
    for (ptrdiff_t t = 0; t < tiles; t += VL) {
        const uint16_t mask = FIRST(tiles - t);
        NAME(vec) half[4][6];
        UNROLL for (int j = 0; j < m + 2; j++) {
            NAME(vec) x[6];
            UNROLL for (int i = 0; i < m + 2; i++) {
                const REAL *p = sums + (i * (m + 2) + j) * e_step + t;
                x[i] = mask == FIRST(VL) ? NAME(load)(p) : NAME(load_masked)(mask, p);
            }
            NAME(transform)(RESULT, m, x, 1, &half[0][j], 6);
        }
        UNROLL for (int i = 0; i < m; i++) {
            NAME(vec) y[4], v[4];
            NAME(transform)(RESULT, m, half[i], 1, y, 1);
            UNROLL for (int j = 0; j < m; j++) {
                WATCH(large, y[j]);
                y[j] += bias;
            }
            if (m == 4) {
                const NAME(vec) e0 = SHUFFLE(y[0], y[2], ZIP_LOW), e1 = SHUFFLE(y[0], y[2], ZIP_HIGH);
                const NAME(vec) o0 = SHUFFLE(y[1], y[3], ZIP_LOW), o1 = SHUFFLE(y[1], y[3], ZIP_HIGH);
                v[0] = SHUFFLE(e0, o0, ZIP_LOW);
                v[1] = SHUFFLE(e0, o0, ZIP_HIGH);
                v[2] = SHUFFLE(e1, o1, ZIP_LOW);
                v[3] = SHUFFLE(e1, o1, ZIP_HIGH);
            } else {
                v[0] = SHUFFLE(y[0], y[1], ZIP_LOW);
                v[1] = SHUFFLE(y[0], y[1], ZIP_HIGH);
            }
            UNROLL for (int j = 0; j < m; j++) NAME(store)(rows + i * pitch + t * m + j * VL, v[j]);
        }
    }
    NAME(store)(check, large);
}

static void NAME(lanes_to_rows)(int m, const REAL *sums, ptrdiff_t e_step, ptrdiff_t tiles, REAL bias, REAL *rows,
                                ptrdiff_t pitch, REAL *check) {
    if (m == 4) NAME(lanes_to_rows_of)(4, sums, e_step, tiles, bias, rows, pitch, check);
    else NAME(lanes_to_rows_of)(2, sums, e_step, tiles, bias, rows, pitch, check);
}
#undef WATCH
#else
static void NAME(patches)(int kind, int m, ptrdiff_t count, ptrdiff_t lanes, const REAL *source, ptrdiff_t source_step,
                          ptrdiff_t row_step, ptrdiff_t column_step, REAL *target, ptrdiff_t target_step,
                          ptrdiff_t e_step) {}
static void NAME(image_rows)(int m, const REAL *plane, ptrdiff_t H, ptrdiff_t W, ptrdiff_t top, ptrdiff_t left,
                             ptrdiff_t n, REAL *rows, ptrdiff_t pitch, REAL *tails) {}
static void NAME(rows_to_lanes)(int m, const REAL *rows, ptrdiff_t pitch, const REAL *tails, uint64_t ends,
                                ptrdiff_t tiles, REAL *target, ptrdiff_t e_step) {}
static void NAME(watch)(const REAL *values, ptrdiff_t n, REAL *check) {}
static void NAME(lanes_to_rows)(int m, const REAL *sums, ptrdiff_t e_step, ptrdiff_t tiles, REAL bias, REAL *rows,
                                ptrdiff_t pitch, REAL *check) {}
#endif
