/* Included once per dtype by each_dtype.h; no include guard by intent. */

#if defined(__GNUC__)
/* out[i * pitch + j] = bias + sum of weight[r, s] plane[h0 + i stride + r, w0 + j stride + s] over the taps inside the
 * plane, for i < rows <= most and j < columns, which may be more than the vectors hold. */
INLINE void NAME(gather_rows_of)(const int size, const int stride, const int vectors, const int most, const REAL *plane,
                                 ptrdiff_t H, ptrdiff_t W, ptrdiff_t h0, ptrdiff_t w0, const REAL *weight, REAL bias,
                                 REAL *out, ptrdiff_t pitch, ptrdiff_t rows, ptrdiff_t columns) {
    NAME(vec) sums[NARROW_ROWS][4];
    uint16_t mask[6][8]; /* of the vectors that begin at tap s; with stride 2 two of them for each */
    UNROLL for (int s = 0; s < size; s += stride)
        UNROLL for (int v = 0; v < stride * vectors; v++) {
            const ptrdiff_t column = w0 + s + v * VL;
            mask[s][v] = BETWEEN(-column, W - column);
        }
    UNROLL for (int i = 0; i < most; i++)
        UNROLL for (int v = 0; v < vectors; v++) sums[i][v] = (NAME(vec)){0} + bias;
    _Pragma("GCC unroll 19") for (int h = 0; h < (most - 1) * stride + size; h++) {
        if (h0 + h < 0 || h0 + h >= H) continue;
        const REAL *row = plane + (h0 + h) * W + w0;
        UNROLL for (int s = 0; s < size; s += stride) {
            NAME(vec) taps[2][4];
            UNROLL for (int v = 0; v < vectors; v++) {
                taps[0][v] = NAME(load_masked)(mask[s][stride * v], row + s + stride * v * VL);
                if (stride == 2) { /* two taps side by side: the even and the odd pixels */
                    const NAME(vec) high = NAME(load_masked)(mask[s][2 * v + 1], row + s + (2 * v + 1) * VL);
                    taps[1][v] = SHUFFLE(taps[0][v], high, ODD);
                    taps[0][v] = SHUFFLE(taps[0][v], high, EVEN);
                }
            }
            UNROLL for (int i = 0; i < most; i++) {
                const int r = h - i * stride;
                UNROLL for (int t = 0; t < stride; t++)
                    if (r >= 0 && r < size && s + t < size)
                        UNROLL for (int v = 0; v < vectors; v++) sums[i][v] += weight[r * size + s + t] * taps[t][v];
            }
        }
    }
    UNROLL for (int i = 0; i < most; i++)
        if (i < rows)
            UNROLL for (int v = 0; v < vectors; v++)
                NAME(store_masked)(FIRST(columns - v * VL), out + i * pitch + v * VL, sums[i][v]);
}

static void NAME(gather_rows)(int size, int stride, int vectors, const REAL *plane, ptrdiff_t H, ptrdiff_t W,
                              ptrdiff_t h0, ptrdiff_t w0, const REAL *weight, REAL bias, REAL *out, ptrdiff_t pitch,
                              ptrdiff_t rows, ptrdiff_t columns) {
#define CASE(a, b, c, d) case (((a) * 4 + (b)) * 8 + (c)) * 16 + (d): \
        NAME(gather_rows_of)(a, b, c, d, plane, H, W, h0, w0, weight, bias, out, pitch, rows, columns); break;
#define CASES(a, b) CASE(a, b, 1, NARROW_ROWS) CASE(a, b, 1, ROWS) CASE(a, b, 2, ROWS) CASE(a, b, 4, ROWS)
    switch (((size * 4 + stride) * 8 + vectors) * 16 + (rows > ROWS ? NARROW_ROWS : ROWS)) {
        CASES(3, 1) CASES(3, 2) CASES(5, 1) CASES(5, 2)
    }
#undef CASES
#undef CASE
}

