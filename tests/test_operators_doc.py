"""docs/operators.md says what the registry says, of every operator that MXNet has."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mxtrt.registry import refused_ops, registered_ops
from mxtrt.symbol_json import operator_names, primary_name

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "operators.md"
COMMAND = ["docs/make_operators.py", "--check"]

YOURS = {"Custom"}  # by its op_type
OURS = "_mxtrt_"  # how the operators begin that mxtrt's own library registers
GPU_ONLY = re.compile("CuDNN|_FusedOp|_contrib_mrcnn_mask_target|_TensorRT")


NO_VALUE_TO_TRY = {
    # of an operator with the same converter
    "all_finite": {"num_arrays"},
    # MXNet takes one value only
    "SequenceReverse": {"axis"},
    "_contrib_BatchNormWithReLU": {"axis"},
    "_contrib_dequantize": {"out_type"},
    "_contrib_quantized_conv": {"num_group"},
    "_sg_mkldnn_conv": {"enable_float_output"},
    # MXNet fails
    "_contrib_quantized_rnn": {"projection_size"},
    "_npi_arange": {"repeat"},
    "log_softmax": {"use_length"},
    "softmin": {"use_length"},
}
"""Attributes that cannot be tried, by operator."""


def rows() -> dict[str, list[str]]:
    """Return the cells of each operator's row."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line[:3] == "| `"]
    cells = [re.split(r" (?<!\\)\| ", line.strip("| ")) for line in lines]
    return {name.strip("`"): row for row in cells for name in row[0].split(", ")}


def is_forward(op: str) -> bool:
    return "backward" not in op and not op.startswith(OURS) and not GPU_ONLY.search(op)


def test_the_page_is_what_the_command_makes() -> None:
    done = subprocess.run(
        [sys.executable, *COMMAND], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_an_old_page_is_told(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, 'docs'); import make_operators, pathlib;"
        f"make_operators.PAGE = pathlib.Path({str(tmp_path / 'old.md')!r});"
        "make_operators.PAGE.write_text('old'); make_operators.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "is old: python docs/make_operators.py writes it anew" in done.stderr


def test_every_operator_of_mxnet_is_converted_or_refused() -> None:
    known = {*registered_ops(), *refused_ops(), *YOURS}
    ops = {primary_name(name) for name in operator_names()}
    assert sorted(filter(is_forward, ops - known)) == []
    assert set(rows()) == {*registered_ops(), *refused_ops()}


def test_limits_are_sentences_of_the_converters() -> None:
    found = rows()
    assert "mode='always' draws random numbers at inference too" in found["Dropout"][2]
    assert "the size of axis … of …, which is not known; pass shapes" in found["LeakyReLU"][2]
    assert "rows, more than 16: MXNet" in found["_linalg_potrf"][2]  # a constant of the module
    assert "none of relu, sigmoid, tanh, softrelu and softsign" in found["Activation"][2]
    assert found["elemwise_add"][1:3] == ["`Add`", ""]
    assert "draws random numbers" in found["_random_normal"][1]
    assert "`_random_normal`" in found["_random_normal"][2]  # what export_model writes


def test_special_numbers_are_told() -> None:
    found = rows()
    assert "<br>Special numbers: NaN may be left out" in found["max"][1]
    assert found["sum"][1].startswith("`ReduceSum`")
    assert "Special numbers" not in found["sum"][1]


def test_the_parser_was_asked() -> None:
    operators = json.loads((ROOT / "docs/operators_parser.json").read_text("utf-8"))["operators"]
    assert set(operators) <= set(registered_ops())
    untested = sorted(set(registered_ops()) - set(operators))
    assert not untested, f"python docs/parse_operators.py; no test of {untested}"
    assert re.search(r"takes all \d+$", rows()["softmax"][3])
    assert "ROIAlign plugin was not found" in rows()["_contrib_ROIAlign"][3]


def test_every_attribute_was_tried() -> None:
    operators = json.loads((ROOT / "docs/operators_parser.json").read_text("utf-8"))["operators"]
    untried = {op: set(found["untried"]) for op, found in operators.items()}
    assert {op: names for op, names in untried.items() if names} == NO_VALUE_TO_TRY


@pytest.mark.slow
def test_the_parser_answers_as_before(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX has no wheel for this platform")
    code = (
        "import sys; sys.path.insert(0, 'docs'); import parse_operators, pathlib;"
        f"parse_operators.DATA = pathlib.Path({str(tmp_path / 'parser.json')!r});"
        "parse_operators.DATA.write_text('{\"operators\": {}}');"
        "sys.argv[1:] = ['tests/converters/test_amp.py', 'tests/converters/test_attention.py'];"
        "parse_operators.main()"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
    found = json.loads((tmp_path / "parser.json").read_text("utf-8"))
    kept = json.loads((ROOT / "docs/operators_parser.json").read_text("utf-8"))
    if found["parser"] != kept["parser"]:
        pytest.skip(f"the page is of {kept['parser']}, here is {found['parser']}")
    assert "amp_cast" in found["operators"]
    for op, answer in found["operators"].items():
        has_all = answer["accepted"] == answer["tried"]
        assert has_all == (kept["operators"][op]["accepted"] == kept["operators"][op]["tried"])
