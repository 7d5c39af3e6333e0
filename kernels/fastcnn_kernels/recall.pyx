"""Calls made before: an op called again on arrays of the same shapes goes straight to its kernels.

Whether a call is valid, what shapes its results have, which kernels run and with which keywords: ``fastcnn.calls`` and
``dispatch`` find that out in Python, which takes longer than a small convolution. For plain arrays none of it depends
on their values or on where they lie, so it is remembered under the call's signature: the shapes and dtypes of arrays,
the values of options, and the settings in force. Whatever is not plain has no signature and is found out in every call.
"""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.object cimport PyObject
from cpython.ref cimport Py_XDECREF
from libc.stdint cimport int64_t, uintptr_t
from libc.string cimport memcpy, memset
from numpy cimport (
    NPY_DOUBLE, NPY_FLOAT, PyArray_BYTES, PyArray_CheckExact, PyArray_ISCARRAY_RO, PyArray_ISWRITEABLE, PyArray_NBYTES,
    PyArray_TYPE, import_array, ndarray, npy_intp
)

import numpy as np

from fastcnn_kernels.prepacked import PackedWeight, Prepacked
from fastcnn_kernels.recycled import empty

cdef extern from "numpy/arrayobject.h":
    ctypedef struct PyArray_Dims:
        npy_intp* ptr
        int len
    int NPY_CORDER
    object PyArray_Newshape(ndarray array, PyArray_Dims* shape, int order)

cdef extern from "Python.h":
    int64_t PyLong_AsLongLongAndOverflow(object number, int* overflow)
    int PyContextVar_Get(object variable, PyObject* default, PyObject** value) except -1
    object PyObject_Vectorcall(object function, PyObject** arguments, size_t positional, object names)
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL

import_array()

cdef enum:
    MOST_WORDS = 120
    MOST_KEYWORDS = 24
    MOST_ARRAYS = 4
    MOST_PARTS = 6  # arrays and packed weights among a kernel's keywords
    MOST_DIMENSIONS = 4
cdef enum Kind:
    NONE, FALSE, TRUE, INTEGER, TEXT, TUPLE, PREPACKED, FLOAT32, FLOAT64, READ_ONLY_FLOAT32, READ_ONLY_FLOAT64
#: Calls remembered at most: more than the layers of any program; then all are forgotten.
REMEMBERED = 1 << 14

#: What `again` returns of a call that was not made before.
UNKNOWN = object()

cdef dict recorded = {}

#: Of `settle`: variables that are None unless a context says otherwise, and what finds the settings in force.
cdef tuple variables = ()
cdef object find_settings
#: The numbers (see `numbers`) of what it found, where no context says otherwise, by the op's argument; how often that
#: became void.
cdef dict settled = {}
cdef Py_ssize_t changes = 0
#: Numbers of settings, which stand for them in signatures; no two have the same, ever.
cdef dict numbers = {}


def settle(tuple context_variables, find):
    """Say what the settings depend on besides the process: on these variables of a context.

    Parameters
    ----------
    context_variables : tuple of ContextVar
        Their default is None.
    find : callable
        Returns the settings, a hashable tuple, given the backend argument of an op.
    """
    global variables, find_settings
    variables, find_settings = context_variables, find
    unsettle()


def unsettle():
    """Have the settings found anew: those of the process have changed."""
    global settled, changes
    with cython.critical_section(recorded):
        settled = {}
        changes += 1


cdef object number_of(tuple settings):
    """The number that stands for these settings."""
    with cython.critical_section(recorded):
        return numbers.setdefault(settings, len(numbers))


cdef object settings_of(object backend):
    """Number of the settings in force for an op called with this backend."""
    cdef bint plain = backend is None or type(backend) is str
    cdef PyObject* value
    cdef Py_ssize_t before
    for variable in variables:
        PyContextVar_Get(variable, NULL, &value)
        plain = plain and value == <PyObject*>None
        Py_XDECREF(value)
    if not plain:
        return number_of(find_settings(backend))
    with cython.critical_section(recorded):
        found, before = settled.get(backend), changes
    if found is None:
        found = number_of(find_settings(backend))
        with cython.critical_section(recorded):
            if changes == before:
                settled[backend] = found
    return found


cdef struct Signature:
    Py_ssize_t size, arrays  # words and arrays so far
    int64_t words[MOST_WORDS]  # of each value its kind, its size or itself, then what it consists of
    char* starts[MOST_ARRAYS]


