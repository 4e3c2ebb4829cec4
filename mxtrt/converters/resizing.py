"""Images of pixels resized as OpenCV 3.4 does it, which is inside of MXNet.

All of its filters are products with a matrix on either side. Bytes it resizes with whole numbers:
weights of 11 or 8 binary digits, shifted away after the sum. What float32 holds of these without
rounding is a ``MatMul``, the rest is done in int32.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..errors import UnsupportedOp
from ..graph import Value
from ..onnx_model import OnnxModel
from ..registry import converts
from . import known_rank, known_size
from .image import FLOATS, NEAREST, channels_first_image, length_of, vector

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
    """``_image_resize`` -> ``Resize``, or ``MatMul`` with the weights of a filter."""
    if interp not in FILTERS:
        raise UnsupportedOp(f"interp={interp}; OpenCV resizes with those from 0 to 5")
    height, width = _wanted_size(x, size, keep_ratio)
    image = channels_first_image(onnx, x, x)
    is_linear = interp in {LINEAR, LINEAR_EXACT}
    if interp == NEAREST_PIXEL or (is_linear and x.dtype in {"float16", "float32"}):
        made = _interpolated(onnx, image, x, height, width, interp)
    elif x.dtype in FLOATS:
        down, across = _matrices(x, interp, height, width)
        rows = onnx.op("MatMul", onnx.constant(down, x.dtype), image)
        made = onnx.op("MatMul", rows, onnx.constant(across.T, x.dtype))
    elif x.dtype == "uint8":
        made = onnx.cast(_bytes(onnx, image, x, interp, height, width), "uint8")
    else:
        raise UnsupportedOp(
            f"interp={interp} of {x.dtype}: OpenCV takes its bytes for something else"
        )
    return onnx.op("Transpose", made, perm=[1, 2, 0] if known_rank(x) == 3 else [0, 2, 3, 1])


def _wanted_size(x: Value, size: tuple[int, ...], keep_ratio: bool) -> tuple[int, int]:
    """Return the height and width that MXNet resizes to."""
    if len(size) == 2:
        return size[1], size[0]
    if not keep_ratio:
        return size[0], size[0]
    height, width = known_size(x, -3), known_size(x, -2)
    return size[0] * height // min(height, width), size[0] * width // min(height, width)


def _interpolated(
    onnx: OnnxModel, image: str, x: Value, height: int, width: int, interp: int
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
        return _shifted_twice(onnx, rows, _rounded(down, whole))
    total = ""
    for pixel, weight in zip(*(part.T for part in _rounded(down, whole))):
        term = _times(onnx, onnx.op("Gather", rows, onnx.ints(pixel.tolist()), axis=-2), weight)
        total = onnx.op("Add", total, term) if total else term
    half = onnx.op("Add", total, _whole(onnx, whole**2 // 2))
    made = onnx.op("Div", half, _whole(onnx, whole**2))
    return onnx.op("Clip", made, _whole(onnx, 0), _whole(onnx, 255))


def _shifted_twice(onnx: OnnxModel, rows: str, down: Taps) -> str:
    """Add two rows up in 16 bits: each loses 4 binary digits before, and 16 after its weight."""
    parts = []
    for pixel, weight in zip(*(part.T for part in down)):
        row = onnx.op("Gather", rows, onnx.ints(pixel.tolist()), axis=-2)
        term = _times(onnx, onnx.op("Div", row, _whole(onnx, 16)), weight)
        parts.append(onnx.op("Div", term, _whole(onnx, 65536)))
    total = onnx.op("Add", onnx.op("Add", *parts), _whole(onnx, 2))
    return onnx.op("Div", total, _whole(onnx, 4))


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


def _times(onnx: OnnxModel, rows: str, weight: npt.NDArray[np.float64]) -> str:
    return onnx.op("Mul", rows, onnx.constant(weight.reshape(-1, 1), "int32"))


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
