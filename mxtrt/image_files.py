"""Images from files, folders and RecordIO files, as a model reads them: batches of (N, C, H, W).

MXNet decodes and scales them, with the OpenCV inside its library.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import mxnet as mx
import numpy as np

from .errors import BadOption, ShapesDisagree, mxnet_sentence

Array = np.ndarray[Any, Any]

ENDINGS = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
RECORDS = ".rec"

Encoded = tuple[str, bytes]
"""Where an image comes from, and its file's content."""


@dataclass(frozen=True)
class Preparation:
    """How images become a model's input.

    Attributes
    ----------
    size : (int, int), optional
        Height and width: an image is scaled until it covers them, and cut to its middle.
    channels : int
        3, or 1 for grey.
    mean, std : tuple of float
        For each channel, or one for all: from values of 0 to 255 the mean is taken, and the rest
        is divided by the standard deviation.
    bgr : bool
        Blue comes first, and not red.
    """

    size: tuple[int, int] | None = None
    channels: int = 3
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    bgr: bool = False

    def __post_init__(self) -> None:
        """Raise BadOption for numbers that do not fit the channels."""
        for name in ("mean", "std"):
            count = len(getattr(self, name))
            if count not in (1, self.channels):
                raise BadOption(f"--{name}: {count} numbers for {self.channels} channels")
        if 0 in self.std:
            raise BadOption("--std: 0 cannot be divided by")

    def __call__(self, image: Encoded) -> Array:
        """Return an image as float32, channels first."""
        where, content = image
        try:
            decoded = mx.image.imdecode(content, flag=int(self.channels == 3), to_rgb=not self.bgr)
            if self.size is not None:
                decoded = _covering(decoded, *self.size)
            pixels = decoded.asnumpy().transpose(2, 0, 1).astype(np.float32)
        except mx.base.MXNetError as error:
            raise BadOption(
                f"{where}: not an image, or a damaged one ({mxnet_sentence(error)})"
            ) from None
        mean, std = (np.array(n, np.float32)[:, None, None] for n in (self.mean, self.std))
        return np.asarray((pixels - mean) / std)


def _covering(image: mx.nd.NDArray, height: int, width: int) -> mx.nd.NDArray:
    """Scale an image until it covers a size, and cut out the middle."""
    rows, columns = image.shape[:2]
    scale = max(height / rows, width / columns)
    tall, wide = max(height, round(rows * scale)), max(width, round(columns * scale))
    if (tall, wide) != (rows, columns):
        # areas where it becomes smaller, else cubic
        image = mx.image.imresize(image, wide, tall, interp=3 if scale < 1 else 2)
    top, left = (tall - height) // 2, (wide - width) // 2
    return image[top : top + height, left : left + width]


class Images:
    """Images from several places, one after another.

    Parameters
    ----------
    paths : sequence of str
        Images, folders of images (by name, without those below) and RecordIO files.

    Attributes
    ----------
    count : int or None
        How many there are; None where a RecordIO file has no index beside it.

    Raises
    ------
    BadOption
        Something is missing, or a folder has no images.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self._files = [file for path in paths for file in _files_in(path)]
        counts = [_count(file) for file in self._files]
        self.count = None if None in counts else sum(count or 0 for count in counts)

    def __iter__(self) -> Iterator[Encoded]:
        """Yield the images undecoded."""
        return chain.from_iterable(map(_read, self._files))

    def batches(self, prepare: Preparation, rows: int) -> Iterator[tuple[list[str], Array]]:
        """Yield where the images of a batch come from, and their arrays (N, C, H, W)."""
        images = iter(self)
        some: list[Encoded] = []
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            while True:
                before, some = some, list(islice(images, rows))
                if not some and not before:
                    raise BadOption(f"{', '.join(self._files)}: no images in it")
                if not some:
                    return
                names = [name for name, _ in some]
                yield names, _stacked(names, list(pool.map(prepare, some)))


def is_image_source(path: str) -> bool:
    """Say whether a path is one of those that `Images` reads."""
    return os.path.isdir(path) or path.lower().endswith((*ENDINGS, RECORDS))


def _files_in(path: str) -> Sequence[str]:
    if not os.path.isdir(path):
        if not os.path.exists(path):
            raise BadOption(f"{path}: No such file or directory")
        return [path]
    try:
        names = sorted(os.listdir(path))
    except OSError as error:
        raise BadOption(f"{path}: {error.strerror}") from None
    files = [os.path.join(path, n) for n in names if n.lower().endswith((*ENDINGS, RECORDS))]
    if not files:
        raise BadOption(f"{path}: no images in this folder ({', '.join((*ENDINGS, RECORDS))})")
    return files


def _count(file: str) -> int | None:
    if not file.lower().endswith(RECORDS):
        return 1
    try:
        with open(f"{file[: -len(RECORDS)]}.idx", "rb") as index:
            return sum(1 for line in index if line.strip())
    except OSError:
        return None


def _read(file: str) -> Iterable[Encoded]:
    if file.lower().endswith(RECORDS):
        return _records(file)
    try:
        with open(file, "rb") as opened:
            return [(file, opened.read())]
    except OSError as error:
        raise BadOption(f"{file}: {error.strerror}") from None


def _records(file: str) -> Iterator[Encoded]:
    try:
        reader = mx.recordio.MXRecordIO(file, "r")
        number = 0
        while True:
            record = reader.read()
            if record is None:
                break
            yield f"{file}#{number}", mx.recordio.unpack(record)[1]
            number += 1
        reader.close()
    except (mx.base.MXNetError, ValueError) as error:
        raise BadOption(
            f"{file}: not a RecordIO file, or a damaged one ({_first(error)})"
        ) from None


def _first(error: Exception) -> str:
    return mxnet_sentence(error) if isinstance(error, mx.base.MXNetError) else str(error)


def _stacked(names: Sequence[str], arrays: Sequence[Array]) -> Array:
    for name, array in zip(names, arrays):
        if array.shape != arrays[0].shape:
            one, two = ("x".join(map(str, a.shape[1:])) for a in (arrays[0], array))
            raise ShapesDisagree(
                f"{names[0]} is {one} and {name} is {two} pixels; pass --size HEIGHT,WIDTH"
            )
    return np.stack(arrays)
