"""What works on this machine: MXNet, the GPU, and each engine, tried in processes of their own.

A library that does not fit may end its process, so none of them is loaded here.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from . import __version__

PATIENCE = 300  # seconds for a probe; TensorRT's first start loads gigabytes of libraries

PACKAGES = (
    "mxnet", "mxnet-cu112", "mxnet-cu117", "numpy", "onnx", "onnxruntime", "onnxruntime-gpu",
    "tensorrt", "tensorrt-cu11", "tensorrt-cu12", "tensorrt-cu13", "tensorrt-rtx", "pycuda",
    "nvidia-cuda-runtime-cu11", "nvidia-cublas-cu11", "nvidia-cudnn-cu11",
)  # fmt: skip

Finding = Mapping[str, Any]
"""What a probe found: ``works``, and either ``about`` and more, or ``why`` not."""


@dataclass(frozen=True)
class Findings:
    """What was found.

    Attributes
    ----------
    system : mapping of str to str
        Python, the system, the driver.
    packages : mapping of str to str
        The versions of the packages that are installed.
    gpus : list of str
        The GPUs that the driver shows.
    probes : mapping of str to Finding
        ``mxnet``, ``operator``, ``onnxruntime``, ``tensorrt`` and ``tensorrt_rtx``.
    """

    system: Mapping[str, str]
    packages: Mapping[str, str]
    gpus: tuple[str, ...]
    probes: Mapping[str, Finding]

    @property
    def tensorrt_works(self) -> bool:
        """Whether TensorRT, of either kind, built and ran a model on a GPU here."""
        return any(self.probes[name].get("runs", False) for name in ("tensorrt", "tensorrt_rtx"))

    def advice(self) -> list[str]:
        """Return what to do, one sentence for each thing that is missing."""
        failed = [name for name in ("mxnet", "operator") if not self.probes[name]["works"]]
        told = [self.probes[name]["advice"] for name in failed if "advice" in self.probes[name]]
        if not self.tensorrt_works:
            told += self._advice_for_tensorrt()
        return list(dict.fromkeys(told))

    def _advice_for_tensorrt(self) -> list[str]:
        if not self.gpus:
            return [
                f"For TensorRT: {self.system['driver']}. Without an NVIDIA GPU and its driver, "
                "models run in ONNX Runtime, and TensorRT-RTX builds plans for other machines "
                "(mxtrt build --target)."
            ]
        probe = self.probes["tensorrt"]
        return [f"For TensorRT: {probe.get('advice') or probe.get('why') or 'no reason was found'}"]

    def to_dict(self) -> dict[str, Any]:
        """Return everything for programs."""
        return {
            "mxtrt": __version__,
            "system": dict(self.system),
            "packages": dict(self.packages),
            "gpus": list(self.gpus),
            "probes": {name: dict(probe) for name, probe in self.probes.items()},
            "advice": self.advice(),
            "tensorrt_works": self.tensorrt_works,
        }

    def lines(self) -> Iterator[str]:
        """Yield what a person wants to know, line by line."""
        yield f"mxtrt {__version__}"
        for name, text in self.system.items():
            yield f"  {name:<9} {text}"
        yield f"  {'GPUs':<9} {'; '.join(self.gpus) or 'none'}"
        yield f"  {'packages':<9} {', '.join(f'{n} {v}' for n, v in self.packages.items())}"
        yield ""
        for name, probe in self.probes.items():
            yield f"{'yes' if probe['works'] else 'no ':<4} {TITLES[name]:<13} {_told(probe)}"
            for more in probe.get("more", ()):
                yield f"{'':<18} {more}"
        yield ""
        yield from self.advice()
        yield f"TensorRT {'works' if self.tensorrt_works else 'does not work'} on this machine."


TITLES = {
    "mxnet": "MXNet",
    "operator": "the operator",
    "onnxruntime": "ONNX Runtime",
    "tensorrt": "TensorRT",
    "tensorrt_rtx": "TensorRT-RTX",
}


def examine() -> Findings:
    """Try everything and say what was found."""
    with ThreadPoolExecutor(len(PROBES)) as pool:
        probes = dict(zip(PROBES, pool.map(run_probe, PROBES)))
    driver = probes.pop("driver")
    if not probes["mxnet"]["works"]:
        probes["operator"] = {"works": False, "why": "needs MXNet"}
    system = {
        "Python": f"{platform.python_version()} ({sys.executable})",
        "system": f"{platform.system()} {platform.machine()}, {' '.join(platform.libc_ver())}",
        "cores": str(len(os.sched_getaffinity(0))),
        "driver": _told(driver),
    }
    return Findings(system, _versions(), tuple(driver.get("gpus", ())), probes)


def _told(probe: Finding) -> str:
    return str(probe.get("about") if probe["works"] else probe.get("why"))


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


# -- the driver and its GPUs, by the driver's own library --------------------------------------


def _probe_driver() -> Finding:
    import ctypes

    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return {"works": False, "why": "there is no driver of NVIDIA here (libcuda.so.1)"}
    status = cuda.cuInit(0)
    number = ctypes.c_int()
    cuda.cuDriverGetVersion(ctypes.byref(number))
    about = (
        f"NVIDIA's, {_driver_version()}for CUDA {number.value // 1000}.{number.value % 1000 // 10}"
    )
    if status:
        name = ctypes.c_char_p()
        cuda.cuGetErrorName(status, ctypes.byref(name))
        told = (name.value or b"").decode() or f"error {status}"
        return {"works": False, "why": f"{about}, shows no GPU ({told})"}
    count = ctypes.c_int()
    cuda.cuDeviceGetCount(ctypes.byref(count))
    return {"works": True, "about": about, "gpus": [_gpu(cuda, i) for i in range(count.value)]}


def _driver_version() -> str:
    try:
        with open("/proc/driver/nvidia/version", encoding="utf-8") as file:
            words = file.readline().split()
    except OSError:
        return ""
    numbers = [word for word in words if word[:1].isdigit() and "." in word]
    return f"{numbers[0]}, " if numbers else ""


def _gpu(cuda: Any, index: int) -> str:
    import ctypes

    device, name, nbytes = ctypes.c_int(), ctypes.create_string_buffer(256), ctypes.c_size_t()
    cuda.cuDeviceGet(ctypes.byref(device), index)
    cuda.cuDeviceGetName(name, len(name), device)
    cuda.cuDeviceTotalMem_v2(ctypes.byref(nbytes), device)
    numbers = []
    for attribute in (75, 76):  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
        number = ctypes.c_int()
        cuda.cuDeviceGetAttribute(ctypes.byref(number), attribute, device)
        numbers.append(number.value)
    capability = ".".join(map(str, numbers))
    return f"{name.value.decode()} ({capability}, {nbytes.value >> 30} GiB)"


# -- probes, each in a process of its own ------------------------------------------------------


def run_probe(name: str) -> Finding:
    """Run a probe in a process of its own and return what it found."""
    code = f"from mxtrt.doctor import main; main({name!r})"
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"works": False, "why": f"no answer after {PATIENCE} s"}
    lines = done.stdout.splitlines()
    try:
        finding: Finding = json.loads(lines[-1])
        without = "why" if finding["works"] else "about"
        return {name: fact for name, fact in finding.items() if name != without}
    except (IndexError, ValueError, TypeError, KeyError):
        return {"works": False, "why": _how_it_ended(done.returncode, done.stderr)}


def _how_it_ended(code: int, stderr: str) -> str:
    said = [line.strip() for line in stderr.splitlines() if line.strip()]
    last = f": {said[-1]}" if said else ""
    if code < 0:
        return f"the process was ended by {signal.Signals(-code).name}{last}"
    return f"the process ended with code {code}{last}"


def main(name: str) -> None:
    """Run a probe in this process and print what it found as the last line."""
    try:
        finding = PROBES[name]()
    except Exception as error:  # whatever it is, it is what the user has to know
        finding = {"works": False, "why": f"{type(error).__name__}: {error}".splitlines()[0]}
    sys.stdout.flush()
    print(f"\n{json.dumps(finding)}", flush=True)
    os._exit(0)  # a broken library may hang or crash at the exit, after it was tried


def _probe_mxnet() -> Finding:
    from . import compat
    from .errors import MXNetNotInstalled

    compat._callbacks.clear()  # MXNet alone: whether mxtrt can join it is another question
    try:
        compat.prepare()
    except MXNetNotInstalled as error:
        what, _, advice = str(error).partition(". ")
        return {"works": False, "why": what, "advice": f"MXNet: {advice}"}
    except (ImportError, OSError, AttributeError) as error:
        return {
            "works": False,
            "why": f"cannot be imported: {type(error).__name__}: {error}",
            "advice": "MXNet: install it anew; of several distributions only one may be there.",
        }
    import mxnet as mx

    total = float((mx.nd.ones((2, 3)) * 2).sum().asscalar())
    cuda = mx.runtime.Features().is_enabled("CUDA")
    about = f"{mx.__version__}, {'with' if cuda else 'without'} CUDA, computes"
    return {"works": total == 12.0, "about": about, "why": f"2 * ones((2, 3)) sums to {total}"}


def _probe_operator() -> Finding:
    """Move a model of two operators into ONNX Runtime and run it, all the way through MXNet."""
    from . import compat

    try:
        from . import _bridge, _transfer  # noqa: F401
    except ImportError as error:
        return {
            "works": False,
            "why": f"mxtrt's own libraries are missing or do not load: {error}",
            "advice": "mxtrt: install it anew for this Python, from its wheel or its sources.",
        }
    compat.prepare()
    import mxnet as mx

    from .pipeline import optimize

    net = mx.sym.sqrt(mx.sym.relu(mx.sym.var("data")))
    optimized, _ = optimize(net, engine="onnxruntime")
    bound = optimized.bind(mx.cpu(), {"data": mx.nd.ones((2, 2)) * 4}, grad_req="null")
    total = float(bound.forward(is_train=False)[0].sum().asscalar())
    about = "MXNet calls engines in this process"
    return {"works": total == 8.0, "about": about, "why": f"4 square roots of 4 sum to {total}"}


def _probe_onnxruntime() -> Finding:
    import numpy as np
    import onnxruntime as ort

    session = ort.InferenceSession(
        _tiny_model().SerializeToString(), providers=["CPUExecutionProvider"]
    )
    [found] = session.run(None, {"x": np.array([[-1, 4]], np.float32)})
    return {
        "works": found.tolist() == [[0, 2]],
        "about": f"{ort.__version__}, runs models on the CPU",
        "why": f"computes {found.tolist()} instead of [[0, 2]]",
    }


def _probe_tensorrt(kind: str) -> Finding:
    from .engines._nvidia import Api
    from .errors import EngineNotAvailable

    try:
        api = Api(kind)
    except EngineNotAvailable as error:
        what, _, advice = str(error).partition(": ")
        return {"works": False, "why": what, "advice": str(error) if advice else what}
    able = [f"precisions {', '.join(api.precisions)}"]
    if api.has_targets:
        targets = [name for name in api.module.ComputeCapability.__members__ if name[-1].isdigit()]
        able.append(f"builds for {', '.join(sorted(targets, key=lambda name: int(name[2:])))}")
    missing = [
        text
        for has, text in (
            (api.has_optimization_level, "optimization_level"),
            (api.has_timing_cache, "timing_cache"),
        )
        if not has
    ]
    able += [f"has no {' and no '.join(missing)}"] if missing else []
    finding = {"more": able, "version": api.version}
    try:
        where = _build_and_run(kind)
    except Exception as error:  # of our own tree, or NVIDIA's
        return {**finding, **_without_running(api, str(error))}
    return {**finding, "works": True, "runs": True, "about": f"{api.version}, ran on {where}"}


def _without_running(api: Any, why: str) -> Finding:
    """Return what is left of a TensorRT that runs nothing here: perhaps it builds for others."""
    if not api.has_targets:
        return {"works": False, "why": f"{api.version} does not run here: {why}"}
    try:
        _build(api.name, targets=["SM86"])
    except Exception as error:  # of our own tree, or NVIDIA's
        return {"works": False, "why": f"{api.version} builds nothing: {error}"}
    return {
        "works": True,
        "runs": False,
        "about": f"{api.version}, builds plans for other GPUs and runs none here: {why}",
    }


def _build(kind: str, targets: list[str]) -> tuple[Any, Any]:
    from .engines._plans import find_maker, make_plan
    from .onnx_reader import read_onnx
    from .options import read_options

    options = read_options(engine=kind)
    return make_plan(find_maker(options, targets), *read_onnx(_tiny_model()), options)


def _build_and_run(kind: str) -> str:
    """Build a model and run it; return the GPU's name."""
    import numpy as np

    from .engines._plans import load_plan
    from .engines._session import Session
    from .errors import EngineError
    from .runtime import Plan

    plan, info = _build(kind, [])
    loaded = load_plan(
        "the plan", bytes(plan), info, engine=kind, device=0, contexts=1, cuda_graph=False
    )
    with Plan(Session(loaded), info) as run:
        found = run(np.array([[-1, 4]], np.float32))["y"].tolist()
    if found != [[0, 2]]:
        raise EngineError(f"it computes {found} instead of [[0, 2]]")
    return loaded.gpu.name


def _tiny_model() -> Any:
    """Return the square root of what is positive."""
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("Relu", ["x"], ["positive"], name="relu"),
        helper.make_node("Sqrt", ["positive"], ["y"], name="sqrt"),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in "xy"]
    graph = helper.make_graph(nodes, "doctor", ends[:1], ends[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


PROBES: Mapping[str, Callable[[], Finding]] = {
    "driver": _probe_driver,
    "mxnet": _probe_mxnet,
    "operator": _probe_operator,
    "onnxruntime": _probe_onnxruntime,
    "tensorrt": lambda: _probe_tensorrt("tensorrt"),
    "tensorrt_rtx": lambda: _probe_tensorrt("tensorrt_rtx"),
}