cdef bint write(Signature* signature, object value) except -1:
    """Append what depends on an argument; False if it is none of the plain kinds, or there is no room for it."""
    cdef int64_t* word = signature.words + signature.size
    cdef Py_ssize_t room = MOST_WORDS - signature.size - 2, size, i
    cdef const char* text
    cdef int dtype, overflow
    if room < 0:
        return False
    signature.size += 2
    word[1] = 0
    if value is None or value is True or value is False:
        word[0] = NONE if value is None else TRUE if value is True else FALSE
    elif PyArray_CheckExact(value):
        size = (<ndarray>value).ndim
        if not PyArray_ISCARRAY_RO(<ndarray>value) or size > room or signature.arrays == MOST_ARRAYS:
            return False
        dtype = PyArray_TYPE(<ndarray>value)
        if dtype != NPY_FLOAT and dtype != NPY_DOUBLE:
            return False
        if PyArray_ISWRITEABLE(<ndarray>value):
            word[0] = FLOAT32 if dtype == NPY_FLOAT else FLOAT64
        else:
            word[0] = READ_ONLY_FLOAT32 if dtype == NPY_FLOAT else READ_ONLY_FLOAT64
        signature.starts[signature.arrays] = PyArray_BYTES(<ndarray>value)
        i = 0
        while signature.starts[i] != PyArray_BYTES(<ndarray>value):
            i += 1
        signature.arrays += 1
        word[1] = MOST_ARRAYS * size + i  # the same array may come twice
        for i in range(size):
            word[2 + i] = (<ndarray>value).shape[i]
        signature.size += size
    elif type(value) is int:
        word[0], word[1] = INTEGER, PyLong_AsLongLongAndOverflow(value, &overflow)
        if overflow:
            return False
    elif type(value) is str:
        try:
            text = PyUnicode_AsUTF8AndSize(value, &size)
        except UnicodeEncodeError:
            return False
        if size > 8 * room:
            return False
        word[0], word[1] = TEXT, size
        signature.size += (size + 7) // 8
        memset(word + 2, 0, (size + 7) // 8 * 8)
        memcpy(word + 2, text, size)
    elif type(value) is tuple:
        word[0], word[1] = TUPLE, len(<tuple>value)
        for each in <tuple>value:
            if not write(signature, each):
                return False
    elif isinstance(value, PackedWeight):
        word[0] = PREPACKED
        return write(signature, value.plain)
    else:
        return False
    return True


cdef bytes signature_of(object build, tuple arguments, int64_t settings):
    """Return what stands for a call under settings of this number in `recorded`, or None."""
    cdef Signature signature
    signature.words[0], signature.words[1] = <int64_t><uintptr_t><PyObject*>build, settings
    signature.size, signature.arrays = 2, 0
    if not write(&signature, arguments):
        return None
    return PyBytes_FromStringAndSize(<char*>signature.words, signature.size * sizeof(int64_t))


cdef list taken_apart(tuple arguments):
    """Return what kernels take of a call's arguments, packed copies of weights behind them."""
    cdef list parts = list(arguments)
    for i, each in enumerate(arguments):
        if isinstance(each, PackedWeight):
            parts[i] = each.plain
            parts.append(each.packed)
    return parts


cdef bint overlap(ndarray a, ndarray b) noexcept:
    """Whether two contiguous arrays share memory."""
    cdef char* first = PyArray_BYTES(a)
    cdef char* second = PyArray_BYTES(b)
    return first < second + PyArray_NBYTES(b) and second < first + PyArray_NBYTES(a)


cdef struct Part:
    # An array among a kernel's keywords: where it goes, which part or result of the call it is, and as what shape.
    Py_ssize_t position, index
    int dimensions  # -1 if it keeps its shape
    npy_intp shape[MOST_DIMENSIONS]


@cython.final
cdef class Step:
    """One kernel, its keywords, and what of them are arrays of the call."""

    cdef object kernel, other, number, threads
    cdef tuple names  # num_threads is the last
    cdef list values  # None for those that are put in anew in every call
    cdef Part parts[MOST_PARTS]  # these
    cdef Py_ssize_t part_count
    cdef bint parallel  # on `number` threads, if no other call holds ``threads.busy``
    cdef readonly Py_ssize_t out  # index of the result
    cdef readonly bint plain  # all arrays are parts or results of the call

    def __init__(self, chosen, step, list parts, threads, number):
        _, work, call, _ = step
        self.kernel, self.other, parallel_work = chosen
        self.number, self.threads = number, threads
        self.parallel = work >= parallel_work and number > 1
        if self.parallel:
            threads.will_use()
        self.names = (*call, "num_threads")
        self.values, self.plain = [], len(self.names) <= MOST_KEYWORDS
        for name, value in call.items():
            if isinstance(value, (np.ndarray, Prepacked)):
                index = origin(value, parts)
                if index < 0 or not self.add(len(self.values), index, value, parts[index]):
                    self.plain = False
                    return
                self.out = index if name == "out" else self.out
                value = None
            self.values.append(value)

    cdef bint add(self, Py_ssize_t position, Py_ssize_t index, value, part_of_call) except -1:
        """Note that a keyword's value is a part or result of the call, or a view of it; False if there is no room."""
        cdef Part* part = &self.parts[self.part_count]
        if self.part_count == MOST_PARTS:
            return False
        part.position, part.index, part.dimensions = position, index, -1
        if value is not part_of_call and value.shape != part_of_call.shape:
            if value.ndim > MOST_DIMENSIONS:
                return False
            part.dimensions = value.ndim
            for i, size in enumerate(value.shape):
                part.shape[i] = size
        self.part_count += 1
        return True

    cdef void run(self, list parts) except *:
        """Run the kernel on these parts and results."""
        cdef PyObject* values[MOST_KEYWORDS]
        cdef Py_ssize_t count = len(self.values), i
        cdef PyArray_Dims shape
        cdef list views = []  # what only `values` refers to
        for i in range(count):
            values[i] = <PyObject*>self.values[i]
        for i in range(self.part_count):
            part = parts[self.parts[i].index]
            if self.parts[i].dimensions >= 0:
                shape.ptr, shape.len = self.parts[i].shape, self.parts[i].dimensions
                part = PyArray_Newshape(part, &shape, NPY_CORDER)
                views.append(part)
            values[self.parts[i].position] = <PyObject*>part
        busy = self.threads.busy if self.parallel else None
        if busy is not None and not busy.acquire(False):
            busy = None
        num_threads = 1 if busy is None else self.number
        values[count] = <PyObject*>num_threads
        try:
            if PyObject_Vectorcall(self.kernel, values, 0, self.names) is False:
                PyObject_Vectorcall(self.other, values, 0, self.names)
        finally:
            if busy is not None:
                busy.release()


cdef Py_ssize_t origin(value, list parts) except -2:
    """Index of what a kernel's argument is, but for the shape of an array; -1 if it is none of the parts."""
    for index, part in enumerate(parts):
        if value is part:
            return index
        if isinstance(part, np.ndarray) and isinstance(value, np.ndarray) and value.flags.c_contiguous:
            if PyArray_BYTES(part) == PyArray_BYTES(value) and value.nbytes == part.nbytes:
                return index
    return -1


@cython.final
cdef class Call:
    """What a signature stands for."""

    cdef list steps
    cdef object results  # of each result its shape and dtype, None, or the index of the argument that takes it
    cdef bint single  # the op returns one array, not several
    cdef bint packed  # some weights are: a call without any is spared the search for them

    cdef object run(self, tuple arguments):
        """Return the op's result; UNKNOWN if these arrays are a different matter, or memory is short."""
        cdef list parts = taken_apart(arguments) if self.packed else list(arguments)
        cdef Py_ssize_t first = len(parts)
        cdef Step step
        for result in self.results:
            if type(result) is int:
                out, result = result, parts[result]
                for i, each in enumerate(parts):
                    if i != out and PyArray_CheckExact(each) and overlap(each, result):
                        return UNKNOWN
            elif result is not None:
                try:
                    result = empty(*result)
                except MemoryError:
                    return UNKNOWN
            parts.append(result)
        for step in self.steps:
            step.run(parts)
        return parts[first] if self.single else tuple(parts[first:])


def record(build, tuple arguments, tuple settings, list chosen, list steps, result, threads):
    """Remember a call, if its kernels take nothing but its arguments and results, and fill all of these.

    Parameters
    ----------
    build, arguments
        As for `again`.
    settings : tuple
        What else decides which kernels run: backend, algorithm, number of threads, changes of the table.
    chosen : list of Chosen
        Kernel, successor and least parallel work of each step.
    steps : list of Step
        What ``dispatch`` ran.
    result : ndarray or tuple of (ndarray or None)
        What the op returned.
    threads : module
        Has ``busy`` and ``will_use``.
    """
    signature = signature_of(build, arguments, number_of(settings))
    if signature is None:
        return
    cdef Call call = Call.__new__(Call)
    cdef Step step
    call.single = isinstance(result, np.ndarray)
    parts = taken_apart(arguments)
    first = len(parts)
    call.packed = first > len(arguments)
    call.results = []
    for each in [result] if call.single else result:
        index = first if each is None else origin(each, parts)
        call.results.append(None if each is None else index if index >= 0 else (each.shape, each.dtype))
        parts.append(each)
    if any(isinstance(each, np.ndarray) and each.size == 0 for each in parts):
        return
    call.steps = [Step(*each, parts, threads, settings[2]) for each in zip(chosen, steps, strict=True)]
    written = {step.out for step in call.steps}
    for i, each in enumerate(call.results):
        if each is not None and (each if type(each) is int else first + i) not in written:
            return
    if any(not step.plain for step in call.steps):
        return
    with cython.critical_section(recorded):
        if len(recorded) >= REMEMBERED:
            recorded.clear()
        recorded[signature] = call


def forget():
    """Forget all calls."""
    with cython.critical_section(recorded):
        recorded.clear()


def again(build, tuple arguments, backend):
    """Run a call as it was run before under the settings in force.

    Parameters
    ----------
    build : callable
        Of ``fastcnn.calls``: stands for the op.
    arguments : tuple
        Those of `build`.
    backend : str or None
        The op's argument.

    Returns
    -------
    ndarray, tuple of (ndarray or None), or UNKNOWN
        The op's result.
    """
    cdef Call call
    signature = signature_of(build, arguments, settings_of(backend))
    if signature is None:
        return UNKNOWN
    with cython.critical_section(recorded):
        call = <Call>recorded.get(signature)
    return UNKNOWN if call is None else call.run(arguments)
