"""The store: what took long to build, kept in files for the next process.

It knows nothing of engines: it keeps bytes under a key, a mapping that names everything the bytes
depend on. The file of an entry (``stored_file.py``) is named by the SHA-256 of its key::

    <folder>/v1/                     mode 0700; "1" is the format of the files
        <sha256 of the key>.<kind>   an entry; the time of its last change is that of its last use
        <sha256>.<kind>.….tmp        one that is being written
        locks/<3 digits>.<kind>      held by the process that builds

An entry is used only if this user owns it, it is whole, and it is of the very key: a plan is code
that TensorRT executes. Files appear by renaming, so readers need no lock.

TensorRT's plans and timing caches are kept (``engines/_stored.py``). ONNX Runtime's sessions are
not: ``benchmarks/start.py`` shows what its optimiser takes, and what it makes holds the weights
once more and depends on the processor.
"""

from __future__ import annotations

import logging
import os
import re
import stat
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from .errors import BadOption, BadStore, EngineError
from .stored_file import FORMAT, Damaged, Key, NotOurs, StoredFile, file_name, read_file, write_file

log = logging.getLogger("mxtrt")

T = TypeVar("T")

FOLDER_VARIABLE, SIZE_VARIABLE = "MXTRT_CACHE_DIR", "MXTRT_CACHE_SIZE"
OFF = "off"  # a value of MXTRT_CACHE_DIR
DEFAULT_LIMIT = 10 << 30  # bytes
PATIENCE = 1.0  # seconds of waiting for another process before that is told
TICK = 1_000_000  # nanoseconds between two uses, so that file systems tell them apart
LONGEST_WAIT = 3600.0  # seconds; then this process builds, too

_ANY = re.compile(".*")
_ENTRY = re.compile(r"[0-9a-f]{64}\.[a-z]+")
_TEMPORARY = re.compile(r"([0-9a-f]{64}\.[a-z]+)\..+\.tmp")

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGTkmgt]i?)?[Bb]?\s*")

_warned: set[tuple[str, str]] = set()


@dataclass(frozen=True)
class Origin:
    """Where an engine came from.

    Attributes
    ----------
    stored : bool
        Whether it came from the store; else it was built.
    seconds : float
        What that took in all, waiting for another process included.
    nbytes : int
        The size of what is stored.
    """

    stored: bool
    seconds: float
    nbytes: int


@dataclass(frozen=True)
class Entry:
    """A file of the store.

    Attributes
    ----------
    path : Path
        The file.
    nbytes : int
        Its size.
    used : float
        When it was used last, in seconds since 1970.
    key : mapping
        What it is of; empty where that cannot be read.
    seconds : float
        How long it took to build.
    problem : str
        Why it will not be used, or nothing.
    """

    path: Path
    nbytes: int
    used: float
    key: Key = field(default_factory=dict)
    seconds: float = 0.0
    problem: str = ""


