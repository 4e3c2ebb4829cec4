"""One file of the store: its name, its bytes, and the checks before any of them is used.

    magic | lengths of header and content | header (JSON with the key) | content | SHA-256 of these

To read it executes nothing of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import struct
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

Key = Mapping[str, Any]
"""Everything that an entry depends on, as JSON can say it; ``key["kind"]`` is its suffix."""

FORMAT = 1
MAGIC = b"mxtrt store %03d\n" % FORMAT
LENGTHS = struct.Struct(">QQ")  # of the header and of the content
DIGEST = hashlib.sha256().digest_size
SMALLEST = len(MAGIC) + LENGTHS.size + DIGEST


class Damaged(Exception):
    """A file is not what was written under its name."""


class NotOurs(Exception):
    """Somebody else owns a file or folder, or may write to it."""


@dataclass(frozen=True)
class StoredFile:
    """What a file holds.

    Attributes
    ----------
    key : mapping
        What it was stored under.
    seconds : float
        How long it took to build.
    content : bytes
        What was stored; empty where only the header was read.
    digest : bytes
        The checksum of it all.
    """

    key: Key
    seconds: float
    content: bytes
    digest: bytes


def file_name(key: Key) -> str:
    """Return the name of the file for a key; equal keys have equal names, others do not."""
    return f"{hashlib.sha256(_json(key)).hexdigest()}.{key['kind']}"


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode("ascii")


def read_file(path: Path, *, whole: bool = True) -> StoredFile:
    """Read an entry and check everything about it.

    Parameters
    ----------
    path : Path
        The file; a link is none.
    whole : bool
        Read the content and check the checksum; else look at the header only.

    Raises
    ------
    Damaged
        It is not what was written under this name.
    NotOurs
        Somebody else may have written it.
    OSError
        It cannot be read.
    """
    # a pipe in its place must not make us wait
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        size = _check_status(path, os.fstat(descriptor))
    except (Damaged, NotOurs):
        os.close(descriptor)
        raise
    with open(descriptor, "rb") as file:
        start, header_size, content_size = _read_lengths(file, size)
        header = file.read(header_size)
        content = file.read(content_size) if whole else b""
        digest = file.read(DIGEST) if whole else b""
    if whole:
        _check_digest((start, header, content), digest)
    key, seconds = _read_header(header)
    if file_name(key) != path.name:
        raise Damaged("it is the file of another key")
    return StoredFile(key, seconds, content, digest)


def _check_status(path: Path, status: os.stat_result) -> int:
    """Return the size of a file that is ours."""
    if not stat.S_ISREG(status.st_mode):
        raise Damaged("it is no ordinary file")
    if status.st_uid != os.geteuid():
        raise NotOurs(f"{path} is owned by user {status.st_uid}, not by you ({os.geteuid()})")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise NotOurs(f"others may write to {path}")
    if status.st_size < SMALLEST:
        raise Damaged(f"it ends after {status.st_size} bytes")
    return status.st_size


def _read_lengths(file: BinaryIO, size: int) -> tuple[bytes, int, int]:
    start = file.read(len(MAGIC) + LENGTHS.size)
    if not start.startswith(MAGIC):
        raise Damaged("it does not begin as a file of the store")
    header_size, content_size = LENGTHS.unpack(start[len(MAGIC) :])
    if SMALLEST + header_size + content_size != size:
        expected = SMALLEST + header_size + content_size
        raise Damaged(f"it has {size} bytes instead of {expected}")
    return start, header_size, content_size


def _check_digest(pieces: tuple[bytes, ...], digest: bytes) -> None:
    found = hashlib.sha256()
    for piece in pieces:
        found.update(piece)
    if found.digest() != digest:
        raise Damaged("its checksum is wrong")


def _read_header(header: bytes) -> tuple[Key, float]:
    try:
        about = json.loads(header)
        key, seconds = about["key"], float(about["seconds"])
        file_name(key)
    except (ValueError, TypeError, KeyError, RecursionError):
        raise Damaged("its header cannot be read") from None
    return key, seconds


def write_file(folder: Path, key: Key, content: memoryview, seconds: float) -> None:
    """Write an entry so that it is there as a whole or not at all, whatever happens meanwhile.

    Raises
    ------
    OSError
        It cannot be written; nothing is left of it.
    """
    header = _json({"key": key, "seconds": seconds, "created": time.time()})
    start = MAGIC + LENGTHS.pack(len(header), content.nbytes)
    digest = hashlib.sha256(start + header)
    digest.update(content)
    name = file_name(key)
    descriptor, temporary = tempfile.mkstemp(".tmp", f"{name}.", folder)
    try:
        with open(descriptor, "wb") as file:
            for piece in (start, header, content, digest.digest()):
                file.write(piece)
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, folder / name)
    except BaseException:  # Ctrl-C, too
        with suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    """Make a renaming outlive a loss of power."""
    with suppress(OSError):  # some file systems cannot
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
