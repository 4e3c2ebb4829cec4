#!/usr/bin/env bash
# Tests and benchmarks on a machine with a GPU, within 14 minutes.
#
#   benchmarks/run_gpu.sh OUTDIR [tests|benchmarks]      by default both
#
# `python` is the one with mxtrt, MXNet and TensorRT. PyTorch is looked for in every other python3 on
# PATH, or in TORCH_PYTHON; MXNET_GPU_LIBRARY names the libmxnet.so of a CUDA build of MXNet, and
# ONNXRUNTIME_GPU a folder with the unpacked package onnxruntime-gpu 1.14.1. With SWEEP_LIMIT seconds
# the tests of converters run with TensorRT in place of ONNX Runtime, as many cases as there is time;
# MXTRT_TEST_OPTIONS='{"optimization_level": 0}' makes them much faster from TensorRT 8.6 on.
# OUTDIR gets a text file for each step, JSON files and summary.txt. The exit code is that of the tests, or else of the first
# benchmark that failed.
set -uo pipefail
out=$(realpath -m "${1:?folder for the results}")
root=$(cd "$(dirname "$0")/.." && pwd)
test_limit=${TEST_LIMIT:-200} bench_limit=${BENCH_LIMIT:-215} torch_limit=${TORCH_LIMIT:-45}
more_limit=${MORE_LIMIT:-240} part=${2:-both}
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

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader >>"$out/summary.txt" 2>&1
# A second GPU builds engines while the tests run on the first; both keep them in one store.
export MXTRT_CACHE_DIR="$out.store"
more_models=${MORE_MODELS:-bert_base_128,mobilenet1.0,inceptionv3,densenet121,vgg16,bert_base_384}
resnet=(python gpu.py --models resnet50_v1 --precision "${PRECISION:-fp16}")
more=(python gpu.py --one-engine --precision fp16 --batch 1,8,32 --seconds 0.3 --models "$more_models")
ort=(python onnxruntime_gpu.py --package "${ONNXRUNTIME_GPU:-}" --cache "$out.engines")

# from tests/ and benchmarks/, so that a source tree that is not built does not hide the installed mxtrt
run_tests() {
  cd "$root/benchmarks"
  gpus=$(nvidia-smi --list-gpus | wc -l)
  if [ "$gpus" -gt 1 ]; then
    (
      export CUDA_VISIBLE_DEVICES=1
      step resnet_builds "$bench_limit" "${resnet[@]}" --build-only
      step more_builds "$more_limit" "${more[@]}" --build-only
    ) &
  fi

  cd "$root/tests"
  pytest=(python -m pytest -p no:cacheprovider -c ../pyproject.toml --rootdir .. -m gpu -v --tb=short
    --durations=10)
  step tests "$test_limit" env MXTRT_CACHE_DIR=off \
    "${pytest[@]}" test_tensorrt_gpu.py test_runtime_gpu.py test_stored_plans.py test_two_gpus.py
  tail -n 1 "$out/tests.txt" | tee -a "$out/summary.txt"
  if [ -n "${MXNET_GPU_LIBRARY:-}" ]; then  # libmxnet.so of a CUDA build, used in place of the CPU build's
    step mxnet_gpu_tests 90 env MXTRT_CACHE_DIR=off MXNET_LIBRARY_PATH="$MXNET_GPU_LIBRARY" \
      "${pytest[@]}" test_mxnet_gpu.py
    tail -n 1 "$out/mxnet_gpu_tests.txt" | tee -a "$out/summary.txt"
  fi

  if [ "${SWEEP_LIMIT:-0}" -gt 0 ]; then  # it is told of each failure at the end: so it ends in time
    step sweep "$SWEEP_LIMIT" env MXTRT_CACHE_DIR="$out.sweep" MXTRT_TEST_ENGINE=tensorrt \
      MXTRT_TEST_SECONDS=$((SWEEP_LIMIT - 90)) \
      python -m pytest -p no:cacheprovider -c ../pyproject.toml --rootdir .. -n "$(($(nproc) / 2))" \
      --maxschedchunk 1 -m "not gpu and not slow" -v -rfE --tb=short converters
    tail -n 1 "$out/sweep.txt" | tee -a "$out/summary.txt"
  fi

  cd "$root/benchmarks"
  [ -z "${ONNXRUNTIME_GPU:-}" ] || step ort_builds 120 "${ort[@]}" --batch 1,128
  wait
}

run_benchmarks() {
  cd "$root/benchmarks"
  step gpu "$bench_limit" "${resnet[@]}" --json "$out/gpu.json" --budget $((bench_limit - 40))
  if [ -n "${MXNET_GPU_LIBRARY:-}" ]; then
    step mxnet_gpu 60 env MXNET_LIBRARY_PATH="$MXNET_GPU_LIBRARY" \
      python mxnet_gpu.py --json "$out/mxnet_gpu.json"
  fi
  torch=$(torch_python)
  if [ -n "$torch" ]; then
    step pytorch "$torch_limit" env -u PYTHONHOME -u PYTHONPATH -u LD_LIBRARY_PATH \
      "$torch" pytorch_resnet.py --json "$out/pytorch.json"
  else
    echo "pytorch: no python3 with torch and torchvision" | tee -a "$out/summary.txt"
  fi
  step in_flight 90 python in_flight.py --batch 1,128 --json "$out/in_flight.json"
  step start 60 python start.py --engine tensorrt --repeats 3 --json "$out/start.json"
  [ -z "${ONNXRUNTIME_GPU:-}" ] || step ort 120 "${ort[@]}" --batch 1,128 --json "$out/ort.json"
  step gpu_more "$more_limit" "${more[@]}" --json "$out/gpu_more.json" --budget $((more_limit - 40))
}

[ "$part" = benchmarks ] || run_tests
[ "$part" = tests ] || run_benchmarks
exit "$status"
