/* Included once per dtype by each_dtype.h; no include guard by intent. */

#if defined(__GNUC__)
/* All lanes the same. (GCC leaves out x - 0, which is x; x + 0 is not, for -0.) */
#define BROADCAST(type, x) ((x) - (type){0})
/* A filter of 9 taps stays in registers; of 25 each tap is read again for every product. */
#define FILTER(size, filter) \
    NAME(vec) filter##_taps[9]; \
    UNROLL for (int t = 0; t < 9; t++) filter##_taps[t] = BROADCAST(NAME(vec), filter[t])
#define TAP(size, filter, t) ((size) == 3 ? filter##_taps[t] : BROADCAST(NAME(vec), filter[t]))

/* The vector of pixels that a tap meets, source[j]; with stride 2 those of two taps side by side, source[2 j] and
 * source[2 j + 1], of the two vectors that begin at source. */
INLINE void NAME(load_taps)(const int stride, uint16_t low, uint16_t high, const REAL *source, NAME(vec) *first,
                            NAME(vec) *second) {
    const NAME(vec) begin = NAME(load_masked)(low, source);
    *first = begin;
    if (stride == 2) {
        const NAME(vec) rest = NAME(load_masked)(high, source + VL);
        *first = SHUFFLE(begin, rest, EVEN);
        *second = SHUFFLE(begin, rest, ODD);
    }
}

/* out[i * pitch + j] = bias + sum of weight[r, s] plane[h0 + i stride + r, w0 + j stride + s] over the taps inside the
 * plane, for i < rows <= ROWS and j < columns, which may be more than the vectors hold. The taps of some columns stay in
 * registers while the rows of the plane pass. */
INLINE void NAME(gather_rows_of)(const int size, const int stride, const int vectors, const REAL *plane, ptrdiff_t H,
                                 ptrdiff_t W, ptrdiff_t h0, ptrdiff_t w0, const REAL *weight, REAL bias, REAL *out,
                                 ptrdiff_t pitch, ptrdiff_t rows, ptrdiff_t columns, int activation) {
    const int together = TAP_COLUMNS(size, stride);
    NAME(vec) sums[ROWS][2];
    UNROLL for (int i = 0; i < ROWS; i++)
        UNROLL for (int v = 0; v < vectors; v++) sums[i][v] = BROADCAST(NAME(vec), bias);
    UNROLL for (int first = 0; first < size; first += together) {
        const int end = first + together < size ? first + together : size;
        NAME(vec) taps[5][5];
        uint16_t mask[6][4]; /* of the vectors that begin at tap s; with stride 2 two of them for each */
        UNROLL for (int r = 0; r < size; r++)
            UNROLL for (int s = first; s < end; s++) taps[r][s] = BROADCAST(NAME(vec), weight[r * size + s]);
        UNROLL for (int s = first; s < end; s += stride)
            UNROLL for (int v = 0; v < stride * vectors; v++) {
                const ptrdiff_t column = w0 + s + v * VL;
                mask[s][v] = BETWEEN(-column, W - column);
            }
        _Pragma("GCC unroll 17") for (int h = 0; h < (ROWS - 1) * stride + size; h++) {
            if (h0 + h < 0 || h0 + h >= H) continue;
            const REAL *row = plane + (h0 + h) * W + w0;
            UNROLL for (int s = first; s < end; s += stride) {
                NAME(vec) pixels[2][2];
                UNROLL for (int v = 0; v < vectors; v++)
                    NAME(load_taps)(stride, mask[s][stride * v], mask[s][stride * v + stride - 1],
                                    row + s + stride * v * VL, &pixels[0][v], &pixels[1][v]);
                UNROLL for (int i = 0; i < ROWS; i++) {
                    const int r = h - i * stride;
                    UNROLL for (int t = 0; t < stride; t++)
                        if (r >= 0 && r < size && s + t < end)
                            UNROLL for (int v = 0; v < vectors; v++) sums[i][v] += taps[r][s + t] * pixels[t][v];
                }
            }
        }
    }
    if (activation)
        UNROLL for (int i = 0; i < ROWS; i++)
            UNROLL for (int v = 0; v < vectors; v++) sums[i][v] = NAME(clamped)(sums[i][v], activation == 2);
    UNROLL for (int i = 0; i < ROWS; i++)
        if (i < rows)
            UNROLL for (int v = 0; v < vectors; v++)
                NAME(store_masked)(FIRST(columns - v * VL), out + i * pitch + v * VL, sums[i][v]);
}

