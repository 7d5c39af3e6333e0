"""Cython's view of micro.h: one name per function, whatever the dtype."""

from libc.stdint cimport uint16_t

cdef extern from "fastcnn_kernels/gemm/micro.h" nogil:
    const int MR
    const int MOST_ROWS
    int TILE_VECTORS(int mr)
    const int OUTER_ROWS
    const int OUTER_VECTORS
    const int DOT_ROWS
    const int DOT_COLUMNS
    const int DOT_COLUMNS_OF_ONE_ROW
    Py_ssize_t MASKS_OF(Py_ssize_t taps)
    enum: MOST_DOTS
    const int VECTOR_BYTES
    const int STREAMS
    const int PANELS_AHEAD
    const int NR_F32
    const int NR_F64
    void PREFETCH_FAR(const void* address)
    void micro_f32(
        int mr, int columns, Py_ssize_t L, const float* a, Py_ssize_t a_step, const float* b, Py_ssize_t b_step,
        float* c, Py_ssize_t ldc, bint accumulate
    )
    void micro_f64(
        int mr, int columns, Py_ssize_t L, const double* a, Py_ssize_t a_step, const double* b, Py_ssize_t b_step,
        double* c, Py_ssize_t ldc, bint accumulate
    )
    void micro_packing_f32(
        int mr, Py_ssize_t L, const float* a, Py_ssize_t a_step, const float* b, const Py_ssize_t* offset,
        Py_ssize_t far, float* packed, float* c, Py_ssize_t ldc, bint accumulate
    )
    void micro_packing_f64(
        int mr, Py_ssize_t L, const double* a, Py_ssize_t a_step, const double* b, const Py_ssize_t* offset,
        Py_ssize_t far, double* packed, double* c, Py_ssize_t ldc, bint accumulate
    )
    void stream_f32(
        int mr, Py_ssize_t panels, Py_ssize_t L, const float* a, Py_ssize_t a_step, const float* b, Py_ssize_t b_step,
        float* c, bint accumulate
    )
    void stream_f64(
        int mr, Py_ssize_t panels, Py_ssize_t L, const double* a, Py_ssize_t a_step, const double* b, Py_ssize_t b_step,
        double* c, bint accumulate
    )
    void micro_dense_f32(
        int mr, int vectors, int columns, Py_ssize_t L, const float* a, Py_ssize_t a_step, const float* b, float* c,
        bint accumulate
    )
    void micro_dense_f64(
        int mr, int vectors, int columns, Py_ssize_t L, const double* a, Py_ssize_t a_step, const double* b, double* c,
        bint accumulate
    )
    void split_row_f32(
        const float* source, Py_ssize_t begin, Py_ssize_t end, float* even, float* odd, Py_ssize_t n
    )
    void pack_runs_f32(
        const float* source, float* packed, Py_ssize_t L, const Py_ssize_t* l_offset, Py_ssize_t ahead,
        Py_ssize_t runs, const Py_ssize_t* run_start, const Py_ssize_t* run_offset
    )
    void split_row_f64(
        const double* source, Py_ssize_t begin, Py_ssize_t end, double* even, double* odd, Py_ssize_t n
    )
    void pack_runs_f64(
        const double* source, double* packed, Py_ssize_t L, const Py_ssize_t* l_offset, Py_ssize_t ahead,
        Py_ssize_t runs, const Py_ssize_t* run_start, const Py_ssize_t* run_offset
    )
    void copy_run_f32(float* target, const float* source, Py_ssize_t n)
    void copy_run_f64(double* target, const double* source, Py_ssize_t n)
    void clamp_run_f32(float* x, Py_ssize_t n, bint six)
    void clamp_run_f64(double* x, Py_ssize_t n, bint six)
    void keep_lanes_f32(float* target, const float* source, int vectors, const uint16_t* masks, Py_ssize_t mask_step)
    void keep_lanes_f64(double* target, const double* source, int vectors, const uint16_t* masks, Py_ssize_t mask_step)
    void take_steps_f32(float* target, const float* source, Py_ssize_t step, Py_ssize_t n)
    void take_steps_f64(double* target, const double* source, Py_ssize_t step, Py_ssize_t n)
    void put_steps_f32(float* target, const float* source, Py_ssize_t step, Py_ssize_t n)
    void put_steps_f64(double* target, const double* source, Py_ssize_t step, Py_ssize_t n)
    void transpose_f32(
        const float* source, Py_ssize_t source_step, Py_ssize_t rows, Py_ssize_t columns, float* target,
        Py_ssize_t target_step, Py_ssize_t width
    )
    void transpose_f64(
        const double* source, Py_ssize_t source_step, Py_ssize_t rows, Py_ssize_t columns, double* target,
        Py_ssize_t target_step, Py_ssize_t width
    )
    void transpose_far_f32(
        const float* source, Py_ssize_t source_step, Py_ssize_t rows, Py_ssize_t columns, float* target,
        Py_ssize_t target_step, Py_ssize_t width
    )
    void transpose_far_f64(
        const double* source, Py_ssize_t source_step, Py_ssize_t rows, Py_ssize_t columns, double* target,
        Py_ssize_t target_step, Py_ssize_t width
    )
    bint has_nonfinite_f32(const float* x, Py_ssize_t n)
    bint has_nonfinite_f64(const double* x, Py_ssize_t n)
    void direct_f32(
        int mr, int vectors, Py_ssize_t L, const float* a, const float* source, const Py_ssize_t* offset,
        const float* bias, float* c, Py_ssize_t ldc
    )
    void direct_f64(
        int mr, int vectors, Py_ssize_t L, const double* a, const double* source, const Py_ssize_t* offset,
        const double* bias, double* c, Py_ssize_t ldc
    )
    void spread_f32(
        int rows, int vectors, Py_ssize_t L, const float* source, const Py_ssize_t* offset, const float* b,
        const float* bias, float* tile
    )
    void spread_f64(
        int rows, int vectors, Py_ssize_t L, const double* source, const Py_ssize_t* offset, const double* b,
        const double* bias, double* tile
    )
    void pixel_sums_f32(
        int mr, int vectors, Py_ssize_t images, Py_ssize_t lines, Py_ssize_t columns, const float* a, Py_ssize_t a_step,
        const float* b, Py_ssize_t image_step, Py_ssize_t line_step, Py_ssize_t column_step, const Py_ssize_t* offset,
        float* tile, bint accumulate
    )
    void pixel_sums_f64(
        int mr, int vectors, Py_ssize_t images, Py_ssize_t lines, Py_ssize_t columns, const double* a,
        Py_ssize_t a_step, const double* b, Py_ssize_t image_step, Py_ssize_t line_step, Py_ssize_t column_step,
        const Py_ssize_t* offset, double* tile, bint accumulate
    )
    void plane_sums_f32(
        int mr, int vectors, Py_ssize_t images, Py_ssize_t pixels, const float* a, Py_ssize_t a_row, Py_ssize_t a_image,
        const float* b, Py_ssize_t image_step, Py_ssize_t pixel_step, const Py_ssize_t* offset, float* tile,
        bint accumulate
    )
    void plane_sums_f64(
        int mr, int vectors, Py_ssize_t images, Py_ssize_t pixels, const double* a, Py_ssize_t a_row,
        Py_ssize_t a_image, const double* b, Py_ssize_t image_step, Py_ssize_t pixel_step, const Py_ssize_t* offset,
        double* tile, bint accumulate
    )
    void outer_f32(
        int columns, Py_ssize_t L, const float* a, Py_ssize_t row_step, Py_ssize_t a_step, const float* b,
        Py_ssize_t b_step, float* c, Py_ssize_t ldc, bint accumulate
    )
    void outer_f64(
        int columns, Py_ssize_t L, const double* a, Py_ssize_t row_step, Py_ssize_t a_step, const double* b,
        Py_ssize_t b_step, double* c, Py_ssize_t ldc, bint accumulate
    )
    void dot_f32(
        int rows, int columns, Py_ssize_t lines, Py_ssize_t n, const float* a, Py_ssize_t a_step, Py_ssize_t a_line,
        const float* b, Py_ssize_t b_line, const Py_ssize_t* offset, float* sums, Py_ssize_t sums_step
    )
    void dot_f64(
        int rows, int columns, Py_ssize_t lines, Py_ssize_t n, const double* a, Py_ssize_t a_step, Py_ssize_t a_line,
        const double* b, Py_ssize_t b_line, const Py_ssize_t* offset, double* sums, Py_ssize_t sums_step
    )
    void masked_f32(
        int mr, int vectors, Py_ssize_t channels, Py_ssize_t taps, const float* a, const float* source,
        Py_ssize_t channel_step, const Py_ssize_t* offset, const uint16_t* masks, const float* bias, float* c,
        Py_ssize_t ldc
    )
    void masked_dot_f32(
        int rows, int columns, Py_ssize_t images, Py_ssize_t vectors, const float* a, Py_ssize_t a_step,
        Py_ssize_t a_image, const float* b, Py_ssize_t b_image, const Py_ssize_t* offset, const uint16_t* masks,
        Py_ssize_t first, Py_ssize_t taps, float* sums, Py_ssize_t sums_step
    )
    void add_lanes_f32(const float* sums, float* out, Py_ssize_t n)
    void masked_f64(
        int mr, int vectors, Py_ssize_t channels, Py_ssize_t taps, const double* a, const double* source,
        Py_ssize_t channel_step, const Py_ssize_t* offset, const uint16_t* masks, const double* bias, double* c,
        Py_ssize_t ldc
    )
    void masked_dot_f64(
        int rows, int columns, Py_ssize_t images, Py_ssize_t vectors, const double* a, Py_ssize_t a_step,
        Py_ssize_t a_image, const double* b, Py_ssize_t b_image, const Py_ssize_t* offset, const uint16_t* masks,
        Py_ssize_t first, Py_ssize_t taps, double* sums, Py_ssize_t sums_step
    )
    void add_lanes_f64(const double* sums, double* out, Py_ssize_t n)
    double lane_sum_f32(const float* x, Py_ssize_t n)
    double lane_sum_f64(const double* x, Py_ssize_t n)

