"""Recycled memory for results and workspaces: writing a fresh page costs several times what writing a used one does.

A large array handed out by `empty` has a lease on a block as its base. When the array and every view of it are gone,
the block goes back to the pool, and the next request of its size takes it. What somebody still holds is never handed
out again. Compiled, because a small convolution takes less time than this does in Python.
"""

cimport cython
from libc.stdint cimport uintptr_t
from numpy cimport PyArray_DATA, import_array, ndarray, npy_intp, set_array_base
from numpy cimport dtype as Descriptor

import numpy as np

cdef extern from "numpy/arrayobject.h":
    """
    /* numpy.pxd leaves it out, as it steals the reference to the dtype. */
    static PyObject* new_array(PyObject* dtype, int ndim, npy_intp* shape, void* data) {
        Py_INCREF(dtype);
        return PyArray_NewFromDescr(
            &PyArray_Type, (PyArray_Descr*)dtype, ndim, shape, NULL, data, data ? NPY_ARRAY_CARRAY : 0, NULL
        );
    }
    """
    object new_array(object dtype, int ndim, npy_intp* shape, void* data)

import_array()

#: Smaller arrays come from NumPy: the allocator reuses their memory by itself.
SMALLEST_BLOCK = 1 << 18
#: Where arrays begin: at a cache line, since a vector that lies across two is read as two. NumPy's begin anywhere.
ALIGNMENT = 64
#: Smaller arrays may begin anywhere.
SMALLEST_ALIGNED = 1 << 16
#: Bytes kept for reuse at most.
DEFAULT_LIMIT = 1 << 28
#: Size classes per doubling: a block is at most an eighth larger than asked for.
CLASSES = 8

cdef Py_ssize_t smallest_block = SMALLEST_BLOCK, alignment = ALIGNMENT, smallest_aligned = SMALLEST_ALIGNED
cdef Py_ssize_t classes = CLASSES
cdef object BYTES = np.dtype(np.uint8)
cdef enum:
    MOST_DIMENSIONS = 64
#: NumPy says what is wrong with arrays of as many bytes.
cdef Py_ssize_t LARGEST = 1 << 62


@cython.auto_pickle(False)
cdef class Pool:
    """Free blocks by size; the sizes in the order of their last return, so that the oldest give way."""

    cdef dict free
    cdef readonly Py_ssize_t limit, kept, leased, reused, allocated

    def __init__(self):
        self.free = {}
        self.limit = DEFAULT_LIMIT

    cdef ndarray take(self, Py_ssize_t size):
        """Return a block of `size` bytes."""
        cdef list blocks
        with cython.critical_section(self):
            blocks = <list>self.free.get(size)
            if blocks:
                self.leased += size
                self.reused += 1
                self.kept -= size
                return blocks.pop()
        try:
            block = new_block(size)
        except MemoryError:  # what is kept may be what is missing
            self.clear()
            block = new_block(size)
        with cython.critical_section(self):
            self.leased += size
            self.allocated += 1
        return block

    cdef void give_back(self, ndarray block, Py_ssize_t size):
        """Keep a block for reuse, in place of those whose size was not used for longest."""
        cdef list fresh = []  # made first: that may collect garbage, which may give back blocks of this size
        cdef list blocks
        with cython.critical_section(self):
            self.leased -= size
            if size <= self.limit:
                blocks = <list>self.free.pop(size, fresh)
                blocks.append(block)
                self.free[size] = blocks
                self.kept += size
                self.shrink()

    cdef void shrink(self):
        """Free what is beyond the limit, oldest sizes first."""
        cdef list blocks
        while self.kept > self.limit and self.free:
            size = next(iter(self.free))
            blocks = <list>self.free[size]
            if blocks:
                blocks.pop()
                self.kept -= size
            else:
                del self.free[size]

    def set_limit(self, Py_ssize_t limit):
        """Bound the bytes kept for reuse."""
        with cython.critical_section(self):
            self.limit = limit
            self.shrink()

    def clear(self):
        """Free what is kept."""
        with cython.critical_section(self):
            self.free = {}
            self.kept = 0


pool = Pool()
cdef Pool the_pool = pool


@cython.final
@cython.no_gc  # it refers to nothing that refers back, and so may give back its block when it is deallocated
@cython.freelist(16)
@cython.auto_pickle(False)
cdef class Lease:
    """What an array on a block has as its base: gives the block back when the last view is gone.

    Not an array itself, since NumPy shortens chains of bases through arrays.
    """

    cdef ndarray block
    cdef Py_ssize_t size
    cdef Pool pool

    def __dealloc__(self):
        if self.pool is not None:
            self.pool.give_back(self.block, self.size)

    def __reduce__(self):
        raise TypeError("a lease is neither copied nor pickled: its block is one array's")


cdef ndarray new_block(npy_intp nbytes):
    """Return bytes of which `nbytes` are left from the first cache line on."""
    nbytes += alignment
    return new_array(BYTES, 1, &nbytes, NULL)


cdef object on_block(ndarray block, object owner, object dtype, int ndim, npy_intp* shape):
    """Return the array that begins at the first cache line of a block and keeps `owner` alive."""
    cdef uintptr_t start = <uintptr_t>PyArray_DATA(block)
    start = (start + alignment - 1) // alignment * alignment
    array = new_array(dtype, ndim, shape, <void*>start)
    set_array_base(array, owner)
    return array


cpdef Py_ssize_t size_class(Py_ssize_t nbytes) noexcept:
    """Return the bytes of the block that serves a request of `nbytes`."""
    cdef Py_ssize_t step = 1
    while step * 2 * classes <= nbytes:
        step *= 2
    return (nbytes + step - 1) // step * step


cdef Py_ssize_t measure(tuple shape, npy_intp* sizes, Py_ssize_t itemsize) except -2:
    """Copy a shape and return its bytes; -1 if it is for NumPy to say what is wrong with it."""
    cdef double total = itemsize
    cdef Py_ssize_t nbytes = itemsize, i
    if len(shape) > MOST_DIMENSIONS:
        return -1
    for i in range(len(shape)):
        try:
            sizes[i] = shape[i]
        except OverflowError:
            return -1
        if sizes[i] < 0:
            return -1
        nbytes *= sizes[i]
        total *= sizes[i]
    return nbytes if total < LARGEST else -1


def empty(shape, dtype):
    """Return an uninitialised C-contiguous array, as ``numpy.empty``, a large one from the beginning of a cache line.

    Parameters
    ----------
    shape : int or tuple of int
    dtype : dtype_like

    Returns
    -------
    ndarray

    Raises
    ------
    MemoryError, ValueError
        As ``numpy.empty``.
    """
    cdef npy_intp sizes[MOST_DIMENSIONS]
    cdef Lease lease
    cdef ndarray block
    if type(shape) is not tuple:
        shape = (shape,)
    if not isinstance(dtype, Descriptor):
        dtype = np.dtype(dtype)
    cdef Py_ssize_t nbytes = measure(shape, sizes, (<Descriptor>dtype).itemsize)
    cdef int ndim = <int>len(<tuple>shape)
    if nbytes < 0:
        return np.empty(shape, dtype)
    if nbytes < smallest_aligned:
        return new_array(dtype, ndim, sizes, NULL)
    if nbytes < smallest_block or the_pool.limit == 0:
        block = new_block(nbytes)
        return on_block(block, block, dtype, ndim, sizes)
    nbytes = size_class(nbytes)
    block = the_pool.take(nbytes)
    lease = Lease.__new__(Lease)
    lease.pool, lease.block, lease.size = the_pool, block, nbytes
    return on_block(block, lease, dtype, ndim, sizes)
