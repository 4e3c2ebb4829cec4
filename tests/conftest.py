"""Makes MXNet importable on every Python before any test module imports it."""

from __future__ import annotations

import math
import os
import signal
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from filelock import FileLock

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the workers of pytest-xdist share the cores
os.environ.setdefault("MXTRT_CACHE_DIR", "off")  # a test that wants a store makes its own
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what runs beside it
    signal.signal(signal.SIGINT, signal.default_int_handler)

import mxtrt  # noqa: F401  # isort: skip
import mxnet as mx  # isort: skip
from mxtrt import operator  # isort: skip


STARTED = time.monotonic()
SECONDS = float(os.environ.get("MXTRT_TEST_SECONDS", "inf"))
"""Begin no test later than that: a machine may be ours for some minutes only."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where time may run out, begin with one case of each test, go on with another of each."""
    if math.isinf(SECONDS):
        return
    cases: Counter[str] = Counter()
    turns: dict[str, int] = {}
    for item in sorted(items, key=lambda item: zlib.crc32(item.nodeid.encode())):
        test = item.nodeid.split("[")[0]
        turns[item.nodeid] = cases[test]
        cases[test] += 1
    items.sort(key=lambda item: turns[item.nodeid])


def pytest_runtest_setup() -> None:
    if time.monotonic() > STARTED + SECONDS:
        pytest.skip("no time left")


@pytest.fixture(scope="module", autouse=True)
def engines_end_with_their_module() -> Iterator[None]:
    """Free what the module's tests did not: engines live as long as the process."""
    before = {*operator._ENGINES}
    yield
    with suppress(mx.MXNetError):  # which a test wanted
        mx.nd.waitall()  # calls that are still queued need them
    for key in {*operator._ENGINES} - before:
        operator._forget(key)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the demo's checkpoint and ``printed.txt``; pytest-xdist's share it."""
    from pages import run_demo

    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    folder = base / "demo"
    with FileLock(base / "demo.lock"):
        if not (folder / "printed.txt").exists():
            folder.mkdir(exist_ok=True)
            printed = run_demo(folder)
            (folder / "printed.txt").write_text(printed, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def np_shape() -> Iterator[None]:
    """Let the module's tests have axes of size 0 and arrays without axes."""
    with mx.util.np_shape(True):
        yield