ctypedef fused real:
    float
    double


cdef inline int panel_width(const real* x) noexcept nogil:
    """NR of the dtype."""
    return NR_F32 if real is float else NR_F64


cdef inline void micro(
    int mr, int columns, Py_ssize_t L, const real* a, Py_ssize_t a_step, const real* b, Py_ssize_t b_step, real* c,
    Py_ssize_t ldc, bint accumulate
) noexcept nogil:
    if real is float:
        micro_f32(mr, columns, L, a, a_step, b, b_step, c, ldc, accumulate)
    else:
        micro_f64(mr, columns, L, a, a_step, b, b_step, c, ldc, accumulate)


cdef inline void micro_packing(
    int mr, Py_ssize_t L, const real* a, Py_ssize_t a_step, const real* b, const Py_ssize_t* offset, Py_ssize_t far,
    real* packed, real* c, Py_ssize_t ldc, bint accumulate
) noexcept nogil:
    """`micro` of NR columns, which packs rows ``b + offset[l]`` on the way and asks for what lies `far` behind them."""
    if real is float:
        micro_packing_f32(mr, L, a, a_step, b, offset, far, packed, c, ldc, accumulate)
    else:
        micro_packing_f64(mr, L, a, a_step, b, offset, far, packed, c, ldc, accumulate)


