/* Vectors of one dtype, and loads and stores of some of their lanes. Included by micro.h once per dtype, with REAL and NAME
 * defined; no include guard by intent. */

#if defined(__GNUC__)
typedef REAL NAME(vec) __attribute__((vector_size(VECTOR_BYTES)));
typedef REAL NAME(mem) __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(REAL)), may_alias)); /* unaligned */
typedef SIGNED NAME(index) __attribute__((vector_size(VECTOR_BYTES)));
INLINE NAME(vec) NAME(load)(const REAL *p) { return *(const NAME(mem) *)p; }
INLINE void NAME(store)(REAL *p, NAME(vec) v) { *(NAME(mem) *)p = v; }

/* A vector of which only the lanes in the mask are read, or written. */
INLINE NAME(vec) NAME(load_masked)(uint16_t mask, const REAL *p) {
#if defined(__AVX512F__)
    return (NAME(vec))MASKED_LOAD(mask, p);
#else
    NAME(vec) v = {0};
    for (int j = 0; j < VL; j++)
        if (mask >> j & 1) v[j] = p[j];
    return v;
#endif
}
/* Likewise, the others from v. */
INLINE NAME(vec) NAME(load_merged)(NAME(vec) v, uint16_t mask, const REAL *p) {
#if defined(__AVX512F__)
    return (NAME(vec))MASKED_MERGE(v, mask, p);
#else
    for (; mask; mask &= mask - 1) v[__builtin_ctz(mask)] = p[__builtin_ctz(mask)];
    return v;
#endif
}
INLINE void NAME(store_masked)(uint16_t mask, REAL *p, NAME(vec) v) {
#if defined(__AVX512F__)
    MASKED_STORE(p, mask, v);
#else
    for (int j = 0; j < VL; j++)
        if (mask >> j & 1) p[j] = v[j];
#endif
}

/* Lanes less than 0 become 0, and with `six` those more than 6 become 6; NaN stays. */
INLINE NAME(vec) NAME(clamped)(NAME(vec) v, int six) {
    const NAME(vec) least = {0}, most = 6 - least;
#if defined(__AVX512F__)
    v = LARGER(least, v); /* the second operand is what stays if they cannot be compared, or are equal */
    return six ? (NAME(vec))SMALLER(most, v) : v;
#else
    v = (NAME(vec))((NAME(index))v & ~(v < least));
    return six ? (NAME(vec))(((v > most) & (NAME(index))most) | (~(v > most) & (NAME(index))v)) : v;
#endif
}

/* The lanes moved up by n, the last ones to the front. */
INLINE NAME(vec) NAME(turned)(NAME(vec) v, ptrdiff_t n) {
#if defined(__AVX512F__)
#define PLACE(k, s) (k)
    const NAME(index) from = (NAME(index)){EACH_LANE(PLACE, 0)} - (SIGNED)n; /* of these the lowest bits count */
#undef PLACE
    return (NAME(vec))PERMUTE((__m512i)from, v);
#else
    NAME(vec) result;
    for (int k = 0; k < VL; k++) result[(k + n) % VL] = v[k];
    return result;
#endif
}

/* Sum of the lanes, halves added to halves. */
INLINE REAL NAME(lanes_sum)(NAME(vec) v) {
#if defined(__AVX512F__)
    return REDUCE_ADD(v); /* GCC takes the loops below lane by lane */
#else
    REAL lane[VL];
    memcpy(lane, &v, sizeof v);
    UNROLL for (int half = VL / 2; half > 0; half /= 2)
        UNROLL for (int j = 0; j < half; j++) lane[j] += lane[j + half];
    return lane[0];
#endif
}

/* Lane k becomes the lanes_sum of v[k], of VL vectors, which are overwritten: half as many after each step. */
INLINE NAME(vec) NAME(lanes_sums)(NAME(vec) *v) {
#if defined(__AVX512F__)
#define FIRST_HALF(j, h) ((j) / (h) * 2 * (h) + (j) % (h))
#define SECOND_HALF(j, h) (FIRST_HALF(j, h) + (h))
#define FOLD(h) \
    UNROLL for (int i = 0; i < (h); i++) { \
        const NAME(vec) x = v[2 * i], y = v[2 * i + 1]; \
        v[i] = SHUFFLE_TWO(x, y, ((NAME(index)){EACH_LANE(FIRST_HALF, h)})) \
            + SHUFFLE_TWO(x, y, ((NAME(index)){EACH_LANE(SECOND_HALF, h)})); \
    }
#if LANES > 8
    FOLD(8)
#endif
    FOLD(4)
    FOLD(2)
    FOLD(1)
#undef FOLD
#undef SECOND_HALF
#undef FIRST_HALF
    return v[0];
#else
    NAME(vec) sums;
    UNROLL for (int k = 0; k < VL; k++) sums[k] = NAME(lanes_sum)(v[k]);
    return sums;
#endif
}
#endif
