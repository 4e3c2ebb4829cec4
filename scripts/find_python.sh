#!/usr/bin/env bash
# Prints the path of a Python: scripts/find_python.sh 3.13. Looks on PATH and among pyenv's.
set -euo pipefail

version=${1:?version of Python, such as 3.13}
code='import sys; sys.exit("%d.%d" % sys.version_info[:2] != sys.argv[1])'
for python in "python$version" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*/bin/python; do
  if "$python" -c "$code" "$version" 2>/dev/null; then
    command -v "$python"
    exit
  fi
done
echo "Python $version is missing: install it, for example with pyenv install $version" >&2
exit 1
