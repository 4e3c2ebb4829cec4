"""Signs of life of a build, and Ctrl-C while it goes on."""

from __future__ import annotations

import io
import logging
import re
import signal
import sys
import time
from types import SimpleNamespace

import pytest
from test_tensorrt import FakeLogger, build, convnet, needs_rtx

from mxtrt.engines import _nvidia, _progress, _settings
from mxtrt.errors import EngineError
from mxtrt.options import Options


@pytest.fixture
def rtx() -> _nvidia.Api:
    return _nvidia.api("tensorrt_rtx")


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    made = Terminal()  # `on`: pytest puts its own stderr in place when the test begins
    made.on = lambda: monkeypatch.setattr(sys, "stderr", made)
    monkeypatch.setattr(_progress, "PATIENCE", 0.05)
    monkeypatch.delenv("MXTRT_PROGRESS", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    return made


def test_a_long_build_is_shown(terminal):
    terminal.on()
    logger = FakeLogger()
    with _progress.building(logger, "TensorRT builds [mxtrt0]", show=True):
        for hear in logger.listeners:
            hear("--------------- Timing Runner: conv0/Conv + relu/Relu (CaskConvolution)")
            hear("something else")
        shown = "TensorRT builds [mxtrt0]: times conv0/Conv + relu/Relu"
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and shown not in terminal.getvalue():
            time.sleep(0.01)
    assert shown in terminal.getvalue()
    assert re.search(r"0:00:\d\d", terminal.getvalue())
    assert not logger.listeners


@pytest.mark.parametrize("how", ["short", "option", "variable", "file"])
def test_what_shows_nothing(how, terminal, monkeypatch):
    terminal.on()
    if how == "short":
        monkeypatch.setattr(_progress, "PATIENCE", 60)
    if how == "variable":
        monkeypatch.setenv("MXTRT_PROGRESS", "0")
    if how == "file":
        monkeypatch.setattr(Terminal, "isatty", lambda self: False)
    with _progress.building(FakeLogger(), "a build", show=how != "option"):
        time.sleep(0 if how == "short" else 0.3)
    assert not terminal.getvalue()


def test_a_bar_that_is_there_takes_the_line(terminal):
    from rich.progress import Progress

    terminal.on()
    bar, told = Progress(disable=True), []
    with _progress.shared(bar), _progress.building(FakeLogger(), "a build", show=True) as watch:
        watch._phases["Tactic selection"] = [3, 12]
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and not told:
            told = [t.description for t in bar.tasks if "3/12" in t.description]
            time.sleep(0.01)
    assert told == ["a build: Tactic selection 3/12"]
    assert not bar.tasks
    assert not terminal.getvalue()


@needs_rtx
def test_the_monitor_of_newer_versions(rtx, monkeypatch):
    texts = []
    monkeypatch.setattr(
        _progress.Watch, "goes_on", property(lambda watch: texts.append(str(watch)) or True)
    )
    net, args, aux = convnet()
    build(rtx, net, (args, aux), {"data": (2, 3, 16, 16)})
    assert texts
    assert all(text.startswith("TensorRT-RTX builds mxtrt0 (fp32)") for text in texts)
    assert any("/" in text for text in texts)


@needs_rtx
def test_ctrl_c_ends_a_build(rtx, monkeypatch, tmp_path):
    """The builder is asked to stop, the exception comes once it has, and the next build works."""
    net, args, aux = convnet()
    cancelled = []

    def press(watch):
        signal.raise_signal(signal.SIGINT)
        cancelled.append(watch.cancelled)
        return not watch.cancelled

    with monkeypatch.context() as patch:
        patch.setattr(_progress.Watch, "goes_on", property(press))
        with pytest.raises(KeyboardInterrupt):
            build(rtx, net, (args, aux), {"data": (2, 3, 16, 16)})
    assert cancelled
    assert len(cancelled) < 50, "it was asked to stop and went on"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert not rtx.lock.locked()
    assert not rtx.logger.listeners
    assert build(rtx, net, (args, aux), {"data": (2, 3, 16, 16)}).nbytes > 1000


def test_ctrl_c_waits_until_tensorrt_has_returned():
    done = []
    with pytest.raises(KeyboardInterrupt), _progress.interrupts_later():
        signal.raise_signal(signal.SIGINT)
        done.append("what is in between ends")
        raise EngineError("the build was cancelled")
    assert done
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_ctrl_c_of_a_program_with_a_handler_of_its_own():
    seen = []
    before = signal.signal(signal.SIGINT, lambda *_: seen.append(1))
    try:
        with _progress.interrupts_later():
            signal.raise_signal(signal.SIGINT)
        assert seen
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_timing_cache_that_cannot_be_written(tmp_path, caplog):
    cache = SimpleNamespace(serialize=lambda: b"timings")
    api = SimpleNamespace(timing_cache=b"")
    _settings.keep_timing_cache(api, cache, Options(timing_cache=str(tmp_path / "cache")))
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    assert (tmp_path / "cache").read_bytes() == b"timings"
    with caplog.at_level(logging.WARNING, "mxtrt"):
        _settings.keep_timing_cache(api, cache, Options(timing_cache=str(tmp_path / "no" / "x")))
    assert "cannot be written" in caplog.text
