"""Convolutions and transposed convolutions, over one to three spatial axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from ..graph import Value
from ..onnx_model import OnnxModel, Operand
from ..registry import converts
from .shape import INFERRED, Size, reshaped, sizes_of

CHANNELS_LAST = {"NWC", "NHWC", "NDHWC"}


@converts("Convolution", "Convolution_v1")
def convolution(
    onnx: OnnxModel,
    x: Value,
    weight: Value,
    bias: Value | None = None,
    *,
    kernel: tuple[int, ...],
    stride: tuple[int, ...] = (),
    dilate: tuple[int, ...] = (),
    pad: tuple[int, ...] = (),
    num_filter: int,
    num_group: int = 1,
    no_bias: bool = False,
    layout: str | None = None,
) -> str:
    """``Convolution`` -> ``Conv``; a channels-last layout stands between two ``Transpose``."""
    made = onnx.op(
        "Conv",
        channels_first(onnx, x, layout),
        channels_first(onnx, weight, layout),
        bias,
        kernel_shape=kernel,
        strides=stride or None,
        dilations=dilate or None,
        pads=pad * 2 or None,
        group=num_group,
    )
    return channels_last_again(onnx, made, layout)


@converts("Deconvolution")
def deconvolution(
    onnx: OnnxModel,
    x: Value,
    weight: Value,
    bias: Value | None = None,
    *,
    kernel: tuple[int, ...],
    stride: tuple[int, ...] = (),
    dilate: tuple[int, ...] = (),
    pad: tuple[int, ...] = (),
    adj: tuple[int, ...] = (),
    target_shape: tuple[int, ...] = (),
    num_filter: int,
    num_group: int = 1,
    no_bias: bool = True,
    layout: str | None = None,
) -> str:
    """``Deconvolution`` -> ``ConvTranspose``; a `target_shape` replaces `pad` and `adj`."""
    attrs = {
        "kernel_shape": kernel,
        "strides": stride or None,
        "dilations": dilate or None,
        "group": num_group,
    }
    operands = (channels_first(onnx, x, layout), channels_first(onnx, weight, layout), bias)
    if not any(target_shape):
        none = (0,) * len(kernel)
        made = _transposed(onnx, operands, pad or none, adj or none, attrs)
    else:
        sizes = spatial_sizes(x, layout, len(kernel))
        surplus = _surplus(sizes, kernel, stride, dilate, target_shape)
        if surplus is None:
            made = _middle(onnx, onnx.op("ConvTranspose", *operands, **attrs), target_shape)
        else:
            near, odd = [(n + 1) // 2 for n in surplus], [n % 2 for n in surplus]
            made = _transposed(onnx, operands, near, odd, attrs)
    return channels_last_again(onnx, made, layout)


@converts("im2col")
def im2col(
    onnx: OnnxModel,
    x: Value,
    *,
    kernel: tuple[int, ...],
    stride: tuple[int, ...] = (),
    dilate: tuple[int, ...] = (),
    pad: tuple[int, ...] = (),
) -> str:
    """``im2col`` -> ``Conv`` with a kernel of one 1 for each place in the window.

    Special numbers: NaN and infinity make NaN of their neighbours.
    """
    planes = onnx.op("Reshape", x, onnx.ints([-1, 1, *[0] * len(kernel)]))
    columns = onnx.op(
        "Conv",
        planes,
        _one_for_each_place(onnx, kernel, x.dtype),
        strides=stride or None,
        dilations=dilate or None,
        pads=pad * 2 or None,
    )
    sizes = [*sizes_of(x, [0]), Size(x, (1,), factor=prod(kernel)), INFERRED]
    return reshaped(onnx, columns, sizes, x, leading=0)


@converts("col2im")
def col2im(
    onnx: OnnxModel,
    x: Value,
    *,
    output_size: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...] = (),
    dilate: tuple[int, ...] = (),
    pad: tuple[int, ...] = (),
) -> str:
    """``col2im`` -> ``ConvTranspose`` with a kernel of one 1 for each place in the window.

    Special numbers: NaN and infinity make NaN of their neighbours.
    """
    ones, none = (1,) * len(kernel), (0,) * len(kernel)
    stride, dilate, pad = stride or ones, dilate or ones, pad or none
    room = [n + 2 * p - d * (k - 1) - 1 for n, p, d, k in zip(output_size, pad, dilate, kernel)]
    counts = [n // s + 1 for n, s in zip(room, stride)]
    rest = [n % s for n, s in zip(room, stride)]
    columns = onnx.op("Reshape", x, onnx.ints([-1, prod(kernel), *counts]))
    weight = _one_for_each_place(onnx, kernel, x.dtype)
    attrs = {"strides": stride, "dilations": dilate}
    planes = _transposed(onnx, (columns, weight), pad, rest, attrs)
    depth = Size(x, (1,), divisor=prod(kernel))
    sizes = [*sizes_of(x, [0]), depth, *(Size(factor=n) for n in output_size)]
    return reshaped(onnx, planes, sizes, x, leading=0)


def _one_for_each_place(onnx: OnnxModel, kernel: tuple[int, ...], dtype: str) -> str:
    return onnx.constant(np.eye(prod(kernel)).reshape(-1, 1, *kernel), dtype)


def channels_first(onnx: OnnxModel, x: Value, layout: str | None) -> Operand:
    """Return `x` with the last axis moved to the second place if `layout` says so."""
    if layout is None or layout not in CHANNELS_LAST:
        return x
    rank = len(layout)
    return onnx.op("Transpose", x, perm=[0, rank - 1, *range(1, rank - 1)])


def channels_last_again(onnx: OnnxModel, made: str, layout: str | None) -> str:
    """Undo `channels_first`."""
    if layout is None or layout not in CHANNELS_LAST:
        return made
    return onnx.op("Transpose", made, perm=[0, *range(2, len(layout)), 1])


def spatial_sizes(x: Value, layout: str | None, count: int) -> tuple[int | None, ...]:
    """Return the sizes of the `count` spatial axes of `x`, as far as they are known."""
    if x.shape is None:
        return (None,) * count
    return x.shape[1:-1] if layout in CHANNELS_LAST else x.shape[2:]


def _surplus(
    sizes: Sequence[int | None],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    dilate: tuple[int, ...],
    target: tuple[int, ...],
) -> list[int] | None:
    """Return by how much the unpadded result exceeds `target`; None for unknown sizes."""
    ones = (1,) * len(kernel)
    found = [
        s * (size - 1) + d * (k - 1) + 1 - wanted
        for size, k, s, d, wanted in zip(sizes, kernel, stride or ones, dilate or ones, target)
        if size is not None
    ]
    return found if len(found) == len(kernel) else None


def _transposed(
    onnx: OnnxModel,
    operands: Sequence[Operand],
    pad: Sequence[int],
    adj: Sequence[int],
    attrs: Mapping[str, Any],
) -> str:
    """Add a ``ConvTranspose`` whose far pads are smaller by `adj`.

    What is left of `adj` when a pad is used up lies beyond all products: there stands the bias. It
    is no output padding, as NVIDIA's parser of TensorRT 8.5 leaves the bias out of that.
    """
    far = [max(p - a, 0) for p, a in zip(pad, adj)]
    beyond = [max(a - p, 0) for p, a in zip(pad, adj)]
    if not any(beyond):
        return onnx.op("ConvTranspose", *operands, pads=[*pad, *far], **attrs)
    x, weight, bias = (*operands, None)[:3]
    made = onnx.op("ConvTranspose", x, weight, pads=[*pad, *far], **attrs)
    made = onnx.op("Pad", made, onnx.ints([0] * (len(pad) + 4) + beyond))
    if bias is None:
        return made
    return onnx.op("Add", made, onnx.op("Unsqueeze", bias, onnx.ints(range(1, len(pad) + 1))))


def _middle(onnx: OnnxModel, full: str, target: tuple[int, ...]) -> str:
    """Cut the middle of size `target` out of the spatial axes; an odd surplus goes in front."""
    axes = range(2, 2 + len(target))
    sizes = onnx.op("Gather", onnx.op("Shape", full), onnx.ints(axes))
    surplus = onnx.op("Add", onnx.op("Sub", sizes, onnx.ints(target)), onnx.ints([1]))
    starts = onnx.op("Div", surplus, onnx.ints([2]))
    ends = onnx.op("Add", starts, onnx.ints(target))
    return onnx.op("Slice", full, starts, ends, onnx.ints(axes))
