# cython: language_level=3, boundscheck=False, wraparound=False
# distutils: language=c++
"""The way of a call's arrays to a GPU and back, without the interpreter's lock.

What is copied and how stands in ``csrc/transfer.cc``.
"""
from __future__ import annotations

from libc.stdint cimport intptr_t, uint64_t
from libc.stdlib cimport calloc, free

__all__ = ["Transfer"]


ctypedef int (*CopyToDevice)(uint64_t, const void*, size_t, void*) noexcept nogil
ctypedef int (*CopyToHost)(void*, uint64_t, size_t, void*) noexcept nogil
ctypedef int (*LaunchGraph)(void*, void*) noexcept nogil
ctypedef int (*Synchronize)(void*) noexcept nogil
ctypedef int (*GetAttribute)(void*, int, uint64_t) noexcept nogil

cdef extern from "transfer.h" namespace "mxtrt" nogil:
    cdef cppclass Driver:
        CopyToDevice copy_to_device
        CopyToHost copy_to_host
        LaunchGraph launch_graph
        Synchronize synchronize
        GetAttribute get_attribute

    cdef cppclass Piece:
        void* array
        void* pinned
        uint64_t device
        size_t bytes

    int Upload(const Driver&, const Piece*, int, void*)
    int Download(const Driver&, const Piece*, int, void*)


cdef class Transfer:
    cdef Driver _driver
    cdef void* _stream
    cdef Piece* _inputs
    cdef Piece* _outputs
    cdef int _num_inputs
    cdef int _num_outputs

    def __cinit__(self, driver, stream, inputs, outputs):
        self._driver.copy_to_device = <CopyToDevice><intptr_t>driver[0]
        self._driver.copy_to_host = <CopyToHost><intptr_t>driver[1]
        self._driver.launch_graph = <LaunchGraph><intptr_t>driver[2]
        self._driver.synchronize = <Synchronize><intptr_t>driver[3]
        self._driver.get_attribute = <GetAttribute><intptr_t>driver[4]
        self._stream = <void*><intptr_t>stream
        self._num_inputs, self._num_outputs = len(inputs), len(outputs)
        self._inputs = _pieces(inputs)
        self._outputs = _pieces(outputs)

    def __dealloc__(self):
        free(self._inputs)
        free(self._outputs)

    def upload(self, arrays):
        cdef int status
        _place(self._inputs, self._num_inputs, arrays)
        with nogil:
            status = Upload(self._driver, self._inputs, self._num_inputs, self._stream)
        return status

    def download(self, arrays):
        cdef int status
        _place(self._outputs, self._num_outputs, arrays)
        with nogil:
            status = Download(self._driver, self._outputs, self._num_outputs, self._stream)
        return status

    def replay(self, inputs, graph, outputs):
        cdef int status
        cdef void* handle = <void*><intptr_t>graph
        _place(self._inputs, self._num_inputs, inputs)
        _place(self._outputs, self._num_outputs, outputs)
        with nogil:
            status = Upload(self._driver, self._inputs, self._num_inputs, self._stream)
            if status == 0:
                status = self._driver.launch_graph(handle, self._stream)
            if status == 0:
                status = Download(self._driver, self._outputs, self._num_outputs, self._stream)
        return status


cdef Piece* _pieces(places) except NULL:
    cdef int i
    cdef Piece* pieces = <Piece*>calloc(len(places) + 1, sizeof(Piece))
    if pieces == NULL:
        raise MemoryError
    for i, (pinned, device, nbytes) in enumerate(places):
        pieces[i].pinned = <void*><intptr_t>pinned
        pieces[i].device = device
        pieces[i].bytes = nbytes
    return pieces


cdef int _place(Piece* pieces, int count, addresses) except -1:
    cdef int i
    if len(addresses) != count:
        raise ValueError(f"{len(addresses)} arrays were given where {count} are expected")
    for i in range(count):
        pieces[i].array = <void*><intptr_t>addresses[i]
    return 0