cdef inline void stream(
    int mr, Py_ssize_t panels, Py_ssize_t L, const real* a, Py_ssize_t a_step, const real* b, Py_ssize_t b_step,
    real* c, bint accumulate
) noexcept nogil:
    """`micro` for `panels` of NR columns side by side in B, whose tiles of sums lie one after the other in C."""
    if real is float:
        stream_f32(mr, panels, L, a, a_step, b, b_step, c, accumulate)
    else:
        stream_f64(mr, panels, L, a, a_step, b, b_step, c, accumulate)


cdef inline void micro_dense(
    int mr, int vectors, int columns, Py_ssize_t L, const real* a, Py_ssize_t a_step, const real* b, real* c,
    bint accumulate
) noexcept nogil:
    if real is float:
        micro_dense_f32(mr, vectors, columns, L, a, a_step, b, c, accumulate)
    else:
        micro_dense_f64(mr, vectors, columns, L, a, a_step, b, c, accumulate)


cdef inline void split_row(
    const real* source, Py_ssize_t begin, Py_ssize_t end, real* even, real* odd, Py_ssize_t n
) noexcept nogil:
    if real is float:
        split_row_f32(source, begin, end, even, odd, n)
    else:
        split_row_f64(source, begin, end, even, odd, n)


cdef inline void pack_runs(
    const real* source, real* packed, Py_ssize_t L, const Py_ssize_t* l_offset, Py_ssize_t ahead, Py_ssize_t runs,
    const Py_ssize_t* run_start, const Py_ssize_t* run_offset
) noexcept nogil:
    if real is float:
        pack_runs_f32(source, packed, L, l_offset, ahead, runs, run_start, run_offset)
    else:
        pack_runs_f64(source, packed, L, l_offset, ahead, runs, run_start, run_offset)