/* The row of the input gradient with stride 2 that the taps r = first, first + 2, ... meet, in rows p, p - 1, ... of
 * dy: out[2 j + b] = sum of weight[r, s] dy[p, q0 + j + (b + left - s) / 2] over the taps s with b + left - s even, for
 * 2 j + b < columns, which may be more than the vectors hold twice. */
INLINE void NAME(scatter_row_of)(const int size, const int odd_left, const int vectors, const REAL *dy, ptrdiff_t P,
                                 ptrdiff_t Q, int first, ptrdiff_t p, ptrdiff_t q0, ptrdiff_t left, const REAL *weight,
                                 REAL *out, ptrdiff_t columns) {
    NAME(vec) sums[2][4];
    uint16_t mask[5][4];
    UNROLL for (int v = 0; v < vectors; v++) {
        sums[0][v] = sums[1][v] = (NAME(vec)){0};
        UNROLL for (int s = 0; s < size; s++) {
            const ptrdiff_t q = q0 + (((s + odd_left) % 2 + left - s) >> 1) + v * VL;
            mask[s][v] = BETWEEN(-q, Q - q);
        }
    }
    for (int r = first; r < size; r += 2, p--) {
        if (p < 0 || p >= P) continue;
        UNROLL for (int s = 0; s < size; s++) {
            const int b = (s + odd_left) % 2;
            const REAL *row = dy + p * Q + q0 + ((b + left - s) >> 1);
            UNROLL for (int v = 0; v < vectors; v++)
                sums[b][v] += weight[r * size + s] * NAME(load_masked)(mask[s][v], row + v * VL);
        }
    }
    UNROLL for (int v = 0; v < vectors; v++) {
        NAME(store_masked)(FIRST(columns - 2 * v * VL), out + 2 * v * VL, SHUFFLE(sums[0][v], sums[1][v], ZIP_LOW));
        NAME(store_masked)(FIRST(columns - (2 * v + 1) * VL), out + (2 * v + 1) * VL,
                           SHUFFLE(sums[0][v], sums[1][v], ZIP_HIGH));
    }
}

static void NAME(scatter_row)(int size, int vectors, const REAL *dy, ptrdiff_t P, ptrdiff_t Q, int first, ptrdiff_t p,
                              ptrdiff_t q0, ptrdiff_t left, const REAL *weight, REAL *out, ptrdiff_t columns) {
#define CASE(a, b, c) case ((a) * 2 + (b)) * 8 + (c): \
        NAME(scatter_row_of)(a, b, c, dy, P, Q, first, p, q0, left, weight, out, columns); break;
    switch ((size * 2 + (int)(left & 1)) * 8 + vectors) {
        CASE(3, 0, 1) CASE(3, 0, 2) CASE(3, 0, 4) CASE(3, 1, 1) CASE(3, 1, 2) CASE(3, 1, 4)
        CASE(5, 0, 1) CASE(5, 0, 2) CASE(5, 0, 4) CASE(5, 1, 1) CASE(5, 1, 2) CASE(5, 1, 4)
    }
#undef CASE
}

/* out[r, s] += sum of dy[p, q] plane[p stride + r - top, q stride + s - left] over the pixels of dy of several images,
 * whose taps lie inside the plane. All sums stay in registers; a row of the plane is loaded once for the `most` rows of
 * dy that it meets. masks[j] has the lanes of the j-th vector of a row of dy: that of dy last, before it those of the
 * plane's vectors that begin at tap s; with stride 2 those at s and VL further on for each even s. */
