# cython: language_level=3, boundscheck=False, wraparound=False
"""Between MXNet's side (``csrc/operator.cc``, ``csrc/backend.cc``) and the parts in Python.

MXNet calls :func:`_execute` on one of its own worker threads. It turns the C arrays into
:class:`Buffer` objects, takes the part from the table of this process and calls it. Nothing raises
across the boundary: an exception becomes a sentence that MXNet shows in its ``MXNetError``.
"""
from __future__ import annotations

import atexit
import logging

cimport cython
from libc.stdint cimport int32_t, int64_t, intptr_t, uint8_t, uint64_t, uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

__all__ = [
    "Buffer", "Writes", "attach", "checksum", "count_writes_with", "detach", "register",
    "registered", "set_planner", "unregister",
]


cdef extern from "bridge.h" nogil:
    enum:
        MXTRT_MAX_NDIM
        MXTRT_DEVICE_CPU

    ctypedef struct MxtrtTensor:
        void* data
        const int64_t* shape
        int32_t ndim
        int32_t dtype
        int32_t device_type
        int32_t device_id

    ctypedef struct MxtrtTable:
        int (*infer_shape)(const char* key, int num_inputs, const int32_t* in_ndims,
                           const int64_t* const* in_shapes, int num_outputs, int32_t* out_ndims,
                           int64_t* out_shapes, char* error, size_t error_size) noexcept nogil
        int (*infer_type)(const char* key, int num_inputs, int32_t* in_types, int num_outputs,
                          int32_t* out_types, char* error, size_t error_size) noexcept nogil
        int (*execute)(const char* key, int num_inputs, const MxtrtTensor* inputs,
                       int num_outputs, const MxtrtTensor* outputs, void* stream, char* error,
                       size_t error_size) noexcept nogil
        int (*prepare_gpu)(int device_id, char* error, size_t error_size)
        int (*optimize)(const char* graph, int num_options, const char* const* names,
                        const char* const* values, char** optimized, char* error,
                        size_t error_size) noexcept nogil

cdef extern from "dlfcn.h" nogil:
    void* dlopen(const char* path, int flags)
    void* dlsym(void* handle, const char* name)
    char* dlerror()
    int RTLD_NOW
    int RTLD_NOLOAD

cdef extern from *:
    """
    /* PyGILState_Release destroys the thread state of a thread that Python did not start, and the
       next call builds it anew, which takes several microseconds. One Ensure without a Release
       keeps it. */
    static __thread int mxtrt_has_thread_state = 0;
    static void mxtrt_keep_thread_state(void) {
      if (mxtrt_has_thread_state) return;
      mxtrt_has_thread_state = 1;
      if (PyGILState_GetThisThreadState() != NULL) return;
      (void)PyGILState_Ensure();
      (void)PyEval_SaveThread();
    }
    """
    void mxtrt_keep_thread_state() noexcept nogil


_log = logging.getLogger("mxtrt")

# MXNet's type flags: buffer format, bytes per element. bfloat16 (12) has no buffer format.
cdef dict _FORMATS = {0: b"f", 1: b"d", 2: b"e", 3: b"B", 4: b"i", 5: b"b", 6: b"l", 7: b"?"}
cdef dict _ITEMSIZES = {0: 4, 1: 8, 2: 2, 3: 1, 4: 4, 5: 1, 6: 8, 7: 1, 12: 2}

cdef dict _parts = {}
cdef object _planner = None
cdef MxtrtTable _table
cdef void* _set_table = NULL
cdef bint _detaches_at_exit = False


class _Refusal(Exception):
    """A sentence for the user that needs no exception name in front of it."""


