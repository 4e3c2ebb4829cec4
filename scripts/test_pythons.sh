#!/usr/bin/env bash
# make ci: everything with a Python and a NumPy of today, and the
# whole test suite once more with the oldest NumPy that is promised. constraints.txt holds the
# versions. Nothing runs when one of the two Pythons is missing: half a run would look like a whole.
set -euo pipefail
cd "$(dirname "$0")/.."

new=$(scripts/find_python.sh 3.13)
old=$(scripts/find_python.sh 3.10)

versions() {
  "$1/bin/python" -c 'import platform, numpy
print(f"== Python {platform.python_version()}, NumPy {numpy.__version__}")'
}

make install PYTHON="$new"
versions .venv-3.13
make test PYTHON="$new"

make install PYTHON="$old"
versions .venv-3.10
make pytest PYTHON="$old"
