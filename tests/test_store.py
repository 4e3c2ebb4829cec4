"""The store: what is kept, under which keys, where, for how long, and who may see it."""

from __future__ import annotations

import json
import logging
import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from mxtrt import cli, store, stored_file
from mxtrt.errors import BadOption, EngineError
from mxtrt.options import read_options
from mxtrt.store import Store, open_store, parse_size
from mxtrt.stored_file import file_name

KEY = {"kind": "plan", "name": "net", "options": {"precision": "fp16"}, "profile": ((1, 2, 4),)}


@pytest.fixture(autouse=True)
def each_test_warns_anew(monkeypatch):
    monkeypatch.setattr(store, "_warned", set())


@pytest.fixture
def made(tmp_path) -> Store:
    return Store(tmp_path / "store")


def get(where: Store, key=KEY, content: bytes = b"a plan", builds: list | None = None):
    def build():
        if builds is not None:
            builds.append(key)
        return content

    return where.get(key, build, bytes, what="net")


def no_build():
    raise AssertionError("it should have come from the store")


# -- what is kept ----------------------------------------------------------------------------------


def test_what_was_built_is_found_again(made):
    builds: list = []
    content, origin = get(made, builds=builds)
    assert (content, origin.stored, origin.nbytes) == (b"a plan", False, 6)
    content, origin = get(Store(made.root), builds=builds)
    assert (content, origin.stored, origin.nbytes) == (b"a plan", True, 6)
    assert len(builds) == 1
    assert made.read(KEY) == b"a plan"
    assert made.read({**KEY, "name": "other"}) is None


