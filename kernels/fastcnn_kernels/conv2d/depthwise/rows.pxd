"""Cython's view of rows.h: one name per function, whatever the dtype."""

from libc.stdint cimport uint16_t

from fastcnn_kernels.gemm.micro cimport real

cdef extern from "fastcnn_kernels/conv2d/depthwise/rows.h" nogil:
    const int HAS_ROWS
    const int ROWS
    const int SCATTER_ROWS
    void gather_small_f32(
        int size, int P, Py_ssize_t planes, const float* source, Py_ssize_t H, Py_ssize_t W, Py_ssize_t Q,
        Py_ssize_t top, Py_ssize_t left, const float* weight, const float* bias, Py_ssize_t k, Py_ssize_t filters,
        float* out, int activation
    )
    void gather_small_f64(
        int size, int P, Py_ssize_t planes, const double* source, Py_ssize_t H, Py_ssize_t W, Py_ssize_t Q,
        Py_ssize_t top, Py_ssize_t left, const double* weight, const double* bias, Py_ssize_t k, Py_ssize_t filters,
        double* out, int activation
    )
    void gather_rows_f32(
        int size, int stride, int vectors, const float* plane, Py_ssize_t H, Py_ssize_t W, Py_ssize_t h0,
        Py_ssize_t w0, const float* weight, float bias, float* out, Py_ssize_t pitch, Py_ssize_t rows,
        Py_ssize_t columns, int activation
    )
    void gather_rows_f64(
        int size, int stride, int vectors, const double* plane, Py_ssize_t H, Py_ssize_t W, Py_ssize_t h0,
        Py_ssize_t w0, const double* weight, double bias, double* out, Py_ssize_t pitch, Py_ssize_t rows,
        Py_ssize_t columns, int activation
    )
    void scatter_rows_f32(
        int size, const float* dy, Py_ssize_t P, Py_ssize_t Q, Py_ssize_t u, Py_ssize_t q0, Py_ssize_t left,
        const float* weight, float* out, Py_ssize_t pitch, Py_ssize_t h, Py_ssize_t first, Py_ssize_t end,
        Py_ssize_t columns
    )
    void scatter_rows_f64(
        int size, const double* dy, Py_ssize_t P, Py_ssize_t Q, Py_ssize_t u, Py_ssize_t q0, Py_ssize_t left,
        const double* weight, double* out, Py_ssize_t pitch, Py_ssize_t h, Py_ssize_t first, Py_ssize_t end,
        Py_ssize_t columns
    )
    void dot_whole_f32(
        int size, Py_ssize_t vectors, Py_ssize_t images, const float* plane, Py_ssize_t plane_step, Py_ssize_t W,
        Py_ssize_t top, Py_ssize_t left, const float* dy, Py_ssize_t dy_step, const uint16_t* masks, float* out
    )
    void dot_whole_f64(
        int size, Py_ssize_t vectors, Py_ssize_t images, const double* plane, Py_ssize_t plane_step, Py_ssize_t W,
        Py_ssize_t top, Py_ssize_t left, const double* dy, Py_ssize_t dy_step, const uint16_t* masks, double* out
    )
    void dot_planes_f32(
        int size, int stride, Py_ssize_t images, const float* plane, Py_ssize_t plane_step, Py_ssize_t H, Py_ssize_t W,
        Py_ssize_t top, Py_ssize_t left, const float* dy, Py_ssize_t dy_step, Py_ssize_t P, Py_ssize_t Q,
        const uint16_t* masks, float* out
    )
    void dot_planes_f64(
        int size, int stride, Py_ssize_t images, const double* plane, Py_ssize_t plane_step, Py_ssize_t H, Py_ssize_t W,
        Py_ssize_t top, Py_ssize_t left, const double* dy, Py_ssize_t dy_step, Py_ssize_t P, Py_ssize_t Q,
        const uint16_t* masks, double* out
    )


cdef inline void gather_small(
    int size, int P, Py_ssize_t planes, const real* source, Py_ssize_t H, Py_ssize_t W, Py_ssize_t Q, Py_ssize_t top,
    Py_ssize_t left, const real* weight, const real* bias, Py_ssize_t k, Py_ssize_t filters, real* out, int activation
) noexcept nogil:
    if real is float:
        gather_small_f32(size, P, planes, source, H, W, Q, top, left, weight, bias, k, filters, out, activation)
    else:
        gather_small_f64(size, P, planes, source, H, W, Q, top, left, weight, bias, k, filters, out, activation)


cdef inline void gather_rows(
    int size, int stride, int vectors, const real* plane, Py_ssize_t H, Py_ssize_t W, Py_ssize_t h0, Py_ssize_t w0,
    const real* weight, real bias, real* out, Py_ssize_t pitch, Py_ssize_t rows, Py_ssize_t columns, int activation
) noexcept nogil:
    if real is float:
        gather_rows_f32(
            size, stride, vectors, plane, H, W, h0, w0, weight, bias, out, pitch, rows, columns, activation
        )
    else:
        gather_rows_f64(
            size, stride, vectors, plane, H, W, h0, w0, weight, bias, out, pitch, rows, columns, activation
        )


cdef inline void scatter_rows(
    int size, const real* dy, Py_ssize_t P, Py_ssize_t Q, Py_ssize_t u, Py_ssize_t q0, Py_ssize_t left,
    const real* weight, real* out, Py_ssize_t pitch, Py_ssize_t h, Py_ssize_t first, Py_ssize_t end, Py_ssize_t columns
) noexcept nogil:
    if real is float:
        scatter_rows_f32(size, dy, P, Q, u, q0, left, weight, out, pitch, h, first, end, columns)
    else:
        scatter_rows_f64(size, dy, P, Q, u, q0, left, weight, out, pitch, h, first, end, columns)


cdef inline void dot_planes(
    int size, int stride, Py_ssize_t images, const real* plane, Py_ssize_t plane_step, Py_ssize_t H, Py_ssize_t W,
    Py_ssize_t top, Py_ssize_t left, const real* dy, Py_ssize_t dy_step, Py_ssize_t P, Py_ssize_t Q,
    const uint16_t* masks, real* out
) noexcept nogil:
    if real is float:
        dot_planes_f32(size, stride, images, plane, plane_step, H, W, top, left, dy, dy_step, P, Q, masks, out)
    else:
        dot_planes_f64(size, stride, images, plane, plane_step, H, W, top, left, dy, dy_step, P, Q, masks, out)


cdef inline void dot_whole(
    int size, Py_ssize_t vectors, Py_ssize_t images, const real* plane, Py_ssize_t plane_step, Py_ssize_t W,
    Py_ssize_t top, Py_ssize_t left, const real* dy, Py_ssize_t dy_step, const uint16_t* masks, real* out
) noexcept nogil:
    if real is float:
        dot_whole_f32(size, vectors, images, plane, plane_step, W, top, left, dy, dy_step, masks, out)
    else:
        dot_whole_f64(size, vectors, images, plane, plane_step, W, top, left, dy, dy_step, masks, out)
