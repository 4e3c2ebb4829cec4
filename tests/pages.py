"""Documents are run: their commands and their Python, and what they say that these print."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from click.testing import CliRunner

from mxtrt import cli

ROOT = Path(__file__).resolve().parents[1]

DEMO = "python examples/digits/demo.py"
NOT_RUN = {
    "make test": "runs these tests",
    "make docs": "a part of make test",
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


def without_measurements(text: str) -> list[str]:
    """Return the lines that a run leaves, without what differs from machine to machine."""
    text = re.sub(r"━+ *\d+%.*", "<bar>", text)
    text = re.sub(r"\d+(?= of 360)|\d+ of (?=\d+ passes)|(?<=of )\d+(?= passes)", "<n>", text)
    text = re.sub(r"\d+(\.\d+)?(e-\d+)?(?= m?s\b|%| times)|\d(\.\d+)?e-\d+|\b0(?= \()", "<n>", text)
    text = re.sub(r"[\d,]+(?= rows a second)|(?<=a second, )[\d,]+", "<n>", text)
    text = re.sub(r"(?<=values up to )[\d.]+", "<n>", text)
    text = re.sub(r"times as (fast|slow)", "times as <fast or slow>", text)
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def run(command: str, folder: Path) -> str:
    """Run a command of a page; ``mxtrt`` in this process, which has imported MXNet already."""
    words = shlex.split(command)
    assert words[0] == "mxtrt", f"a page has a command that this test cannot run: {command}"
    before = Path.cwd()
    os.chdir(folder)
    try:
        done = CliRunner(env={"COLUMNS": "80"}).invoke(cli.main, words[1:], catch_exceptions=False)
    finally:
        os.chdir(before)
    assert done.exit_code == 0, done.output
    return done.stdout


def run_demo(folder: Path) -> str:
    """Run the demo in a folder, where it leaves a checkpoint; return what it prints."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "COLUMNS": "80"}
    words = [sys.executable, str(ROOT / "examples/digits/demo.py"), "--keep", "digits"]
    done = subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_python(name: str, text: str) -> None:
    """Run the Python of a page from its top to its end, and compare what each block prints."""
    names: dict[str, Any] = {}
    for block in blocks(text):
        if block.language != "python":
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(block.text, name, "exec"), names)
        if block.output is None:
            continue
        if " ms" in block.output:
            assert without_measurements(printed.getvalue()) == without_measurements(block.output)
        else:
            assert printed.getvalue() == block.output, printed.getvalue()


def run_commands(block: Block, folder: Path) -> None:
    """Run the commands of a block, and compare what they print."""
    for command in block.commands:
        if command in NOT_RUN or command.startswith(DEMO):  # a fixture has run the demo
            continue
        printed = run(command, folder)
        if block.output is not None:
            assert without_measurements(printed) == without_measurements(block.output)