@cython.freelist(32)
cdef class Buffer:
    """An MXNet array, seen from an engine. Valid only while ``execute`` runs."""

    cdef void* _data
    cdef readonly tuple shape
    cdef readonly int dtype
    cdef readonly int device_type
    cdef readonly int device_id

    @property
    def address(self) -> int:
        return <intptr_t>self._data

    @property
    def nbytes(self) -> int:
        cdef Py_ssize_t bytes_ = _ITEMSIZES[self.dtype]
        for size in self.shape:
            bytes_ *= <Py_ssize_t>size
        return bytes_

    def to_numpy(self):
        import numpy

        self._require_readable()
        return numpy.asarray(memoryview(self))

    def __repr__(self) -> str:
        device = "cpu" if self.device_type == MXTRT_DEVICE_CPU else "gpu"
        return (
            f"Buffer(address={self.address:#x}, shape={self.shape}, dtype={self.dtype}, "
            f"{device}({self.device_id}))"
        )

    cdef int _require_readable(self) except -1:
        if self.device_type != MXTRT_DEVICE_CPU:
            raise ValueError("the buffer lies in GPU memory; copy it to the CPU with the engine")
        if self.dtype not in _FORMATS:
            raise ValueError(f"MXNet's type flag {self.dtype} has no NumPy type")
        if self._data == NULL and self.nbytes != 0:
            raise ValueError("the buffer is valid only while execute runs, which has returned")
        return 0

    def __getbuffer__(self, Py_buffer* view, int flags):
        cdef int i, ndim = len(self.shape)
        cdef Py_ssize_t stride
        self._require_readable()
        view.internal = malloc((2 * ndim + 1) * sizeof(Py_ssize_t))
        if view.internal == NULL:
            raise MemoryError
        view.shape = <Py_ssize_t*>view.internal
        view.strides = view.shape + ndim
        view.itemsize = stride = _ITEMSIZES[self.dtype]
        for i in range(ndim - 1, -1, -1):
            view.shape[i] = self.shape[i]
            view.strides[i] = stride
            stride *= view.shape[i]
        view.len = stride
        # An array without elements may have no memory; consumers want a pointer all the same.
        view.buf = self._data if self._data != NULL else view.internal
        view.obj = self
        view.readonly = 0
        view.format = _FORMATS[self.dtype]
        view.ndim = ndim
        view.suboffsets = NULL

    def __releasebuffer__(self, Py_buffer* view):
        free(view.internal)


# -------------------------------------------------------------------------- what MXNet calls


cdef int _execute(const char* key, int num_inputs, const MxtrtTensor* inputs, int num_outputs,
                  const MxtrtTensor* outputs, void* stream, char* error,
                  size_t error_size) noexcept nogil:
    mxtrt_keep_thread_state()
    with gil:
        return _execute_part(key, num_inputs, inputs, num_outputs, outputs, stream, error,
                             error_size)


cdef int _prepare_gpu(int device_id, char* error, size_t error_size) noexcept nogil:
    mxtrt_keep_thread_state()
    with gil:
        try:
            from mxtrt.mxnet_gpu import prepare

            prepare(device_id)
            return 0
        except BaseException as exc:
            return _fail(exc, error, error_size)


cdef int _infer_shape(const char* key, int num_inputs, const int32_t* in_ndims,
                      const int64_t* const* in_shapes, int num_outputs, int32_t* out_ndims,
                      int64_t* out_shapes, char* error, size_t error_size) noexcept nogil:
    mxtrt_keep_thread_state()
    with gil:
        return _infer_part_shape(key, num_inputs, in_ndims, in_shapes, num_outputs, out_ndims,
                                 out_shapes, error, error_size)


cdef int _infer_type(const char* key, int num_inputs, int32_t* in_types, int num_outputs,
                     int32_t* out_types, char* error, size_t error_size) noexcept nogil:
    mxtrt_keep_thread_state()
    with gil:
        return _infer_part_type(key, num_inputs, in_types, num_outputs, out_types, error,
                                error_size)


cdef int _optimize(const char* graph, int num_options, const char* const* names,
                   const char* const* values, char** optimized, char* error,
                   size_t error_size) noexcept nogil:
    mxtrt_keep_thread_state()
    with gil:
        return _optimize_graph(graph, num_options, names, values, optimized, error, error_size)


cdef int _execute_part(const char* key, int num_inputs, const MxtrtTensor* inputs,
                       int num_outputs, const MxtrtTensor* outputs, void* stream, char* error,
                       size_t error_size) noexcept:
    cdef list taken = None
    cdef list given = None
    try:
        taken = _buffers(num_inputs, inputs)
        given = _buffers(num_outputs, outputs)
        _find(key).execute(taken, given, <intptr_t>stream)
        return 0
    except BaseException as exc:
        return _fail(exc, error, error_size)
    finally:
        _invalidate(taken)
        _invalidate(given)


cdef int _infer_part_shape(const char* key, int num_inputs, const int32_t* in_ndims,
                           const int64_t* const* in_shapes, int num_outputs, int32_t* out_ndims,
                           int64_t* out_shapes, char* error, size_t error_size) noexcept:
    cdef int i, axis
    cdef list shapes
    try:
        shapes = [_shape(in_ndims[i], in_shapes[i]) for i in range(num_inputs)]
        inferred = _find(key).infer_shape(shapes)
        _require_count("infer_shape", "outputs", inferred, num_outputs)
        for i in range(num_outputs):
            shape = tuple(inferred[i])
            if len(shape) > MXTRT_MAX_NDIM:
                raise _Refusal(f"output {i} has {len(shape)} dimensions; 32 are the most")
            out_ndims[i] = len(shape)
            for axis in range(out_ndims[i]):
                out_shapes[i * MXTRT_MAX_NDIM + axis] = shape[axis]
        return 0
    except BaseException as exc:
        return _fail(exc, error, error_size)


