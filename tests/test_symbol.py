"""Reading symbols and writing them again: names, order, heads, hints, errors."""

from __future__ import annotations

import json
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest
from operators import run_mxnet

import mxtrt
from mxtrt.errors import BadModel, BadOption, BadParams, ShapesDisagree
from mxtrt.options import read_options
from mxtrt.symbol import load_symbol, read_symbol

ODD_NAMES = ["a/b", "with space", "quo'te", 'double"quote', "back\\slash", "größe", "層", "a:0"]


def dense(data: mx.sym.Symbol, name: str, units: int = 4) -> mx.sym.Symbol:
    return mx.sym.FullyConnected(data, num_hidden=units, name=name)


def relu(data: mx.sym.Symbol, name: str) -> mx.sym.Symbol:
    return mx.sym.Activation(data, act_type="relu", name=name)


def weights(*names: str, units: int = 4, width: int = 4) -> dict[str, mx.nd.NDArray]:
    rng = np.random.default_rng(0)
    params = {}
    for name in names:
        params[f"{name}_weight"] = mx.nd.array(rng.standard_normal((units, width)))
        params[f"{name}_bias"] = mx.nd.array(rng.standard_normal(units))
    return params


def check_same(
    symbol: mx.sym.Symbol, params: dict[str, mx.nd.NDArray], **options: object
) -> mx.sym.Symbol:
    """Optimise, compare names and outputs with MXNet's, and return the optimised symbol."""
    optimized, kept = mxtrt.optimize(symbol, params, **options)
    assert optimized.list_outputs() == symbol.list_outputs()
    free = [name for name in symbol.list_arguments() if name not in params]
    assert [name for name in optimized.list_arguments() if name not in kept] == free
    rng = np.random.default_rng(1)
    inputs = {name: rng.standard_normal((3, 4)).astype("float32") for name in free}
    arrays = {name: array.asnumpy() for name, array in params.items()}
    expected = run_mxnet(symbol, {**inputs, **arrays})
    found = run_mxnet(optimized, {**inputs, **{n: a.asnumpy() for n, a in kept.items()}})
    for want, have in zip(expected, found):
        np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-5)
    return optimized


def test_graph_prints_as_a_table() -> None:
    graph = read_symbol(relu(dense(mx.sym.var("data"), "fc"), "act"), weights("fc"), read_options())
    lines = str(graph).splitlines()
    assert lines[1].split() == [
        *("FullyConnected", "fc", "data,", "fc_weight,", "fc_bias"),
        *("fc_output", "(?,", "4)", "float32"),
    ]
    assert len({line.index("fc_output" if "fc_o" in line else "o") for line in lines[1:2]}) == 1


def test_several_heads_keep_order_and_names() -> None:
    x = dense(mx.sym.var("data"), "fc")
    symbol = mx.sym.Group([relu(x, "act"), x, mx.sym.tanh(x, name="t")])
    check_same(symbol, weights("fc"))


def test_the_same_head_twice() -> None:
    x = relu(dense(mx.sym.var("data"), "fc"), "act")
    check_same(mx.sym.Group([x, x]), weights("fc"))
    check_same(mx.sym.Group([x, dense(x, "fc2"), x]), weights("fc", "fc2"))


def test_an_input_and_a_parameter_as_heads() -> None:
    data = mx.sym.var("data")
    weight = mx.sym.var("fc_weight")
    x = relu(mx.sym.FullyConnected(data, weight, num_hidden=4, name="fc"), "act")
    optimized = check_same(mx.sym.Group([x, data, weight]), weights("fc"))
    assert "fc_weight" in optimized.list_arguments()


@pytest.mark.parametrize("heads", [(0, 1), (1, 0), (1,), (0,), (1, 1)])
def test_heads_of_a_node_with_several_outputs(heads: tuple[int, ...]) -> None:
    x = mx.sym.SliceChannel(dense(mx.sym.var("data"), "fc"), num_outputs=2, name="split")
    check_same(mx.sym.Group([x[i] for i in heads]), weights("fc"))
    both = mx.sym.Group([*(x[i] for i in heads), mx.sym.tanh(x[0], name="t")])
    check_same(both, weights("fc"))


def test_a_name_that_only_the_operator_gives_stays_in_mxnet() -> None:
    symbol = mx.sym.LayerNorm(dense(mx.sym.var("data"), "fc"), output_mean_var=True, name="ln")
    params = {**weights("fc"), "ln_gamma": mx.nd.ones(4), "ln_beta": mx.nd.zeros(4)}
    assert symbol.list_outputs() == ["ln_output", "ln_mean", "ln_std"]
    check_same(symbol, params, min_subgraph_size=1)
    assert "only LayerNorm can give" in str(list(mxtrt.explain(symbol, params).left.values()))


