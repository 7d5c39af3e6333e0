"""Cython's view of transforms.h: one name per function, whatever the dtype."""

from libc.stdint cimport uint64_t

from fastcnn_kernels.gemm.micro cimport real

cdef extern from "fastcnn_kernels/conv2d/winograd/transforms.h" nogil:
    const int HAS_TRANSFORMS
    const int IMAGE
    const int GRADIENT
    void patches_f32(
        int kind, int m, Py_ssize_t count, Py_ssize_t lanes, const float* source, Py_ssize_t source_step,
        Py_ssize_t row_step, Py_ssize_t column_step, float* target, Py_ssize_t target_step, Py_ssize_t e_step
    )
    void patches_f64(
        int kind, int m, Py_ssize_t count, Py_ssize_t lanes, const double* source, Py_ssize_t source_step,
        Py_ssize_t row_step, Py_ssize_t column_step, double* target, Py_ssize_t target_step, Py_ssize_t e_step
    )
    void filters_f32(
        int m, Py_ssize_t count, Py_ssize_t lanes, const float* source, Py_ssize_t row_step, Py_ssize_t column_step,
        float* target, const Py_ssize_t* places
    )
    void taps_f32(int m, Py_ssize_t lanes, const float* sums, Py_ssize_t e_step, float* target)
    void image_rows_f32(
        int m, const float* plane, Py_ssize_t H, Py_ssize_t W, Py_ssize_t top, Py_ssize_t left, Py_ssize_t n,
        float* rows, Py_ssize_t pitch, float* tails
    )
    void rows_to_lanes_f32(
        int m, const float* rows, Py_ssize_t pitch, const float* tails, uint64_t ends, Py_ssize_t tiles, float* target,
        const Py_ssize_t* places
    )
    void lanes_to_rows_f32(
        int m, const float* sums, Py_ssize_t e_step, Py_ssize_t tiles, float bias, float* rows, Py_ssize_t pitch,
        float* check
    )
    void filters_f64(
        int m, Py_ssize_t count, Py_ssize_t lanes, const double* source, Py_ssize_t row_step, Py_ssize_t column_step,
        double* target, const Py_ssize_t* places
    )
    void taps_f64(int m, Py_ssize_t lanes, const double* sums, Py_ssize_t e_step, double* target)
    void image_rows_f64(
        int m, const double* plane, Py_ssize_t H, Py_ssize_t W, Py_ssize_t top, Py_ssize_t left, Py_ssize_t n,
        double* rows, Py_ssize_t pitch, double* tails
    )
    void rows_to_lanes_f64(
        int m, const double* rows, Py_ssize_t pitch, const double* tails, uint64_t ends, Py_ssize_t tiles,
        double* target, const Py_ssize_t* places
    )
    void lanes_to_rows_f64(
        int m, const double* sums, Py_ssize_t e_step, Py_ssize_t tiles, double bias, double* rows, Py_ssize_t pitch,
        double* check
    )
    void watch_f32(const float* values, Py_ssize_t n, float* check)
    void watch_f64(const double* values, Py_ssize_t n, double* check)


cdef inline void patches(
    int kind, int m, Py_ssize_t count, Py_ssize_t lanes, const real* source, Py_ssize_t source_step,
    Py_ssize_t row_step, Py_ssize_t column_step, real* target, Py_ssize_t target_step, Py_ssize_t e_step
) noexcept nogil:
    if real is float:
        patches_f32(
            kind, m, count, lanes, source, source_step, row_step, column_step, target, target_step, e_step
        )
    else:
        patches_f64(
            kind, m, count, lanes, source, source_step, row_step, column_step, target, target_step, e_step
        )


cdef inline void filters(
    int m, Py_ssize_t count, Py_ssize_t lanes, const real* source, Py_ssize_t row_step, Py_ssize_t column_step,
    real* target, const Py_ssize_t* places
) noexcept nogil:
    if real is float:
        filters_f32(m, count, lanes, source, row_step, column_step, target, places)
    else:
        filters_f64(m, count, lanes, source, row_step, column_step, target, places)


cdef inline void taps(
    int m, Py_ssize_t lanes, const real* sums, Py_ssize_t e_step, real* target
) noexcept nogil:
    if real is float:
        taps_f32(m, lanes, sums, e_step, target)
    else:
        taps_f64(m, lanes, sums, e_step, target)


cdef inline void image_rows(
    int m, const real* plane, Py_ssize_t H, Py_ssize_t W, Py_ssize_t top, Py_ssize_t left, Py_ssize_t n, real* rows,
    Py_ssize_t pitch, real* tails
) noexcept nogil:
    if real is float:
        image_rows_f32(m, plane, H, W, top, left, n, rows, pitch, tails)
    else:
        image_rows_f64(m, plane, H, W, top, left, n, rows, pitch, tails)


cdef inline void rows_to_lanes(
    int m, const real* rows, Py_ssize_t pitch, const real* tails, uint64_t ends, Py_ssize_t tiles, real* target,
    const Py_ssize_t* places
) noexcept nogil:
    if real is float:
        rows_to_lanes_f32(m, rows, pitch, tails, ends, tiles, target, places)
    else:
        rows_to_lanes_f64(m, rows, pitch, tails, ends, tiles, target, places)


cdef inline void watch(const real* values, Py_ssize_t n, real* check) noexcept nogil:
    if real is float:
        watch_f32(values, n, check)
    else:
        watch_f64(values, n, check)


cdef inline void lanes_to_rows(
    int m, const real* sums, Py_ssize_t e_step, Py_ssize_t tiles, real bias, real* rows, Py_ssize_t pitch, real* check
) noexcept nogil:
    if real is float:
        lanes_to_rows_f32(m, sums, e_step, tiles, bias, rows, pitch, check)
    else:
        lanes_to_rows_f64(m, sums, e_step, tiles, bias, rows, pitch, check)
