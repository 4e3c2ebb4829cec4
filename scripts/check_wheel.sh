#!/usr/bin/env bash
# Builds the wheel and runs it where nothing else of this project is: an empty environment, another
# folder, no compiler on the path. Usage: scripts/check_wheel.sh [python [wheel]]
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
python=$(cd "$(dirname "$(command -v "${1:-python3}")")" && pwd)/$(basename "${1:-python3}")
wheel=${2:+$(realpath "$2")}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
pip=(-m pip --disable-pip-version-check --quiet)

if [ -z "$wheel" ]; then
  cd "$root"
  rm -rf build/lib* # setuptools would pack modules that are gone from the tree
  "$python" "${pip[@]}" wheel . --no-deps --no-build-isolation --wheel-dir "$work/dist"
  wheel=$(echo "$work"/dist/mxtrt-*.whl)
  echo "built $(basename "$wheel"): $(($(stat -c %s "$wheel") / 1024)) KiB"
fi

cd "$work"
"$python" -m venv env
env/bin/python "${pip[@]}" install -c "$root/constraints.txt" "$wheel"
env/bin/python "${pip[@]}" install -c "$root/constraints.txt" --no-deps mxnet
bare=(env -i "PATH=$work/env/bin" "HOME=$work")
"${bare[@]}" env/bin/python -I "$root/scripts/check_install.py"
# what was saved runs without the program that made it
"${bare[@]}" env/bin/mxtrt run net --input data.npy --batch 2 -o scores.npz
