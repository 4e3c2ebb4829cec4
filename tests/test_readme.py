"""Every command and every piece of Python in the README runs, and prints what stands there."""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import mxtrt

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")

DEMO = "python examples/digits/demo.py"
NOT_RUN = {
    "make test": "runs these tests",
    "mxtrt doctor": "fails where there is no TensorRT",
    "mxtrt infer digits/net.plan --input digits/images.npy --batch 64 -o digits/scores.npz": (
        "needs one of the plan's GPUs"
    ),
    "pip install '.[cpu]'": "the check of the wheel installs",
    "pip install --no-deps mxnet==1.9.1": "the check of the wheel installs",
    "pip install .": "the check of the wheel installs",
}


class Block(NamedTuple):
    language: str
    text: str
    output: str | None  # the text block that follows, with nothing but prose in between

    @property
    def commands(self) -> list[str]:
        return self.text.replace(" \\\n", "").splitlines()


def blocks(text: str) -> Iterator[Block]:
    found = re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    for (language, code), (following, output) in zip(found, [*found[1:], ("", "")]):
        if language != "text":
            yield Block(language, code, output if following == "text" else None)


BLOCKS = list(blocks(README))
COMMANDS = [block for block in BLOCKS if block.language == "sh"]


def without_measurements(text: str) -> list[str]:
    """Return the lines that a run leaves, without what differs from machine to machine."""
    text = re.sub(r"━+ *\d+%.*", "<bar>", text)
    text = re.sub(r"\d+(?= of 360)|\d+ of (?=\d+ passes)|(?<=of )\d+(?= passes)", "<n>", text)
    text = re.sub(r"\d+(\.\d+)?(e-\d+)?(?= m?s\b|%| times)|\d(\.\d+)?e-\d+|\b0(?= \()", "<n>", text)
    text = re.sub(r"(?<=values up to )[\d.]+", "<n>", text)
    text = re.sub(r"times as (fast|slow)", "times as <fast or slow>", text)
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def run(command: str, folder: Path) -> str:
    words = shlex.split(command)
    if command.startswith(DEMO):
        words[:2] = [sys.executable, str(ROOT / "examples/digits/demo.py")]
    elif words[0] == "mxtrt":
        words[:1] = [sys.executable, "-m", "mxtrt"]
    else:
        raise AssertionError(f"the README has a command that this test cannot run: {command}")
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "COLUMNS": "80"}
    done = subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return a folder with the demo's checkpoint in it, and what the demo printed."""
    folder = tmp_path_factory.mktemp("readme")
    return folder, run(f"{DEMO} --keep digits", folder)


def test_code_stands_near_the_top() -> None:
    assert "```python" in README.splitlines()[:25]


def test_demo(demo: tuple[Path, str]) -> None:
    block = next(block for block in COMMANDS if "make demo" in block.commands)
    assert block.output is not None
    assert without_measurements(demo[1]) == without_measurements(block.output)
    assert DEMO in (ROOT / "Makefile").read_text().replace("$(BIN)/", "")


def command_blocks() -> list[Any]:
    rows = [(b.commands, b.output) for b in COMMANDS if "make demo" not in b.commands]
    return [pytest.param(*row, id=row[0][0]) for row in rows]


@pytest.mark.parametrize(("commands", "output"), command_blocks())
def test_commands(demo: tuple[Path, str], commands: list[str], output: str | None) -> None:
    if any("--target" in command for command in commands):
        pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX has no wheel for this platform")
    for command in commands:
        if command in NOT_RUN or command.startswith(DEMO):  # the fixture has run the demo
            continue
        printed = run(command, demo[0])
        if output is not None:
            assert without_measurements(printed) == without_measurements(output)


def test_python(demo: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(demo[0])
    names: dict[str, Any] = {}
    for block in BLOCKS:
        if block.language != "python":
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(block.text, "README.md", "exec"), names)
        if block.output is not None:
            assert printed.getvalue() == block.output


def test_every_option_is_named() -> None:
    section = README[README.index("\n### Options") : README.index("\n### The report")]
    options = list(inspect.signature(mxtrt.optimize).parameters)[2:]
    assert [name for name in options if f"`{name}`" not in section] == []


def test_extras_exist() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for extra in re.findall(r"\[(\w+)\]'", README):
        assert re.search(rf"^{extra} = \[", project, re.MULTILINE)


@pytest.mark.parametrize("page", ["README.md", "examples/digits/README.md"])
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / page).parent.joinpath(link).exists(), link


def test_commands_of_the_example(demo: tuple[Path, str]) -> None:
    page = (ROOT / "examples/digits/README.md").read_text(encoding="utf-8")
    for block in blocks(page):
        for command in block.commands:
            if not command.startswith(DEMO):
                run(command, demo[0])


def test_the_files_in_the_table_exist() -> None:
    section = README[README.index("\n## How it works") :]
    rows = [line.split("|")[-2] for line in section.splitlines() if line.startswith("| ")][2:]
    for cell in rows:
        for name in re.findall(r"`([^`]+)`", cell):
            assert (ROOT / name).exists() or (ROOT / "mxtrt" / name).exists(), name
