"""Says what to install with apt-get before mxtrt can be built; silent when nothing is missing."""

from __future__ import annotations

import importlib.util
import shutil
import sys
import sysconfig
from pathlib import Path


def missing_packages() -> list[str]:
    """Return the Debian packages of what this Python lacks."""
    python = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    packages = []
    if not all(map(importlib.util.find_spec, ("venv", "ensurepip"))):
        packages.append(f"{python}-venv")
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        packages.append(f"{python}-dev")
    if not (shutil.which("c++") and shutil.which("cc") and shutil.which("make")):
        packages.append("build-essential")
    return packages


def main() -> str | None:
    """Return the sentence to exit with, or None."""
    if not (3, 9) <= sys.version_info[:2] < (3, 14):
        return (
            f"mxtrt needs Python 3.9 to 3.13; {sys.executable} is {sys.version.split()[0]}. "
            "Name another one: make PYTHON=python3.11 ..."
        )
    packages = missing_packages()
    if packages:
        return f"Something is missing. Install it: sudo apt-get install {' '.join(packages)}"
    return None


if __name__ == "__main__":
    sys.exit(main())
