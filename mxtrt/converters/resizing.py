"""Images of pixels resized as OpenCV 3.4 does it, which is inside of MXNet.

All of its filters are products with a matrix on either side. Bytes it resizes with whole numbers:
weights of 11 or 8 binary digits, shifted away after the sum. What float32 holds of these without
rounding is a ``MatMul``, the rest is done in int32.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..errors import UnsupportedOp
from ..graph import Value
from ..onnx_model import OnnxModel
from ..registry import converts
from . import known_rank, known_size
from .image import (
    FLOATS,
    NEAREST,
    Length,
    calculate,
    channels_first_image,
    length_of,
    ramp,
    vector,
)

FILTERS = NEAREST_PIXEL, LINEAR, CUBIC, AREA, LANCZOS, LINEAR_EXACT = range(6)
"""OpenCV's numbers of its filters."""

Matrix = npt.NDArray[np.float64]
Taps = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]
"""For each pixel that is wanted: which ones it is made of, and their weights."""

TAPS_OF_BYTES = 2048  # the weights of bytes add up to this
EXACT_CHANNELS = 4  # of which OpenCV halves images by its exact filter
VECTORS_OF_2 = {1, 3, 4}  # channels for which OpenCV has a routine of its own that halves images


@converts("_image_resize")
def image_resize(
    onnx: OnnxModel,
    x: Value,
    *,
    size: tuple[int, ...] = (),
    keep_ratio: bool = False,
    interp: int = 1,
) -> str:
    """``_image_resize`` -> ``Resize``, or ``MatMul`` with the weights of a filter.

    Special numbers: NaN and infinity make NaN of other pixels than in MXNet.
    """
    if interp not in FILTERS:
        raise UnsupportedOp(f"interp={interp}; OpenCV resizes with those from 0 to 5")
    height, width = _wanted_size(onnx, x, size, keep_ratio)
    image = channels_first_image(onnx, x, x)
    is_linear = interp in {LINEAR, LINEAR_EXACT}
    if interp == NEAREST_PIXEL or (is_linear and x.dtype in {"float16", "float32"}):
        made = _interpolated(onnx, image, x, height, width, interp)
    elif interp == LINEAR and x.dtype == "uint8" and None in (x.shape or ())[-3:]:
        made = onnx.cast(_linear_bytes(onnx, image, x, height, width), "uint8")
    else:
        made = _filtered(onnx, image, x, interp, height, width)
    return onnx.op("Transpose", made, perm=[1, 2, 0] if known_rank(x) == 3 else [0, 2, 3, 1])


def _wanted_size(
    onnx: OnnxModel, x: Value, size: tuple[int, ...], keep_ratio: bool
) -> tuple[Length, Length]:
    """Return the height and width that MXNet resizes to."""
    if len(size) == 2:
        return size[1], size[0]
    if not keep_ratio:
        return size[0], size[0]
    lengths = [length_of(onnx, x, axis) for axis in (-3, -2)]
    shorter = calculate(onnx, "Min", *lengths)
    height, width = (calculate(onnx, "Mul", size[0], length) for length in lengths)
    return calculate(onnx, "Div", height, shorter), calculate(onnx, "Div", width, shorter)


def _filtered(
    onnx: OnnxModel, image: str, x: Value, interp: int, height: Length, width: Length
) -> str:
    """Return what a filter with weights that are known makes."""
    for axis in (-3, -2):
        known_size(x, axis)
    height, width = int(height), int(width)  # numbers, as the sizes are that they depend on
    if x.dtype in FLOATS:
        down, across = _matrices(x, interp, height, width)
        rows = onnx.op("MatMul", onnx.constant(down, x.dtype), image)
        return onnx.op("MatMul", rows, onnx.constant(across.T, x.dtype))
    if x.dtype == "uint8":
        return onnx.cast(_bytes(onnx, image, x, interp, height, width), "uint8")
    raise UnsupportedOp(f"interp={interp} of {x.dtype}: OpenCV takes its bytes for something else")


