"""Cases for `export_model`: the layers of nets; see `export_cases`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
from export_cases import (
    DOUBLES,
    FLOATS,
    HALVES,
    LONG,
    RNG,
    SINGLES,
    WIDE,
    Case,
    case,
    draw,
    each,
)

SUMS = {"rtol": 1e-4, "atol": 1e-4}  # of some dozens of products of float32


def layer(op: str, *arrays: Any, no_kernel: bool = False, **attrs: Any) -> Case:
    """Return a case of a sum of products."""
    tolerances = SUMS if arrays[0].dtype == SINGLES else {}
    return replace(case(op, *arrays, **attrs), no_kernel=no_kernel, tolerances=tolerances)


# -- activations -------------------------------------------------------------------------------


def activations() -> Iterator[Case]:
    """Yield activations and softmax."""
    for kind in ("relu", "sigmoid", "tanh", "softrelu", "softsign"):
        yield from each("Activation", FLOATS, (2, 3, 4), act_type=kind)
    for kind, attrs in product(("leaky", "elu", "selu", "gelu"), ({}, {"slope": 0.1})):
        for made in each("LeakyReLU", FLOATS, (2, 3, 4), act_type=kind, **attrs):
            erf_of_doubles = kind == "gelu" and made.arrays[0].dtype == DOUBLES
            yield replace(made, no_kernel=erf_of_doubles)
    for shape, slope in (((2, 3, 4), (3,)), ((2, 3), (3,)), ((2, 3, 4, 5), (1,))):
        yield from each("LeakyReLU", FLOATS, shape, slope, act_type="prelu")
    for axis, temperature in product((0, 1, -1, 2), (None, 0.5, 3.0)):
        for op in ("softmax", "log_softmax", "softmin"):
            yield from each(op, FLOATS, (2, 3, 4), axis=axis, temperature=temperature)
    for dtype, kind in product(FLOATS, LONG):
        for axis, rest in ((-1, (2, 3)), (1, (2, 4)), (0, (3, 4))):
            lengths = draw(rest, kind, 1, (2, 3, 4)[axis] + 1)
            yield case("softmax", draw((2, 3, 4), dtype), lengths, axis=axis, use_length=True)
        none = draw((2, 3), kind, 0, 3)
        yield case("softmax", draw((2, 3, 4), dtype), none, axis=-1, use_length=True)
    for result in FLOATS:
        yield case("softmax", draw((2, 3)), dtype=result)
        yield case("log_softmax", draw((2, 3)), dtype=result)


def heads() -> Iterator[Case]:
    """Yield the heads of training."""
    for dtype in FLOATS:
        for attrs, labels in (
            ({}, (2,)),
            ({"multi_output": True}, (2, 4)),
            ({"preserve_shape": True}, (2, 3)),
        ):
            shape = (2, 3, 4) if attrs else (2, 3)
            yield case("SoftmaxOutput", draw(shape, dtype), draw(labels, dtype), **attrs)
        for kind in ("Logistic", "Linear", "MAE"):
            op = f"{kind}RegressionOutput"
            yield case(op, draw((2, 3), dtype), draw((2, 3), dtype))
    yield case("SoftmaxActivation", draw((2, 3, 4)))
    yield case("SoftmaxActivation", draw((2, 3, 4, 5)), mode="channel")


# -- products ----------------------------------------------------------------------------------


def products() -> Iterator[Case]:
    """Yield dense layers and products of matrices."""
    for dtype, shape, no_bias, flatten in product(
        WIDE, ((2, 3), (2, 3, 4), (2, 3, 4, 5)), (True, False), (True, False)
    ):
        weight = draw((7, int(np.prod(shape[1:])) if flatten else shape[-1]), dtype)
        bias = [] if no_bias else [draw((7,), dtype)]
        attrs = {"num_hidden": 7, "no_bias": no_bias, "flatten": flatten}
        yield layer("FullyConnected", draw(shape, dtype), weight, *bias, **attrs)
    for dtype, turn_a, turn_b in product(WIDE, (False, True), (False, True)):
        a, b = (4, 3) if turn_a else (3, 4), (5, 4) if turn_b else (4, 5)
        turns = {"transpose_a": turn_a, "transpose_b": turn_b}
        yield layer("dot", draw(a, dtype), draw(b, dtype), **turns)
        yield layer("batch_dot", draw((2, *a), dtype), draw((2, *b), dtype), **turns)
        for batch, alpha in product(((), (2,), (2, 2)), (1, 2.5)):
            factors = draw((*batch, *a), dtype), draw((*batch, *b), dtype)
            yield layer("linalg.gemm2", *factors, alpha=alpha, **turns)
    for dtype in WIDE:
        for one, two in (((2, 3, 4), (4, 5)), ((4,), (4,)), ((2, 3, 4), (4, 3, 2)), ((3, 4), (4,))):
            yield layer("dot", draw(one, dtype), draw(two, dtype))
        yield layer("linalg.gemm2", draw((2, 3, 2, 4), dtype), draw((2, 4, 2, 5), dtype), axis=-3)


def convolutions() -> Iterator[Case]:
    """Yield convolutions; ONNX Runtime has none of float64."""
    for dtype, kernel, stride, pad, dilate, groups, no_bias in product(
        WIDE, ((3, 3), (1, 2)), ((1, 1), (2, 1)), ((0, 0), (1, 2)), ((1, 1), (2, 1)), (1, 2),
        (True, False),
    ):  # fmt: skip
        attrs = {"kernel": kernel, "stride": stride, "dilate": dilate, "num_group": groups,
                 "num_filter": 6, "no_bias": no_bias}  # fmt: skip
        x = draw((2, 4, 9, 8), dtype)
        bias = [] if no_bias else [draw((6,), dtype)]
        double = dtype == DOUBLES
        weight = draw((6, 4 // groups, *kernel), dtype)
        yield layer("Convolution", x, weight, *bias, pad=pad, no_kernel=double, **attrs)
        weight = draw((4, 6 // groups, *kernel), dtype)
        pad = pad if kernel == (3, 3) else (0, 1)
        yield layer("Deconvolution", x, weight, *bias, pad=pad, no_kernel=double, **attrs)
    for kernel, sizes in (((3,), (9,)), ((3, 2, 2), (9, 8, 7))):
        bias = draw((6,))
        twos, ones = (2,) * len(kernel), (1,) * len(kernel)
        steps: dict[str, Any] = {"kernel": kernel, "num_filter": 6, "stride": twos, "pad": ones}
        x = draw((2, 4, *sizes))
        yield layer("Convolution", x, draw((6, 4, *kernel)), bias, kernel=kernel, num_filter=6)
        yield layer("Convolution", x, draw((6, 4, *kernel)), bias, **steps)
        weight = draw((4, 6, *kernel))
        yield layer("Deconvolution", x, weight, bias, no_bias=False, adj=ones, **steps)


# -- pools -------------------------------------------------------------------------------------

KINDS = (
    {"pool_type": "max"}, {"pool_type": "avg"}, {"pool_type": "sum"},
    {"pool_type": "lp", "p_value": 2}, {"pool_type": "lp", "p_value": 1},
)  # fmt: skip
WINDOWS = (
    ((3, 3), (1, 1), (0, 0)), ((2, 3), (2, 2), (1, 1)), ((3, 3), (2, 2), (0, 1)),
    ((4, 5), (3, 2), (1, 2)), ((7, 7), (1, 1), (0, 0)), ((3, 2), (1, 3), (1, 0)),
)  # fmt: skip


def pools() -> Iterator[Case]:
    """Yield pools; of float64 ONNX Runtime has ``MaxPool`` only."""
    for dtype, kind, convention, (kernel, stride, pad) in product(
        FLOATS, ("max", "avg", "sum", "lp"), ("valid", "full"), WINDOWS
    ):
        attrs: dict[str, Any] = {"kernel": kernel, "stride": stride, "pad": pad, "pool_type": kind,
                                 "pooling_convention": convention}  # fmt: skip
        if kind == "lp":
            attrs["p_value"] = 2
        for counts in (True, False) if kind == "avg" else (True,):
            made = case("Pooling", draw((1, 3, 12, 13), dtype), count_include_pad=counts, **attrs)
            yield replace(made, no_kernel=dtype == DOUBLES and kind != "max")
    # MXNet's "same" insists on one axis and three zeros, and its oneDNN cannot do all of them
    for kernel, stride in ((3, 2), (2, 3), (2, 2), (1, 2), (3, 1)):
        attrs = {"kernel": (kernel,), "stride": (stride,), "pad": (0, 0, 0)}
        x = draw((2, 3, 7), HALVES)
        yield case("Pooling", x, pool_type="max", pooling_convention="same", **attrs)
    for dtype, shape in product(FLOATS, ((2, 3, 10), (2, 3, 5, 6), (2, 3, 5, 6, 4))):
        for kind in KINDS:
            x = draw(shape, dtype)
            yield case("Pooling", x, global_pool=True, **kind)
            kernel, twos, ones = ((n,) * (len(shape) - 2) for n in (3, 2, 1))
            if dtype == SINGLES:
                yield case("Pooling", x, kernel=kernel, stride=twos, pad=ones, **kind)


# -- normalisation -----------------------------------------------------------------------------


def normalisations() -> Iterator[Case]:
    """Yield normalisations by given or by computed moments."""
    for dtype in FLOATS:
        for axis, eps in product((-1, 1, 2), (1e-5, 1e-2)):
            n = (3, 4, 5)[axis]
            scale = draw((n,), dtype), draw((n,), dtype)
            yield case("LayerNorm", draw((3, 4, 5), dtype), *scale, axis=axis, eps=eps)
        stats = SINGLES if dtype == HALVES else dtype
        for axis, fixed, stated in product((1, -1, 3, 0), (True, False), (True, False)):
            n = (2, 3, 4, 5)[axis]
            vectors = [draw((n,), stats) for _ in range(3)]
            attrs = {"axis": axis, "fix_gamma": fixed, "use_global_stats": stated, "eps": 1e-3}
            variance = draw((n,), stats, 0.5, 2)
            made = case("BatchNorm", draw((2, 3, 4, 5), dtype), *vectors, variance, **attrs)
            # MXNet rounds the difference from the mean to float16, too
            yield replace(made, tolerances={"atol": 4e-3}) if dtype == HALVES else made
        for shape in ((2, 3), (2, 3, 5)):
            vectors = [draw((3,), stats, 0.5, 2) for _ in range(4)]
            yield case("BatchNorm", draw(shape, dtype), *vectors, fix_gamma=False)
            yield case("BatchNorm", draw(shape, dtype), *vectors, output_mean_var=True)
        for mode in ("instance", "channel", "spatial"):
            yield case("L2Normalization", draw((2, 3, 4, 5), dtype), mode=mode, eps=1e-3)
        for attrs in ({"p": 0}, {"p": 0.5}, {"p": 0.5, "axes": (1,)}):
            yield case("Dropout", draw((2, 3, 4), dtype), **attrs)
    # MXNet has the next two in float32 only
    for size, attrs in product((3, 5), ({}, {"alpha": 0.01, "beta": 0.6, "knorm": 1.5})):
        yield case("LRN", draw((2, 7, 4, 5)), nsize=size, **attrs)
    for shape, attrs in product(((2, 3, 4), (2, 3, 4, 5), (2, 3, 4, 5, 2)), ({}, {"eps": 0.01})):
        scale = draw((3,)), draw((3,))
        yield case("InstanceNorm", draw(shape), *scale, **attrs)
    for dtype in (HALVES, SINGLES):
        scale = draw((2,), dtype), draw((2,), dtype)
        yield case("GroupNorm", draw((2, 4, 3, 3), dtype), *scale, num_groups=2)


# -- images ------------------------------------------------------------------------------------


def images() -> Iterator[Case]:
    """Yield resizing, cropping and padding; of float64 ONNX Runtime has no ``Resize``."""
    sizes: list[dict[str, Any]] = [
        {"height": 5, "width": 7}, {"height": 3, "width": 2}, {"height": 1, "width": 1},
        {"scale_height": 2, "scale_width": 1.5}, {"height": 5, "width": 7, "align_corners": False},
        {"scale_height": 0.5, "scale_width": 0.5, "mode": "odd_scale"}, {"mode": "to_even_down"},
        {"mode": "to_even_up"}, {"mode": "to_odd_down"}, {"mode": "to_odd_up"},
    ]  # fmt: skip
    for dtype in FLOATS:
        double = dtype == DOUBLES
        for attrs in sizes:
            made = case("contrib.BilinearResize2D", draw((1, 2, 4, 5), dtype), **attrs)
            yield replace(made, no_kernel=double)
        for size in (1, (1, 1), 2, (3, 2), (7, 9)):
            x = draw((2, 3, 6, 7), dtype)
            yield replace(
                case("contrib.AdaptiveAvgPooling2D", x, output_size=size),
                no_kernel=double and size == (3, 7),
            )
        for scale in (1, 2, 3):
            x = draw((1, 2, 3, 4), dtype)
            made = case("UpSampling", x, scale=scale, sample_type="nearest")
            yield replace(made, no_kernel=double)
        for mode, attrs in (("constant", {"constant_value": 1.5}), ("edge", {}), ("reflect", {})):
            width = (0, 0, 0, 0, 1, 2, 2, 1)
            yield case("pad", draw((1, 2, 4, 5), dtype), mode=mode, pad_width=width, **attrs)
            x = draw((1, 2, 4, 5, 3), dtype)
            yield case("pad", x, mode=mode, pad_width=(*width, 1, 1), **attrs)
    like = draw((1, 2, 7, 3))
    yield case("contrib.BilinearResize2D", draw((1, 2, 4, 5)), like, mode="like")
    x = draw((1, 2, 5, 6))
    for attrs in ({}, {"offset": (1, 1)}, {"center_crop": True}):
        yield case("Crop", x, num_args=1, h_w=(2, 3), **attrs)
        yield case("Crop", x, draw((1, 2, 3, 3)), num_args=2, **attrs)


# -- attention and detection -------------------------------------------------------------------


def attention() -> Iterator[Case]:
    """Yield the products of GluonNLP's attention."""
    matmul = "contrib.interleaved_matmul"
    for dtype, heads in product((SINGLES,), (1, 4)):  # MXNet has no others on the CPU
        both = draw((5, 2, 3 * 8), dtype)
        yield layer(f"{matmul}_selfatt_qk", both, heads=heads)
        scores = draw((2 * heads, 5, 5), dtype)
        yield layer(f"{matmul}_selfatt_valatt", both, scores, heads=heads)
        queries, rest = draw((5, 2, 8), dtype), draw((6, 2, 16), dtype)
        yield layer(f"{matmul}_encdec_qk", queries, rest, heads=heads)
        scores = draw((2 * heads, 5, 6), dtype)
        yield layer(f"{matmul}_encdec_valatt", rest, scores, heads=heads)
    yield from each("contrib.div_sqrt_dim", FLOATS, (2, 3, 8))


