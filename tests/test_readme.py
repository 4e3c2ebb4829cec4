"""Every command and every piece of Python in the README runs, and prints what stands there."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from pages import (
    DEMO,
    ROOT,
    Block,
    blocks,
    run_commands,
    run_python,
    without_measurements,
)

from mxtrt.timing import geometric_mean

README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLE = (ROOT / "examples/digits/README.md").read_text(encoding="utf-8")

COMMANDS = [block for block in blocks(README) if block.language == "sh"]


@pytest.fixture
def folder(demo: Path, tmp_path: Path) -> Path:
    """Return a folder with the demo's checkpoint in it."""
    shutil.copytree(demo, tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_code_stands_near_the_top() -> None:
    assert "```python" in README.splitlines()[:25]


def test_demo(demo: Path) -> None:
    assert any("make demo" in block.commands for block in COMMANDS)
    assert DEMO in (ROOT / "Makefile").read_text().replace("$(BIN)/", "")
    shown = next(block.output for block in blocks(EXAMPLE) if block.output is not None)
    printed = (demo / "printed.txt").read_text(encoding="utf-8")
    assert without_measurements(printed) == without_measurements(shown)


def command_blocks() -> list[Any]:
    rows = [block for block in COMMANDS if "make demo" not in block.commands]
    return [pytest.param(block, id=block.commands[0]) for block in rows]


@pytest.mark.parametrize("block", command_blocks())
def test_commands(block: Block, folder: Path) -> None:
    run_commands(block, folder)


def test_python(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    run_python("README.md", README)


def test_extras_exist() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for extra in re.findall(r"\[(\w+)\]'", README):
        assert re.search(rf"^{extra} = \[", project, re.MULTILINE)


@pytest.mark.parametrize("page", ["README.md", "examples/README.md", "examples/digits/README.md"])
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#:]+)[^)]*\)", text):
        assert (ROOT / page).parent.joinpath(link).exists(), link


def test_commands_of_the_example(folder: Path) -> None:
    for block in blocks(EXAMPLE):
        run_commands(block, folder)


def results(name: str) -> list[dict[str, Any]]:
    """Return what a benchmark wrote."""
    content = (ROOT / "benchmarks" / "results" / name).read_text()
    rows: list[dict[str, Any]] = json.loads(content)["results"]
    return rows


def test_the_speeds_on_a_gpu_are_those_that_were_measured() -> None:
    ours, pytorch = (
        {row["batch"]: row for row in results(name)}
        for name in ("h200_gpu.json", "h200_pytorch.json")
    )
    rows = results("h200_onnxruntime.json")
    providers = {row["batch"]: row["milliseconds"] for row in rows if row["provider"] == "TensorRT"}
    shown = re.findall(r"^\| (\d+) \| ([\d. |]+) \|$", README, re.MULTILINE)
    assert [int(batch) for batch, _ in shown] == sorted(ours)
    for batch, cells in shown:
        took = ours[int(batch)]["milliseconds"]
        assert re.split(r" ?\| ?", cells) == [
            f"{took['MXNet']:.1f}",
            f"{providers[int(batch)]['GPU']:.2f}",
            f"{pytorch[int(batch)]['graph_ms']:.2f}",
            *(f"{took[column]:.2f}" for column in ("mxtrt", "mxtrt pin", "mxtrt GPU", "raw")),
        ]
    assert all(row["difference"] < 2e-2 and row["top1_equal"] for row in ours.values())
    *first, last = (f"{providers[batch]['numpy']:.2f}" for batch in sorted(providers))
    said = f"From NumPy's arrays ONNX Runtime takes {', '.join(first)} and {last}."
    assert said in " ".join(README.split())


def test_the_speed_of_calls_in_flight_is_what_was_measured() -> None:
    rates = {row["batch"]: row["images_per_second"]["3"] for row in results("h200_in_flight.json")}
    said = (
        f"mxtrt makes {rates[1]:,.0f} images a second at batch 1 and {rates[128]:,.0f} at batch 128"
    )
    assert said in " ".join(README.split())


def test_the_start_on_a_gpu_is_what_was_measured() -> None:
    started: Any = results("h200_start.json")
    built, warm = (started[start]["both"] for start in ("empty store", "warm"))
    said = (
        f"The engine is built in {built:.1f} s, once; a later process gives its first answer "
        f"{warm:.2f} s after the imports of MXNet and mxtrt"
    )
    assert said in " ".join(README.split())


def test_the_speeds_on_the_cpu_are_those_that_were_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import zoo

    for row in zoo.overall(results("zoo_batch1.json")):
        assert f"| {' | '.join(row)} |" in README


def test_the_speeds_of_other_models_are_those_that_were_measured() -> None:
    rows = results("known_models.json")
    gains = [row["ms"]["MXNet"] / row["ms"]["mxtrt"] for row in rows]
    slowest = min(zip(gains, (row["model"] for row in rows)))
    assert slowest[1] == "gluoncv/resnet50_v1_int8"
    said = (
        f"And {len(rows)} others of [the models that are known to work](docs/models.md), "
        "detectors, segmentation, video, language and models of 8 bits: "
        f"{geometric_mean(gains):.2f} times MXNet's speed (geometric mean; least "
        f"{slowest[0]:.2f}, a ResNet-50 of 8 bits; most {max(gains):.2f}), by "
        "`benchmarks/known_models.py`."
    )
    assert said in " ".join(README.split())
