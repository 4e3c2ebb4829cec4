"""The store when things go wrong: kills, damage, full disks, strangers, many processes."""

from __future__ import annotations

import contextlib
import errno
import logging
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import mxnet as mx
import pytest
from rtx import build_plan, parts_as_onnx
from test_store import KEY, get, no_build, numbered, numbers

from mxtrt import store, stored_file
from mxtrt.store import Store
from mxtrt.stored_file import file_name


@pytest.fixture(autouse=True)
def each_test_warns_anew(monkeypatch):
    monkeypatch.setattr(store, "_warned", set())


@pytest.fixture
def made(tmp_path) -> Store:
    return Store(tmp_path / "store")


def files(where: Store) -> list[str]:
    """Return the names of the files, without locks."""
    return sorted(p.name for p in where.folder.iterdir() if p.is_file())


def start(code: str, *words: object, **options) -> subprocess.Popen:
    """Start Python on a piece of code."""
    command = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.Popen(command, text=True, **options)


@contextlib.contextmanager
def killed_at_the_end(process: subprocess.Popen):
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


# -- kill -9 ---------------------------------------------------------------------------------------

# content of 3 MB that can be told from its key: most of the time goes into writing
BUILDER = """
import itertools, sys
from mxtrt.store import Store
where = Store(sys.argv[1])
for number in itertools.count(int(sys.argv[2])):
    key = {"kind": "plan", "number": number % 3}
    where.get(key, lambda: b"%d" % (number % 3) * 3_000_000, bytes, what="net")
    print(number, flush=True)
    if number % 3 == 2:
        where.clear()
"""


@pytest.mark.parametrize("times", [10, pytest.param(100, marks=pytest.mark.slow)])
def test_kill_9_while_building_and_writing(times, made):
    chance = random.Random(0)
    for turn in range(times):
        with start(BUILDER, made.root, turn, stdout=subprocess.PIPE) as process:
            process.stdout.readline()  # it is at work
            time.sleep(chance.uniform(0, 0.05))
            process.send_signal(signal.SIGKILL)
        assert not [entry for entry in made.entries(verify=True) if entry.problem]
        for number in range(3):
            content, _ = get(made, numbered(number), b"%d" % number * 3_000_000)
            assert content == b"%d" % number * 3_000_000
            assert made.get(numbered(number), no_build, bytes, what="net")[1].stored
        assert sorted(numbers(made)) == [0, 1, 2]
        assert not [name for name in files(made) if name.endswith(".tmp")]
        made.clear()


STUCK = """
import os, sys, time
from mxtrt.store import Store
def stuck(*arguments, **options):
    print("there", flush=True)
    time.sleep(100)
build = lambda: b"a plan"
if sys.argv[2] == "build":
    build = stuck
elif sys.argv[2] == "touch":
    Store._touch = stuck
else:
    setattr(os, sys.argv[2], stuck)
Store(sys.argv[1]).get({"kind": "plan", "number": 1}, build, bytes, what="net")
"""