@pytest.mark.parametrize("name", ODD_NAMES)
def test_names_with_odd_characters(name: str) -> None:
    x = relu(dense(mx.sym.var(name), f"{name} fc"), f"{name} act")
    check_same(mx.sym.Group([x, dense(x, f"{name}2")]), weights(f"{name} fc", f"{name}2"))


def test_two_nodes_of_one_name() -> None:
    x = relu(dense(mx.sym.var("data"), "fc"), "same")
    check_same(mx.sym.Group([relu(mx.sym.negative(x), "same"), x]), weights("fc"))


def test_shared_weights() -> None:
    data, weight = mx.sym.var("data"), mx.sym.var("w_weight")
    once = mx.sym.FullyConnected(data, weight, num_hidden=4, no_bias=True, name="a")
    twice = mx.sym.FullyConnected(once, weight, num_hidden=4, no_bias=True, name="b")
    check_same(twice, {"w_weight": weights("w")["w_weight"]})


def test_a_weight_used_inside_and_outside_a_part_stays_in_the_params() -> None:
    data, weight = mx.sym.var("data"), mx.sym.var("fc_weight")
    inside = relu(mx.sym.FullyConnected(data, weight, num_hidden=4, name="fc"), "act")
    symbol = mx.sym.broadcast_mul(inside, mx.sym.sum(weight, name="outside"), name="out")
    params = weights("fc")
    optimized, kept = mxtrt.optimize(symbol, params, exclude_nodes=["outside"])
    assert list(kept) == ["fc_weight"]
    check_same(symbol, params, exclude_nodes=["outside"])
    assert "fc_bias" not in optimized.list_arguments()


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_weights_of_other_dtypes(dtype: str) -> None:
    # MXNet has no FullyConnected in float16 on the CPU
    symbol = relu(mx.sym.broadcast_mul(mx.sym.var("data"), mx.sym.var("fc_weight")), "act")
    params = {"fc_weight": weights("fc")["fc_weight"].astype(dtype)}
    optimized, _ = mxtrt.optimize(symbol, params)
    data = np.random.default_rng(1).standard_normal((4, 4)).astype(dtype)
    arrays = {name: array.asnumpy() for name, array in params.items()}
    want, have = run_mxnet(symbol, {"data": data, **arrays}), run_mxnet(optimized, {"data": data})
    assert have[0].dtype == dtype
    tolerance = 1e-3 if dtype == "float16" else 1e-15  # one rounding
    np.testing.assert_allclose(have[0], want[0], rtol=tolerance, atol=tolerance)


def test_shape_and_dtype_hints_of_variables_are_read() -> None:
    data = mx.sym.var("data", shape=(0, 4), dtype="float64")
    graph = read_symbol(mx.sym.tanh(data), None, read_options())
    assert (graph.variables[0].shape, graph.variables[0].dtype) == ((None, 4), "float64")


def test_convolution_weights_imply_rank_and_channels() -> None:
    x = (mx.sym.var("data") - 127.5) * 0.0078125
    symbol = mx.sym.Convolution(x, kernel=(3, 3), num_filter=8, num_group=2, name="c")
    params = {"c_weight": mx.nd.zeros((8, 3, 3, 3)), "c_bias": mx.nd.zeros(8)}
    graph = read_symbol(symbol, params, read_options())
    assert graph.variables[0].shape == (None, 6, None, None)
    assert graph.heads[0].shape == (None, 8, None, None)


def test_a_flattening_dense_layer_closes_unknown_sizes() -> None:
    x = mx.sym.Convolution(mx.sym.var("data"), kernel=(3, 3), num_filter=8, name="c")
    params = {
        "c_weight": mx.nd.zeros((8, 3, 3, 3)),
        "c_bias": mx.nd.zeros(8),
        **weights("fc", width=32),
    }
    graph = read_symbol(dense(mx.sym.Flatten(x), "fc"), params, read_options())
    assert graph.heads[0].shape == (None, 4)


def test_sizes_stay_open_where_they_follow_the_input() -> None:
    data = mx.sym.var("data")
    symbol = mx.sym.Group([mx.sym.concat(data, data, dim=1), mx.sym.sum(data, axis=(2, 3))])
    graph = read_symbol(symbol, None, read_options({"data": (None, 3, None, 7)}))
    assert [head.shape for head in graph.heads] == [(None, 6, None, 7), (None, 3)]


@pytest.mark.parametrize("legacy_key", ["param", "attr"])
def test_old_symbol_files(tmp_path: Path, legacy_key: str) -> None:
    nodes = json.loads(relu(dense(mx.sym.var("data"), "fc"), "act").tojson())
    for node in nodes["nodes"]:
        if "attrs" in node:
            node[legacy_key] = node.pop("attrs")
    del nodes["attrs"]
    path = tmp_path / "old-symbol.json"
    path.write_text(json.dumps(nodes))
    check_same(load_symbol(path), weights("fc"))


