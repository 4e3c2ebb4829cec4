#!/usr/bin/env bash
# Tests and benchmarks on a machine with a GPU, within 8 minutes.
#
#   benchmarks/run_gpu.sh OUTDIR
#
# `python` is the one with mxtrt, MXNet and TensorRT. PyTorch is looked for in every other python3 on
# PATH, or in TORCH_PYTHON. OUTDIR gets tests.txt, gpu.txt, gpu.json, pytorch.txt, pytorch.json and
# summary.txt. The exit code is that of the tests, or else of the first benchmark that failed.
set -uo pipefail
out=$(realpath -m "${1:?folder for the results}")
root=$(cd "$(dirname "$0")/.." && pwd)
test_limit=${TEST_LIMIT:-200} bench_limit=${BENCH_LIMIT:-225} torch_limit=${TORCH_LIMIT:-45}
mkdir -p "$out"
export PYTHONUNBUFFERED=1 MXNET_SUBGRAPH_VERBOSE=0
status=0

step() {  # step NAME SECONDS COMMAND…: runs it, with its output in NAME.txt
  local name=$1 limit=$2 start=$SECONDS code=0
  shift 2
  timeout --kill-after=5 "$limit" "$@" >"$out/$name.txt" 2>&1 || code=$?
  echo "$name: exit code $code after $((SECONDS - start)) s" | tee -a "$out/summary.txt"
  [ "$status" -ne 0 ] || status=$code
}

torch_python() {
  local candidate
  for candidate in ${TORCH_PYTHON:-$(type -ap python3 | awk '!seen[$0]++')}; do
    if env -u PYTHONHOME -u PYTHONPATH -u LD_LIBRARY_PATH \
      "$candidate" -c 'import importlib.util as u; assert u.find_spec("torch") and u.find_spec("torchvision")' \
      2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
}

: >"$out/summary.txt"
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader >>"$out/summary.txt" 2>&1
# from tests/, so that a source tree that is not built does not hide the installed mxtrt
cd "$root/tests"
step tests "$test_limit" python -m pytest -p no:cacheprovider -c ../pyproject.toml --rootdir .. \
  -m gpu -v --tb=short --durations=10 test_tensorrt_gpu.py
tail -n 1 "$out/tests.txt" | tee -a "$out/summary.txt"

cd "$root/benchmarks"
step gpu "$bench_limit" python gpu.py --json "$out/gpu.json" --budget $((bench_limit - 50)) \
  ${GPU_OPTIONS:-}

torch=$(torch_python)
if [ -n "$torch" ]; then
  step pytorch "$torch_limit" env -u PYTHONHOME -u PYTHONPATH -u LD_LIBRARY_PATH \
    "$torch" pytorch_resnet.py --json "$out/pytorch.json"
else
  echo "pytorch: no python3 with torch and torchvision" | tee -a "$out/summary.txt"
fi
exit "$status"