class Store:
    """A folder of entries; any number of processes may use it at once.

    Parameters
    ----------
    folder : path
        Where the store is, or shall be made.
    limit : int
        Bytes that it may hold; what was used least recently goes first.
    """

    def __init__(self, folder: str | os.PathLike[str], limit: int = DEFAULT_LIMIT) -> None:
        self.root = Path(os.path.abspath(os.path.expanduser(folder)))
        self.folder = self.root / f"v{FORMAT}"
        self.limit = limit

    # -- what engines call -------------------------------------------------------------------

    def get(
        self,
        key: Key,
        build: Callable[[], Any],
        load: Callable[[Any], T],
        *,
        what: str,
        is_right: Callable[[], bool] = lambda: True,
    ) -> tuple[T, Origin]:
        """Load an entry, after building it if it is not there; one process builds, others wait.

        Where the store cannot be used, everything is built, and one warning says why.

        Parameters
        ----------
        key : mapping
            Everything that the entry depends on.
        build : callable
            Returns the entry's content, an object with the buffer protocol.
        load : callable
            Takes the content, stored or just built. If it raises an `EngineError` for what was
            stored, that is built again.
        what : str
            What is built, for messages.
        is_right : callable
            Asked after the build: whether what was built is of the key; else it is not kept.

        Returns
        -------
        loaded : object
            What `load` returned.
        origin : Origin
            Whether it came from the store.
        """
        start = time.perf_counter()
        refused = b""
        found = self._read(key)
        if found is not None:
            try:
                return load(found.content), self._hit(key, found, start, what)
            except EngineError as error:
                refused = found.digest
                log.warning("the stored %s is built again, because %s", what, error)
        with self._locked(file_name(key), what):
            found = self._read(key, drop=True)
            if found is None or found.digest == refused:
                found, content = None, self._build(key, build, is_right)
        if found is None:
            self._evict(keep=file_name(key))
            loaded, nbytes = load(content), memoryview(content).nbytes
            return loaded, Origin(False, time.perf_counter() - start, nbytes)
        return load(found.content), self._hit(key, found, start, what)

    def update(self, key: Key, change: Callable[[bytes], bytes], what: str) -> None:
        """Replace an entry's content by what `change` makes of it; ``b""`` if there is none."""
        with self._locked(file_name(key), what):
            found = self._read(key, drop=True)
            before = found.content if found is not None else b""
            after = change(before)
            if after != before:
                self._write(key, after, seconds=0.0)

    def read(self, key: Key) -> bytes | None:
        """Return the content of an entry, checked, or None."""
        found = self._read(key)
        if found is None:
            return None
        self._touch(file_name(key))
        return found.content

    def _build(self, key: Key, build: Callable[[], Any], is_right: Callable[[], bool]) -> Any:
        start = time.perf_counter()
        content = build()
        seconds = time.perf_counter() - start
        if is_right():
            self._write(key, content, seconds)
        return content

    def _hit(self, key: Key, found: StoredFile, start: float, what: str) -> Origin:
        self._touch(file_name(key))
        origin = Origin(True, time.perf_counter() - start, len(found.content))
        message = "%s comes from the store in %.2f s; to build it took %.1f s"
        log.info(message, what, origin.seconds, found.seconds)
        return origin

    # -- what `mxtrt cache` calls ------------------------------------------------------------

    def entries(self, *, verify: bool = False) -> list[Entry]:
        """Return what the store holds, the most recently used first.

        Parameters
        ----------
        verify : bool
            Read each file as a whole and check it; else its header only.

        Raises
        ------
        BadStore
            The store belongs to somebody else.
        """
        self._require_own()
        made = []
        for path, status in sorted(self._files(_ENTRY), key=_last_use, reverse=True):
            size, used = status.st_size, status.st_mtime
            try:
                found = read_file(path, whole=verify)
            except FileNotFoundError:  # another process has just dropped it
                continue
            except (OSError, Damaged, NotOurs) as error:
                made.append(Entry(path, size, used, problem=str(error)))
            else:
                made.append(Entry(path, size, used, found.key, found.seconds))
        return made

    def size(self) -> int:
        """Return the bytes of all files."""
        return sum(status.st_size for _, status in self._files())

    def clear(self) -> int:
        """Remove everything, except what is being written now; return the bytes that were freed.

        Raises
        ------
        BadStore
            The store belongs to somebody else, or a file cannot be removed.
        """
        self._require_own()
        return self._remove_leftovers() + sum(
            self.remove(Entry(path, status.st_size, status.st_mtime))
            for path, status in self._files(_ENTRY)
        )

    def remove(self, entry: Entry) -> int:
        """Remove an entry; return the bytes that were freed.

        Raises
        ------
        BadStore
            It cannot be removed.
        """
        try:
            entry.path.unlink()
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise BadStore(f"{entry.path} cannot be removed: {error.strerror}") from None
        return entry.nbytes

    # -- one process at a time -----------------------------------------------------------------

    @contextmanager
    def _locked(self, name: str, what: str) -> Iterator[None]:
        """Let nobody else build the same; without locks, let everybody."""
        from filelock import Timeout

        lock = None
        try:
            self._make_folder()
            lock = self._lock(name)
            try:
                lock.acquire(timeout=PATIENCE)
            except Timeout:
                log.warning("waiting for another process that builds %s", what)
                lock.acquire(timeout=LONGEST_WAIT)
            self._remove_leftovers_of(name)
        except Timeout:
            log.warning("%s is built here, too: the other process takes too long", what)
        except (OSError, NotOurs, NotImplementedError) as error:
            self._cannot_write(error)
        try:
            yield
        finally:
            if lock is not None:
                lock.release()

    def _lock(self, name: str) -> Any:
        """Return the lock of an entry. Some share one: files of locks can never be removed.

        Those of different kinds never do: timings are stored while the lock of a plan is held.
        """
        from filelock import FileLock

        return FileLock(self.folder / "locks" / f"{name[:3]}{os.path.splitext(name)[1]}")

    def _remove_leftovers_of(self, name: str) -> int:
        """Remove what killed processes left of an entry; its lock must be held."""
        freed = 0
        for path, status in self._files(_TEMPORARY):
            if path.name.startswith(name):
                with suppress(OSError):
                    path.unlink()
                    freed += status.st_size
        return freed

    def _remove_leftovers(self) -> int:
        from filelock import Timeout

        freed = 0
        for name in {path.name.rsplit(".", 2)[0] for path, _ in self._files(_TEMPORARY)}:
            try:
                with self._lock(name).acquire(timeout=0):
                    freed += self._remove_leftovers_of(name)
            except (Timeout, OSError, NotImplementedError):  # it is being written
                continue
        return freed

    # -- the limit -----------------------------------------------------------------------------

    def _evict(self, keep: str) -> None:
        """Remove what was used least recently until the store is within its limit."""
        from filelock import FileLock, Timeout

        if self.size() <= self.limit:
            return
        try:
            with FileLock(self.folder / "locks" / "evict", timeout=PATIENCE):
                self._remove_leftovers()
                self._evict_oldest(keep)
        except (Timeout, NotImplementedError):
            pass  # another process is at it, or there are no locks
        except OSError as error:
            self._cannot_write(error)

    def _evict_oldest(self, keep: str) -> None:
        excess = self.size() - self.limit
        for path, status in sorted(self._files(_ENTRY), key=_last_use):
            if excess <= 0:
                return
            if path.name != keep:
                with suppress(FileNotFoundError):
                    path.unlink()
                log.info("the store drops %s to stay below its limit", path.name)
                excess -= status.st_size

    def _touch(self, name: str) -> None:
        """Make an entry the most recently used, whatever the clock says."""
        newest = max((status.st_mtime_ns for _, status in self._files(_ENTRY)), default=0)
        stamp = max(time.time_ns(), newest + TICK)
        with suppress(OSError):  # a store that can be read only
            os.utime(self.folder / name, ns=(stamp, stamp))

    # -- files ---------------------------------------------------------------------------------

    def _files(self, names: re.Pattern[str] = _ANY) -> list[tuple[Path, os.stat_result]]:
        """Return the files whose names match."""
        found = []
        with suppress(OSError), os.scandir(self.folder) as scan:
            for item in scan:
                with suppress(OSError):  # gone meanwhile
                    status = item.stat(follow_symlinks=False)
                    is_folder = stat.S_ISDIR(status.st_mode)
                    if names.fullmatch(item.name) and not is_folder:
                        found.append((Path(item.path), status))
        return found

    def _read(self, key: Key, *, drop: bool = False) -> StoredFile | None:
        """Return an entry, or None; `drop` removes one that is damaged, and says so."""
        path = self.folder / file_name(key)
        try:
            self._check_owner()
            return read_file(path)
        except FileNotFoundError:
            return None
        except NotOurs as reason:
            self._warn("owner", f"{reason}: it is not used")
        except Damaged as reason:
            if drop:
                log.warning("%s is dropped and built again: %s", path, reason)
                with suppress(OSError):
                    path.unlink()
        except OSError as error:
            if drop:
                log.warning("%s cannot be read: %s", path, error.strerror)
        return None

    def _write(self, key: Key, content: Any, seconds: float) -> None:
        view = memoryview(content).cast("B")
        if view.nbytes > self.limit:
            self._cannot_write(f"{view.nbytes:,} bytes are more than its limit, {self.limit:,}")
            return
        try:
            self._make_folder()
            write_file(self.folder, key, view, seconds)
            self._touch(file_name(key))
        except (OSError, NotOurs) as error:
            self._cannot_write(error)

    def _make_folder(self) -> None:
        os.makedirs(self.root, mode=0o700, exist_ok=True)
        with suppress(FileExistsError):
            os.mkdir(self.folder, 0o700)
        self._check_owner()
        if stat.S_IMODE(os.stat(self.folder).st_mode) != 0o700:
            os.chmod(self.folder, 0o700)
        with suppress(FileExistsError):
            os.mkdir(self.folder / "locks", 0o700)

    def _check_owner(self) -> None:
        """Raise NotOurs if the folder is somebody else's."""
        user = os.geteuid()
        # what lies above may be the administrator's, such as /var/cache/mxtrt
        for folder, trusted in ((self.root, {user, 0}), (self.folder, {user})):
            owner = os.stat(folder).st_uid
            if owner not in trusted:
                raise NotOurs(f"{folder} is owned by user {owner}, not by you ({user})")

    def _require_own(self) -> None:
        try:
            self._check_owner()
        except FileNotFoundError:
            pass
        except (OSError, NotOurs) as error:
            raise BadStore(f"the store cannot be used: {error}") from None

    # -- one warning ---------------------------------------------------------------------------

    def _cannot_write(self, reason: object) -> None:
        if isinstance(reason, NotOurs):
            self._warn("owner", f"{reason}: it is not used")
            return
        text = reason.strerror if isinstance(reason, OSError) and reason.strerror else str(reason)
        self._warn("write", f"it cannot be written ({text}); what is built now is not kept")

    def _warn(self, topic: str, message: str) -> None:
        """Warn once in a process."""
        if (str(self.root), topic) not in _warned:
            _warned.add((str(self.root), topic))
            change = f"cache_dir= or {FOLDER_VARIABLE} names another folder"
            warnings.warn(
                f"the store {self.root}: {message}; {change}", RuntimeWarning, stacklevel=2
            )


