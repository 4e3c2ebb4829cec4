"""Plans, ``mxtrt bench`` and ``mxtrt doctor`` with TensorRT on a GPU: ``pytest -m gpu``."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest
from test_tensorrt_gpu import convnet, images, run, tensorrt_works  # noqa: F401

import mxtrt
from mxtrt import bench, doctor
from mxtrt.contents import inspect_file
from mxtrt.engines import _cuda, _streams
from mxtrt.errors import BadOption, BadPlan, ShapesDisagree
from mxtrt.runtime import GpuArray, build, load

pytestmark = pytest.mark.gpu

SIZES = {"data": ((1, 2, 4), 3, 32, 32)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a checkpoint, its ONNX, and plans of fixed and of open sizes."""
    path = tmp_path_factory.mktemp("plans")
    net, args, aux = convnet()
    mx.model.save_checkpoint(str(path / "net"), 0, net, args, aux)
    mxtrt.export_model(net, (args, aux), {"data": (None, 3, 32, 32)}, str(path / "net.onnx"))
    build(str(path / "net.onnx"), path / "open.plan", shapes=SIZES, tf32=False)
    fixed = {"data": (2, 3, 32, 32)}
    build(net, path / "fixed.plan", (args, aux), shapes=fixed, tf32=False)
    return path


@pytest.fixture(params=["open.plan", "fixed.plan"])
def plan(folder: Path, request: pytest.FixtureRequest):
    with load(folder / request.param) as loaded:
        yield loaded


def want(batch: int = 2, seed: int = 0) -> np.ndarray:
    net, args, aux = convnet()
    return run(net, (args, aux), data=images(batch, seed=seed))[0]


def check(found, batch: int = 2, seed: int = 0) -> None:
    np.testing.assert_allclose(found, want(batch, seed), rtol=1e-3, atol=1e-5)


def on_gpu(array: np.ndarray) -> GpuArray:
    made = GpuArray(_cuda.gpu(0), array.shape, array.dtype.name)
    with _cuda.gpu(0) as gpu:
        address = made.__cuda_array_interface__["data"][0]
        _streams.upload(address, array.ctypes.data, array.nbytes, 0)
        gpu.synchronize()
    return made


def test_numpy_and_mxnet(plan) -> None:
    for seed in range(6):  # enough calls for a CUDA graph
        check(plan(images(2, seed=seed))["out"], seed=seed)
    made = plan(mx.nd.array(images(2)))["out"]
    assert isinstance(made, mx.nd.NDArray)
    check(made.asnumpy())
    given = np.zeros((2, 10), np.float32)
    assert plan(images(2), outputs={"out": given})["out"] is given
    check(given)


def test_arrays_on_the_gpu(plan) -> None:
    x = on_gpu(images(2))
    for _ in range(5):
        made = plan(x)["out"]
        assert isinstance(made, GpuArray)
        check(made.to_numpy())
    check(plan(images(2))["out"])


def test_asynchronous(plan) -> None:
    with _cuda.gpu(0) as gpu:
        stream = gpu.stream()
    events = [plan(images(2, seed=seed), stream=stream) for seed in range(4)]
    for seed, event in enumerate(events):
        check(event.wait()["out"], seed=seed)
        assert event.done
        assert event.handle
    target = on_gpu(np.zeros((2, 10), np.float32))
    event = plan(on_gpu(images(2)), outputs={"out": target}, stream=stream)
    event.wait()
    check(target.to_numpy())
    with _cuda.gpu(0) as gpu:
        gpu.synchronize()


def test_open_sizes(folder: Path) -> None:
    with load(folder / "open.plan") as plan:
        for batch in (1, 4, 2, 3):
            check(plan(images(batch))["out"], batch)
        with pytest.raises(ShapesDisagree, match=r"was built for \(1\.\.2\.\.4, 3, 32, 32\)"):
            plan(images(5))
        check(plan(images(1))["out"], 1)


def test_threads(folder: Path) -> None:
    wrong: list[int] = []
    expected = {seed: want(seed=seed) for seed in range(6)}
    with load(folder / "fixed.plan", contexts=3) as plan:

        def work(seed: int) -> None:
            for _ in range(30):
                found = plan(images(2, seed=seed))["out"]
                if not np.allclose(found, expected[seed], rtol=1e-3, atol=1e-5):
                    wrong.append(seed)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in expected]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def test_no_memory_is_lost(folder: Path) -> None:
    def cycle() -> None:
        with load(folder / "fixed.plan") as plan:
            plan(images(2))
            plan(on_gpu(images(2)))

    for _ in range(3):
        cycle()
    with _cuda.gpu(0) as gpu:
        before = gpu.memory()[0]
    for _ in range(20):
        cycle()
    with _cuda.gpu(0) as gpu:
        lost = before - gpu.memory()[0]
    assert lost < 16 << 20, f"{lost >> 20} MiB lost in 20 loads"


def test_the_first_file_is_enough(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "net.plan").write_bytes((folder / "fixed.plan").read_bytes())
    with load(tmp_path / "net.plan") as plan:
        check(plan(images(2))["out"])


def test_damaged_plans_and_wrong_devices(folder: Path, tmp_path: Path) -> None:
    content = (folder / "fixed.plan").read_bytes()
    (tmp_path / "net.plan").write_bytes(content[: len(content) // 2])
    with pytest.raises(BadPlan, match="TensorRT does not take the plan"):
        load(tmp_path / "net.plan")
    (tmp_path / "net.plan.json").write_text((folder / "fixed.plan.json").read_text())
    with pytest.raises(BadPlan, match="cut off"):
        load(tmp_path / "net.plan")
    with pytest.raises(BadOption, match="device=99: there is no such GPU"):
        load(folder / "fixed.plan", device=99)
    known = json.loads((folder / "fixed.plan.json").read_text())
    (tmp_path / "net.plan").write_bytes(content)
    for change, sentence in (
        ({"version": "7.0"}, "built with TensorRT 7.0"),
        ({"capabilities": ["SM50"]}, "for compute capability 5.0"),
    ):
        (tmp_path / "net.plan.json").write_text(json.dumps({**known, **change}))
        with pytest.raises(BadPlan, match=sentence):
            load(tmp_path / "net.plan")


def test_inspect(folder: Path) -> None:
    contents = inspect_file(str(folder / "fixed.plan"))
    assert contents.facts["layers"] == len(contents.rows) > 1
    assert any("conv0" in row[0] for row in contents.rows)
    assert any("fp32" in row[3] for row in contents.rows)


def test_bench(folder: Path) -> None:
    results = bench.bench(
        str(folder / "net-symbol.json"), str(folder / "net-0000.params"), engine="tensorrt",
        shapes={"data": (1, 3, 32, 32)}, batches=[4], precisions=["fp32", "fp16"], seconds=0.05,
        layers=True, strict=True,
    )  # fmt: skip
    for row, limit in zip(results.rows, (5e-3, 2e-2)):
        assert {"MXNet", "mxtrt", "TensorRT", "TensorRT, GPU memory"} <= set(row.columns)
        for name in ("mxtrt", "TensorRT"):
            assert row.columns[name].difference < limit
            assert row.columns[name].build_seconds > 0
        assert {"conv0", "conv1"} <= {node for layer in row.layers for node in layer.nodes}
        assert sum(layer.milliseconds for layer in row.layers) > 0


def test_doctor() -> None:
    found = doctor.run_probe("tensorrt")
    assert found["works"], found
    assert found["runs"]
    done = subprocess.run(
        [sys.executable, "-m", "mxtrt", "doctor"],
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1] == "TensorRT works on this machine."
