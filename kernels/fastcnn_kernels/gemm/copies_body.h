/* Copies of one dtype: runs, steps, panels and transposes. Included by micro.h once per dtype, after vectors_body.h; no
 * include guard by intent. */

#if defined(__GNUC__)
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
#else
INLINE void NAME(copy_run)(REAL *target, const REAL *source, ptrdiff_t n) {
    for (ptrdiff_t j = 0; j < n; j++) target[j] = source[j];
}
#endif

/* `clamped`, of n elements. */
INLINE void NAME(clamp_run)(REAL *x, ptrdiff_t n, int six) {
#if defined(__GNUC__)
    for (; n >= VL; n -= VL, x += VL) NAME(store)(x, NAME(clamped)(NAME(load)(x), six));
    if (n > 0) NAME(store_masked)(FIRST(n), x, NAME(clamped)(NAME(load_masked)(FIRST(n), x), six));
#else
    for (ptrdiff_t j = 0; j < n; j++) x[j] = x[j] < 0 ? 0 : six && x[j] > 6 ? 6 : x[j];
#endif
}

/* Copy the lanes of neighbouring vectors that are in their masks, mask_step apart, one after the other. */
static void NAME(keep_lanes)(REAL *target, const REAL *source, int vectors, const uint16_t *masks, ptrdiff_t mask_step) {
    for (int v = 0; v < vectors; v++, source += VL, masks += mask_step) {
#if defined(__GNUC__) && defined(__AVX512F__)
        const int kept = __builtin_popcount(*masks);
        NAME(store_masked)((uint16_t)((1u << kept) - 1), target, (NAME(vec))COMPRESS(*masks, NAME(load)(source)));
        target += kept;
#else
        for (int j = 0; j < VL; j++)
            if (*masks >> j & 1) *target++ = source[j];
#endif
    }
}

/* target[j] = source[j * step], and target[j * step] = source[j], for j < n. */
#if defined(__GNUC__) && defined(__AVX512F__)
#define PAIRS(copy) if (step == 2) { copy(target, source, n); return; }
#else
#define PAIRS(copy)
#endif
INLINE void NAME(take_steps)(REAL *target, const REAL *source, ptrdiff_t step, ptrdiff_t n) {
    if (step == 1) { NAME(copy_run)(target, source, n); return; }
    PAIRS(NAME(take_even))
    UNROLL for (ptrdiff_t j = 0; j < n; j++) target[j] = source[j * step];
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
#define EVEN(j, s) 2 * (j)
#define ODD(j, s) 2 * (j) + 1
    const NAME(index) evens = {EACH_LANE(EVEN, 0)}, odds = {EACH_LANE(ODD, 0)};
    for (; n > 0; n -= VL, even += VL, odd += VL, source += 2 * VL, begin -= 2 * VL, end -= 2 * VL) {
        const NAME(vec) low = NAME(load_masked)(FIRST(end) & ~FIRST(begin), source);
        const NAME(vec) high = NAME(load_masked)(FIRST(end - VL) & ~FIRST(begin - VL), source + VL);
        NAME(store_masked)(FIRST(n), even, (NAME(vec))PERMUTE_TWO(low, (__m512i)evens, high));
        NAME(store_masked)(FIRST(n), odd, (NAME(vec))PERMUTE_TWO(low, (__m512i)odds, high));
    }
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
 * run_start[run] is the first; run_start[runs] closes the list, and zeros follow. The row `ahead` rows later is asked for. */
static void NAME(pack_runs)(const REAL *source, REAL *packed, ptrdiff_t L, const ptrdiff_t *l_offset, ptrdiff_t ahead,
                            ptrdiff_t runs, const ptrdiff_t *run_start, const ptrdiff_t *run_offset) {
    const int NR = 2 * VECTOR_BYTES / (int)sizeof(REAL);
#if defined(__GNUC__) && defined(__AVX512F__)
    /* A vector is put together in a register, from a masked load of each run that it meets. */
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
            PREFETCH_FAR(base[0] + l_offset[l + ahead]); \
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
        for (ptrdiff_t run = 0; run < runs; run++) {
            PREFETCH_FAR(source + l_offset[l + ahead] + run_offset[run]);
            NAME(copy_run)(packed + run_start[run], source + l_offset[l] + run_offset[run],
                           run_start[run + 1] - run_start[run]);
        }
        for (ptrdiff_t j = run_start[runs]; j < NR; j++) packed[j] = 0;
    }
#endif
}