INLINE void NAME(dot_planes_of)(const int size, const int stride, const int most, ptrdiff_t images, const REAL *plane,
                                ptrdiff_t plane_step, ptrdiff_t H, ptrdiff_t W, ptrdiff_t top, ptrdiff_t left,
                                const REAL *dy, ptrdiff_t dy_step, ptrdiff_t P, ptrdiff_t Q,
                                const uint16_t (*masks)[DOT_MASKS], REAL *out) {
    NAME(vec) sums[5][5];
    UNROLL for (int r = 0; r < size; r++)
        UNROLL for (int s = 0; s < size; s++) sums[r][s] = (NAME(vec)){0};
    for (; images > 0; images--, plane += plane_step, dy += dy_step)
        for (ptrdiff_t p = 0; p < P; p += most) /* rows before columns: memory is read in order */
            for (ptrdiff_t j = 0; j * VL < Q; j++) {
                uint16_t mask[DOT_MASKS]; /* a copy: GCC keeps it in mask registers */
                UNROLL for (int s = 0; s < DOT_MASKS; s++) mask[s] = masks[j][s];
                const ptrdiff_t h0 = p * stride - top, w0 = j * VL * stride - left;
                NAME(vec) pixels[PLANE_ROWS(3)];
                UNROLL for (int i = 0; i < most; i++)
                    pixels[i] = NAME(load_masked)(p + i < P ? mask[DOT_MASKS - 1] : 0, dy + (p + i) * Q + j * VL);
                _Pragma("GCC unroll 16") for (int h = 0; h < (most - 1) * stride + size; h++) {
                    if (h0 + h < 0 || h0 + h >= H) continue;
                    const REAL *row = plane + (h0 + h) * W + w0;
                    UNROLL for (int s = 0; s < size; s += stride) {
                        NAME(vec) taps[2] = {NAME(load_masked)(mask[s], row + s)};
                        if (stride == 2) {
                            const NAME(vec) high = NAME(load_masked)(mask[s + 1], row + s + VL);
                            taps[1] = SHUFFLE(taps[0], high, ODD);
                            taps[0] = SHUFFLE(taps[0], high, EVEN);
                        }
                        UNROLL for (int t = 0; t < stride; t++)
                            UNROLL for (int i = 0; i < most; i++) {
                                const int r = h - i * stride;
                                if (r >= 0 && r < size && s + t < size) sums[r][s + t] += pixels[i] * taps[t];
                            }
                    }
                }
            }
    UNROLL for (int r = 0; r < size; r++)
        UNROLL for (int s = 0; s < size; s++) out[r * size + s] += NAME(lanes_sum)(sums[r][s]);
}

static void NAME(dot_planes)(int size, int stride, ptrdiff_t images, const REAL *plane, ptrdiff_t plane_step,
                             ptrdiff_t H, ptrdiff_t W, ptrdiff_t top, ptrdiff_t left, const REAL *dy,
                             ptrdiff_t dy_step, ptrdiff_t P, ptrdiff_t Q, const uint16_t *masks, REAL *out) {
#define CASE(a, b) case (a) * 4 + (b): \
        NAME(dot_planes_of)(a, b, PLANE_ROWS(a), images, plane, plane_step, H, W, top, left, dy, dy_step, P, Q, \
                            (const uint16_t (*)[DOT_MASKS])masks, out); break;
    switch (size * 4 + stride) { CASE(3, 1) CASE(3, 2) CASE(5, 1) CASE(5, 2) }
#undef CASE
}
#else
static void NAME(gather_rows)(int size, int stride, int vectors, const REAL *plane, ptrdiff_t H, ptrdiff_t W,
                              ptrdiff_t h0, ptrdiff_t w0, const REAL *weight, REAL bias, REAL *out, ptrdiff_t pitch,
                              ptrdiff_t rows, ptrdiff_t columns) {}
static void NAME(scatter_row)(int size, int vectors, const REAL *dy, ptrdiff_t P, ptrdiff_t Q, int first, ptrdiff_t p,
                              ptrdiff_t q0, ptrdiff_t left, const REAL *weight, REAL *out, ptrdiff_t columns) {}
static void NAME(dot_planes)(int size, int stride, ptrdiff_t images, const REAL *plane, ptrdiff_t plane_step,
                             ptrdiff_t H, ptrdiff_t W, ptrdiff_t top, ptrdiff_t left, const REAL *dy,
                             ptrdiff_t dy_step, ptrdiff_t P, ptrdiff_t Q, const uint16_t *masks, REAL *out) {}
#endif