cdef int _infer_part_type(const char* key, int num_inputs, int32_t* in_types, int num_outputs,
                          int32_t* out_types, char* error, size_t error_size) noexcept:
    cdef int i
    try:
        inputs, outputs = _find(key).infer_type([in_types[i] for i in range(num_inputs)])
        _require_count("infer_type", "inputs", inputs, num_inputs)
        _require_count("infer_type", "outputs", outputs, num_outputs)
        for i in range(num_inputs):
            in_types[i] = inputs[i]
        for i in range(num_outputs):
            out_types[i] = outputs[i]
        return 0
    except BaseException as exc:
        return _fail(exc, error, error_size)


cdef int _optimize_graph(const char* graph, int num_options, const char* const* names,
                         const char* const* values, char** optimized, char* error,
                         size_t error_size) noexcept:
    cdef int i
    cdef bytes text
    try:
        options = {names[i].decode("utf-8"): values[i].decode("utf-8") for i in range(num_options)}
        text = _planner(graph.decode("utf-8"), options).encode("utf-8")
        optimized[0] = <char*>malloc(len(text) + 1)
        if optimized[0] == NULL:
            raise MemoryError
        memcpy(optimized[0], <const char*>text, len(text) + 1)
        return 0
    except BaseException as exc:
        return _fail(exc, error, error_size)


# ---------------------------------------------------------------------------- their small parts


cdef object _find(const char* key):
    part = _parts.get(<bytes>key)
    if part is None:
        name = (<bytes>key).decode("utf-8", "replace")
        raise _Refusal(
            f"no engine is registered under key '{name}'; engines live in the process that called "
            "mxtrt.optimize: optimize the original model in this process, or move an optimised one "
            "with mxtrt.save and mxtrt.load"
        )
    return part


cdef tuple _shape(int32_t ndim, const int64_t* sizes):
    cdef int i
    if ndim == 4:
        return (sizes[0], sizes[1], sizes[2], sizes[3])
    if ndim == 2:
        return (sizes[0], sizes[1])
    return tuple([sizes[i] for i in range(ndim)])


cdef list _buffers(int count, const MxtrtTensor* tensors):
    cdef int i
    cdef Buffer buffer
    cdef list result = []
    for i in range(count):
        buffer = Buffer.__new__(Buffer)
        buffer._data = tensors[i].data
        buffer.shape = _shape(tensors[i].ndim, tensors[i].shape)
        buffer.dtype = tensors[i].dtype
        buffer.device_type = tensors[i].device_type
        buffer.device_id = tensors[i].device_id
        result.append(buffer)
    return result


cdef void _invalidate(list buffers) noexcept:
    cdef Buffer buffer
    if buffers is not None:
        for buffer in buffers:
            buffer._data = NULL


cdef int _require_count(str function, str what, values, int count) except -1:
    if len(values) != count:
        raise _Refusal(f"{function} of the engine returned {len(values)} {what}, not {count}")
    return 0


cdef int _fail(exc, char* error, size_t error_size) noexcept:
    cdef bytes text
    cdef size_t length
    try:
        text = _sentence(exc).encode("utf-8", "replace").replace(b"\0", b" ")
        _log.debug("an engine failed", exc_info=exc)
    except BaseException:
        text = b"the engine failed, and so did its error message"
    length = len(text)
    if length >= error_size:
        length = error_size - 1
        # 0b10xxxxxx continues a character: step back to where it begins.
        while length > 0 and (<unsigned char>text[length] & 0xC0) == 0x80:
            length -= 1
    memcpy(error, <const char*>text, length)
    error[length] = 0
    return 1


cdef str _sentence(exc):
    from mxtrt.errors import MxtrtError

    name = type(exc).__name__
    if isinstance(exc, (_Refusal, MxtrtError)):
        return str(exc) or name
    return f"{name}: {exc}" if str(exc) else name


# --------------------------------------------------------------------------- what Python calls


def attach(library_path: str) -> None:
    global _set_table, _detaches_at_exit
    cdef bytes path = library_path.encode("utf-8")
    cdef void* handle = dlopen(path, RTLD_NOW | RTLD_NOLOAD)
    if handle == NULL:
        raise OSError(f"{library_path} is not loaded; mx.library.load must come first")
    _set_table = dlsym(handle, b"mxtrt_set_table")
    if _set_table == NULL:
        raise OSError(f"{library_path} is not mxtrt's operator library: {dlerror().decode()}")
    _table.infer_shape = _infer_shape
    _table.infer_type = _infer_type
    _table.execute = _execute
    _table.prepare_gpu = _prepare_gpu
    _table.optimize = _optimize
    _install(&_table)
    if not _detaches_at_exit:
        _detaches_at_exit = True
        atexit.register(detach)