def test_another_process_finds_it(made):
    get(made, content=bytes(range(256)) * 100)
    code = (
        "import json, sys; from mxtrt.store import Store\n"
        "print(Store(sys.argv[1]).read(json.loads(sys.argv[2])).hex())"
    )
    words = [sys.executable, "-c", code, str(made.root), json.dumps(KEY)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    assert bytes.fromhex(done.stdout) == bytes(range(256)) * 100


@pytest.mark.parametrize("content", [b"", b"\0", bytes(1 << 20), memoryview(b"view"),
                                     np.arange(5, dtype=np.int32)])  # fmt: skip
def test_contents(made, content):
    get(made, content=content)
    assert get(made)[0] == bytes(content)


def test_what_is_stored_is_loaded_from_bytes_of_its_own(made):
    get(made, content=b"12345")
    loaded, _ = made.get(KEY, no_build, lambda content: content, what="net")
    assert type(loaded) is bytes  # not a view of a file that may change


def test_a_failed_build_leaves_nothing(made):
    def fails():
        raise EngineError("TensorRT cannot")

    with pytest.raises(EngineError, match="TensorRT cannot"):
        made.get(KEY, fails, bytes, what="net")
    assert not made.entries()
    assert get(made)[1].stored is False


def test_what_the_engine_refuses_is_built_again(made, caplog):
    get(made, content=b"of another GPU")

    def load(content):
        if content == b"of another GPU":
            raise EngineError("TensorRT does not take the plan")
        return content

    with caplog.at_level(logging.WARNING, "mxtrt"):
        loaded, origin = made.get(KEY, lambda: b"new", load, what="net")
    assert (loaded, origin.stored) == (b"new", False)
    assert "net is built again, because TensorRT does not take the plan" in caplog.text
    assert made.get(KEY, no_build, load, what="net")[0] == b"new"


def test_what_the_engine_refuses_now_is_kept_if_it_cannot_be_built(made):
    """It may be for lack of memory."""
    get(made)

    def refuses(content):
        raise EngineError("out of memory")

    with pytest.raises(EngineError, match="no memory to build"):
        made.get(KEY, _raising(EngineError("no memory to build")), refuses, what="net")
    assert get(made)[1].stored


def _raising(error):
    def call(*_):
        raise error

    return call


def test_a_wrong_build_is_used_once_and_not_kept(made):
    assert made.get(KEY, lambda: b"x", bytes, what="net", is_right=lambda: False)[0] == b"x"
    assert not made.entries()


def test_update(made):
    seen = []
    for _ in range(3):
        made.update(KEY, lambda known: (seen.append(known), known + b"x")[1], "it")
    assert seen == [b"", b"x", b"xx"]
    before = os.stat(made.entries()[0].path)
    made.update(KEY, lambda known: known, "it")
    assert os.stat(made.entries()[0].path).st_ino == before.st_ino  # nothing new, not written


# -- names -----------------------------------------------------------------------------------------


def test_keys_that_are_equal_have_one_name():
    turned = dict(reversed(list(KEY.items())))
    as_json = json.loads(json.dumps(KEY))
    assert file_name(KEY) == file_name(turned) == file_name(as_json)


@pytest.mark.parametrize(
    "other",
    [{"kind": "timing"}, {"name": "net2"}, {"name": None}, {"options": {}}, {"more": 0},
     {"profile": ((1, 2, 5),)}, {"profile": ((1, 2), (4,))}],
)  # fmt: skip
def test_keys_that_differ_have_names_of_their_own(other, made):
    assert file_name({**KEY, **other}) != file_name(KEY)
    get(made)
    assert get(made, {**KEY, **other}, b"other")[0] == b"other"
    assert get(made)[0] == b"a plan"


@pytest.mark.parametrize(
    "name", ["x" * 100_000, "a/b\\c:\0\n", "ß中\udcff", "../../etc/passwd", ""]
)
def test_any_name(name, made):
    key = {**KEY, "name": name}
    assert not get(made, key)[1].stored
    assert get(made, key)[1].stored
    [entry] = made.entries()
    assert len(entry.path.name) == 64 + len(".plan")
    assert entry.key["name"] == name


def test_timings_can_be_stored_while_the_lock_of_any_plan_is_held(made, monkeypatch):
    monkeypatch.setattr(store, "file_name", lambda key: f"{'0' * 64}.{key['kind']}")
    monkeypatch.setattr(stored_file, "file_name", store.file_name)

    def build():
        made.update({"kind": "timing"}, lambda known: b"timings", "timings")
        return b"a plan"

    assert made.get(KEY, build, bytes, what="net")[0] == b"a plan"
    assert made.read({"kind": "timing"}) == b"timings"


# -- the limit -------------------------------------------------------------------------------------


def numbered(number: int) -> dict:
    return {"kind": "plan", "number": number}


def numbers(where: Store) -> list[int]:
    return [entry.key["number"] for entry in where.entries()]


def test_what_was_used_least_recently_goes_first(tmp_path):
    size = len(_entry_bytes(tmp_path))
    small = Store(tmp_path / "small", limit=3 * size + 500)  # headers differ by some digits
    for number in (1, 2, 3):
        get(small, numbered(number), bytes(1000))
    assert get(small, numbered(1), bytes(1000))[1].stored
    get(small, numbered(4), bytes(1000))
    assert numbers(small) == [4, 1, 3]
    assert small.size() <= small.limit


def _entry_bytes(tmp_path) -> bytes:
    one = Store(tmp_path / "one")
    get(one, numbered(1), bytes(1000))
    [entry] = one.entries()
    return entry.path.read_bytes()


def test_the_newest_stays_whatever_its_size(tmp_path):
    size = len(_entry_bytes(tmp_path))
    small = Store(tmp_path / "small", limit=size + 700)
    for number in range(3):
        get(small, numbered(number), bytes(300))
    get(small, numbered(9), bytes(1500))
    assert numbers(small) == [9]


def test_what_is_larger_than_the_limit_is_not_kept(tmp_path):
    small = Store(tmp_path, limit=100)
    with pytest.warns(RuntimeWarning, match="1,000 bytes are more than its limit, 100"):
        assert get(small, content=bytes(1000))[0] == bytes(1000)
    assert not small.size()


@pytest.mark.parametrize("now", [0, -(1 << 40), 1 << 60])
def test_the_clock_may_jump(now, made, monkeypatch):
    for number in (1, 2, 3):
        get(made, numbered(number))
    monkeypatch.setattr(time, "time_ns", lambda: now)
    monkeypatch.setattr(time, "time", lambda: now / 1e9)
    assert get(made, numbered(1))[1].stored
    get(made, numbered(4))
    assert numbers(made) == [4, 1, 3, 2]
    assert not any(entry.problem for entry in made.entries(verify=True))


@pytest.mark.parametrize(
    ("text", "expected"),
    [(0, 0), (12, 12), ("12", 12), ("1k", 1000), ("1 KiB", 1024), ("2MB", 2_000_000),
     ("1.5 GiB", 3 << 29), ("1T", 10**12), (" 7 b ", 7)],
)  # fmt: skip
def test_sizes(text, expected):
    assert parse_size("cache_size", text) == expected


@pytest.mark.parametrize("text", ["", "x", "-1", -1, 1.5, True, "1 XB", "1 GiBB", "iB", None])
def test_no_sizes(text):
    with pytest.raises(BadOption, match=r"cache_size=.* such as '20 GiB'"):
        parse_size("cache_size", text)


# -- where it is -----------------------------------------------------------------------------------


def test_places(monkeypatch, tmp_path):
    monkeypatch.delenv("MXTRT_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert open_store().root == tmp_path / "xdg" / "mxtrt"
    monkeypatch.setenv("MXTRT_CACHE_DIR", str(tmp_path / "mine"))
    assert open_store().root == tmp_path / "mine"
    assert open_store(str(tmp_path / "option")).root == tmp_path / "option"
    assert open_store(False) is None
    monkeypatch.setenv("MXTRT_CACHE_DIR", "off")
    assert open_store() is None
    assert open_store(str(tmp_path)) is not None
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert open_store("~/c").root == tmp_path / "home" / "c"
    monkeypatch.chdir(tmp_path)
    assert open_store("here").root == tmp_path / "here"
    assert not list(tmp_path.iterdir())  # nothing is made before something is stored


def test_limits(monkeypatch, tmp_path):
    assert open_store(str(tmp_path)).limit == 10 << 30
    monkeypatch.setenv("MXTRT_CACHE_SIZE", "3 GiB")
    assert open_store(str(tmp_path)).limit == 3 << 30
    assert open_store(str(tmp_path), 5).limit == 5
    monkeypatch.setenv("MXTRT_CACHE_SIZE", "much")
    with pytest.raises(BadOption, match="MXTRT_CACHE_SIZE='much' must be a number of bytes"):
        open_store(str(tmp_path))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [({"cache_dir": 3}, "cache_dir=3 must be a path"),
     ({"cache_size": "big"}, "cache_size='big' must be a number of bytes or a size such as"),
     ({"cachedir": "x"}, "no option 'cachedir'; did you mean 'cache_dir'")],
)  # fmt: skip
def test_bad_options(given, sentence):
    with pytest.raises(BadOption) as caught:
        read_options(**given)
    assert sentence in str(caught.value)


def test_options():
    assert read_options().cache_dir is True
    assert read_options(cache_dir=None).cache_dir is False
    assert read_options(cache_dir=False).cache_dir is False
    assert read_options(cache_dir=Path("/x")).cache_dir == "/x"
    assert read_options(cache_size="1 KiB").cache_size == 1024


def test_nobody_else_may_look(tmp_path):
    before = os.umask(0)
    try:
        where = Store(tmp_path / "deep" / "store")
        get(where)
    finally:
        os.umask(before)
    modes = {p: stat.S_IMODE(p.stat().st_mode) for p in (where.root, where.folder)}
    assert set(modes.values()) == {0o700}
    assert stat.S_IMODE(where.entries()[0].path.stat().st_mode) == 0o600


def test_a_folder_that_is_too_open_is_closed(made):
    made.folder.mkdir(parents=True)
    made.folder.chmod(0o777)
    get(made)
    assert stat.S_IMODE(made.folder.stat().st_mode) == 0o700


def test_the_users_own_folder_keeps_its_mode(tmp_path):
    tmp_path.chmod(0o755)
    get(Store(tmp_path))
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


# -- threads of one process ------------------------------------------------------------------------


def test_threads_build_once_and_those_that_wait_say_so(made, caplog, monkeypatch):
    monkeypatch.setattr(store, "PATIENCE", 0.05)
    results = []

    def build():
        time.sleep(0.5)
        return b"slow"

    def work():
        results.append(made.get(KEY, build, bytes, what="net"))

    threads = [threading.Thread(target=work) for _ in range(4)]
    with caplog.at_level(logging.WARNING, "mxtrt"):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [content for content, _ in results] == [b"slow"] * 4
    assert sum(not origin.stored for _, origin in results) == 1
    assert "waiting for another process that builds net" in caplog.text


# -- mxtrt cache -----------------------------------------------------------------------------------


def invoke(*words, code=0):
    result = CliRunner().invoke(cli.main, ["cache", *map(str, words)], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


PLAN_KEY = {"kind": "plan", "name": "mxtrt0", "sizes": "(1..8, 3)", "gpu": "NVIDIA H200",
            "version": "TensorRT 8.5.3.1", "options": {"precision": "fp16"}}  # fmt: skip


def test_cache_list(made):
    assert invoke("list", "--dir", made.root) == f"{made.root} is empty.\n"
    get(made, PLAN_KEY, bytes(3 << 20))
    get(made, {"kind": "timing", "gpu": "NVIDIA H200"})
    lines = invoke("list", "--dir", made.root).splitlines()
    assert lines[0].split("  ")[0] == "last used"
    assert "timing cache" in lines[1]
    for text in ("3.0", "mxtrt0 (1..8, 3)", "NVIDIA H200", "TensorRT 8.5.3.1", "fp16"):
        assert text in lines[2]
    found = json.loads(invoke("list", "--json", "--dir", made.root))
    assert [item["key"]["kind"] for item in found] == ["timing", "plan"]


def test_cache_size_and_clear(made):
    get(made, PLAN_KEY, bytes(3 << 20))
    expected = f"{made.root}: 1 entry, 3.0 of at most 10,240.0 MiB\n"
    assert invoke("size", "--dir", made.root) == expected
    assert invoke("clear", "--dir", made.root) == f"{made.root}: removed 1 entry, 3.0 MiB\n"
    assert not made.entries()
    assert "0 entries" in invoke("clear", "--dir", made.root)


def test_cache_verify(made):
    for number in (1, 2):
        get(made, numbered(number))
    assert "2 entries, 0 of them bad" in invoke("verify", "--dir", made.root)
    bad = made.folder / file_name(numbered(1))
    bad.write_bytes(bad.read_bytes()[:-1])
    output = invoke("verify", "--dir", made.root, code=1)
    assert f"{bad}: it has" in output
    assert "not used: it has" in invoke("list", "--dir", made.root)
    assert "1 of them bad" in invoke("verify", "--drop", "--dir", made.root)
    assert numbers(made) == [2]


def test_cache_without_a_store(monkeypatch):
    monkeypatch.setenv("MXTRT_CACHE_DIR", "off")
    assert "MXTRT_CACHE_DIR is 'off'; --dir names one" in invoke("list", code=1)


def test_cache_of_somebody_else(made, monkeypatch):
    get(made)
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    for command in ("list", "verify", "clear"):
        assert "is owned by user" in invoke(command, "--dir", made.root, code=1)
