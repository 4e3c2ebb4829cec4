#!/usr/bin/env bash
# make ci: everything with a Python and a NumPy of today, and the whole test suite once more with
# the oldest NumPy that is promised; constraints.txt holds the versions. What is missing is said, and
# what is there runs: the first Python everything, the others the tests.
set -euo pipefail
cd "$(dirname "$0")/.."

declare -A numpy=([3.13]="NumPy 2" [3.10]="NumPy 1.23")
pythons=()
missing=()
for version in 3.13 3.10; do
  if python=$(scripts/find_python.sh "$version"); then
    pythons+=("$python")
  else
    missing+=("Python $version with ${numpy[$version]}")
  fi
done
[ ${#pythons[@]} -gt 0 ] || pythons=("$(command -v python3)")

say_missing() {
  for python in "${missing[@]}"; do echo "== not tested, because it is missing here: $python"; done
}

say_missing
target=test
for python in "${pythons[@]}"; do
  make install PYTHON="$python"
  "$(make --no-print-directory venv PYTHON="$python")/bin/python" -c 'import platform, numpy
print(f"== Python {platform.python_version()}, NumPy {numpy.__version__}", flush=True)'
  make $target PYTHON="$python"
  target=pytest
done
say_missing