cdef inline void zero_run(real* target, Py_ssize_t n) noexcept nogil:
    """Set n elements to zero."""
    cdef Py_ssize_t i
    for i in range(n):
        target[i] = 0


cdef inline void copy_run(real* target, const real* source, Py_ssize_t n) noexcept nogil:
    if real is float:
        copy_run_f32(target, source, n)
    else:
        copy_run_f64(target, source, n)


cdef inline void clamp_run(real* x, Py_ssize_t n, bint six) noexcept nogil:
    """Set what is less than 0 to 0, and if `six` what is more than 6 to 6."""
    if real is float:
        clamp_run_f32(x, n, six)
    else:
        clamp_run_f64(x, n, six)


cdef inline void keep_lanes(
    real* target, const real* source, int vectors, const uint16_t* masks, Py_ssize_t mask_step
) noexcept nogil:
    """Copy the lanes of neighbouring vectors that are in their masks, mask_step apart, one after the other."""
    if real is float:
        keep_lanes_f32(target, source, vectors, masks, mask_step)
    else:
        keep_lanes_f64(target, source, vectors, masks, mask_step)


cdef inline Py_ssize_t steps_to(Py_ssize_t distance, Py_ssize_t step) noexcept nogil:
    """Steps that reach a distance, none if it is negative; the most frequent ones without dividing."""
    if distance <= 0 or step == 1:
        return max(0, distance)
    return (distance + 1) // 2 if step == 2 else (distance + step - 1) // step


cdef inline void take_steps(real* target, const real* source, Py_ssize_t step, Py_ssize_t n) noexcept nogil:
    if real is float:
        take_steps_f32(target, source, step, n)
    else:
        take_steps_f64(target, source, step, n)


cdef inline void put_steps(real* target, const real* source, Py_ssize_t step, Py_ssize_t n) noexcept nogil:
    if real is float:
        put_steps_f32(target, source, step, n)
    else:
        put_steps_f64(target, source, step, n)


cdef inline void transpose(
    const real* source, Py_ssize_t source_step, Py_ssize_t rows, Py_ssize_t columns, real* target,
    Py_ssize_t target_step, Py_ssize_t width
) noexcept nogil:
    if real is float:
        transpose_f32(source, source_step, rows, columns, target, target_step, width)
    else:
        transpose_f64(source, source_step, rows, columns, target, target_step, width)


