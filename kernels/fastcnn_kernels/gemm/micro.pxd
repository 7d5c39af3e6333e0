"""Cython's view of micro.h: one name per function, whatever the dtype."""

cdef extern from "fastcnn_kernels/gemm/micro.h" nogil:
    const int MR
    const int NR_F32
    const int NR_F64
    void micro_f32(int mr, Py_ssize_t L, const float* a, const float* b, float* c, Py_ssize_t ldc, bint accumulate)
    void micro_f64(int mr, Py_ssize_t L, const double* a, const double* b, double* c, Py_ssize_t ldc, bint accumulate)
    void copy_panel_row_f32(float* target, const float* source)
    void copy_panel_row_f64(double* target, const double* source)
    bint has_nonfinite_f32(const float* x, Py_ssize_t n)
    bint has_nonfinite_f64(const double* x, Py_ssize_t n)
    double lane_sum_f32(const float* x, Py_ssize_t n)
    double lane_sum_f64(const double* x, Py_ssize_t n)

ctypedef fused real:
    float
    double


cdef inline int panel_width(const real* x) noexcept nogil:
    """NR of the dtype."""
    return NR_F32 if real is float else NR_F64


cdef inline int panel_rows(Py_ssize_t M) noexcept nogil:
    """Rows per panel of A: M split evenly over as few panels of at most MR rows as hold it."""
    cdef Py_ssize_t panels = (M + MR - 1) // MR
    return <int>((M + panels - 1) // panels)


cdef inline void micro(
    int mr, Py_ssize_t L, const real* a, const real* b, real* c, Py_ssize_t ldc, bint accumulate
) noexcept nogil:
    if real is float:
        micro_f32(mr, L, a, b, c, ldc, accumulate)
    else:
        micro_f64(mr, L, a, b, c, ldc, accumulate)


cdef inline void copy_panel_row(real* target, const real* source) noexcept nogil:
    if real is float:
        copy_panel_row_f32(target, source)
    else:
        copy_panel_row_f64(target, source)


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
