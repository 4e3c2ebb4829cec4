"""Every operator of MXNet's own exporter through `export_model` and ONNX Runtime.

A sample of the cases runs always, all of them with ``-m slow``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import export_cases
import export_layer_cases
import mxnet as mx
import numpy as np
import onnx
import onnxruntime
import pytest
from export_cases import Case, seeded
from operators import TOLERANCES

import mxtrt

FAMILIES = {
    family.__name__: family
    for family in (
        export_cases.functions, export_cases.casts, export_cases.binaries, export_cases.scalars,
        export_cases.reductions, export_cases.rearrangements, export_cases.slices,
        export_cases.unions, export_cases.indices, export_cases.orders, export_cases.sequences,
        export_cases.ranges, export_layer_cases.activations, export_layer_cases.heads,
        export_layer_cases.products, export_layer_cases.convolutions, export_layer_cases.pools,
        export_layer_cases.normalisations, export_layer_cases.images,
        export_layer_cases.attention, export_layer_cases.detection,
    )
}  # fmt: skip

SAMPLE = 15  # every so manieth case of an operator, and its first

EXPORTED_BY_MXNET = """
Activation BatchNorm BlockGrad Cast Concat Convolution Crop Deconvolution Dropout Embedding
Flatten FullyConnected InstanceNorm L2Normalization LRN LayerNorm LeakyReLU
LogisticRegressionOutput Pad Pooling ROIPooling Reshape SequenceMask SequenceReverse SliceChannel
SoftmaxOutput SwapAxis UpSampling _arange _contrib_AdaptiveAvgPooling2D _contrib_BilinearResize2D
_contrib_ROIAlign _contrib_arange_like _contrib_box_decode _contrib_box_nms _contrib_div_sqrt_dim
_contrib_interleaved_matmul_selfatt_qk _contrib_interleaved_matmul_selfatt_valatt _copy
_div_scalar _equal_scalar _greater_scalar _lesser_scalar _linalg_gemm2 _maximum _maximum_scalar
_minimum _minimum_scalar _minus_scalar _mul_scalar _ones _plus_scalar _power _power_scalar
_rdiv_scalar _rminus_scalar _split_v2 _zeros abs add_n arccos arcsin arctan argmax argmin argsort
batch_dot broadcast_add broadcast_axis broadcast_div broadcast_equal broadcast_greater
broadcast_greater_equal broadcast_lesser broadcast_lesser_equal broadcast_like
broadcast_logical_and broadcast_logical_or broadcast_logical_xor broadcast_minimum broadcast_mod
broadcast_mul broadcast_not_equal broadcast_power broadcast_sub broadcast_to ceil clip cos
depth_to_space dot elemwise_add elemwise_div elemwise_mul elemwise_sub exp expand_dims floor
gather_nd hard_sigmoid log log2 log_softmax logical_not make_loss max mean min negative norm
one_hot ones_like prod reciprocal relu repeat reshape_like reverse shape_array sigmoid sin
size_array slice slice_axis slice_like softmax space_to_depth sqrt square squeeze stack sum take
tan tanh tile topk transpose where zeros_like
"""
"""The operators of MXNet's exporter, without RNN and the random ones, which have their own tests.

Its ``identity``, ``sum_axis`` and ``MakeLoss`` are names that a symbol never holds, or (the last)
never without a loss of its own.
"""


def run(case: Case, folder: Path) -> str | None:
    """Return what is wrong with an exported case, or None."""
    arrays = [mx.nd.array(array, dtype=array.dtype) for array in case.arrays]
    expected = [output.asnumpy() for output in case.apply(mx.nd, *arrays)]
    names = [f"data{i}" for i in range(len(arrays))]
    symbol = mx.sym.Group(case.apply(mx.sym, *map(mx.sym.var, names)))
    feeds = dict(zip(names, case.arrays))
    feeds = {name: feeds[name] for name in symbol.list_inputs()}
    path = mxtrt.export_model(
        symbol,
        {},
        [array.shape for array in feeds.values()],
        [array.dtype for array in feeds.values()],
        str(folder / "case.onnx"),
    )
    onnx.checker.check_model(path, full_check=True)
    try:
        found = outputs(path, feeds)
    except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented as error:
        return None if case.no_kernel or may_lack_a_kernel(case) else f"{case}: {error}"
    if case.no_kernel:
        return f"{case}: ONNX Runtime has a kernel now"
    return difference(case, found, expected)


def may_lack_a_kernel(case: Case) -> bool:
    """Say whether older versions of ONNX Runtime, as for Python 3.10, lack what a case needs."""
    if tuple(map(int, onnxruntime.__version__.split(".")[:2])) >= (1, 24):
        return False
    types = {array.dtype.name for array in case.arrays} | {str(case.attrs.get("dtype"))}
    return bool(types & {"int8", "uint8"}) or (case.op in {"cos", "tan"} and "float64" in types)


def outputs(path: str, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == list(feeds)
    return list(session.run(None, feeds))


def difference(case: Case, found: list[np.ndarray], expected: list[np.ndarray]) -> str | None:
    if len(found) != len(expected):
        return f"{case}: {len(found)} outputs, not {len(expected)}"
    for have, want in zip(found, expected):
        if (have.shape, have.dtype) != (want.shape, want.dtype):
            return f"{case}: {have.shape} {have.dtype}, not {want.shape} {want.dtype}"
        dtype = case.arrays[0].dtype.name if case.arrays else want.dtype.name
        coarse = max(want.dtype.name, dtype, key=lambda name: TOLERANCES.get(name, (0, 0)))
        rtol, atol = TOLERANCES.get(coarse, (0, 0)) if want.dtype.kind == "f" else (0, 0)
        rtol, atol = case.tolerances.get("rtol", rtol), case.tolerances.get("atol", atol)
        if not np.allclose(have, want, rtol=rtol, atol=atol, equal_nan=True):
            return f"{case}: {have.ravel()[:5]}, not {want.ravel()[:5]}"
    return None


def sampled(cases: Iterator[Case]) -> Iterator[Case]:
    count: dict[str, int] = {}
    for case in cases:
        if count.setdefault(case.op, 0) % SAMPLE == 0:
            yield case
        count[case.op] += 1


@pytest.mark.parametrize("family", FAMILIES)
def test_sample(family: str, tmp_path: Path) -> None:
    wrong = [run(case, tmp_path) for case in sampled(seeded(FAMILIES[family]()))]
    assert not list(filter(None, wrong))
    assert wrong


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_all(family: str, tmp_path: Path) -> None:
    wrong = [run(case, tmp_path) for case in seeded(FAMILIES[family]())]
    assert not list(filter(None, wrong))
    assert wrong


def test_the_sample_has_every_operator_of_mxnets_exporter() -> None:
    seen: set[str] = set()
    for case in sampled(chain.from_iterable(family() for family in FAMILIES.values())):
        inputs = [mx.sym.var(f"data{i}") for i in range(len(case.arrays))]
        nodes = json.loads(mx.sym.Group(case.apply(mx.sym, *inputs)).tojson())["nodes"]
        seen.update(node["op"] for node in nodes)
    assert not set(EXPORTED_BY_MXNET.split()) - seen