def detach() -> None:
    if _set_table != NULL:
        _install(NULL)


cdef void _install(const MxtrtTable* table) noexcept:
    # Without the GIL: mxtrt_set_table waits for calls that need it to finish.
    with nogil:
        (<void (*)(const MxtrtTable*) noexcept nogil>_set_table)(table)


def register(key: str, part) -> None:
    _parts[key.encode("utf-8")] = part


def unregister(key: str) -> None:
    _parts.pop(key.encode("utf-8"), None)


def registered() -> list:
    return [key.decode("utf-8") for key in _parts]


def set_planner(planner) -> None:
    global _planner
    _planner = planner


# --------------------------------------------------------------------- writes to parameters

cdef size_t _VARIABLE = 0  # where the chunk of an array has the engine's variable


cdef class Writes:
    """Notices writes to parameters, by the number of writes that MXNet's engine keeps for each."""

    cdef list _dicts
    cdef list _lists
    cdef void** _handles
    cdef size_t* _counts
    cdef int _number

    def __cinit__(self, params):
        cdef int i
        # with the attributes' dicts at hand a look takes a tenth of what getattr takes
        self._dicts = [vars(param) for param in params]
        self._lists = [attributes["_data"] for attributes in self._dicts]
        arrays = [array for data in self._lists for array in data or ()]
        self._number = len(arrays)
        self._handles = <void**>malloc((self._number + 1) * sizeof(void*))
        self._counts = <size_t*>malloc((self._number + 1) * sizeof(size_t))
        if self._handles == NULL or self._counts == NULL:
            raise MemoryError
        for i in range(self._number):
            self._handles[i] = <void*><uintptr_t>arrays[i].handle.value
        with nogil:
            for i in range(self._number):
                _wait(self._handles[i])  # where it fails, `happened` says so
                self._counts[i] = _count(self._handles[i])

    def __dealloc__(self):
        free(self._handles)
        free(self._counts)

    def happened(self, bint wait=True):
        cdef int i
        cdef bint found = False
        cdef dict attributes
        for i in range(len(self._dicts)):
            attributes = <dict>self._dicts[i]
            if attributes["_data"] is not self._lists[i]:
                return True
        with nogil:
            for i in range(self._number):
                if wait and _wait(self._handles[i]) != 0:
                    found = True
                elif _count(self._handles[i]) != self._counts[i]:
                    found = True
                if found:
                    break
        return found


cdef int (*_wait)(void*) noexcept nogil


cdef inline size_t _count(void* handle) noexcept nogil:
    # mxnet/ndarray.h: an NDArray begins with the pointer to its Chunk, which begins with
    # Storage::Handle (32 bytes), a vector (24) and, with oneDNN, a shared_ptr (16); then comes the
    # variable: mxnet/engine.h has the number of writes behind the pointer to its virtual functions.
    cdef char* chunk = (<char**>handle)[0]
    cdef char* variable = (<char**>(chunk + _VARIABLE))[0]
    return (<size_t*>(variable + sizeof(void*)))[0]


def count_writes_with(wait_to_read: int, has_onednn: bool) -> None:
    global _wait, _VARIABLE
    _wait = <int (*)(void*) noexcept nogil><uintptr_t>wait_to_read
    _VARIABLE = 72 if has_onednn else 56


def checksum(address: int, nbytes: int) -> int:
    # Four sums side by side, as xxHash has them, so that memory is what limits it: zlib.crc32 takes
    # a tenth of the time in which ResNet-50 is optimised.
    cdef uint64_t sums[4]
    cdef const uint64_t* words = <const uint64_t*><uintptr_t>address
    cdef const uint8_t* rest
    cdef Py_ssize_t i, lane, blocks = nbytes // 32, left = nbytes % 32
    with nogil:
        for lane in range(4):
            sums[lane] = lane + 1
        for i in range(blocks):
            for lane in range(4):
                sums[lane] = _mixed(sums[lane], words[4 * i + lane])
        rest = <const uint8_t*>(words + 4 * blocks)
        for i in range(left):
            sums[0] = _mixed(sums[0], rest[i])
        for lane in range(1, 4):
            sums[0] = _mixed(sums[0], sums[lane])
    return sums[0]


cdef inline uint64_t _mixed(uint64_t total, uint64_t word) noexcept nogil:
    total += word * 0xC2B2AE3D27D4EB4FULL
    return ((total << 31) | (total >> 33)) * 0x9E3779B185EBCA87ULL