def _interpolated(
    onnx: OnnxModel, image: str, x: Value, height: Length, width: Length, interp: int
) -> str:
    attrs = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    single = known_rank(x) == 3
    batch = 1 if single else length_of(onnx, x, 0)
    shape = vector(onnx, batch, length_of(onnx, x, -1), height, width)
    if single:
        image = onnx.op("Unsqueeze", image, onnx.ints([0]))
    made = onnx.op("Resize", image, None, None, shape, **(attrs if interp else NEAREST))
    return onnx.op("Squeeze", made, onnx.ints([0])) if single else made


# -- bytes -----------------------------------------------------------------------------------------


def _bytes(onnx: OnnxModel, image: str, x: Value, interp: int, height: int, width: int) -> str:
    """Return the pixels of bytes as numbers from 0 to 255."""
    lengths = known_size(x, -3), known_size(x, -2)
    blocks = _blocks(lengths, (height, width))
    averages = {AREA}
    if blocks == (2, 2):
        averages |= {LINEAR} if known_size(x, -1) <= EXACT_CHANNELS else {LINEAR, LINEAR_EXACT}
    if blocks is not None and interp in averages:
        return _averaged(onnx, image, x, blocks, (height, width))
    if interp in {CUBIC, AREA}:
        raise UnsupportedOp(
            f"interp={interp} of uint8: OpenCV adds float32 up, whose last bit decides, in vectors "
            "and in the rest of a row in two ways"
        )
    taps = {LINEAR: _linear_taps, LINEAR_EXACT: _exact_taps, LANCZOS: _lanczos_taps}[interp]
    down, across = (taps(n, m) for n, m in zip(lengths, (height, width)))
    whole = 256 if interp == LINEAR_EXACT else TAPS_OF_BYTES
    weights = onnx.constant(_matrix(_rounded(across, whole), lengths[1]).T, "float32")
    rows = onnx.cast(onnx.op("MatMul", onnx.cast(image, "float32"), weights), "int32")
    if interp == LINEAR:
        pairs = list(zip(*(part.T for part in _rounded(down, whole))))
        twice = [onnx.op("Gather", rows, onnx.ints(pixel.tolist()), axis=-2) for pixel, _ in pairs]
        return _shifted_twice(onnx, twice, [_column(onnx, weight) for _, weight in pairs])
    total = ""
    for pixel, weight in zip(*(part.T for part in _rounded(down, whole))):
        row = onnx.op("Gather", rows, onnx.ints(pixel.tolist()), axis=-2)
        term = onnx.op("Mul", row, _column(onnx, weight))
        total = onnx.op("Add", total, term) if total else term
    half = onnx.op("Add", total, _whole(onnx, whole**2 // 2))
    made = onnx.op("Div", half, _whole(onnx, whole**2))
    return onnx.op("Clip", made, _whole(onnx, 0), _whole(onnx, 255))


def _shifted_twice(onnx: OnnxModel, rows: Sequence[str], weights: Sequence[str]) -> str:
    """Add two rows up in 16 bits: each loses 4 binary digits before, and 16 after its weight."""
    parts = []
    for row, weight in zip(rows, weights):
        term = onnx.op("Mul", onnx.op("Div", row, _whole(onnx, 16)), weight)
        parts.append(onnx.op("Div", term, _whole(onnx, 65536)))
    total = onnx.op("Add", onnx.op("Add", *parts), _whole(onnx, 2))
    return onnx.op("Div", total, _whole(onnx, 4))


def _linear_bytes(onnx: OnnxModel, image: str, x: Value, height: Length, width: Length) -> str:
    """Return what the linear filter makes of bytes of any size; halves are made in another way."""
    numbers = onnx.cast(image, "int32")
    lengths = [length_of(onnx, x, axis) for axis in (-3, -2)]
    down, across = (_two_taps_of(onnx, *pair) for pair in zip(lengths, (height, width)))
    columns = [onnx.op("Gather", numbers, pixels, axis=-1) for pixels, _ in across]
    row = onnx.op("Add", *(onnx.op("Mul", c, w) for c, (_, w) in zip(columns, across)))
    rows = [onnx.op("Gather", row, pixels, axis=-2) for pixels, _ in down]
    weights = [onnx.op("Unsqueeze", weight, onnx.ints([1])) for _, weight in down]
    made = _shifted_twice(onnx, rows, weights)
    beside = onnx.op("Add", *columns)
    halved = _halved(onnx, x, *(onnx.op("Gather", beside, pixels, axis=-2) for pixels, _ in down))
    doubled = (calculate(onnx, "Mul", n, 2) for n in (height, width))
    halves = (onnx.op("Equal", vector(onnx, n), vector(onnx, m)) for n, m in zip(lengths, doubled))
    return onnx.op("Where", onnx.op("And", *halves), halved, made)


def _two_taps_of(onnx: OnnxModel, length: Length, wanted: Length) -> list[tuple[str, str]]:
    """Return the pixels in front and behind, and their weights, as `_linear_taps` has them."""
    sizes = [onnx.cast(vector(onnx, n), "float64") for n in (length, wanted)]
    one, half = (onnx.constant([number], "float64") for number in (1.0, 0.5))
    scale = onnx.op("Div", one, onnx.op("Div", sizes[1], sizes[0]))
    middle = onnx.op("Add", onnx.cast(ramp(onnx, wanted), "float64"), half)
    place = onnx.cast(onnx.op("Sub", onnx.op("Mul", middle, scale), half), "float32")
    first = onnx.op("Floor", place)
    share = onnx.op("Sub", place, first)
    index = onnx.cast(first, "int64")
    last = vector(onnx, calculate(onnx, "Sub", length, 1))
    made = []
    for step, part in ((0, onnx.op("Sub", onnx.constant(1, "float32"), share)), (1, share)):
        moved = onnx.op("Max", onnx.op("Add", index, onnx.ints([step])), onnx.ints([0]))
        weight = onnx.op("Mul", part, onnx.constant(TAPS_OF_BYTES, "float32"))
        made.append((onnx.op("Min", moved, last), onnx.cast(onnx.op("Round", weight), "int32")))
    return made


def _halved(onnx: OnnxModel, x: Value, *pairs: str) -> str:
    """Return the means of blocks of 2 by 2, of which two sums are given, as `_averaged` does."""
    total = onnx.op("Add", *pairs)
    up = onnx.op("Div", onnx.op("Add", total, _whole(onnx, 2)), _whole(onnx, 4))
    quarter = onnx.op("Mul", onnx.cast(total, "float32"), onnx.constant(0.25, "float32"))
    to_even = onnx.cast(onnx.op("Round", quarter), "int32")
    channels = vector(onnx, length_of(onnx, x, -1))
    goes_up = onnx.op("Equal", channels, onnx.ints(sorted(VECTORS_OF_2)))
    is_any = onnx.op("ReduceMax", onnx.cast(goes_up, "int32"), axes=[0], keepdims=1)
    return onnx.op("Where", onnx.cast(is_any, "bool"), up, to_even)


def _averaged(
    onnx: OnnxModel, image: str, x: Value, blocks: tuple[int, int], wanted: tuple[int, int]
) -> str:
    """Return the means of blocks, rounded: halves to even, those of 2 by 2 pixels upwards."""
    down, across = (
        onnx.constant(np.repeat(np.eye(m), n, axis=1), "float32") for n, m in zip(blocks, wanted)
    )
    rows = onnx.op("MatMul", down, onnx.cast(image, "float32"))
    total = onnx.op("MatMul", rows, onnx.op("Transpose", across, perm=[1, 0]))
    if blocks == (2, 2) and known_size(x, -1) in VECTORS_OF_2:
        up = onnx.op("Add", onnx.cast(total, "int32"), _whole(onnx, 2))
        return onnx.op("Div", up, _whole(onnx, 4))
    share = onnx.constant(1 / (blocks[0] * blocks[1]), "float32")
    return onnx.op("Round", onnx.op("Mul", total, share))


def _blocks(lengths: tuple[int, int], wanted: tuple[int, int]) -> tuple[int, int] | None:
    """Return how many pixels become one, if that is a whole number."""
    if any(length % m for length, m in zip(lengths, wanted)):
        return None
    return lengths[0] // wanted[0], lengths[1] // wanted[1]


def _column(onnx: OnnxModel, weight: npt.NDArray[np.float64]) -> str:
    return onnx.constant(weight.reshape(-1, 1), "int32")


def _whole(onnx: OnnxModel, number: int) -> str:
    return onnx.constant(number, "int32")


# -- filters ---------------------------------------------------------------------------------------


def _matrices(x: Value, interp: int, height: int, width: int) -> list[Matrix]:
    """Return the weights of a filter: (height, rows) and (width, columns)."""
    pairs = (known_size(x, -3), height), (known_size(x, -2), width)
    if interp == AREA and all(length >= wanted for length, wanted in pairs):
        return [_area_matrix(*pair) for pair in pairs]
    taps = {AREA: _area_taps, CUBIC: _cubic_taps, LANCZOS: _lanczos_taps}.get(interp, _linear_taps)
    return [_matrix(taps(*pair), pair[0]) for pair in pairs]


def _matrix(taps: Taps, length: int) -> Matrix:
    """Return the matrix (wanted, length) of weights; a pixel at the border may count twice."""
    pixels, weights = taps
    made = np.zeros((len(pixels), length))
    np.add.at(made, (np.arange(len(pixels))[:, None], pixels), weights)
    return made


def _rounded(taps: Taps, whole: int) -> Taps:
    return taps[0], np.rint(taps[1].astype(np.float32) * np.float32(whole)).astype(float)


def _positions(length: int, wanted: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return the pixels in front of each pixel that is wanted, and how far behind them it lies."""
    place = ((np.arange(wanted) + 0.5) * (1 / (wanted / length)) - 0.5).astype(np.float32)
    first = np.floor(place)
    return first.astype(np.int64), (place - first).astype(float)


def _two_taps(first: npt.NDArray[np.int64], share: npt.NDArray[np.float64], length: int) -> Taps:
    pixels = np.clip(np.stack([first, first + 1], axis=1), 0, length - 1)
    return pixels, np.stack([1 - share, share], axis=1)


def _linear_taps(length: int, wanted: int) -> Taps:
    return _two_taps(*_positions(length, wanted), length)


def _exact_taps(length: int, wanted: int) -> Taps:
    """Return those of the filter that OpenCV computes in doubles, which stops at the border."""
    place = np.clip((np.arange(wanted) + 0.5) * (length / wanted) - 0.5, 0, length - 1)
    first = np.floor(place).astype(np.int64)
    return _two_taps(first, np.asarray(place - first, float), length)


def _cubic_taps(length: int, wanted: int) -> Taps:
    first, share = _positions(length, wanted)
    distance = np.abs(share[:, None] + 1 - np.arange(4))
    near = 1.25 * distance**3 - 2.25 * distance**2 + 1
    far = -0.75 * (distance**3 - 5 * distance**2 + 8 * distance - 4)
    pixels = np.clip(first[:, None] - 1 + np.arange(4), 0, length - 1)
    return pixels, np.where(distance <= 1, near, far)


def _lanczos_taps(length: int, wanted: int) -> Taps:
    first, share = _positions(length, wanted)
    distance = share[:, None] + 3 - np.arange(8)
    weights = np.sinc(distance) * np.sinc(distance / 4)
    pixels = np.clip(first[:, None] - 3 + np.arange(8), 0, length - 1)
    return pixels, weights / weights.sum(axis=1, keepdims=True)


def _area_taps(length: int, wanted: int) -> Taps:
    """Return what OpenCV takes for an area where an image grows: the share of the second pixel."""
    place = np.arange(wanted)
    first = np.floor(place * (1 / (wanted / length)))
    share = (place + 1 - (first + 1) * (wanted / length)).astype(np.float32).astype(float)
    share = np.where(share <= 0, 0, share - np.floor(share))
    return _two_taps(first.astype(np.int64), share, length)


def _area_matrix(length: int, wanted: int) -> Matrix:
    """Return how much of each pixel lies in each larger one."""
    scale = 1 / (wanted / length)
    start = np.arange(wanted)[:, None] * scale
    end, pixel = np.minimum(start + scale, length), np.arange(length)
    covered = np.minimum(end, pixel + 1) - np.maximum(start, pixel)
    made: Matrix = np.where(covered > 1e-3, covered, 0) / (end - start)
    return made  # without slivers, as OpenCV
