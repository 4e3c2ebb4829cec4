"""Known models as a whole: docs/models.md is what was measured, and a sample of it still holds.

``python docs/make_models.py`` measures all of them; ``-m slow`` checks each against its row.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import pytest
from models.catalogue import CATALOGUE
from models.measure import compare, measure, operators
from models.model import Model
from models.reference import reference
from models.weights import seeded_weights
from operators import optimize_whole, run_mxnet

ROOT = Path(__file__).resolve().parents[1]
GRAPHS = ROOT.parent / "shared" / "model_ops.json"

SAMPLE = (
    "gluon/mobilenetv2_0.25",
    "gluon/resnet18_v1_end_to_end",
    "gluoncv/cifar_resnet20_v1",
    "gluoncv/center_net_resnet18_v1b_voc",
    "gluoncv/ssd_512_mobilenet1.0_voc",
    "gluoncv/simple_pose_resnet18_v1b",
    "gluonnlp/bert_small",
    "gluonnlp/transformer_en_de_512",
    "insightface/retinaface_mnet25",
)


def page_module() -> Any:
    spec = importlib.util.spec_from_file_location("make_models", ROOT / "docs/make_models.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PAGE = page_module()
RESULTS = PAGE.read_results()


@pytest.fixture(autouse=True)
def without_fusion(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in docs/make_models.py: MXNet's fusions have bugs of their own."""
    monkeypatch.setenv("MXNET_SUBGRAPH_BACKEND", "NONE")


def need_packages(name: str) -> None:
    package = name.partition("/")[0]
    if package in {"gluoncv", "gluonnlp"}:
        how = f"{package} cannot be imported; docs/make_models.py says how to install it"
        pytest.importorskip(package, reason=how, exc_type=ImportError)


def check_row(name: str) -> None:
    need_packages(name)
    row, found = RESULTS[name], measure(CATALOGUE[name]).to_dict()
    assert found["inputs"] == {n: tuple(shape) for n, shape in row["inputs"].items()}
    for sizes in ("known", "unknown"):
        have, want = found[sizes], row[sizes]
        for what in ("operators", "moved", "parts", "rows"):
            assert have[what] == want[what], (sizes, what)
        assert list(have["left"]) == list(want["left"])
        # another processor adds in another order
        assert have["difference"] <= 5 * want["difference"] + 1e-6
        assert have["other"] <= want["other"] + have["rows"] // 50


@pytest.mark.parametrize("name", SAMPLE)
def test_a_model_is_as_its_row_says(name: str) -> None:
    check_row(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CATALOGUE if name not in SAMPLE])
def test_every_model_is_as_its_row_says(name: str) -> None:
    check_row(name)


def test_bert_needs_no_shapes() -> None:
    """It moves as a whole when nobody knows even how many axes its inputs have."""
    need_packages("gluonnlp/bert_small")
    model = CATALOGUE["gluonnlp/bert_small"]
    symbol, constants = model.build()
    inputs = dict(model.inputs(np.random.default_rng(7)))
    args, aux = seeded_weights(symbol, inputs, constants, model.gains)
    weights = {name: array.asnumpy() for name, array in {**args, **aux}.items()}
    expected = run_mxnet(symbol, {**inputs, **weights})
    dtypes = {name: array.dtype.name for name, array in inputs.items()}
    optimized, _ = optimize_whole(symbol, (args, aux), dtypes=dtypes, engine="onnxruntime")
    assert compare(expected, run_mxnet(optimized, inputs))[0] < 1e-5


def test_the_page_is_made_of_the_results() -> None:
    assert PAGE.PAGE.read_text(encoding="utf-8") == PAGE.page(RESULTS.values())


def test_there_is_a_row_for_every_model() -> None:
    assert list(RESULTS) == list(CATALOGUE)


def test_differences_are_those_of_rounding() -> None:
    for name, row in RESULTS.items():
        for sizes in ("known", "unknown"):
            # boxes are cut out of maps at places that rounding moves; a step of 8 bits is large
            limit = 0.05 if name.endswith("_int8") else 5e-3 if row[sizes]["rows"] else 1e-3
            assert row[sizes]["difference"] < limit, name