static void NAME(gather_rows)(int size, int stride, int vectors, const REAL *plane, ptrdiff_t H, ptrdiff_t W,
                              ptrdiff_t h0, ptrdiff_t w0, const REAL *weight, REAL bias, REAL *out, ptrdiff_t pitch,
                              ptrdiff_t rows, ptrdiff_t columns, int activation) {
#define CASE(a, b, c) case ((a) * 4 + (b)) * 4 + (c): \
        NAME(gather_rows_of)(a, b, c, plane, H, W, h0, w0, weight, bias, out, pitch, rows, columns, activation); break;
    switch ((size * 4 + stride) * 4 + vectors) {
        CASE(3, 1, 1) CASE(3, 1, 2) CASE(3, 2, 1) CASE(3, 2, 2) CASE(5, 1, 1) CASE(5, 1, 2) CASE(5, 2, 1) CASE(5, 2, 2)
    }
#undef CASE
}

#if defined(__AVX512F__)
/* Eight pixels, of which those in the mask are read or written. */
typedef REAL NAME(row) __attribute__((vector_size(8 * sizeof(REAL))));
INLINE NAME(row) NAME(load_row)(uint8_t mask, const REAL *p) {
#if LANES > 8
    return (NAME(row))_mm256_maskz_loadu_ps(mask, p);
#else
    return (NAME(row))_mm512_maskz_loadu_pd(mask, p);
#endif
}
INLINE void NAME(store_row)(uint8_t mask, REAL *p, NAME(row) v) {
#if LANES > 8
    _mm256_mask_storeu_ps(p, mask, (__m256)v);
#else
    _mm512_mask_storeu_pd(p, mask, (__m512d)v);
#endif
}

INLINE NAME(row) NAME(clamp_row)(NAME(row) v, int six) {
    const NAME(row) least = {0}, most = 6 - least;
    typedef __typeof__(v < least) bits;
    v = (NAME(row))((bits)v & ~(v < least));
    return six ? (NAME(row))(((bits)most & (v > most)) | ((bits)v & ~(v > most))) : v;
}

/* One plane after the other, of P rows of Q <= 8 columns, with stride 1: out[p, q] = bias[k] + sum of weight[k, r, s]
 * source[p + r - top, q + s - left]. All sums of a plane stay in registers while the rows of the source pass. */
INLINE void NAME(gather_small_of)(const int size, const int P, ptrdiff_t planes, const REAL *source, ptrdiff_t H,
                                  ptrdiff_t W, ptrdiff_t Q, ptrdiff_t top, ptrdiff_t left, const REAL *weight,
                                  const REAL *bias, ptrdiff_t k, ptrdiff_t filters, REAL *out, int activation) {
    const int together = TAP_COLUMNS(size, 1);
    const uint8_t columns = (1u << Q) - 1;
    uint8_t mask[5]; /* columns whose tap s lies inside the source */
    UNROLL for (int s = 0; s < size; s++) {
        mask[s] = 0;
        for (int q = 0; q < Q; q++) mask[s] |= (q + s >= left && q + s < left + W) << q;
    }
    for (; planes > 0; planes--, source += H * W, out += P * Q) {
        const REAL *filter = weight + k * size * size;
        NAME(row) sums[8], taps[5][5];
        UNROLL for (int i = 0; i < P; i++) sums[i] = BROADCAST(NAME(row), bias ? bias[k] : 0);
        UNROLL for (int first = 0; first < size; first += together) {
            UNROLL for (int r = 0; r < size; r++)
                UNROLL for (int s = first; s < first + together; s++)
                    taps[r][s] = BROADCAST(NAME(row), filter[r * size + s]);
            UNROLL for (int h = 0; h < P + size - 1; h++) {
                if (h < top || h >= top + H) continue;
                UNROLL for (int s = first; s < first + together; s++) {
                    const NAME(row) pixels = NAME(load_row)(mask[s], source + (h - top) * W + s - left);
                    UNROLL for (int i = 0; i < P; i++)
                        if (h >= i && h < i + size) sums[i] += taps[h - i][s] * pixels;
                }
            }
        }
        UNROLL for (int i = 0; i < P; i++)
            NAME(store_row)(columns, out + i * Q, activation ? NAME(clamp_row)(sums[i], activation == 2) : sums[i]);
        k = k + 1 < filters ? k + 1 : 0;
    }
}