@pytest.mark.parametrize(
    ("moment", "half_written", "is_there"),
    [("build", 0, False), ("fsync", 1, False), ("replace", 1, False), ("touch", 0, True)],
)
def test_kill_9_at_each_step(moment, half_written, is_there, made):
    with start(STUCK, made.root, moment, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == "there\n"
        process.send_signal(signal.SIGKILL)
    assert sum(name.endswith(".tmp") for name in files(made)) == half_written
    assert len(made.entries()) == is_there
    assert get(made, numbered(1))[1].stored is is_there
    assert get(made, numbered(1))[0] == b"a plan"
    assert files(made) == [file_name(numbered(1))]  # nothing is left


RTX_BUILDER = """
import itertools, sys
sys.path.insert(0, sys.argv[3])
import mxtrt, onnx
from rtx import build_plan, parts_as_onnx
from mxtrt.store import Store
where, model = Store(sys.argv[1]), onnx.load(sys.argv[2])
for number in itertools.count():
    print(number, flush=True)
    key = {"kind": "plan", "number": number % 2}
    where.get(key, lambda: build_plan(model), bytes, what="net")
    if number % 2:
        where.clear()
"""


@pytest.mark.parametrize("times", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_kill_9_while_tensorrt_builds(times, made, tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX has no wheel for this platform")
    net = mx.sym.Convolution(mx.sym.var("data"), kernel=(3, 3), num_filter=8, name="conv")
    weights = {"conv_weight": mx.nd.ones((8, 3, 3, 3)), "conv_bias": mx.nd.ones(8)}
    [model] = parts_as_onnx(mx.sym.relu(net), weights, {"data": (2, 3, 16, 16)})
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    words = (made.root, tmp_path / "net.onnx", Path(__file__).parent)
    chance = random.Random(1)
    for _ in range(times):
        with start(RTX_BUILDER, *words, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            time.sleep(chance.uniform(0, 0.5))
            process.send_signal(signal.SIGKILL)
        assert not [entry for entry in made.entries(verify=True) if entry.problem]
        for number in range(2):
            content, _ = made.get(numbered(number), lambda: build_plan(model), bytes, what="net")
            assert len(content) > 1000
            assert get(made, numbered(number))[1].stored
        made.clear()


SLOW_BUILDER = """
import os, sys, time
from mxtrt.store import Store
def build():
    with open(sys.argv[2], "a") as file:
        file.write("x")
    time.sleep(float(sys.argv[3]))
    return b"a plan"
key = {"kind": "plan", "number": 1}
content, origin = Store(sys.argv[1]).get(key, build, bytes, what="the net")
assert content == b"a plan"
print("stored" if origin.stored else "built")
"""


def wait_for(path: Path, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < end, "no process builds"
        time.sleep(0.01)


def test_eight_processes_build_once(made, tmp_path):
    builds = tmp_path / "builds"
    processes = [
        start(
            SLOW_BUILDER, made.root, builds, 3, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(8)
    ]  # fmt: skip
    done = [process.communicate(timeout=100) for process in processes]
    assert [process.returncode for process in processes] == [0] * 8
    assert builds.read_text() == "x"
    assert sorted(out.strip() for out, _ in done) == ["built"] + ["stored"] * 7
    told = ["waiting for another process that builds the net" in error for _, error in done]
    assert sum(told) >= 1
    assert all("Warning" not in error for _, error in done)


def test_who_waits_takes_over_from_a_killed_builder(made, tmp_path):
    builds = tmp_path / "builds"
    with killed_at_the_end(start(SLOW_BUILDER, made.root, builds, 100)) as first:
        wait_for(builds)
        second = start(SLOW_BUILDER, made.root, builds, 0, stdout=subprocess.PIPE)
        with killed_at_the_end(second):
            with pytest.raises(subprocess.TimeoutExpired):
                second.wait(0.5)  # it waits
            first.kill()
            assert second.communicate(timeout=60)[0] == "built\n"
    assert builds.read_text() == "xx"
    assert get(made, numbered(1))[1].stored


def test_a_builder_that_hangs_does_not_hold_up_others_for_ever(made, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(store, "PATIENCE", 0.05)
    monkeypatch.setattr(store, "LONGEST_WAIT", 0.1)
    builds = tmp_path / "builds"
    with killed_at_the_end(start(SLOW_BUILDER, made.root, builds, 100)):
        wait_for(builds)
        with caplog.at_level(logging.WARNING, "mxtrt"):
            assert not get(made, numbered(1))[1].stored
    assert "net is built here, too: the other process takes too long" in caplog.text
    assert get(made, numbered(1))[1].stored


@pytest.mark.parametrize("moment", ["build", "write"])
def test_ctrl_c_leaves_nothing(moment, made, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    if moment == "write":
        monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        made.get(KEY, interrupted if moment == "build" else bytes, bytes, what="net")
    monkeypatch.undo()
    assert files(made) == []
    assert not get(made)[1].stored  # and the lock is free
    assert get(made)[1].stored


# -- damage ----------------------------------------------------------------------------------------


@pytest.fixture
def no_fsync(monkeypatch):
    """Thousands of files are written: the disk need not have them all."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def damaged(content: bytes):
    """Yield every variant with one byte changed, a shorter end, or more bytes."""
    for position in range(len(content)):
        for mask in (0x01, 0x80, 0xFF):
            changed = bytearray(content)
            changed[position] ^= mask
            yield bytes(changed)
        yield content[:position]
        yield content[:position] + content[position + 1 :]
        yield content[:position] + b"\0" + content[position:]
    yield content + b"\0"
    yield content + content


@pytest.mark.parametrize("kind", ["plan", "timing"])
def test_every_byte_counts(kind, made, no_fsync, caplog):
    caplog.set_level(logging.CRITICAL, "mxtrt")
    key = {"kind": kind, "number": 1}
    get(made, key, b"content")
    path = made.folder / file_name(key)
    content = path.read_bytes()
    for number, bad in enumerate(damaged(content)):
        if bad == content:  # a byte that stands twice, one of them removed and inserted
            continue
        path.write_bytes(bad)
        assert made.read(key) is None, f"variant {number} was used: {bad!r}"
        if number % 20 == 0:  # each of them is read by the same code
            assert not get(made, key, b"content")[1].stored
            assert get(made, key, b"content")[1].stored
    made.update(key, lambda known: known + b"!", "it")
    assert made.read(key) == b"!"


def test_damage_is_told_once_and_repaired(made, caplog):
    get(made)
    [entry] = made.entries()
    entry.path.write_bytes(entry.path.read_bytes()[:-1] + b"?")
    assert [e.problem for e in made.entries(verify=True)] == ["its checksum is wrong"]
    with caplog.at_level(logging.WARNING, "mxtrt"):
        assert not get(made)[1].stored
    assert caplog.text.count("is dropped and built again: its checksum is wrong") == 1
    assert get(made)[1].stored


def test_a_bad_file_is_dropped_even_if_the_build_fails(made):
    get(made)
    [entry] = made.entries()
    entry.path.write_bytes(b"bad")
    with pytest.raises(ZeroDivisionError):
        made.get(KEY, lambda: 1 / 0, bytes, what="net")
    assert files(made) == []


def test_the_file_of_another_key_is_not_used(made):
    get(made, numbered(1), b"one")
    os.link(made.folder / file_name(numbered(1)), made.folder / file_name(numbered(2)))
    assert made.read(numbered(2)) is None
    assert get(made, numbered(2), b"two")[0] == b"two"
    assert get(made, numbered(1))[0] == b"one"


def test_a_header_that_lies_about_its_key(made):
    """Even with a right checksum: the name is that of the key."""
    get(made, numbered(1), b"one")
    content = (made.folder / file_name(numbered(1))).read_bytes()
    (made.folder / file_name(numbered(2))).write_bytes(content)
    assert [entry.problem for entry in made.entries()].count("it is the file of another key") == 1


@pytest.mark.parametrize("thing", ["folder", "pipe", "link", "device"])
def test_things_that_are_no_files(thing, made, tmp_path):
    get(made, numbered(1), b"one")
    path = made.folder / file_name(KEY)
    if thing == "folder":
        path.mkdir()
    elif thing == "pipe":
        os.mkfifo(path)
    elif thing == "link":
        path.symlink_to(made.folder / file_name(numbered(1)))
    else:
        path.symlink_to("/dev/zero")
    assert made.read(KEY) is None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert get(made)[0] == b"a plan"
    assert len(caught) == (thing == "folder")  # it stands in the way
    assert get(made)[1].stored is (thing != "folder")
    assert get(made, numbered(1))[0] == b"one"


def test_garbage_in_other_files(made):
    get(made)
    for lock in (made.folder / "locks").iterdir():
        lock.write_bytes(os.urandom(100))
    (made.folder / "notes.txt").write_text("not ours")
    (made.folder / f"{'0' * 64}.plan.x.tmp").write_bytes(b"half a plan")
    assert get(made)[1].stored
    assert not get(made, numbered(1))[1].stored
    made.clear()
    assert files(made) == ["notes.txt"]


def test_what_is_being_written_is_not_cleared(made):
    inside, go_on = threading.Event(), threading.Event()

    def build():
        (made.folder / f"{file_name(KEY)}.mine.tmp").write_bytes(b"half")
        inside.set()
        assert go_on.wait(30)
        return b"a plan"

    thread = threading.Thread(target=made.get, args=(KEY, build, bytes), kwargs={"what": "net"})
    thread.start()
    assert inside.wait(30)
    made.clear()
    assert len(files(made)) == 1
    go_on.set()
    thread.join()
    made.clear()
    assert files(made) == []


# -- two versions ----------------------------------------------------------------------------------


def test_two_formats_share_a_folder(made, monkeypatch):
    get(made, content=b"of format 1")
    with monkeypatch.context() as newer:
        newer.setattr(store, "FORMAT", 2)
        newer.setattr(stored_file, "MAGIC", b"mxtrt store 002\n")
        other = Store(made.root)
        assert other.folder.name == "v2"
        assert get(other, content=b"of format 2")[0] == b"of format 2"
        assert get(other)[1].stored
        # and a file of one format in the folder of the other
        (other.folder / file_name(KEY)).write_bytes((made.folder / file_name(KEY)).read_bytes())
        assert other.read(KEY) is None
        other.clear()
    assert get(made)[0] == b"of format 1"


def test_two_versions_share_a_folder(made):
    """mxtrt's version and TensorRT's are in the key; see the tests of keys."""
    for number in ("0.1.0", "0.2.0"):
        get(made, {**KEY, "mxtrt": number}, number.encode())
    for number in ("0.1.0", "0.2.0"):
        content, origin = get(made, {**KEY, "mxtrt": number})
        assert (content, origin.stored) == (number.encode(), True)


# -- disks -----------------------------------------------------------------------------------------


def one_warning(where: Store, reason: str) -> None:
    """Check that everything works without the store, with one warning."""
    with pytest.warns(RuntimeWarning) as caught:
        for number in range(3):
            content, origin = get(where, numbered(number), bytes(100_000))
            assert (content, origin.stored) == (bytes(100_000), False)
    assert len(caught) == 1
    message = str(caught[0].message)
    assert str(where.root) in message
    assert reason in message
    assert "MXTRT_CACHE_DIR names another folder" in message


@pytest.mark.parametrize("call", ["fsync", "mkdir", "replace", "makedirs"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO, errno.EDQUOT])
def test_calls_that_fail(call, code, made, monkeypatch):
    def fail(*_, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, call, fail)
    one_warning(made, os.strerror(code))
    monkeypatch.undo()
    assert not made.folder.exists() or files(made) == []


@contextlib.contextmanager
def small_disk(path: Path, options: str):
    """Mount a file system of 1 MB."""
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(path)], check=True)


def test_a_full_disk(tmp_path):
    with small_disk(tmp_path / "disk", "size=256k"):
        where = Store(tmp_path / "disk" / "store")
        get(where, KEY)
        with pytest.warns(RuntimeWarning, match="cannot be written .No space left on device"):
            for _ in range(2):
                assert get(where, numbered(1), bytes(1 << 20))[0] == bytes(1 << 20)
        assert files(where) == [file_name(KEY)]
        assert get(where, KEY)[1].stored
        (tmp_path / "disk" / "full").write_bytes(bytes(200_000))
        with contextlib.suppress(OSError):
            (tmp_path / "disk" / "fuller").write_bytes(bytes(200_000))
        assert get(where, KEY)[1].stored
        assert get(where, numbered(2))[0] == b"a plan"


def test_a_disk_without_inodes(tmp_path):
    with small_disk(tmp_path / "disk", "nr_inodes=4"):
        one_warning(Store(tmp_path / "disk" / "store"), "No space left on device")


def test_a_read_only_disk_is_still_read(tmp_path):
    with small_disk(tmp_path / "disk", "size=1m"):
        where = Store(tmp_path / "disk")
        get(where)
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path / "disk")], check=True)
        assert get(where)[1].stored
        one_warning(where, "Read-only file system")


def test_a_limit_on_the_size_of_files(tmp_path):
    code = """if True:
        import resource, sys, warnings
        from mxtrt.store import Store
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        where = Store(sys.argv[1])
        with warnings.catch_warnings(record=True) as caught:
            for name in ("small", "large", "larger"):
                content = bytes(100_000 * (name != "small"))
                key = {"kind": "plan", "name": name}
                assert where.get(key, lambda: content, bytes, what="net")[0] == content
        print(*(warning.message for warning in caught), sep="|")
    """
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    with start(code, tmp_path, stdout=subprocess.PIPE) as process:
        output = process.communicate(timeout=60)[0]
    assert process.returncode == 0
    assert "cannot be written (File too large)" in output
    assert output.count("|") == 0
    assert [entry.key["name"] for entry in Store(tmp_path).entries(verify=True)] == ["small"]


@pytest.mark.parametrize("place", ["file", "below a file", "long", "proc"])
def test_places_where_no_folder_can_be(place, tmp_path):
    (tmp_path / "file").write_text("")
    folder = {
        "file": tmp_path / "file",
        "below a file": tmp_path / "file" / "store",
        "long": tmp_path / ("x" * 300),
        "proc": Path("/proc/mxtrt"),
    }[place]
    one_warning(Store(folder), "it cannot be written")
    assert (tmp_path / "file").read_text() == ""


def test_locks_that_do_not_work(made, monkeypatch):
    """As on some network file systems: then more than one process may build."""
    import filelock

    def fail(*_, **__):
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr(filelock.FileLock, "acquire", fail)
    with pytest.warns(RuntimeWarning, match="does not appear to support flock"):
        assert not get(made)[1].stored
    assert get(made)[1].stored
    (made.folder / f"{file_name(KEY)}.x.tmp").write_bytes(b"it may be somebody's")
    made.clear()
    assert len(files(made)) == 1


# -- strangers -------------------------------------------------------------------------------------


def give_away(path: Path, monkeypatch) -> None:
    """Let a file or folder be somebody else's."""
    if os.geteuid() == 0:
        os.chown(path, 12345, 12345)
        return
    pytest.skip("only root can give files away")


@pytest.mark.parametrize("which", ["file", "folder", "root"])
def test_what_is_owned_by_somebody_else_is_refused(which, made, monkeypatch):
    get(made, content=b"malicious")
    path = {"file": made.entries()[0].path, "folder": made.folder, "root": made.root}[which]
    give_away(path, monkeypatch)
    with pytest.warns(RuntimeWarning) as caught:
        for _ in range(2):
            content, origin = get(made, content=b"good")
            assert content == b"good"
    assert len(caught) == 1
    assert f"{path} is owned by user 12345, not by you (0): it is not used" in str(
        caught[0].message
    )
    assert origin.stored is (which == "file")  # replaced by one of our own
    if which != "file":
        assert b"malicious" in (made.folder / file_name(KEY)).read_bytes()  # and left alone


def test_what_belongs_to_another_user_is_refused(made, monkeypatch):
    get(made)
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    with pytest.warns(RuntimeWarning, match=f"is owned by user {user}, not by you"):
        assert not get(made, content=b"good")[1].stored


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_is_refused(mode, made):
    get(made, content=b"malicious")
    made.entries()[0].path.chmod(mode)
    with pytest.warns(RuntimeWarning, match="others may write to .*: it is not used"):
        assert get(made, content=b"good")[0] == b"good"
    assert get(made)[0] == b"good"


def test_nothing_is_unpickled(made, monkeypatch):
    import pickle

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, no_build)
    get(made)
    assert get(made)[1].stored
    assert made.entries(verify=True)


# -- fork ------------------------------------------------------------------------------------------


def _in_child(root: str, results) -> None:
    content, origin = get(Store(root), content=b"of the child")
    results.put((content, origin.stored))


@pytest.fixture
def fork():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads and fork
        yield multiprocessing.get_context("fork")


def test_fork_after_use(made, fork):
    get(made)
    results = fork.Queue()
    children = [fork.Process(target=_in_child, args=(str(made.root), results)) for _ in range(2)]
    for child in children:
        child.start()
    assert [results.get(timeout=60) for _ in children] == [(b"a plan", True)] * 2
    for child in children:
        child.join(60)
        assert child.exitcode == 0


def test_fork_while_a_thread_builds(made, fork):
    """The child has a copy of the lock's descriptor; the parent's build stays the only one."""
    inside, go_on = threading.Event(), threading.Event()

    def build():
        inside.set()
        assert go_on.wait(60)
        return b"of the parent"

    thread = threading.Thread(target=made.get, args=(KEY, build, bytes), kwargs={"what": "net"})
    thread.start()
    assert inside.wait(30)
    results = fork.Queue()
    child = fork.Process(target=_in_child, args=(str(made.root), results))
    child.start()
    time.sleep(0.5)
    assert results.empty()  # it waits
    go_on.set()
    thread.join(60)
    assert results.get(timeout=60) == (b"of the parent", True)
    child.join(60)
    assert child.exitcode == 0


@pytest.mark.skipif(
    int(version("filelock").split(".")[0]) < 4, reason="closes no lock in a forked child"
)
def test_a_killed_parent_of_a_forked_child_holds_no_lock(made, tmp_path):
    code = """if True:
        import os, sys, time
        from mxtrt.store import Store
        def build():
            if os.fork() == 0:  # such as a worker of multiprocessing
                print(os.getpid(), flush=True)
                time.sleep(100)
                os._exit(0)
            time.sleep(100)
        Store(sys.argv[1]).get({"kind": "plan", "number": 1}, build, bytes, what="net")
    """
    with killed_at_the_end(start(code, made.root, stdout=subprocess.PIPE)) as parent:
        child = int(parent.stdout.readline())
        try:
            parent.kill()
            parent.wait()
            before = time.monotonic()
            assert not get(made, numbered(1))[1].stored
            assert time.monotonic() - before < 20
        finally:
            os.kill(child, signal.SIGKILL)


def test_temporary_files_lie_in_the_folder(made, monkeypatch):
    """Renaming from another file system would not be atomic."""
    seen = []
    make = tempfile.mkstemp

    def mkstemp(suffix, prefix, folder):
        seen.append(folder)
        return make(suffix, prefix, folder)

    monkeypatch.setattr(tempfile, "mkstemp", mkstemp)
    get(made)
    assert seen == [made.folder]
