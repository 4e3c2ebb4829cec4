"""The file beside a checkpoint that holds engines: their ONNX, their weights, TensorRT's plans.

    magic | pieces, each at a multiple of 64 | header (JSON) | SHA-256 of magic and header | end

The header says where each piece lies and has its SHA-256, so no byte of the file is without a
checksum. All of them are checked before anything is made of what the file holds. A piece is mapped
into memory and not read into it.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import re
import stat
import struct
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .errors import BadModel, BadOption

FORMAT = 1
MAGIC = b"mxtrt engines "
BEGIN = MAGIC + b"%d\n" % FORMAT
END = struct.Struct(">Q16s")  # the length of the header
END_MARK = b"\nmxtrt engines.\n"
DIGEST = hashlib.sha256().digest_size
ALIGNMENT = 64
CHUNK = 64 << 20  # bytes that are written or hashed at a time

Piece = dict[str, Any]
"""Where a piece lies: ``start`` and ``nbytes``, and its ``sha256`` with the gap behind it."""


class Writer:
    """Writes a file of engines.

    Parameters
    ----------
    file : binary file
        Empty, open for writing.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._file.write(BEGIN + bytes(-len(BEGIN) % ALIGNMENT))
        self._pieces: list[Piece] = []

    def add(self, content: Any) -> int:
        """Append a piece, an object with the buffer protocol; return its number."""
        view = memoryview(content).cast("B")
        digest, start = hashlib.sha256(), self._file.tell()
        gap = bytes(-view.nbytes % ALIGNMENT)
        for at in range(0, view.nbytes, CHUNK):
            digest.update(view[at : at + CHUNK])
            self._file.write(view[at : at + CHUNK])
        digest.update(gap)
        self._file.write(gap)
        self._pieces.append({"start": start, "nbytes": view.nbytes, "sha256": digest.hexdigest()})
        return len(self._pieces) - 1

    def finish(self, about: dict[str, Any]) -> None:
        """Write the header, with `about` in it."""
        header = json.dumps({**about, "pieces": self._pieces}, separators=(",", ":")).encode()
        self._file.write(header + _digest_of(header) + END.pack(len(header), END_MARK))


class EnginesFile:
    """A file of engines that is whole.

    It stays as it was when another takes its name.

    Parameters
    ----------
    path : str
        The file.

    Attributes
    ----------
    about : dict
        What was given to `Writer.finish`.

    Raises
    ------
    BadModel
        It is missing, was cut off or changed, or is of another version of mxtrt.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        with _opened(path) as file:
            self._status = os.fstat(file.fileno())
            self.about, end = _read_header(path, file)
            self._content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._pieces: Sequence[Piece] = self.about.pop("pieces")
        self._check(end)

    def bytes(self, number: int) -> bytes:
        """Return a copy of a piece, checked as it is now."""
        piece = self._pieces[number]
        content = self._content[piece["start"] : self._end(number)]
        if hashlib.sha256(content).hexdigest() != piece["sha256"]:
            raise self._changed()
        return content[: piece["nbytes"]]

    def array(self, number: int, dtype: str, shape: Sequence[int]) -> np.ndarray[Any, Any]:
        """Return a piece as an array in the file's own memory."""
        piece = self._pieces[number]
        kind = np.dtype(dtype)
        count = int(np.prod(shape, dtype=np.int64))
        if count * kind.itemsize != piece["nbytes"]:
            raise self._changed()
        return np.frombuffer(self._content, kind, count, piece["start"]).reshape(shape)

    def let_go(self) -> None:
        """Let the system take back the memory of what was read; the file brings it again."""
        self._content.madvise(mmap.MADV_DONTNEED)

    def check_again(self) -> None:
        """Raise BadModel if somebody has written into the file since it was opened."""
        if self._content.size() != len(self._content):  # to read past its end would be fatal
            raise self._changed()
        self._check_pieces()

    @property
    def others_may_write(self) -> bool:
        """Whether every user of this machine may write to the file."""
        return bool(self._status.st_mode & stat.S_IWOTH)

    def _end(self, number: int) -> int:
        piece = self._pieces[number]
        return int(piece["start"] + piece["nbytes"] + -piece["nbytes"] % ALIGNMENT)

    def _check(self, end: int) -> None:
        starts = [piece["start"] for piece in self._pieces] + [end]
        first = len(BEGIN) + -len(BEGIN) % ALIGNMENT
        ends = [first, *map(self._end, range(len(self._pieces)))]
        if starts != ends or any(self._content[len(BEGIN) : first]):
            raise self._changed()
        self._check_pieces()

    def _check_pieces(self) -> None:
        with ThreadPoolExecutor(min(8, len(os.sched_getaffinity(0)))) as pool:
            if not all(pool.map(self._is_right, range(len(self._pieces)))):
                raise self._changed()

    def _is_right(self, number: int) -> bool:
        piece = self._pieces[number]
        with memoryview(self._content) as content:
            view = content[piece["start"] : self._end(number)]
            found = hashlib.sha256(view).hexdigest()  # without the GIL
            view.release()
        return bool(found == piece["sha256"])

    def _changed(self) -> BadModel:
        return _changed(self.path)