static void NAME(gather_small)(int size, int P, ptrdiff_t planes, const REAL *source, ptrdiff_t H, ptrdiff_t W, ptrdiff_t Q,
                               ptrdiff_t top, ptrdiff_t left, const REAL *weight, const REAL *bias, ptrdiff_t k,
                               ptrdiff_t filters, REAL *out, int activation) {
#define CASE(a, b) case (a) * 16 + (b): \
        NAME(gather_small_of)(a, b, planes, source, H, W, Q, top, left, weight, bias, k, filters, out, \
                              activation); break;
    switch (size * 16 + P) {
        CASE(3, 1) CASE(3, 2) CASE(3, 3) CASE(3, 4) CASE(3, 5) CASE(3, 6) CASE(3, 7) CASE(3, 8)
        CASE(5, 1) CASE(5, 2) CASE(5, 3) CASE(5, 4) CASE(5, 5) CASE(5, 6) CASE(5, 7) CASE(5, 8)
    }
#undef CASE
}

#else
static void NAME(gather_small)(int size, int P, ptrdiff_t planes, const REAL *source, ptrdiff_t H, ptrdiff_t W, ptrdiff_t Q,
                               ptrdiff_t top, ptrdiff_t left, const REAL *weight, const REAL *bias, ptrdiff_t k,
                               ptrdiff_t filters, REAL *out, int activation) {}
#endif

/* Rows of the input gradient with stride 2: row t = 2 u, 2 u + 1, ... of the padded image is row h, h + 1, ... of `out`,
 * stored for first <= h < end and `columns` columns from 2 q0 on, which may be more than two vectors.
 *
 *     out[h + i, 2 j + b] = sum of weight[r, s] dy[(2 u + i - r) / 2, q0 + j + (b + left - s) / 2]
 *
 * over the taps of even 2 u + i - r and b + left - s. A row of dy is loaded once for all that it meets. */
INLINE void NAME(scatter_rows_of)(const int size, const int odd_left, const REAL *dy, ptrdiff_t P, ptrdiff_t Q,
                                  ptrdiff_t u, ptrdiff_t q0, ptrdiff_t left, const REAL *weight, REAL *out,
                                  ptrdiff_t pitch, ptrdiff_t h, ptrdiff_t first, ptrdiff_t end, ptrdiff_t columns) {
    const int half = size / 2; /* shifts of dy beside the first, in rows and in columns */
    NAME(vec) sums[SCATTER_ROWS][2];
    uint16_t mask[3];
    const ptrdiff_t q = q0 + (left >> 1) + odd_left; /* pixel of lane 0 for the taps s with (s + odd_left) / 2 = 0 */
    FILTER(size, weight);
    UNROLL for (int m = 0; m <= half; m++) mask[m] = BETWEEN(m - q, Q - q + m);
    UNROLL for (int i = 0; i < SCATTER_ROWS; i++) sums[i][0] = sums[i][1] = (NAME(vec)){0};
    UNROLL for (int k = 0; k < SCATTER_ROWS / 2 + half; k++) {
        const ptrdiff_t p = u - half + k;
        if (p < 0 || p >= P) continue;
        NAME(vec) pixels[3];
        UNROLL for (int m = 0; m <= half; m++) pixels[m] = NAME(load_masked)(mask[m], dy + p * Q + q - m);
        UNROLL for (int i = 0; i < SCATTER_ROWS; i++) {
            const int r = i + 2 * (half - k);
            if (r >= 0 && r < size)
                UNROLL for (int s = 0; s < size; s++)
                    sums[i][(s + odd_left) % 2] += TAP(size, weight, r * size + s) * pixels[(s + odd_left) / 2];
        }
    }
    UNROLL for (int i = 0; i < SCATTER_ROWS; i++)
        if (h + i >= first && h + i < end) {
            NAME(store_masked)(FIRST(columns), out + i * pitch, SHUFFLE(sums[i][0], sums[i][1], ZIP_LOW));
            NAME(store_masked)(FIRST(columns - VL), out + i * pitch + VL, SHUFFLE(sums[i][0], sums[i][1], ZIP_HIGH));
        }
}

