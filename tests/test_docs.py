"""The pages of docs/: what they show runs, what they name exists, what exists is named."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import logging
import re
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pages import ROOT, blocks, run_commands, run_python

import mxtrt
from mxtrt import errors
from mxtrt.cli import main

DOCS = ROOT / "docs"
PAGES = {path.name: path.read_text(encoding="utf-8") for path in sorted(DOCS.glob("*.md"))}
NAVIGATION = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")


@pytest.fixture
def folder(demo: Path, tmp_path: Path) -> Path:
    """Return a folder with the demo's checkpoint in it."""
    shutil.copytree(demo, tmp_path, dirs_exist_ok=True)
    return tmp_path


def pages_with(language: str) -> list[str]:
    return [
        name for name, text in PAGES.items() if any(b.language == language for b in blocks(text))
    ]


@pytest.fixture
def logging_as_it_was() -> Iterator[None]:
    """Take back what a page tells ``logging``."""
    root, own = logging.getLogger(), logging.getLogger("mxtrt")
    handlers, level = root.handlers[:], own.level
    yield
    root.handlers[:] = handlers
    own.setLevel(level)


@pytest.mark.usefixtures("logging_as_it_was")
@pytest.mark.parametrize("page", pages_with("python"))
def test_python(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MXNet's
        run_python(page, PAGES[page])


@pytest.mark.parametrize("page", pages_with("sh"))
def test_commands(page: str, folder: Path) -> None:
    for block in blocks(PAGES[page]):
        if block.language == "sh":
            if any("--target" in command for command in block.commands):
                pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX has no wheel here")
            run_commands(block, folder)


def test_languages() -> None:
    found = {block.language for text in PAGES.values() for block in blocks(text)}
    assert found <= {"python", "sh"}  # another one would not be run


def test_every_page_is_in_the_navigation() -> None:
    assert sorted(re.findall(r": (\w+\.md)$", NAVIGATION, re.MULTILINE)) == sorted(PAGES)


def test_every_option_is_explained() -> None:
    options = list(inspect.signature(mxtrt.optimize).parameters)[3:]
    tables = sections(PAGES["tuning.md"])["Options"]
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", tables, re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"\w+", row)]
    assert sorted(named) == sorted(options)


def test_every_environment_variable_is_named() -> None:
    sources = [path.read_text(encoding="utf-8") for path in SOURCES]
    read = {name for text in sources for name in re.findall(r'"(MXTRT_\w+)"', text)}
    assert read
    assert [name for name in sorted(read) if f"`{name}`" not in PAGES["tuning.md"]] == []


def test_every_public_name_is_in_the_reference() -> None:
    entries = re.findall(r"^::: ([\w.]+)", PAGES["api.md"], re.MULTILINE)
    assert {f"mxtrt.{name}" for name in mxtrt.__all__} <= set(entries)


def test_the_speeds_on_a_gpu_are_those_that_were_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(DOCS)
    import make_speed

    assert make_speed.page() == PAGES["speed.md"]
    assert make_speed.picture() == make_speed.PICTURE.read_text(encoding="utf-8")
    rows = [*make_speed.results("gpu")["results"], *make_speed.results("models")["results"]]
    assert {row["precision"] for row in rows} == {"fp16"}
    assert max(row["difference"] for row in rows) < 2e-2


def test_every_command_is_on_the_page() -> None:
    assert "mxtrt.cli\n    :command: main" in PAGES["command_line.md"]
    for name, command in main.commands.items():
        assert command.help and "Examples:" in command.help, name


# -- troubleshooting -------------------------------------------------------------------------------


def error_classes() -> list[str]:
    return [
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and value.__module__ == errors.__name__
    ]


def sections(text: str) -> dict[str, str]:
    parts = re.split(r"^## (.*)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2]))


TROUBLE = sections(PAGES["troubleshooting.md"])
BASES = {"MxtrtError", "UserError"}
OTHER_SECTIONS = {"Warnings", "MXNet's own messages"}


def test_every_error_has_a_section() -> None:
    assert {name for name in TROUBLE if name not in OTHER_SECTIONS} == set(error_classes()) - BASES
    assert all(f"`{name}`" in PAGES["troubleshooting.md"] for name in BASES)


def messages() -> list[Any]:
    rows = [
        (section, message)
        for section, text in TROUBLE.items()
        for item in re.findall(r"^- (`.+`):", text, re.MULTILINE)
        for message in re.findall(r"`([^`]+)`", item)
        if section != "MXNet's own messages"
    ]
    return [pytest.param(*row, id=f"{row[0]}-{row[1][:40]}") for row in rows]


def texts_of(path: Path) -> Iterator[str]:
    """Yield the strings of a source file; what is filled in when it runs stands as ``…``."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


SOURCES = {path: list(texts_of(path)) for path in sorted((ROOT / "mxtrt").rglob("*.py"))}


@pytest.mark.parametrize(("section", "message"), messages())
def test_messages_are_those_of_the_source(section: str, message: str) -> None:
    """Each message is in a module that raises such an error, or warns."""
    pieces = [re.escape(piece.strip()) for piece in message.split("…")]
    pattern = re.compile(".*".join(pieces), re.DOTALL)
    found = [path for path, texts in SOURCES.items() if any(map(pattern.search, texts))]
    assert found, "no module says this"
    wanted = "warn" if section == "Warnings" else section
    assert any(wanted in path.read_text(encoding="utf-8") for path in found)


# -- pictures --------------------------------------------------------------------------------------


def pictures() -> Any:
    spec = importlib.util.spec_from_file_location("make_pictures", DOCS / "make_pictures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pictures_show_what_is(tmp_path: Path) -> None:
    """Graphviz lays them out a little differently in each version: only words are compared."""
    if shutil.which("dot") is None:
        pytest.skip("Graphviz is not installed")
    pictures().draw(tmp_path)
    for drawn in tmp_path.glob("*.svg"):
        words = [
            re.findall(r"<text[^>]*>(.*?)</text>", path.read_text(encoding="utf-8"))
            for path in (drawn, DOCS / "pictures" / drawn.name)
        ]
        assert sorted(words[0]) == sorted(words[1]) != [], "run python docs/make_pictures.py"


def test_the_steps_are_those_of_the_pipeline() -> None:
    steps = re.findall(r"^\d +`(\w+)`", inspect.getdoc(mxtrt.pipeline) or "", re.MULTILINE)
    shown = re.findall(r'label="\d (\w+)"', pictures().PIPELINE)
    table = re.findall(r"^\| \d \| `(\w+)`", PAGES["how_it_works.md"], re.MULTILINE)
    assert steps == shown == table != []


def test_the_files_in_the_table_exist() -> None:
    rows = [line for line in PAGES["how_it_works.md"].splitlines() if line.startswith("| ")][2:]
    for cell in (row.split("|")[-2] for row in rows):
        for name in re.findall(r"`([^`]+)`", cell):
            assert (ROOT / name).exists() or (ROOT / "mxtrt" / name).exists(), name