def read_header(path: str) -> dict[str, Any]:
    """Return what was given to `Writer.finish`; the pieces are not looked at."""
    with _opened(path) as file:
        return _read_header(path, file)[0]


@contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    try:
        # a pipe in its place must not make us wait
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")
    except OSError as error:
        raise BadModel(f"{path}: {error.strerror or error}") from None
    with file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise BadModel(f"{path}: not a file")
        yield file


def _read_header(path: str, file: BinaryIO) -> tuple[dict[str, Any], int]:
    """Return the header and where it begins."""
    size = os.fstat(file.fileno()).st_size
    begin = file.read(len(BEGIN))
    if not begin.startswith(MAGIC):
        what = "empty" if not size else "not a file of engines, or its beginning was changed"
        raise BadModel(f"{path}: {what}; save the model again")
    if begin != BEGIN:
        found = begin[len(MAGIC) :].split(b"\n")[0].decode("ascii", "replace")
        raise BadModel(
            f"{path}: of format {found}, and this version of mxtrt reads format {FORMAT}; save the "
            "model again with this version, or install the other one"
        )
    if size < len(BEGIN) + DIGEST + END.size:
        raise _changed(path)
    file.seek(size - END.size)
    length, mark = END.unpack(file.read(END.size))
    start = size - END.size - DIGEST - length
    if mark != END_MARK or start < len(BEGIN):
        raise _changed(path)
    file.seek(start)
    header, digest = file.read(length), file.read(DIGEST)
    if _digest_of(header) != digest:
        raise _changed(path)
    return json.loads(header), start


def _changed(path: str) -> BadModel:
    return BadModel(f"{path}: cut off or changed since mxtrt wrote it; copy or save it again")


def _digest_of(header: bytes) -> bytes:
    return hashlib.sha256(BEGIN + header).digest()


@contextmanager
def replacing(paths: Sequence[str]) -> Iterator[dict[str, str]]:
    """Let files take their places together once all are written, or not at all.

    Yields
    ------
    dict of str to str
        Where to write the file for each place.

    Raises
    ------
    BadOption
        The folder cannot be written to, or the disk is full.
    """
    temporary: dict[str, str] = {}
    try:
        for path in paths:
            folder, name = os.path.split(os.path.abspath(path))
            descriptor, temporary[path] = tempfile.mkstemp(".part", f".{name}.", folder)
            os.close(descriptor)
        yield temporary
        for part in temporary.values():
            _finish(part)
        for path, part in temporary.items():
            os.replace(part, path)
    except OSError as error:
        what = error.strerror or error
        raise BadOption(f"{paths[0]}: cannot be written: {what}") from None
    finally:
        for part in temporary.values():
            with suppress(OSError):
                os.unlink(part)


def _finish(path: str) -> None:
    """Give a file the mode of ordinary files, and make it outlive a loss of power."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
        os.fchmod(descriptor, 0o666 & ~_umask())
    finally:
        os.close(descriptor)


def _umask() -> int:
    # os.umask would have to change it for a moment
    found = re.search(r"^Umask:\s*(\d+)", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1], 8) if found else 0o077