def test_what_the_issue_of_users_names_is_there() -> None:
    """Detectors, segmentation, pose, faces, BERT and Transformers."""
    families = (
        "ssd_512_mobilenet1.0_voc yolo3 faster_rcnn mask_rcnn center_net fcn_ deeplab psp_ pose "
        "retinaface arcface bert transformer"
    )
    for family in families.split():
        assert any(family in name for name in RESULTS), family


def test_every_model_moves_as_a_whole() -> None:
    """One part, nothing left, whether sizes are known or ranks alone."""
    for name, row in RESULTS.items():
        for sizes in ("known", "unknown"):
            assert (row[sizes]["moved"], row[sizes]["parts"]) == (row[sizes]["operators"], 1), name


@pytest.mark.skipif(not GRAPHS.exists(), reason=f"no list of graphs in {GRAPHS}")
@pytest.mark.parametrize(
    "name", [name for name in SAMPLE if not name.startswith("gluonnlp/transformer")]
)
def test_a_model_has_the_operators_of_its_graph(name: str) -> None:
    check_graph(CATALOGUE[name])


@pytest.mark.slow
@pytest.mark.skipif(not GRAPHS.exists(), reason=f"no list of graphs in {GRAPHS}")
def test_every_model_has_the_operators_of_its_graph() -> None:
    for model in CATALOGUE.values():
        check_graph(model)


def check_graph(model: Model) -> None:
    need_packages(model.name)
    graphs = json.loads(GRAPHS.read_text(encoding="utf-8"))
    expected = graphs.get(model.graph or model.name)
    if expected is None:
        assert model.graph is None, f"no graph {model.graph!r}"
        return
    found = operators(model.build()[0])
    # MXNet leaves casts of mixed precision out of the files that it writes
    assert {op: n for op, n in found.items() if not op.startswith("amp_")} == expected


@pytest.mark.skipif(not GRAPHS.exists(), reason=f"no list of graphs in {GRAPHS}")
def test_every_graph_of_these_packages_is_there() -> None:
    graphs = json.loads(GRAPHS.read_text(encoding="utf-8"))
    packages = ("gluon/", "gluoncv/", "gluonnlp/")
    wanted = {name for name in graphs if name.startswith(packages)}
    assert wanted <= {model.graph or model.name for model in CATALOGUE.values()}


# -- how outputs are compared ----------------------------------------------------------------


def boxes(seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.random((2, 20, 1)), rng.random((2, 20, 4)) * 100]


def test_compare_reports_the_largest_difference() -> None:
    expected = boxes()
    found = [array.copy() for array in expected]
    found[1][0, 3, 2] += 0.01 * expected[1].max()
    assert compare(expected, found)[0] == pytest.approx(0.01)
    assert compare(expected, found, same_row=5e-3)[2] == 1


def test_compare_counts_rows_that_changed_places() -> None:
    expected = boxes()
    swapped = [array.copy() for array in expected]
    for array in swapped:
        array[1, [4, 5]] = array[1, [5, 4]]
    assert compare(expected, swapped, same_row=5e-3) == (0.0, 2, 0)
    assert compare(expected, swapped)[0] > 0.01


def test_compare_counts_rows_that_mxnet_does_not_have() -> None:
    expected = boxes()
    found = [array.copy() for array in expected]
    for array, other in zip(found, boxes(1)):
        array[0, 7:9] = other[0, 7:9]
    assert compare(expected, found, same_row=5e-3) == (0.0, 0, 2)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_compare_refuses_what_is_no_number(wrong: float) -> None:
    expected = boxes()
    found = [array.copy() for array in expected]
    found[0][0, 0] = wrong
    with pytest.raises(ValueError, match="not finite"):
        compare(expected, found)


def test_the_reference_clears_regions_of_no_image() -> None:
    data, rois = mx.sym.var("data"), mx.sym.var("rois")
    align = mx.sym.contrib.ROIAlign(
        data, rois, pooled_size=(2, 2), spatial_scale=1.0, sample_ratio=2
    )
    symbol = reference(mx.sym.exp(align))
    fed = {
        "data": np.ones((1, 3, 8, 8), "float32"),
        "rois": np.array([[0, 1, 1, 5, 5], [-1, 1, 1, 5, 5]], "float32"),
    }
    (found,) = run_mxnet(symbol, fed)
    np.testing.assert_allclose(found[0], np.e, rtol=1e-6)
    np.testing.assert_array_equal(found[1], 1)
    without = mx.sym.exp(data)
    assert reference(without) is without
