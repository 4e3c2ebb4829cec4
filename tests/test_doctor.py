"""``mxtrt doctor``: what is found, also where MXNet is missing or broken."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from mxtrt import cli, doctor
from mxtrt.doctor import Findings

HIDDEN = """\
from importlib.machinery import PathFinder
found = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name == "mxnet" else found(name, *rest)
"""

BROKEN = "raise OSError('libcudart.so.11.0: cannot open shared object file')\n"

WORKS = {"works": True, "about": "1.0"}
FAILS = {"works": False, "why": "not here"}


@pytest.fixture
def without_mxnet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text(HIDDEN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


@pytest.fixture
def broken_mxnet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mxnet").mkdir()
    (tmp_path / "mxnet" / "__init__.py").write_text(BROKEN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def program(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mxtrt", *words],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ},
    )


def findings(**probes: dict) -> Findings:
    others = dict.fromkeys(("mxnet", "operator", "onnxruntime"), WORKS)
    fails = dict.fromkeys(("tensorrt", "tensorrt_rtx"), FAILS)
    system = {"driver": "there is no driver of NVIDIA here"}
    gpus = probes.pop("gpus", ())
    return Findings(system, {"mxnet": "1.9.1"}, gpus, {**others, **fails, **probes})


def test_this_machine() -> None:
    done = program("doctor", "--json")
    found = json.loads(done.stdout)
    assert done.returncode == (0 if found["tensorrt_works"] else 1)
    assert found["packages"]["mxnet"] == "1.9.1"
    assert found["probes"]["mxnet"]["about"].startswith("1.9.1, ")
    for name in ("mxnet", "operator", "onnxruntime"):
        assert found["probes"][name]["works"], found["probes"][name]
        assert "why" not in found["probes"][name]
    if not found["gpus"]:
        assert not found["tensorrt_works"]
        assert any("NVIDIA" in sentence for sentence in found["advice"])
    if importlib.util.find_spec("tensorrt") is None:
        assert "tensorrt is not installed" in found["probes"]["tensorrt"]["why"]
    if importlib.util.find_spec("tensorrt_rtx") is not None:
        rtx = found["probes"]["tensorrt_rtx"]
        assert rtx["works"], rtx
        assert "precisions fp32, fp16, bf16" in rtx["more"]


def test_exit_code_and_words(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = {"works": True, "runs": True, "about": "TensorRT 8.5.3.1, ran on an H200"}
    for found, code, last in (
        (findings(tensorrt=runs), 0, "TensorRT works on this machine."),
        (findings(), 1, "TensorRT does not work on this machine."),
        (findings(tensorrt_rtx={**WORKS, "runs": False}), 1, "TensorRT does not work"),
    ):
        monkeypatch.setattr(doctor, "examine", lambda found=found: found)
        result = CliRunner().invoke(cli.main, ["doctor"], catch_exceptions=False)
        assert result.exit_code == code
        lines = result.stdout.splitlines()
        assert lines[-1].startswith(last)
        assert any(line.startswith("yes  MXNet  ") for line in lines)


def test_advice() -> None:
    assert findings(tensorrt={"works": True, "runs": True}).advice() == []
    assert "no driver of NVIDIA" in findings().advice()[0]
    advice = "pip install 'mxtrt[tensorrt]'"
    found = findings(gpus=("NVIDIA H200 (9.0, 139 GiB)",), tensorrt={**FAILS, "advice": advice})
    assert found.advice() == [f"For TensorRT: {advice}"]
    found = findings(gpus=("a GPU",), mxnet={**FAILS, "advice": "MXNet: pip install …"})
    assert found.advice() == ["MXNet: pip install …", "For TensorRT: not here"]


@pytest.mark.usefixtures("without_mxnet")
def test_without_mxnet() -> None:
    found = doctor.run_probe("mxnet")
    assert not found["works"]
    assert found["why"] == "MXNet is not installed"
    assert "pip install 'mxtrt[cpu]'" in found["advice"]
    done = program("explain", "net-symbol.json")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: MXNet is not installed. Install it together with mxtrt")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.usefixtures("without_mxnet")
def test_the_package_without_mxnet() -> None:
    code = """
        import mxtrt
        mxtrt.runtime.load  # plans need no MXNet
        try:
            mxtrt.optimize
        except mxtrt.errors.MXNetNotInstalled as error:
            print(error)
    """
    words = [sys.executable, "-c", "\n".join(line[8:] for line in code.splitlines())]
    done = subprocess.run(words, capture_output=True, text=True, timeout=100, check=True)
    assert done.stdout.startswith("MXNet is not installed. ")


@pytest.mark.usefixtures("broken_mxnet")
def test_with_a_broken_mxnet() -> None:
    found = doctor.run_probe("mxnet")
    assert not found["works"]
    assert "OSError: libcudart.so.11.0" in found["why"]
    done = program("explain", "net-symbol.json")
    assert done.returncode == 1
    assert done.stderr == (
        "Error: MXNet is installed and cannot be imported: OSError: libcudart.so.11.0: cannot open "
        "shared object file (mxtrt doctor says more)\n"
    )


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ended by SIGSEGV"),
        ("import sys; print('no luck', file=sys.stderr); sys.exit(3)", "with code 3: no luck"),
        ("while True: pass", "no answer after 0.5 s"),
    ],
)
def test_probes_that_do_not_end_well(
    code: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mxtrt").mkdir()
    (tmp_path / "mxtrt" / "__init__.py").write_text(code)
    monkeypatch.chdir(tmp_path)  # python -c looks there first
    if "no answer" in why:
        monkeypatch.setattr(doctor, "PATIENCE", 0.5)
    found = doctor.run_probe("mxnet")
    assert not found["works"]
    assert why in found["why"]


def test_a_probe_that_raises(capfd: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setattr(doctor.os, "_exit", lambda code: None)
    monkeypatch.setitem(doctor.PROBES, "mxnet", lambda: 1 / 0)
    doctor.main("mxnet")
    line = capfd.readouterr().out.splitlines()[-1]
    assert json.loads(line) == {"works": False, "why": "ZeroDivisionError: division by zero"}
