"""MXNet's arrays in pinned memory, from which the GPU reads by itself."""

from __future__ import annotations

from collections.abc import Sequence

import mxnet as mx
import numpy as np

from .arrays import TYPE_FLAGS
from .engines import _cuda
from .errors import BadOption, nearest
from .graph import format_shape


def pinned_array(
    shape: int | Sequence[int], dtype: str = "float32", *, device: int = 0
) -> mx.nd.NDArray:
    """Return an array of MXNet, of zeros, that TensorRT reads and writes where it lies.

    Other arrays on the CPU are copied to pinned memory at each call. Write batches into this one,
    ``array[:] = batch``, and give it to an executor or to a Gluon block; results go the same way
    where an executor is bound to it. It is an array on the CPU like any other. What is pinned
    cannot be swapped out: a few batches are enough.

    Parameters
    ----------
    shape : int or sequence of int
        The sizes, 1 or more.
    dtype : str
        One of MXNet's.
    device : int
        The number of the GPU whose context owns the memory; all GPUs read it.

    Returns
    -------
    mxnet.nd.NDArray
        Its memory is freed with the last array that shares it.

    Raises
    ------
    EngineNotAvailable
        There is no usable GPU, or pycuda is missing.
    BadOption
        There is no such dtype or GPU, or a size is below 1.
    EngineError
        So much memory cannot be pinned.
    """
    sizes = (shape,) if isinstance(shape, int) else tuple(shape)
    if dtype not in TYPE_FLAGS:
        raise BadOption(f"dtype={dtype!r} is none of MXNet's{nearest(str(dtype), TYPE_FLAGS)}")
    if any(size < 1 for size in sizes):
        raise BadOption(f"shape={format_shape(sizes)}: sizes have to be 1 or more")
    nbytes = int(np.prod(sizes, dtype=np.int64)) * np.dtype(dtype).itemsize
    with _cuda.gpu(device) as gpu:
        memory = gpu.pinned_memory(nbytes)
    memory[:] = 0
    return mx.nd.from_numpy(memory[:nbytes].view(dtype).reshape(sizes), zero_copy=True)
