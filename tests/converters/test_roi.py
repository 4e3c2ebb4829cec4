"""Regions of interest against MXNet."""

from __future__ import annotations

from typing import Any

import mxnet as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operators import (
    ENGINE_OPTIONS,
    check_operator,
    check_refused,
    random_array,
    run_engines,
    run_mxnet,
)
from rtx import build_plan, parts_as_onnx

import mxtrt

contrib, var = mx.sym.contrib, mx.sym.var
SCALES = [0.125, 0.1]  # 0.1 is no float32: what is rounded, and when, shows


def regions(count: int, images: int, coarse: bool, seed: int = 0) -> np.ndarray:
    """Return (image, x1, y1, x2, y2) for maps of about 20 pixels at a scale of 1/8.

    Some lie outside, some are flipped; `coarse` ones have corners at halves, where rounding and
    the borders of bins and of the map need care.
    """
    rng = np.random.default_rng(seed)
    low = rng.random((count, 2)) * 160 - 40
    size = rng.random((count, 2)) * 96 - 16
    image = rng.integers(0, images, (count, 1))
    rois = np.concatenate([image, low, low + size], 1)
    return (np.round(rois * 2) / 2 if coarse else rois).astype("float32")


def maps(images: int, channels: int, seed: int = 0) -> np.ndarray:
    return random_array((images, channels, 13, 17), seed=seed)


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("pooled_size", [(3, 5), (1, 1), (7, 7)])
@pytest.mark.parametrize("images", [1, 2])
def test_roi_pooling(images: int, pooled_size: tuple[int, int], scale: float, coarse: bool) -> None:
    symbol = mx.sym.ROIPooling(
        var("data"), var("rois"), pooled_size=pooled_size, spatial_scale=scale
    )
    check_operator(symbol, {"data": maps(images, 3), "rois": regions(40, images, coarse)})


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("position_sensitive", [False, True])
@pytest.mark.parametrize("sample_ratio", [-1, 0, 1, 3])
def test_roi_align(
    sample_ratio: int, position_sensitive: bool, aligned: bool, coarse: bool
) -> None:
    rois = regions(40, 2, coarse)
    if aligned:  # MXNet raises for regions without an area
        rois[:, 3:] = np.maximum(rois[:, 3:], rois[:, 1:3] + 0.5)
    symbol = contrib.ROIAlign(
        var("data"),
        var("rois"),
        pooled_size=(2, 3),
        spatial_scale=0.1,
        sample_ratio=sample_ratio,
        position_sensitive=position_sensitive,
        aligned=aligned,
    )
    check_operator(symbol, {"data": maps(2, 12), "rois": rois})


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("sample_ratio", [-1, 2])
def test_roi_align_ignores_regions_of_no_image(sample_ratio: int, aligned: bool) -> None:
    """MXNet leaves such rows unwritten (and clears a number of the first region instead)."""
    symbol = contrib.ROIAlign(
        var("data"),
        var("rois"),
        pooled_size=(2, 2),
        spatial_scale=0.125,
        sample_ratio=sample_ratio,
        aligned=aligned,
    )
    arrays = {"data": maps(1, 3), "rois": regions(5, 1, coarse=False)}
    arrays["rois"][:, 3:] = arrays["rois"][:, 1:3] + 20
    expected = run_mxnet(symbol, arrays)[0]
    arrays["rois"][[1, 4], 0] = -1
    expected[[1, 4]] = 0
    optimized, _ = mxtrt.optimize(symbol, min_subgraph_size=1, **ENGINE_OPTIONS)
    np.testing.assert_allclose(run_engines(optimized, arrays)[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("op", ["ROIPooling", "_contrib_ROIAlign", "_contrib_RROIAlign"])
def test_float16(op: str) -> None:
    make = mx.sym.ROIPooling if op == "ROIPooling" else getattr(contrib, op[len("_contrib_") :])
    symbol = make(var("data"), var("rois"), pooled_size=(2, 2), spatial_scale=0.125)
    rois = [[0, 8, 16, 40, 48], [1, 0, 8, 64, 72], [0, 24, 0, 56, 32]]
    if op == "_contrib_RROIAlign":
        rois = [[0, 24, 32, 32, 32, 0], [1, 48, 40, 64, 64, 0], [0, 40, 32, 16, 48, 0]]
    # places that float16 holds exactly: MXNet computes them in it
    arrays = {"data": maps(2, 3).astype("float16"), "rois": np.array(rois, "float16")}
    check_operator(symbol, arrays)


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("pooled_size", "group_size"), [(2, 0), (3, 3), (3, 2), (2, 3), (3, 1)])
@pytest.mark.parametrize("images", [1, 2])
def test_psroi_pooling(
    images: int, pooled_size: int, group_size: int, scale: float, coarse: bool
) -> None:
    symbol = contrib.PSROIPooling(
        var("data"),
        var("rois"),
        spatial_scale=scale,
        output_dim=2,
        pooled_size=pooled_size,
        group_size=group_size,
    )
    channels = 2 * (group_size or pooled_size) ** 2
    check_operator(symbol, {"data": maps(images, channels), "rois": regions(40, images, coarse)})


@pytest.mark.parametrize("no_trans", [False, True])
@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize(
    ("group_size", "pooled_size", "part_size", "sample_per_part", "classes"),
    [(1, 3, 0, 2, 1), (3, 3, 3, 1, 1), (2, 3, 2, 3, 2), (3, 2, 4, 2, 4)],
)
@pytest.mark.parametrize("images", [1, 2])
def test_deformable_psroi_pooling(
    images: int,
    group_size: int,
    pooled_size: int,
    part_size: int,
    sample_per_part: int,
    classes: int,
    coarse: bool,
    no_trans: bool,
) -> None:
    arrays = {"data": maps(images, 4 * group_size**2), "rois": regions(40, images, coarse)}
    if not no_trans:
        parts = part_size or pooled_size
        arrays["trans"] = random_array((40, 2 * classes, parts, parts))
    symbol = contrib.DeformablePSROIPooling(
        *map(var, arrays),
        spatial_scale=0.1,
        output_dim=4,
        group_size=group_size,
        pooled_size=pooled_size,
        part_size=part_size,
        sample_per_part=sample_per_part,
        trans_std=0.2,
        no_trans=no_trans,
    )
    check_operator(symbol, arrays)


@pytest.mark.parametrize("sampling_ratio", [-1, 1, 2])
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("images", [1, 2])
def test_rroi_align(images: int, scale: float, sampling_ratio: int) -> None:
    symbol = contrib.RROIAlign(
        var("data"),
        var("rois"),
        pooled_size=(2, 3),
        spatial_scale=scale,
        sampling_ratio=sampling_ratio,
    )
    check_operator(symbol, {"data": maps(images, 5), "rois": turned_regions(30, images)})


def turned_regions(count: int, images: int, seed: int = 0) -> np.ndarray:
    """Return (image, x, y, width, height, degrees)."""
    rng = np.random.default_rng(seed)
    columns = [rng.random((count, 2)) * 160 - 20, rng.random((count, 2)) * 100]
    columns += [rng.random((count, 1)) * 360 - 180]
    return np.hstack([rng.integers(0, images, (count, 1)), *columns]).astype("float32")


def test_rroi_align_without_a_turn() -> None:
    """Samples on pixels and on the border of the map."""
    symbol = contrib.RROIAlign(
        var("data"), var("rois"), pooled_size=(2, 2), spatial_scale=1.0, sampling_ratio=1
    )
    rois = [[0, 4, 4, 4, 4, 0], [0, 0, 0, 2, 2, 0], [0, 17, 13, 2, 2, 0], [0, 30, 4, 2, 2, 0]]
    check_operator(symbol, {"data": maps(1, 2), "rois": np.array(rois, "float32")})


def test_refusals() -> None:
    trans = contrib.DeformablePSROIPooling(
        var("data"),
        var("rois"),
        var("trans"),
        spatial_scale=0.1,
        output_dim=2,
        group_size=1,
        pooled_size=2,
    )
    report = mxtrt.explain(trans, shapes={"trans": (None,) * 4}, min_subgraph_size=1)
    assert "needs the size of axis 1 of 'trans'" in next(iter(report.left.values()))
    # ONNX Runtime's MaxRoiPool is float32 only
    pooling = mx.sym.ROIPooling(var("data"), var("rois"), pooled_size=(2, 2), spatial_scale=1.0)
    arrays = {"data": maps(1, 1).astype("float64"), "rois": regions(2, 1, False).astype("float64")}
    check_refused(pooling, arrays, "ONNX Runtime")


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    images=st.integers(1, 3),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    bins=st.integers(1, 4),
    scale=st.sampled_from([1.0, 0.5, 0.37]),
    coarse=st.booleans(),
    op=st.sampled_from(["ROIPooling", "ROIAlign", "PSROIPooling", "DeformablePSROIPooling"]),
)
def test_random_regions(
    seed: int, images: int, height: int, width: int, bins: int, scale: float, coarse: bool, op: str
) -> None:
    rois = regions(12, images, coarse, seed)
    rois[:, 1:] /= 8
    attrs: dict[str, Any] = {"spatial_scale": scale, "pooled_size": bins}
    if op in ("ROIPooling", "ROIAlign"):
        attrs["pooled_size"] = (bins, bins)
    else:
        attrs.update(output_dim=2, group_size=bins)
    if op == "DeformablePSROIPooling":
        attrs.update(no_trans=True, sample_per_part=2)
    make = mx.sym.ROIPooling if op == "ROIPooling" else getattr(contrib, op)
    data = random_array((images, 2 * bins * bins, height, width), seed=seed)
    symbol = make(var("data"), var("rois"), **attrs)
    check_operator(symbol, {"data": data, "rois": rois}, unknown_sizes=False)


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("op", ["PSROIPooling", "DeformablePSROIPooling", "RROIAlign"])
def test_tensorrt_takes_it(op: str, images: int) -> None:
    """Not here: RoiAlign is a plugin that needs a GPU to load, and MaxRoiPool is unknown to it."""
    if op == "RROIAlign":
        attrs: dict[str, Any] = {"pooled_size": (2, 2), "sampling_ratio": 2}
    else:
        attrs = {"output_dim": 2, "pooled_size": 3, "group_size": 3}
    if op == "DeformablePSROIPooling":
        attrs["no_trans"] = True
    symbol = getattr(contrib, op)(var("data"), var("rois"), spatial_scale=0.1, **attrs)
    rois = turned_regions(8, images) if op == "RROIAlign" else regions(8, images, False)
    shapes = {"data": (images, 18, 13, 17), "rois": rois.shape}
    for part in parts_as_onnx(symbol, None, shapes, min_subgraph_size=1):
        build_plan(part)
