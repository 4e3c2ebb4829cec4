"""Wheels: built by one command, tagged for other machines, run in an empty environment."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return a wheel for this Python, and what the command printed."""
    if shutil.which("c++") is None:
        pytest.skip("there is no C++ compiler")
    folder = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [str(ROOT / "scripts" / "build_wheels.sh"), "-o", str(folder), sys.executable],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    [wheel] = folder.iterdir()
    return wheel, done.stdout


@pytest.mark.slow
def test_the_wheel_ran_in_an_empty_environment(built: tuple[Path, str]) -> None:
    _, printed = built
    assert "outputs agree" in printed
    assert "run by onnxruntime" in printed  # mxtrt run, without a compiler on the path
    assert "rows a second" in printed


@pytest.mark.slow
def test_the_wheel_is_tagged_for_other_machines(built: tuple[Path, str]) -> None:
    wheel, _ = built
    python = f"cp{sysconfig.get_config_var('py_version_nodot')}"
    name, tags = wheel.stem.split("-", maxsplit=2)[0], wheel.stem.split("-", maxsplit=2)[2]
    assert name == "mxtrt"
    interpreter, abi, platform = tags.split("-")
    assert (interpreter, abi) == (python, python)
    assert platform.startswith("manylinux_2_")
    assert platform.endswith("_x86_64")
    with zipfile.ZipFile(wheel) as archive:
        [written] = [n for n in archive.namelist() if n.endswith(".dist-info/WHEEL")]
        parsed = Parser().parsestr(archive.read(written).decode())
        assert set(parsed.get_all("Tag", [])) == {f"{python}-{python}-{p}" for p in platform.split(".")}  # noqa: E501  # fmt: skip


@pytest.mark.slow
def test_the_wheel_brings_no_foreign_libraries(built: tuple[Path, str], tmp_path: Path) -> None:
    """What it links is in every Linux of its tag: neither MXNet, CUDA nor a copy of anything."""
    wheel, _ = built
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        libraries = [name for name in names if name.endswith(".so") or ".so." in name]
        archive.extractall(tmp_path)
    assert not any(".libs/" in name for name in names)
    assert "mxtrt/libmxtrt_op.so" in libraries
    allowed = {"libc.so.6", "libm.so.6", "libgcc_s.so.1", "libstdc++.so.6", "libpthread.so.0",
               "libdl.so.2", "librt.so.1", "ld-linux-x86-64.so.2"}  # fmt: skip
    for library in libraries:
        told = subprocess.run(
            ["readelf", "-d", str(tmp_path / library)], capture_output=True, text=True, check=True
        ).stdout
        needed = [
            line.split("[")[1].rstrip("]") for line in told.splitlines() if "(NEEDED)" in line
        ]
        assert set(needed) <= allowed, library