class TestBadInput:
    """Each mistake is one sentence that names what, where and what to do."""

    symbol = relu(dense(mx.sym.var("data"), "fc"), "act")

    def test_missing_parameter(self) -> None:
        params = weights("fc")
        del params["fc_bias"]
        with pytest.raises(BadParams, match=r"lacks 'fc_bias'.*FullyConnected 'fc'.*shapes="):
            mxtrt.optimize(self.symbol, params)

    def test_missing_auxiliary_state(self) -> None:
        symbol = mx.sym.BatchNorm(mx.sym.var("data"), name="bn")
        params = {
            "bn_gamma": mx.nd.ones(4),
            "bn_beta": mx.nd.ones(4),
            "bn_moving_mean": mx.nd.ones(4),
        }
        with pytest.raises(BadParams, match="lacks 'bn_moving_var'"):
            mxtrt.optimize(symbol, params)

    def test_a_weight_may_be_an_input(self) -> None:
        params = weights("fc")
        del params["fc_weight"]
        optimized, _ = mxtrt.optimize(self.symbol, params, shapes={"fc_weight": (4, 4)})
        assert optimized.list_arguments() == ["data", "fc_weight"]

    def test_extra_parameter(self) -> None:
        params = {**weights("fc"), "fc_wieght": mx.nd.ones(1)}
        with pytest.raises(
            BadParams, match=r"'fc_wieght'.*did you mean 'fc_weight'.*allow_extra_params"
        ):
            mxtrt.optimize(self.symbol, params)
        _, kept = mxtrt.optimize(self.symbol, params, allow_extra_params=True)
        assert list(kept) == ["fc_wieght"]

    def test_parameter_of_a_wrong_shape(self) -> None:
        params = {**weights("fc"), "fc_bias": mx.nd.ones(5)}
        with pytest.raises(
            BadParams, match=r"'fc_bias' has shape \(5,\); FullyConnected 'fc' needs \(4,\)"
        ):
            mxtrt.optimize(self.symbol, params, shapes={"data": (1, 4)})
        with pytest.raises(BadParams, match="fc_bias"):
            mxtrt.optimize(self.symbol, params)

    def test_input_of_a_wrong_shape(self) -> None:
        with pytest.raises((BadParams, ShapesDisagree), match="fc"):
            mxtrt.optimize(self.symbol, weights("fc"), shapes={"data": (1, 5)})

    def test_dtypes_that_do_not_fit(self) -> None:
        with pytest.raises(ShapesDisagree, match="dtypes do not fit"):
            mxtrt.optimize(self.symbol, weights("fc"), dtypes={"data": "float16"})

    def test_unknown_input_name(self) -> None:
        with pytest.raises(BadOption, match="no input 'dat'; did you mean 'data'"):
            mxtrt.optimize(self.symbol, weights("fc"), shapes={"dat": (1, 4)})
        with pytest.raises(BadOption, match="'fc_bias' is a parameter"):
            mxtrt.optimize(self.symbol, weights("fc"), dtypes={"fc_bias": "float32"})

    def test_files_that_are_missing_or_damaged(self, tmp_path: Path) -> None:
        symbol, params = tmp_path / "n-symbol.json", tmp_path / "n-0000.params"
        with pytest.raises(BadModel, match="no such symbol file"):
            mxtrt.optimize(symbol, params)
        self.symbol.save(str(symbol))
        with pytest.raises(BadModel, match="no such params file"):
            mxtrt.optimize(symbol, params)
        mx.nd.save(str(params), weights("fc"))
        whole = params.read_bytes()
        for size in (0, 7, 40, len(whole) - 1):
            params.write_bytes(whole[:size])
            with pytest.raises(BadModel, match=r"n-0000\.params: not a params file"):
                mxtrt.optimize(symbol, params)
        params.write_bytes(whole)
        for text in ("", "{", symbol.read_text()[:-30], '{"nodes": 3}', "[]"):
            symbol.write_text(text)
            with pytest.raises(BadModel, match="n-symbol"):
                mxtrt.optimize(symbol, params)

    def test_an_operator_that_mxnet_does_not_have(self, tmp_path: Path) -> None:
        path = tmp_path / "n-symbol.json"
        path.write_text(self.symbol.tojson().replace('"Activation"', '"NoSuchOperator"'))
        with pytest.raises(BadModel, match="NoSuchOperator"):
            mxtrt.optimize(path, weights("fc"))

    def test_models_and_params_of_a_wrong_type(self) -> None:
        with pytest.raises(BadModel, match="model is a int"):
            mxtrt.optimize(3)
        with pytest.raises(BadParams, match="params is a int"):
            mxtrt.optimize(self.symbol, 3)
        with pytest.raises(BadParams, match="'fc_weight' is a ndarray"):
            mxtrt.optimize(self.symbol, {"fc_weight": np.ones((4, 4))})