cdef inline void transpose_far(
    const real* source, Py_ssize_t source_step, Py_ssize_t rows, Py_ssize_t columns, real* target,
    Py_ssize_t target_step, Py_ssize_t width
) noexcept nogil:
    """`transpose` of rows from beyond L2, of which there are more behind."""
    if real is float:
        transpose_far_f32(source, source_step, rows, columns, target, target_step, width)
    else:
        transpose_far_f64(source, source_step, rows, columns, target, target_step, width)


cdef inline bint has_nonfinite(const real* x, Py_ssize_t n) noexcept nogil:
    if real is float:
        return has_nonfinite_f32(x, n)
    else:
        return has_nonfinite_f64(x, n)


cdef inline double lane_sum(const real* x, Py_ssize_t n) noexcept nogil:
    if real is float:
        return lane_sum_f32(x, n)
    else:
        return lane_sum_f64(x, n)


cdef inline void direct(
    int mr, int vectors, Py_ssize_t L, const real* a, const real* source, const Py_ssize_t* offset, const real* bias,
    real* c, Py_ssize_t ldc
) noexcept nogil:
    """c[mr, vectors] = bias + sum of a by row l of the right-hand side, at source + offset[l]."""
    if real is float:
        direct_f32(mr, vectors, L, a, source, offset, bias, c, ldc)
    else:
        direct_f64(mr, vectors, L, a, source, offset, bias, c, ldc)


cdef inline void spread(
    int rows, int vectors, Py_ssize_t L, const real* source, const Py_ssize_t* offset, const real* b, const real* bias,
    real* tile
) noexcept nogil:
    """tile[rows of pixels, vectors of channels] = bias + sum of source[offset[l] + pixel] by row l of b."""
    if real is float:
        spread_f32(rows, vectors, L, source, offset, b, bias, tile)
    else:
        spread_f64(rows, vectors, L, source, offset, b, bias, tile)


cdef inline void pixel_sums(
    int mr, int vectors, Py_ssize_t images, Py_ssize_t lines, Py_ssize_t columns, const real* a, Py_ssize_t a_step,
    const real* b, Py_ssize_t image_step, Py_ssize_t line_step, Py_ssize_t column_step, const Py_ssize_t* offset,
    real* tile, bint accumulate
) noexcept nogil:
    """tile[mr, vectors] (+)= sum over pixels of a[pixel, mr] by the vectors at `offset` from a pixel of b."""
    if real is float:
        pixel_sums_f32(
            mr, vectors, images, lines, columns, a, a_step, b, image_step, line_step, column_step, offset, tile,
            accumulate,
        )
    else:
        pixel_sums_f64(
            mr, vectors, images, lines, columns, a, a_step, b, image_step, line_step, column_step, offset, tile,
            accumulate,
        )


cdef inline void plane_sums(
    int mr, int vectors, Py_ssize_t images, Py_ssize_t pixels, const real* a, Py_ssize_t a_row, Py_ssize_t a_image,
    const real* b, Py_ssize_t image_step, Py_ssize_t pixel_step, const Py_ssize_t* offset, real* tile, bint accumulate
) noexcept nogil:
    """`pixel_sums` of rows of a that are runs of pixels, a_row apart, and a_image from image to image."""
    if real is float:
        plane_sums_f32(
            mr, vectors, images, pixels, a, a_row, a_image, b, image_step, pixel_step, offset, tile, accumulate
        )
    else:
        plane_sums_f64(
            mr, vectors, images, pixels, a, a_row, a_image, b, image_step, pixel_step, offset, tile, accumulate
        )


