"""What ``import mxtrt`` loads, and the names that it has."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import mxtrt

HEAVY = ("mxnet", "numpy", "onnx", "onnxruntime", "tensorrt", "tensorrt_rtx", "rich", "graphviz")


def loaded_by(*imports: str) -> set[str]:
    """Return the top-level packages that a fresh interpreter has after some imports."""
    code = f"import {', '.join(imports)}, json, sys; print(json.dumps(list(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100
    )
    return {name.partition(".")[0] for name in json.loads(done.stdout)}


def test_import_loads_nothing_heavy() -> None:
    assert not loaded_by("mxtrt") & {*HEAVY, "click"}


def test_command_line_loads_nothing_heavy() -> None:
    loaded = loaded_by("mxtrt.cli")
    assert "click" in loaded
    assert not loaded & set(HEAVY)


def test_pipeline_loads_no_engine() -> None:
    loaded = loaded_by("mxtrt.pipeline")
    assert "mxnet" in loaded
    assert not loaded & {"onnxruntime", "tensorrt", "tensorrt_rtx", "click", "graphviz"}


def test_public_names() -> None:
    assert sorted(mxtrt.__all__) == mxtrt.__all__
    assert mxtrt.__all__ == [
        "Report",
        "errors",
        "explain",
        "export_model",
        "load",
        "optimize",
        "pinned_array",
        "register_converter",
        "release",
        "report",
        "runtime",
        "save",
    ]
    for name in mxtrt.__all__:
        assert getattr(mxtrt, name) is not None
        assert name in dir(mxtrt)


def test_import_star_gives_the_public_names() -> None:
    names: dict[str, object] = {}
    exec("from mxtrt import *", names)
    assert sorted(set(names) - {"__builtins__"}) == mxtrt.__all__


def test_an_unknown_name() -> None:
    with pytest.raises(AttributeError, match="optimise"):
        mxtrt.optimise  # noqa: B018
