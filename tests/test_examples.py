"""Every example runs as its docstring says, and prints the outcome that it is there for."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
MODELS = Path(os.environ.get("MXTRT_TEST_MODELS", ROOT.parent / "shared" / "models"))
CASCADE = [MODELS / f"mtcnn_det{i}" for i in (1, 2, 3)]
LIMIT = 120  # seconds; each takes less than 30 on a core of its own


def run(script: str, *arguments: str) -> str:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / script), *arguments],
        env={**os.environ, "PYTHONPATH": path, "MXTRT_TEST_MODELS": str(MODELS)},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def number(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    assert found, f"{pattern} is not in:\n{text}"
    return float(found[1])


def test_classification() -> None:
    printed = run("01_classification/classify.py")
    assert "All 30 operators move into 1 part" in printed
    before = number(r"MXNet: (\d+) of 360 test images right", printed)
    assert number(r"mxtrt: (\d+) of 360 test images right", printed) == before > 300
    assert number(r"largest difference between the scores: (\S+)", printed) < 1e-5
    assert re.search(r"MXNet [\d.]+ ms, mxtrt [\d.]+ ms", printed)


@pytest.mark.skipif(
    not all(folder.is_dir() for folder in CASCADE),
    reason=f"MTCNN's nets are not in {MODELS}; MXTRT_TEST_MODELS names another folder",
)
def test_face_detection() -> None:
    printed = run("02_face_detection/detect.py")
    (corners,) = re.findall(r"face from \((\d+), (\d+)\) to \((\d+), (\d+)\)", printed)
    left, top, right, bottom = map(int, corners)
    assert left < 135 < 185 < right  # the drawn eyes and the mouth are inside
    assert top < 105 < 165 < bottom
    assert "the same: 1\n" in printed


def test_gluon() -> None:
    printed = run("03_gluon/net.py")
    before = number(r"MXNet: ([\d.]+)% of 360 test images right", printed)
    assert number(r"mxtrt: ([\d.]+)%, with the engine", printed) == before > 90
    again = number(r"after one more epoch: MXNet ([\d.]+)%", printed)
    assert number(r"after one more epoch: .*mxtrt ([\d.]+)%", printed) == again
    assert "agree after a weight has changed: True" in printed
    assert "All 11 operators move into 1 part" in printed


def test_question_answering() -> None:
    printed = run("04_question_answering/answer.py")
    assert "move into 1 part" in printed
    before, after = (
        re.findall(rf"{who}'s answers (\[.*\])", printed) for who in ("MXNet", "mxtrt")
    )
    assert before == after
    assert len(before) == 2
    assert len(re.findall(r"MXNet \d+ ms, mxtrt \d+ ms", printed)) == 2


def test_custom_operator() -> None:
    left, moved = run("05_custom_operator/custom_operator.py").split("2. A converter tells it")
    assert "2 of 3 operators move into 2 parts" in left
    assert "no converter for 'swish'" in left
    assert "register_converter" in left
    assert "All 3 operators move into 1 part" in moved
    assert all(number(r"largest difference: (\S+),", part) < 1e-5 for part in (left, moved))


def test_every_example_is_tested_and_listed() -> None:
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    tested = Path(__file__).read_text(encoding="utf-8")
    for folder in filter(Path.is_dir, EXAMPLES.iterdir()):
        assert f"({folder.name}/" in page
        assert f'"{folder.name}/' in tested or folder.name == "digits"  # tests/test_readme.py does
    for link in re.findall(r"\]\(([^)#:]+)\)", page):
        assert (EXAMPLES / link).is_file(), link
