"""Arrays as C pointers: a tenth of what a typed memoryview costs, which small calls notice."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer


cdef inline void* address(object array) except? NULL:
    """Where a C-contiguous array begins, which the caller keeps alive; NULL of None."""
    cdef Py_buffer view
    cdef void* start
    if array is None:
        return NULL
    PyObject_GetBuffer(array, &view, PyBUF_SIMPLE)
    start = view.buf
    PyBuffer_Release(&view)
    return start
