"""Arrays in ``.npy`` and ``.npz`` files, and batches of them."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from .errors import BadOption, ShapesDisagree, nearest
from .graph import format_shape

Array = np.ndarray[Any, Any]
Arrays = Mapping[str, Array]


def read_arrays(files: Iterable[tuple[str, str]]) -> dict[str, Array]:
    """Read arrays from pairs of a name and an ``.npy`` file, or of ``""`` and an ``.npz`` file.

    Raises
    ------
    BadOption
        A file cannot be read, or a name comes twice.
    """
    arrays: dict[str, Array] = {}
    for name, path in files:
        for key, array in _load(name, path).items():
            if key in arrays:
                raise BadOption(f"{path}: the input {key!r} is given twice")
            arrays[key] = array
    return arrays


def write_arrays(path: str, arrays: Arrays) -> None:
    """Write arrays into an ``.npz`` file under names of any kind."""
    # numpy.savez takes names as keywords and refuses one called "file"
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.save(file, array, allow_pickle=False)


def split(feeds: Arrays, rows: int) -> list[dict[str, Array]]:
    """Return the feeds as batches of so many rows; the last one may have fewer.

    Raises
    ------
    ShapesDisagree
        The arrays do not have the same number of rows.
    """
    lengths = {name: len(array) if array.ndim else 0 for name, array in feeds.items()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        told = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise ShapesDisagree(
            f"--batch needs inputs with the same number of rows; {told or 'none are given'}"
        )
    count = next(iter(lengths.values()))
    return [
        {name: array[start : start + rows] for name, array in feeds.items()}
        for start in range(0, count, rows)
    ]


def _load(name: str, path: str) -> dict[str, Array]:
    try:
        loaded = np.load(path)
        if isinstance(loaded, np.ndarray):
            return {name: loaded}
        arrays = dict(loaded)
    except OSError as error:
        raise BadOption(f"{path}: {error.strerror or 'not an .npy or .npz file'}") from None
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise BadOption(f"{path}: not an .npy or .npz file, or a damaged one ({error})") from None
    if not name:
        return arrays
    if name not in arrays:
        raise BadOption(f"{path}: holds no array {name!r}{nearest(name, arrays)}")
    return {name: arrays[name]}


def cast(array: Array, name: str, dtype: str) -> Array:
    """Return an array in the dtype that a model reads.

    Raises
    ------
    ShapesDisagree
        That would change its values.
    """
    if not np.can_cast(array.dtype, dtype, casting="same_kind"):
        raise ShapesDisagree(f"{name!r} is {array.dtype}, and the model reads {dtype}")
    return np.ascontiguousarray(array, dtype=dtype)


def join(name: str, arrays: Sequence[Array], rows: Sequence[int]) -> Array:
    """Return the output `name` of all batches as one array.

    Raises
    ------
    ShapesDisagree
        It has not as many rows as were fed.
    """
    if len(arrays) == 1:
        return arrays[0]
    for array, count in zip(arrays, rows):
        if array.shape[:1] != (count,):
            raise ShapesDisagree(
                f"the output {name!r} has shape {format_shape(array.shape)} for {count} rows and "
                "cannot be joined; run without --batch"
            )
    return np.concatenate(arrays)