cdef inline void outer(
    int columns, Py_ssize_t L, const real* a, Py_ssize_t row_step, Py_ssize_t a_step, const real* b, Py_ssize_t b_step,
    real* c, Py_ssize_t ldc, bint accumulate
) noexcept nogil:
    """c[OUTER_ROWS, columns] (+)= a . b, neither of them packed: a[i * row_step + l * a_step], b[l * b_step + j].

    The columns are up to OUTER_VECTORS vectors, the last one of which need not be whole: fast with masks only.
    """
    if real is float:
        outer_f32(columns, L, a, row_step, a_step, b, b_step, c, ldc, accumulate)
    else:
        outer_f64(columns, L, a, row_step, a_step, b, b_step, c, ldc, accumulate)


cdef inline void dot(
    int rows, int columns, Py_ssize_t lines, Py_ssize_t n, const real* a, Py_ssize_t a_step, Py_ssize_t a_line,
    const real* b, Py_ssize_t b_line, const Py_ssize_t* offset, real* sums, Py_ssize_t sums_step
) noexcept nogil:
    if real is float:
        dot_f32(rows, columns, lines, n, a, a_step, a_line, b, b_line, offset, sums, sums_step)
    else:
        dot_f64(rows, columns, lines, n, a, a_step, a_line, b, b_line, offset, sums, sums_step)


cdef inline void masked(
    int mr, int vectors, Py_ssize_t channels, Py_ssize_t taps, const real* a, const real* source,
    Py_ssize_t channel_step, const Py_ssize_t* offset, const uint16_t* masks, const real* bias, real* c, Py_ssize_t ldc
) noexcept nogil:
    if real is float:
        masked_f32(mr, vectors, channels, taps, a, source, channel_step, offset, masks, bias, c, ldc)
    else:
        masked_f64(mr, vectors, channels, taps, a, source, channel_step, offset, masks, bias, c, ldc)


cdef inline void masked_dot(
    int rows, int columns, Py_ssize_t images, Py_ssize_t vectors, const real* a, Py_ssize_t a_step,
    Py_ssize_t a_image, const real* b, Py_ssize_t b_image, const Py_ssize_t* offset, const uint16_t* masks,
    Py_ssize_t first, Py_ssize_t taps, real* sums, Py_ssize_t sums_step
) noexcept nogil:
    if real is float:
        masked_dot_f32(
            rows, columns, images, vectors, a, a_step, a_image, b, b_image, offset, masks, first, taps, sums, sums_step
        )
    else:
        masked_dot_f64(
            rows, columns, images, vectors, a, a_step, a_image, b, b_image, offset, masks, first, taps, sums, sums_step
        )


cdef inline void add_lanes(const real* sums, real* out, Py_ssize_t n) noexcept nogil:
    if real is float:
        add_lanes_f32(sums, out, n)
    else:
        add_lanes_f64(sums, out, n)


cdef inline void store_tile(
    const real* tile, Py_ssize_t tile_width, Py_ssize_t rows, Py_ssize_t pixel, Py_ssize_t pixels, Py_ssize_t Q,
    Py_ssize_t width, real* out, Py_ssize_t row_step, Py_ssize_t column_step, Py_ssize_t m_step,
) noexcept nogil:
    """Store flattened pixels [pixel, pixel + tile_width) of each row of the tile, without the columns past Q."""
    cdef Py_ssize_t i, length, q = pixel % width, end = min(pixels, pixel + tile_width) - pixel, j = 0
    out += pixel // width * row_step
    while j < end:
        length = min(width - q, end - j)
        for i in range(rows):
            put_steps(
                out + i * m_step + q * column_step, tile + i * tile_width + j, column_step, min(length, Q - q)
            )
        j += length
        out += row_step
        q = 0


cdef inline void add_chunks(const real* partial, real* out, Py_ssize_t size, Py_ssize_t chunks) noexcept nogil:
    """``out[j]`` = sum of ``partial[chunk, j]``, in the order of the chunks."""
    cdef Py_ssize_t i, j
    for j in range(size):
        out[j] = partial[j]
        for i in range(1, chunks):
            out[j] += partial[i * size + j]