def boxes(dtype: str) -> np.ndarray:
    """Return (1, 12, 6): classes, scores that all differ, and corners."""
    found = np.abs(RNG.standard_normal((1, 12, 6)))
    found[..., 0] = RNG.integers(0, 3, (1, 12))
    found[..., 1] = np.linspace(0.05, 0.95, 12)[RNG.permutation(12)]
    found[..., 4:] = found[..., 2:4] + np.abs(RNG.standard_normal((1, 12, 2)))
    return found.astype(dtype)


def detection() -> Iterator[Case]:
    """Yield what detectors make of boxes; of float64 ONNX Runtime has no ``MaxRoiPool``."""
    kept: list[dict[str, Any]] = [
        {}, {"overlap_thresh": 0.3, "valid_thresh": 0.2, "topk": 5}, {"id_index": 0},
        {"id_index": 0, "force_suppress": True}, {"id_index": 0, "background_id": 0},
        {"in_format": "center", "out_format": "center"}, {"topk": 3, "overlap_thresh": 0.1},
        {"in_format": "center", "out_format": "corner"}, {"coord_start": 2, "score_index": 1},
    ]  # fmt: skip
    coded: list[dict[str, Any]] = [
        {}, {"format": "corner"}, {"format": "center", "clip": 0.5},
        {"std0": 0.1, "std1": 0.1, "std2": 0.2, "std3": 0.2},
    ]  # fmt: skip
    regions = [[0, 0, 0, 4, 4], [1, 1, 2, 7, 6], [0, 3, 3, 3, 3], [1, -1, 0, 20, 20]]
    for dtype in FLOATS:
        found = boxes(dtype)
        for attrs in kept:
            for shaped in (found, found[0], np.concatenate([found, found[:, ::-1]])):
                yield case("contrib.box_nms", shaped, **attrs)
        for attrs in coded:
            anchors = np.abs(draw((1, 5, 4), dtype))
            yield case("contrib.box_decode", draw((2, 5, 4), dtype), anchors, **attrs)
        x, rois = draw((2, 3, 8, 9), dtype), np.array(regions, dtype)
        for scale in (1.0, 0.5):
            made = case("ROIPooling", x, rois, pooled_size=(2, 3), spatial_scale=scale)
            yield replace(made, no_kernel=dtype == DOUBLES)
        for attrs in ({}, {"sample_ratio": 2}, {"aligned": True, "sample_ratio": 1}):
            # MXNet aborts the process where an aligned region has no width
            made = case("contrib.ROIAlign", x, rois[:2], pooled_size=(2, 3), spatial_scale=0.5,
                        **attrs)  # fmt: skip
            # MXNet keeps the places and the sums in float16 too
            yield replace(made, tolerances={"atol": 1e-2}) if dtype == HALVES else made
        attrs = {"position_sensitive": True, "sample_ratio": 2}
        yield case("contrib.ROIAlign", draw((2, 8, 8, 9), dtype), rois, pooled_size=(2, 2),
                   spatial_scale=0.5, **attrs)  # fmt: skip
