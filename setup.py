"""Builds the two native parts; everything else is said in pyproject.toml.

``mxtrt/_bridge``          Cython, an ordinary extension module
``mxtrt/libmxtrt_op.so``   C++, the MXNet extension library, by CMake; knows nothing of Python
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()
OPERATOR = "mxtrt.libmxtrt_op"
HEADERS = ("mxnet/include/mxnet/lib_api.h", "mxnet/src/lib_api.cc")


class BuildExtensions(build_ext):
    """Compile the Cython module as usual and the operator library by CMake."""

    def run(self) -> None:
        """Build where an earlier build is found again, also when pip asks for an editable one."""
        self.build_temp = str(ROOT / "build" / f"temp-{sys.implementation.cache_tag}")
        if self.editable_mode:
            self.build_lib = str(ROOT / "build" / f"editable-{sys.implementation.cache_tag}")
        super().run()

    def get_ext_filename(self, fullname: str) -> str:
        """Leave Python's ABI tag out of the operator library's name: it has no Python in it."""
        if fullname == OPERATOR or fullname == OPERATOR.rpartition(".")[2]:
            return fullname.replace(".", os.sep) + ".so"
        return super().get_ext_filename(fullname)

    def build_extension(self, ext: Extension) -> None:
        """Build one extension."""
        if ext.name == OPERATOR:
            self._build_operator(Path(self.get_ext_fullpath(ext.name)))
        else:
            super().build_extension(ext)

    def _build_operator(self, target: Path) -> None:
        work = Path(self.build_temp) / "operator"
        mxnet = find_mxnet(work)
        output = target.resolve().parent
        output.mkdir(parents=True, exist_ok=True)
        subprocess.check_call(
            [
                "cmake",
                *("-S", str(ROOT), "-B", str(work)),
                f"-DMXNET_DIR={mxnet}",
                f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={output}",
                "-DCMAKE_BUILD_TYPE=Release",
            ]
        )
        subprocess.check_call(["cmake", "--build", str(work), "--parallel"])


def find_mxnet(work: Path) -> Path:
    """Return a folder with MXNet's ``include/`` and ``src/``; download the wheel if need be."""
    asked = os.environ.get("MXTRT_MXNET_DIR")
    if asked:
        return Path(asked).resolve()
    # Not imported: mxnet 1.9.1 cannot be imported with a current NumPy.
    spec = importlib.util.find_spec("mxnet")
    if spec is not None and spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    return download_mxnet(work / "mxnet-wheel")


def download_mxnet(folder: Path) -> Path:
    """Take the two files that are needed out of the mxnet wheel."""
    if not all((folder / name).exists() for name in HEADERS):
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.check_call(
            [
                *(sys.executable, "-m", "pip", "download", "mxnet==1.9.1"),
                *("--no-deps", "--only-binary=:all:", "--platform=manylinux2014_x86_64"),
                *("--dest", str(folder)),
            ]
        )
        with zipfile.ZipFile(next(folder.glob("mxnet-*.whl"))) as wheel:
            for name in HEADERS:
                wheel.extract(name, folder)
    return folder / "mxnet"


bridge = Extension(
    "mxtrt._bridge",
    ["mxtrt/_bridge.pyx"],
    include_dirs=["csrc"],
    depends=["csrc/bridge.h"],
    extra_compile_args=["-O2", "-g0"],
    libraries=["dl"],
)
transfer = Extension(
    "mxtrt._transfer",
    ["mxtrt/_transfer.pyx", "csrc/transfer.cc"],
    include_dirs=["csrc"],
    depends=["csrc/transfer.h"],
    extra_compile_args=["-O2", "-g0", "-std=c++17", "-pthread"],
    extra_link_args=["-pthread"],
    language="c++",
)

setup(
    ext_modules=[
        *cythonize([bridge, transfer], build_dir="build/cython"),
        Extension(OPERATOR, sources=[]),
    ],
    cmdclass={"build_ext": BuildExtensions},
)