static void NAME(scatter_rows)(int size, const REAL *dy, ptrdiff_t P, ptrdiff_t Q, ptrdiff_t u, ptrdiff_t q0,
                               ptrdiff_t left, const REAL *weight, REAL *out, ptrdiff_t pitch, ptrdiff_t h,
                               ptrdiff_t first, ptrdiff_t end, ptrdiff_t columns) {
#define CASE(a, b) case (a) * 2 + (b): \
        NAME(scatter_rows_of)(a, b, dy, P, Q, u, q0, left, weight, out, pitch, h, first, end, columns); break;
    switch (size * 2 + (int)(left & 1)) { CASE(3, 0) CASE(3, 1) CASE(5, 0) CASE(5, 1) }
#undef CASE
}
#undef FILTER
#undef TAP

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
                NAME(vec) pixels[ROWS];
                UNROLL for (int i = 0; i < most; i++)
                    pixels[i] = NAME(load_masked)(p + i < P ? mask[DOT_MASKS - 1] : 0, dy + (p + i) * Q + j * VL);
                _Pragma("GCC unroll 16") for (int h = 0; h < (most - 1) * stride + size; h++) {
                    if (h0 + h < 0 || h0 + h >= H) continue;
                    const REAL *row = plane + (h0 + h) * W + w0;
                    UNROLL for (int s = 0; s < size; s += stride) {
                        NAME(vec) taps[2];
                        NAME(load_taps)(stride, mask[s], mask[s + stride - 1], row + s, &taps[0], &taps[1]);
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

/* GCC would keep the offset of every vector from `plane` in a register of its own. */
#define HIDE(pointer) __asm__("" : "+r"(pointer))
/* out[r, s] += sum of dy[j] plane[(r - top) W + s - left + j] over small planes of several images, masked as above. */
INLINE void NAME(dot_whole_of)(const int size, ptrdiff_t vectors, ptrdiff_t images, const REAL *plane,
                               ptrdiff_t plane_step, ptrdiff_t W, ptrdiff_t top, ptrdiff_t left, const REAL *dy,
                               ptrdiff_t dy_step, const uint16_t *masks, REAL *out) {
    NAME(vec) sums[5][5];
    UNROLL for (int r = 0; r < size; r++)
        UNROLL for (int s = 0; s < size; s++) sums[r][s] = (NAME(vec)){0};
    for (; images > 0; images--, plane += plane_step, dy += dy_step) {
        const uint16_t *mask = masks;
        for (ptrdiff_t v = 0; v < vectors; v++, mask += size * size + 1) {
            const NAME(vec) pixels = NAME(load_masked)(mask[size * size], dy + v * VL);
            UNROLL for (int r = 0; r < size; r++) {
                const REAL *row = plane + (r - top) * W - left + v * VL;
                HIDE(row);
                UNROLL for (int s = 0; s < size; s++)
                    sums[r][s] += pixels * NAME(load_masked)(mask[r * size + s], row + s);
            }
        }
    }
    UNROLL for (int r = 0; r < size; r++)
        UNROLL for (int s = 0; s < size; s++) out[r * size + s] += NAME(lanes_sum)(sums[r][s]);
}

static void NAME(dot_whole)(int size, ptrdiff_t vectors, ptrdiff_t images, const REAL *plane, ptrdiff_t plane_step,
                            ptrdiff_t W, ptrdiff_t top, ptrdiff_t left, const REAL *dy, ptrdiff_t dy_step,
                            const uint16_t *masks, REAL *out) {
    if (size == 3) NAME(dot_whole_of)(3, vectors, images, plane, plane_step, W, top, left, dy, dy_step, masks, out);
    else NAME(dot_whole_of)(5, vectors, images, plane, plane_step, W, top, left, dy, dy_step, masks, out);
}
#undef HIDE
#undef BROADCAST
#else
static void NAME(gather_small)(int size, int P, ptrdiff_t planes, const REAL *source, ptrdiff_t H, ptrdiff_t W, ptrdiff_t Q,
                               ptrdiff_t top, ptrdiff_t left, const REAL *weight, const REAL *bias, ptrdiff_t k,
                               ptrdiff_t filters, REAL *out, int activation) {}
static void NAME(gather_rows)(int size, int stride, int vectors, const REAL *plane, ptrdiff_t H, ptrdiff_t W,
                              ptrdiff_t h0, ptrdiff_t w0, const REAL *weight, REAL bias, REAL *out, ptrdiff_t pitch,
                              ptrdiff_t rows, ptrdiff_t columns, int activation) {}
static void NAME(scatter_rows)(int size, const REAL *dy, ptrdiff_t P, ptrdiff_t Q, ptrdiff_t u, ptrdiff_t q0,
                               ptrdiff_t left, const REAL *weight, REAL *out, ptrdiff_t pitch, ptrdiff_t h,
                               ptrdiff_t first, ptrdiff_t end, ptrdiff_t columns) {}
static void NAME(dot_planes)(int size, int stride, ptrdiff_t images, const REAL *plane, ptrdiff_t plane_step,
                             ptrdiff_t H, ptrdiff_t W, ptrdiff_t top, ptrdiff_t left, const REAL *dy,
                             ptrdiff_t dy_step, ptrdiff_t P, ptrdiff_t Q, const uint16_t *masks, REAL *out) {}
static void NAME(dot_whole)(int size, ptrdiff_t vectors, ptrdiff_t images, const REAL *plane, ptrdiff_t plane_step,
                            ptrdiff_t W, ptrdiff_t top, ptrdiff_t left, const REAL *dy, ptrdiff_t dy_step,
                            const uint16_t *masks, REAL *out) {}
#endif