/* target[j * target_step + i] = source[i * source_step + j] for i < rows and j < columns, zeros for rows <= i < width. */
#if defined(__GNUC__) && defined(__AVX512F__)
/* Rows i and i + s exchange the lanes whose bit s tells them apart. */
#define LOW(j, s) ((j) & (s) ? VL + (j) - (s) : (j))
#define HIGH(j, s) ((j) & (s) ? VL + (j) : (j) + (s))
#define EXCHANGE(s) \
    UNROLL for (int i = 0; i < VL; i++) \
        if (!(i & s)) { \
            const NAME(vec) first = v[i], second = v[i + s]; \
            v[i] = SHUFFLE_TWO(first, second, ((NAME(index)){EACH_LANE(LOW, s)})); \
            v[i + s] = SHUFFLE_TWO(first, second, ((NAME(index)){EACH_LANE(HIGH, s)})); \
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
/* VL rows, and at least as many columns as 16 bytes hold. A vector takes those of four rows that lie far apart, brought
 * together by loads, which leaves half of the exchanges: those inside 16 bytes. The last columns may be done twice.
 * `far`: the VL rows behind these are asked for, a quarter of them with each 16 bytes. */
INLINE void NAME(transpose_whole)(const int far, const REAL *source, ptrdiff_t step, ptrdiff_t columns, REAL *target,
                                  ptrdiff_t target_step) {
    enum { B = 16 / sizeof(REAL) };
#define PIECE(i) _mm_loadu_ps((const float *)(from + (i) * step))
    for (ptrdiff_t done = 0; done < columns; done += B) {
        const ptrdiff_t first = done + B <= columns ? done : columns - B;
        const REAL *from = source + first;
        REAL *to = target + first * target_step;
        if (far) {
            const REAL *behind = from + (VL + (done / B & 3) * (VL / 4)) * step;
            UNROLL for (int i = 0; i < VL / 4; i++) PREFETCH_FAR(behind + i * step);
        }
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

INLINE void NAME(transpose_rows)(const int far, const REAL *source, ptrdiff_t source_step, ptrdiff_t rows,
                                 ptrdiff_t columns, REAL *target, ptrdiff_t target_step, ptrdiff_t width) {
    for (; width > 0; width -= VL, rows -= VL, target += VL, source += VL * source_step)
        if (rows >= VL && columns >= 16 / (ptrdiff_t)sizeof(REAL))
            NAME(transpose_whole)(far, source, source_step, columns, target, target_step);
        else
            NAME(transpose_part)(source, source_step, rows, columns, target, target_step, width);
}
static void NAME(transpose)(const REAL *source, ptrdiff_t source_step, ptrdiff_t rows, ptrdiff_t columns, REAL *target,
                            ptrdiff_t target_step, ptrdiff_t width) {
    NAME(transpose_rows)(0, source, source_step, rows, columns, target, target_step, width);
}
/* The same of rows from beyond L2, of which there are more behind. */
static void NAME(transpose_far)(const REAL *source, ptrdiff_t source_step, ptrdiff_t rows, ptrdiff_t columns,
                                REAL *target, ptrdiff_t target_step, ptrdiff_t width) {
    NAME(transpose_rows)(1, source, source_step, rows, columns, target, target_step, width);
}
#else
static void NAME(transpose)(const REAL *source, ptrdiff_t source_step, ptrdiff_t rows, ptrdiff_t columns, REAL *target,
                            ptrdiff_t target_step, ptrdiff_t width) {
    for (ptrdiff_t block = 0; block < columns; block += 64) /* a stretch of the target that stays in L1 */
        for (ptrdiff_t i = 0; i < width; i++)
            for (ptrdiff_t j = block; j < columns && j < block + 64; j++)
                target[j * target_step + i] = i >= rows ? 0 : source[i * source_step + j];
}
#define transpose_far_f32 transpose_f32
#define transpose_far_f64 transpose_f64
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
