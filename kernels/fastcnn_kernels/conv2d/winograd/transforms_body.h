/* Included once per dtype by each_dtype.h; no include guard by intent. */

#if defined(__GNUC__)
/* Four points of a plane of stride 2 in an image, from 4 pixels; in the results, 4 pixels from four points. */
INLINE void NAME(four_points)(NAME(vec) x0, NAME(vec) x1, NAME(vec) x2, NAME(vec) x3, NAME(vec) *y, const int y_step) {
    const NAME(vec) even_c = x3 - (REAL)PD2 * x1, odd_c = x2 - (REAL)PD2 * x0;
    const NAME(vec) even_d = x3 - (REAL)PC2 * x1, odd_d = x2 - (REAL)PC2 * x0;
    y[0] = even_c + (REAL)PC * odd_c;
    y[y_step] = even_c - (REAL)PC * odd_c;
    y[2 * y_step] = even_d + (REAL)PD * odd_d;
    y[3 * y_step] = even_d - (REAL)PD * odd_d;
}

INLINE void NAME(four_pixels)(const NAME(vec) *x, const int x_step, NAME(vec) *y, const int y_step) {
    const NAME(vec) even_c = x[0] + x[x_step], odd_c = x[0] - x[x_step];
    const NAME(vec) even_d = x[2 * x_step] + x[3 * x_step], odd_d = x[2 * x_step] - x[3 * x_step];
    y[0] = even_c + even_d;
    y[y_step] = (REAL)PC * odd_c + (REAL)PD * odd_d;
    y[2 * y_step] = (REAL)PC2 * even_c + (REAL)PD2 * even_d;
    y[3 * y_step] = (REAL)(PC * PC2) * odd_c + (REAL)(PD * PD2) * odd_d;
}

