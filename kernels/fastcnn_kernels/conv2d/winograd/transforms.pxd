"""Cython's view of transforms.h: one name per function, whatever the dtype."""

from fastcnn_kernels.gemm.micro cimport real

cdef extern from "fastcnn_kernels/conv2d/winograd/transforms.h" nogil:
    const int HAS_TRANSFORMS
    const int IMAGE
    const int FILTER
    const int GRADIENT
    const int WEIGHT
    void patches_f32(
        int kind, int m, Py_ssize_t count, Py_ssize_t lanes, const float* source, Py_ssize_t source_step,
        Py_ssize_t row_step, Py_ssize_t column_step, float* target, Py_ssize_t target_step, Py_ssize_t e_step
    )
    void patches_f64(
        int kind, int m, Py_ssize_t count, Py_ssize_t lanes, const double* source, Py_ssize_t source_step,
        Py_ssize_t row_step, Py_ssize_t column_step, double* target, Py_ssize_t target_step, Py_ssize_t e_step
    )
    void image_tiles_f32(
        int m, const float* plane, Py_ssize_t H, Py_ssize_t W, Py_ssize_t top, Py_ssize_t left, Py_ssize_t tiles,
        float* rows, Py_ssize_t pitch, float* target, Py_ssize_t e_step
    )
    void image_tiles_f64(
        int m, const double* plane, Py_ssize_t H, Py_ssize_t W, Py_ssize_t top, Py_ssize_t left, Py_ssize_t tiles,
        double* rows, Py_ssize_t pitch, double* target, Py_ssize_t e_step
    )
    void watch_f32(const float* values, Py_ssize_t n, float* check)
    void watch_f64(const double* values, Py_ssize_t n, double* check)
    void result_tiles_f32(
        int m, const float* sums, Py_ssize_t e_step, Py_ssize_t tiles, float bias, float* out, Py_ssize_t out_step,
        Py_ssize_t rows, Py_ssize_t columns, float* check
    )
    void result_tiles_f64(
        int m, const double* sums, Py_ssize_t e_step, Py_ssize_t tiles, double bias, double* out, Py_ssize_t out_step,
        Py_ssize_t rows, Py_ssize_t columns, double* check
    )


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


cdef inline void image_tiles(
    int m, const real* plane, Py_ssize_t H, Py_ssize_t W, Py_ssize_t top, Py_ssize_t left, Py_ssize_t tiles,
    real* rows, Py_ssize_t pitch, real* target, Py_ssize_t e_step
) noexcept nogil:
    if real is float:
        image_tiles_f32(m, plane, H, W, top, left, tiles, rows, pitch, target, e_step)
    else:
        image_tiles_f64(m, plane, H, W, top, left, tiles, rows, pitch, target, e_step)


cdef inline void watch(const real* values, Py_ssize_t n, real* check) noexcept nogil:
    if real is float:
        watch_f32(values, n, check)
    else:
        watch_f64(values, n, check)


cdef inline void result_tiles(
    int m, const real* sums, Py_ssize_t e_step, Py_ssize_t tiles, real bias, real* out, Py_ssize_t out_step,
    Py_ssize_t rows, Py_ssize_t columns, real* check
) noexcept nogil:
    if real is float:
        result_tiles_f32(m, sums, e_step, tiles, bias, out, out_step, rows, columns, check)
    else:
        result_tiles_f64(m, sums, e_step, tiles, bias, out, out_step, rows, columns, check)