def _last_use(file: tuple[Path, os.stat_result]) -> int:
    return file[1].st_mtime_ns


# -- where it is -----------------------------------------------------------------------------------


def open_store(folder: str | bool = True, limit: int | None = None) -> Store | None:
    """Return the store that options ask for, or None.

    Parameters
    ----------
    folder : str or bool
        Where it is; True for the usual place, False for no store.
    limit : int, optional
        Bytes that it may hold; by default what ``MXTRT_CACHE_SIZE`` says, else 10 GiB.

    Raises
    ------
    BadOption
        ``MXTRT_CACHE_SIZE`` is no size.
    """
    if folder is True:
        folder = os.environ.get(FOLDER_VARIABLE) or _usual_folder()
        if folder == OFF:
            return None
    if folder is False:
        return None
    if limit is None:
        limit = parse_size(SIZE_VARIABLE, os.environ.get(SIZE_VARIABLE) or DEFAULT_LIMIT)
    return Store(folder, limit)


def _usual_folder() -> str:
    import platformdirs

    return platformdirs.user_cache_dir("mxtrt", appauthor=False)


def parse_size(option: str, given: Any) -> int:
    """Return bytes: a number, or a text such as ``"500MB"`` or ``"20 GiB"``.

    Raises
    ------
    BadOption
        It is neither.
    """
    if isinstance(given, int) and not isinstance(given, bool) and given >= 0:
        return given
    found = _SIZE.fullmatch(given) if isinstance(given, str) else None
    if found is None:
        raise BadOption(f"{option}={given!r} must be a number of bytes or a size such as '20 GiB'")
    number, unit = found.groups(default="")
    exponent = " KMGT".index(unit[:1].upper() or " ")
    return int(float(number) * (1024 if unit.endswith("i") else 1000) ** exponent)