/* One-dimensional transform: y[j] at y[j * y_step], likewise x; m and kind are constants. */
INLINE void NAME(transform)(const int kind, const int m, const NAME(vec) *x, const int x_step, NAME(vec) *y,
                            const int y_step) {
#define X(i) x[(i) * x_step]
#define Y(i) y[(i) * y_step]
    if ((m == DOWN || m == UP) && kind == IMAGE) {
        const int next = m == DOWN ? 2 : 1; /* from one pixel of a plane to the next */
        NAME(four_points)(X(0), X(next), X(2 * next), X(3 * next), y, y_step);
        Y(4) = X(4 * next) - (REAL)(PC2 + PD2) * X(2 * next) + (REAL)(PC2 * PD2) * X(0);
        if (m == DOWN) NAME(four_points)(X(1), X(3), X(5), X(7), &Y(5), y_step);
    } else if ((m == DOWN || m == UP) && kind == FILTER) {
        Y(0) = (REAL)NC * (X(0) + (REAL)PC * X(2));
        Y(1) = (REAL)NC * ((REAL)PC * X(2) - X(0));
        Y(2) = (REAL)ND * (X(0) + (REAL)PD * X(2));
        Y(3) = (REAL)ND * ((REAL)PD * X(2) - X(0));
        Y(4) = X(2);
        Y(5) = (REAL)NC * X(1);
        Y(6) = (REAL)-NC * X(1);
        Y(7) = (REAL)ND * X(1);
        Y(8) = (REAL)-ND * X(1);
    } else if (m == DOWN && kind == GRADIENT) {
        const NAME(vec) even_c = X(0) + (REAL)PC2 * X(2), odd_c = (REAL)PC * (X(1) + (REAL)PC2 * X(3));
        const NAME(vec) even_d = X(0) + (REAL)PD2 * X(2), odd_d = (REAL)PD * (X(1) + (REAL)PD2 * X(3));
        Y(0) = (REAL)NC * (odd_c + even_c);
        Y(1) = (REAL)NC * (odd_c - even_c);
        Y(2) = (REAL)ND * (odd_d + even_d);
        Y(3) = (REAL)ND * (odd_d - even_d);
        Y(4) = X(3);
    } else if (m == DOWN && kind == WEIGHT) {
        Y(0) = (X(0) + X(1)) + (X(2) + X(3));
        Y(1) = (X(5) + X(6)) + (X(7) + X(8));
        Y(2) = (REAL)PC * (X(0) - X(1)) + (REAL)PD * (X(2) - X(3)) + X(4);
    } else if (m == DOWN) {
        NAME(four_pixels)(x, x_step, y, y_step);
        Y(3) += X(4);
    } else if (m == UP) { /* the first pixel of a patch of dy is met by the one tap, then by the two */
        NAME(four_pixels)(&X(5), x_step, y, 2 * y_step);
        NAME(four_pixels)(x, x_step, &Y(1), 2 * y_step);
        Y(7) += X(4);
    } else if (m == 4 && kind == IMAGE) {
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

/* `count` patches of n x n vectors, of which only the first `lanes` count, transformed along both axes. Number e of the
 * results goes to target[places[e]], or to target[e * e_step] where no places are given. */
INLINE void NAME(patches_of)(const int kind, const int m, ptrdiff_t count, ptrdiff_t lanes, const REAL *source,
                             ptrdiff_t source_step, ptrdiff_t row_step, ptrdiff_t column_step, REAL *target,
                             ptrdiff_t target_step, ptrdiff_t e_step, const ptrdiff_t *places) {
    const int in = kind == FILTER ? 3 : kind == GRADIENT ? SIDE(m) : PATCH(m);
    const int out = kind == WEIGHT ? 3 : kind == GRADIENT ? SUMS(m) : kind == FILTER && m == UP ? 9 : PATCH(m);
    const uint16_t mask = FIRST(lanes);
    for (; count > 0; count--, source += source_step, target += target_step) {
        NAME(vec) half[9][9];
        UNROLL for (int j = 0; j < in; j++) {
            NAME(vec) x[9];
            const REAL *p = source + j * column_step;
            UNROLL for (int i = 0; i < in; i++, p += row_step) {
                STEP_BY_STEP(p);
                x[i] = lanes >= VL ? NAME(load)(p) : NAME(load_masked)(mask, p);
            }
            NAME(transform)(kind, m, x, 1, &half[0][j], 9);
        }
        REAL *next = target;
        UNROLL for (int i = 0; i < out; i++) {
            NAME(vec) y[9];
            NAME(transform)(kind, m, half[i], 1, y, 1);
            UNROLL for (int j = 0; j < out; j++, next += e_step) {
                STEP_BY_STEP(next);
                REAL *p = places ? target + places[i * out + j] : next;
                if (lanes >= VL) NAME(store)(p, y[j]); else NAME(store_masked)(mask, p, y[j]);
            }
        }
    }
}

static void NAME(patches)(int kind, int m, ptrdiff_t count, ptrdiff_t lanes, const REAL *source, ptrdiff_t source_step,
                          ptrdiff_t row_step, ptrdiff_t column_step, REAL *target, ptrdiff_t target_step,
                          ptrdiff_t e_step) {
#define CASE(k, tile) case (k) * 16 + (tile): NAME(patches_of)(k, tile, count, lanes, source, source_step, row_step, \
                                                              column_step, target, target_step, e_step, NULL); break;
    switch (kind * 16 + m) {
        CASE(IMAGE, 2) CASE(IMAGE, 4) CASE(IMAGE, DOWN) CASE(GRADIENT, 2) CASE(GRADIENT, 4) CASE(GRADIENT, DOWN)
    }
#undef CASE
}

/* The function of a constant tile for each tile. */
#define EACH_TILE(m, function, ...)                          \
    switch (m) {                                             \
        case 2: NAME(function)(2, __VA_ARGS__); break;       \
        case 4: NAME(function)(4, __VA_ARGS__); break;       \
        case UP: NAME(function)(UP, __VA_ARGS__); break;     \
        case DOWN: NAME(function)(DOWN, __VA_ARGS__); break; \
    }

/* `count` filters of 3 x 3 vectors; places as in `patches_of`. */
INLINE void NAME(filters_of)(const int m, ptrdiff_t count, ptrdiff_t lanes, const REAL *source, ptrdiff_t row_step,
                             ptrdiff_t column_step, REAL *target, const ptrdiff_t *places) {
    NAME(patches_of)(FILTER, m, count, lanes, source, VL, row_step, column_step, target, VL, 0, places);
}

static void NAME(filters)(int m, ptrdiff_t count, ptrdiff_t lanes, const REAL *source, ptrdiff_t row_step,
                          ptrdiff_t column_step, REAL *target, const ptrdiff_t *places) {
    EACH_TILE(m, filters_of, count, lanes, source, row_step, column_step, target, places)
}

/* The 3 x 3 taps that the products of a weight gradient come to: a vector each, one after the other. A function of its
 * own, without the loop over patches. */
INLINE void NAME(taps_of)(const int m, ptrdiff_t lanes, const REAL *sums, ptrdiff_t e_step, REAL *target) {
    NAME(patches_of)(WEIGHT, m, 1, lanes, sums, 0, PATCH(m) * e_step, e_step, target, 0, VL, NULL);
}

static void NAME(taps)(int m, ptrdiff_t lanes, const REAL *sums, ptrdiff_t e_step, REAL *target) {
    if (m == DOWN) NAME(taps_of)(DOWN, lanes, sums, e_step, target);
    else if (m == 4) NAME(taps_of)(4, lanes, sums, e_step, target);
    else NAME(taps_of)(2, lanes, sums, e_step, target);
}

/* x[j] takes every n-th element, from the j-th on, of n vectors that follow each other: every second one of half as many,
 * twice. n is 2, 4 or 8. */
INLINE void NAME(every)(const int n, const NAME(vec) *v, NAME(vec) *x) {
    NAME(vec) now[8];
    UNROLL for (int i = 0; i < n; i++) x[i] = v[i];
    UNROLL for (int step = 1; step < n; step *= 2) {
        UNROLL for (int i = 0; i < n; i++) now[i] = x[i];
        UNROLL for (int i = 0; i < n / 2; i++) {
            x[i] = SHUFFLE(now[2 * i], now[2 * i + 1], EVEN);
            x[n / 2 + i] = SHUFFLE(now[2 * i], now[2 * i + 1], ODD);
        }
    }
}

/* The way back. */
INLINE void NAME(interleave)(const int n, const NAME(vec) *x, NAME(vec) *v) {
    NAME(vec) now[8];
    UNROLL for (int i = 0; i < n; i++) v[i] = x[i];
    UNROLL for (int step = 1; step < n; step *= 2) {
        UNROLL for (int i = 0; i < n; i++) now[i] = v[i];
        UNROLL for (int i = 0; i < n / 2; i++) {
            v[2 * i] = SHUFFLE(now[i], now[n / 2 + i], ZIP_LOW);
            v[2 * i + 1] = SHUFFLE(now[i], now[n / 2 + i], ZIP_HIGH);
        }
    }
}

/* A row of patches of an H x W plane, transformed along its columns only: pixel (top + i, left + j) is row i of column
 * j; rows[e * pitch + j] for j < n, where all that lies outside the plane is zero. The columns that the last patch shares
 * with none, which the next row of patches will overwrite, go to tails[(2 e + 0 or 1) * NR]. */
INLINE void NAME(image_rows_of)(const int m, const REAL *plane, ptrdiff_t H, ptrdiff_t W, ptrdiff_t top, ptrdiff_t left,
                                ptrdiff_t n, REAL *rows, ptrdiff_t pitch, REAL *tails) {
    const int patch = PATCH(m), shared = PATCH(m) - STEP(m);
    const int beyond = left + n - shared >= W && (n - 1) % VL < shared; /* the last vector has only zeros, for tails */
    for (ptrdiff_t j = 0; j < n - beyond * shared; j += VL) {
        const ptrdiff_t column = left + j;
        const uint16_t mask = BETWEEN(-column, W - column);
        NAME(vec) x[9], y[9];
        UNROLL for (int i = 0; i < patch; i++) {
            const ptrdiff_t h = top + i;
            x[i] = (NAME(vec)){0};
            if (h >= 0 && h < H)
                x[i] = mask == FIRST(VL) ? NAME(load)(plane + h * W + column)
                                         : NAME(load_masked)(mask, plane + h * W + column);
        }
        NAME(transform)(IMAGE, m, x, 1, y, 1);
        UNROLL for (int i = 0; i < patch; i++) NAME(store)(rows + i * pitch + j, y[i]);
    }
    UNROLL for (int i = 0; i < patch; i++)
        UNROLL for (int j = 0; j < shared; j++) tails[(2 * i + j) * 2 * VL] = beyond ? 0 : rows[i * pitch + n - shared + j];
}

static void NAME(image_rows)(int m, const REAL *plane, ptrdiff_t H, ptrdiff_t W, ptrdiff_t top, ptrdiff_t left,
                             ptrdiff_t n, REAL *rows, ptrdiff_t pitch, REAL *tails) {
    EACH_TILE(m, image_rows_of, plane, H, W, top, left, n, rows, pitch, tails)
}

/* Transform those rows along themselves: lane t of target[places[e]] is patch t, which begins at column t STEP(m). The
 * bits of `ends` are the last patches of their rows, which have their tails for the columns from STEP(m) on. */
INLINE void NAME(rows_to_lanes_of)(const int m, const REAL *rows, ptrdiff_t pitch, const REAL *tails, uint64_t ends,
                                   ptrdiff_t tiles, REAL *target, const ptrdiff_t *places) {
    const int patch = PATCH(m), step = STEP(m), shared = patch - step;
    for (ptrdiff_t t = 0; t < tiles; t += VL)
        UNROLL for (int i = 0; i < patch; i++) {
            const REAL *row = rows + i * pitch + t * step, *tail = tails + 2 * i * 2 * VL + t;
            NAME(vec) v[8], x[9], y[9];
            UNROLL for (int j = 0; j < step; j++) v[j] = NAME(load)(row + j * VL);
            NAME(every)(step, v, x);
            UNROLL for (int j = 0; j < shared; j++) { /* these columns are the next patch's first */
                const NAME(vec) next = SHUFFLE(x[j], NAME(load)(row + step * VL + j), NEXT);
                x[step + j] = NAME(load_merged)(next, (uint16_t)(ends >> t) & FIRST(VL), tail + j * 2 * VL);
            }
            NAME(transform)(IMAGE, m, x, 1, y, 1);
            UNROLL for (int j = 0; j < patch; j++) {
                REAL *p = target + places[i * patch + j] + t;
                if (tiles - t >= VL) NAME(store)(p, y[j]); else NAME(store_masked)(FIRST(tiles - t), p, y[j]);
            }
        }
}

static void NAME(rows_to_lanes)(int m, const REAL *rows, ptrdiff_t pitch, const REAL *tails, uint64_t ends,
                                ptrdiff_t tiles, REAL *target, const ptrdiff_t *places) {
    EACH_TILE(m, rows_to_lanes_of, rows, pitch, tails, ends, tiles, target, places)
}

/* Turns lanes of check[VL] into NaN where any of n vectors is not finite, or much too large. */
#define WATCH(check, v) check += (v) * MUCH * 0
static void NAME(watch)(const REAL *values, ptrdiff_t n, REAL *check) {
    NAME(vec) large = NAME(load)(check);
    for (ptrdiff_t i = 0; i < n; i++) WATCH(large, NAME(load)(values + i * VL));
    NAME(store)(check, large);
}

/* Results of consecutive tiles, side by side: rows[i * pitch + t SIDE(m) + j] is pixel (i, j) of tile t; check as in
 * `watch`. */
INLINE void NAME(lanes_to_rows_of)(const int m, const REAL *sums, ptrdiff_t e_step, ptrdiff_t tiles, REAL bias,
                                   REAL *rows, ptrdiff_t pitch, REAL *check) {
    const int of = SUMS(m), side = SIDE(m);
    NAME(vec) large = NAME(load)(check);
    for (ptrdiff_t t = 0; t < tiles; t += VL) {
        const uint16_t mask = FIRST(tiles - t);
        NAME(vec) half[8][9];
        UNROLL for (int j = 0; j < of; j++) {
            NAME(vec) x[9];
            const REAL *p = sums + j * e_step + t;
            UNROLL for (int i = 0; i < of; i++, p += of * e_step) {
                STEP_BY_STEP(p);
                x[i] = mask == FIRST(VL) ? NAME(load)(p) : NAME(load_masked)(mask, p);
            }
            NAME(transform)(RESULT, m, x, 1, &half[0][j], 9);
        }
        UNROLL for (int i = 0; i < side; i++) {
            NAME(vec) y[8], v[8];
            NAME(transform)(RESULT, m, half[i], 1, y, 1);
            UNROLL for (int j = 0; j < side; j++) {
                WATCH(large, y[j]);
                y[j] += bias;
            }
            NAME(interleave)(side, y, v);
            UNROLL for (int j = 0; j < side; j++) NAME(store)(rows + i * pitch + t * side + j * VL, v[j]);
        }
    }
    NAME(store)(check, large);
}

static void NAME(lanes_to_rows)(int m, const REAL *sums, ptrdiff_t e_step, ptrdiff_t tiles, REAL bias, REAL *rows,
                                ptrdiff_t pitch, REAL *check) {
    EACH_TILE(m, lanes_to_rows_of, sums, e_step, tiles, bias, rows, pitch, check)
}
#undef EACH_TILE
#undef WATCH
#else
static void NAME(patches)(int kind, int m, ptrdiff_t count, ptrdiff_t lanes, const REAL *source, ptrdiff_t source_step,
                          ptrdiff_t row_step, ptrdiff_t column_step, REAL *target, ptrdiff_t target_step,
                          ptrdiff_t e_step) {}
static void NAME(filters)(int m, ptrdiff_t count, ptrdiff_t lanes, const REAL *source, ptrdiff_t row_step,
                          ptrdiff_t column_step, REAL *target, const ptrdiff_t *places) {}
static void NAME(taps)(int m, ptrdiff_t lanes, const REAL *sums, ptrdiff_t e_step, REAL *target) {}
static void NAME(image_rows)(int m, const REAL *plane, ptrdiff_t H, ptrdiff_t W, ptrdiff_t top, ptrdiff_t left,
                             ptrdiff_t n, REAL *rows, ptrdiff_t pitch, REAL *tails) {}
static void NAME(rows_to_lanes)(int m, const REAL *rows, ptrdiff_t pitch, const REAL *tails, uint64_t ends,
                                ptrdiff_t tiles, REAL *target, const ptrdiff_t *places) {}
static void NAME(watch)(const REAL *values, ptrdiff_t n, REAL *check) {}
static void NAME(lanes_to_rows)(int m, const REAL *sums, ptrdiff_t e_step, ptrdiff_t tiles, REAL bias, REAL *rows,
                                ptrdiff_t pitch, REAL *check) {}
#endif