def test_a_square_image_is_not_taken_for_a_constant_one() -> None:
    symbol = mx.sym.image.resize(mx.sym.var("data"), size=4, keep_ratio=True)
    graph = read_symbol(symbol, None, read_options({"data": (None, None, 3)}))
    assert graph.heads[0].shape == (None, None, 3)


def test_casts_of_mixed_precision_are_nodes() -> None:
    """By default MXNet writes no amp_cast, and other ones for inner tensors than for outputs."""
    a, b = mx.sym.amp_multicast(mx.sym.var("x"), mx.sym.var("y"), num_outputs=2)
    symbol = mx.sym.Group([mx.sym.exp(a + b, name="sum"), mx.sym.tanh(a, name="first")])
    graph = read_symbol(symbol, None, read_options())
    assert [graph.producer[head].name for head in graph.heads] == ["sum", "first"]
    fed = {"x": np.ones((2, 3), "float32"), "y": np.full((2, 3), 2, "float32")}
    optimized, _ = mxtrt.optimize(symbol, shapes={"x": (2, 3), "y": (2, 3)})
    for found, expected in zip(run_mxnet(optimized, fed), run_mxnet(symbol, fed)):
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def shape_of(symbol: mx.sym.Symbol, **shapes: tuple[int | None, ...]) -> tuple[int | None, ...]:
    return read_symbol(symbol, None, read_options(shapes)).heads[0].shape


def test_sizes_that_mxnet_infers_only_from_numbers() -> None:
    """Anchors are cut to a map of unknown size; the best 1000 boxes are taken of unknown ones."""
    x, y = mx.sym.var("x"), mx.sym.var("y")
    image = (None, 3, None, None)
    cut = mx.sym.slice_like(x, y, axes=(2, -1))
    assert shape_of(cut, x=(1, 2, 64, 64), y=image) == (1, 2, None, None)
    assert shape_of(cut, x=(1, 2, 64, 64), y=(None, None, 5, None)) == (1, 2, 5, None)
    assert shape_of(mx.sym.slice_like(x, y), x=(8, 9, 9, 9), y=image) == (None, 3, None, None)
    listed = mx.sym.slice_like(x, y, axes=[2, 3])
    assert shape_of(listed, x=(1, 2, 64, 64), y=image) == (1, 2, None, None)
    best = mx.sym.slice_axis(x, axis=1, begin=0, end=1000)
    assert shape_of(best, x=(None, None, 5)) == (None, 1000, 5)
    joined = mx.sym.concat(x, y, dim=-1)
    assert shape_of(joined, x=(300, 1), y=(None, 4)) == (300, 5)
    assert shape_of(joined, x=(300, 1), y=(None, None)) == (300, None)


def test_sizes_that_have_to_agree() -> None:
    x, y = mx.sym.var("x"), mx.sym.var("y")
    assert shape_of(x + y, x=(None, 8, None), y=(None, None, 3)) == (None, 8, 3)
    added = mx.sym.broadcast_add(x, y)
    assert shape_of(added, x=(None, None, None, 1), y=(1, None, 64, 1)) == (None, None, 64, 1)
    assert shape_of(mx.sym.reshape_like(x, y), x=(None, 128), y=(7, None, 128)) == (7, None, 128)
    part = mx.sym.reshape_like(x, y, lhs_begin=0, lhs_end=1, rhs_begin=0, rhs_end=-1)
    assert shape_of(part, x=(None, 128), y=(7, None, 9)) == (7, None, 128)


@pytest.mark.parametrize(
    ("codes", "reverse", "data"),
    [((0, -1), False, (2, 3, 4)), ((-3, 4), False, (2, 6, 4)),
     ((2, -4, -1, 3, 0), False, (2, 3, 4)),
     ((-1, 0, 0), True, (2, 3, 4)), ((0, 2, -1, -4, 0), True, (3, 6, 4)),
     ((-3, 0), True, (2, 3, 4)),
     ((-2, 1), False, (2, 3))],
)  # fmt: skip
def test_codes_of_reshape_say_how_many_axes_there_are(
    codes: tuple[int, ...], reverse: bool, data: tuple[int, ...]
) -> None:
    symbol = mx.sym.Reshape(mx.sym.var("data"), shape=codes, reverse=reverse)
    (made,) = symbol.infer_shape(data=data)[1]
    found = shape_of(symbol)
    if -2 in codes:
        assert found is None
    else:
        assert found is not None
        assert len(found) == len(made)
        assert all(size in {None, there} for size, there in zip(found, made))
