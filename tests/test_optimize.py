"""The optimised symbol in every place where MXNet users put a symbol."""

from __future__ import annotations

import gc
import os
import threading
import warnings
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import pytest

import mxtrt
from mxtrt.errors import BadModel, BadOption, EngineError
from mxtrt.operator import engines

BATCH = 4
IMAGE = (3, 12, 12)


def small_net() -> mx.sym.Symbol:
    """A net with a residual sum, aux states, a label, and an operator that ONNX lacks no more."""
    data = mx.sym.var("data")
    x = mx.sym.Convolution(data, kernel=(3, 3), pad=(1, 1), num_filter=8, name="conv1")
    x = mx.sym.BatchNorm(x, fix_gamma=False, name="bn1")
    x = mx.sym.Activation(x, act_type="relu", name="relu1")
    y = mx.sym.Convolution(x, kernel=(3, 3), pad=(1, 1), num_filter=8, name="conv2")
    x = mx.sym.Activation(x + y, act_type="relu", name="relu2")
    x = mx.sym.Pooling(x, kernel=(2, 2), stride=(2, 2), pool_type="max", name="pool")
    x = mx.sym.FullyConnected(mx.sym.Flatten(x, name="flat"), num_hidden=5, name="fc")
    return mx.sym.SoftmaxOutput(x, name="softmax")


def init_params(symbol: mx.sym.Symbol, **shapes: tuple[int, ...]) -> tuple[dict, dict]:
    rng = np.random.default_rng(0)
    arg_shapes, _, aux_shapes = symbol.infer_shape(**shapes)

    def arrays(names: list[str], sizes: list[tuple[int, ...]]) -> dict[str, mx.nd.NDArray]:
        # positive, so that they can be variances too
        made = {n: rng.uniform(0.1, 1, s) / np.sqrt(s[-1]) for n, s in zip(names, sizes)}
        return {n: mx.nd.array(a) for n, a in made.items() if n not in shapes and "label" not in n}

    aux = arrays(symbol.list_auxiliary_states(), aux_shapes)
    return arrays(symbol.list_arguments(), arg_shapes), aux


SYMBOL = small_net()
ARGS, AUX = init_params(SYMBOL, data=(BATCH, *IMAGE))


def images(batch: int = BATCH, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((batch, *IMAGE)).astype("float32")


def reference(data: np.ndarray) -> np.ndarray:
    arrays = {"data": mx.nd.array(data), "softmax_label": mx.nd.zeros(len(data)), **ARGS}
    return SYMBOL.bind(mx.cpu(), arrays, aux_states=AUX, grad_req="null").forward()[0].asnumpy()


def assert_same(found: np.ndarray, data: np.ndarray) -> None:
    np.testing.assert_allclose(found, reference(data), rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def optimized() -> mx.sym.Symbol:
    symbol, (args, aux) = mxtrt.optimize(SYMBOL, (ARGS, AUX))
    assert (args, aux) == ({}, {})
    assert symbol.list_arguments() == ["data"]
    return symbol


@pytest.fixture(scope="module")
def divided() -> mx.sym.Symbol:
    """The same net in two parts, with nodes and parameters that stay in MXNet."""
    symbol, _ = mxtrt.optimize(SYMBOL, (ARGS, AUX), exclude_nodes=["conv2"])
    assert len(mxtrt.report(symbol).parts) == 2
    return symbol


class TestParams:
    """Parameters come back in the form they came in."""

    def test_pair_and_list(self) -> None:
        for form in ((ARGS, AUX), [ARGS, AUX]):
            _, kept = mxtrt.optimize(SYMBOL, form, exclude_nodes=["conv1", "bn1"])
            assert type(kept) is type(form)
            assert set(kept[0]) == {"conv1_weight", "conv1_bias", "bn1_gamma", "bn1_beta"}
            assert set(kept[1]) == {"bn1_moving_mean", "bn1_moving_var"}

    @pytest.mark.parametrize("prefixed", [True, False])
    def test_dict(self, prefixed: bool) -> None:
        arg, aux = ("arg:", "aux:") if prefixed else ("", "")
        params = {f"{arg}{n}": a for n, a in ARGS.items()}
        params.update({f"{aux}{n}": a for n, a in AUX.items()})
        _, kept = mxtrt.optimize(SYMBOL, params, exclude_nodes=["bn1"], min_subgraph_size=1)
        assert set(kept) == {
            *(f"{arg}bn1_{n}" for n in ("gamma", "beta")),
            *(f"{aux}bn1_moving_{n}" for n in ("mean", "var")),
        }
        assert all(kept[name] is params[name] for name in kept)

    def test_the_callers_dict_is_left_alone(self) -> None:
        params = {**ARGS, **AUX}
        mxtrt.optimize(SYMBOL, params)
        assert set(params) == {*ARGS, *AUX}

    def test_paths(self, tmp_path: Path) -> None:
        prefix = str(tmp_path / "net")
        mx.model.save_checkpoint(prefix, 3, SYMBOL, ARGS, AUX)
        symbol, kept = mxtrt.optimize(f"{prefix}-symbol.json", Path(f"{prefix}-0003.params"))
        assert kept == {}
        assert_same(
            symbol.bind(mx.cpu(), {"data": mx.nd.array(images())}).forward()[0].asnumpy(), images()
        )

    def test_a_checkpoint_of_parts_without_aux(self) -> None:
        symbol = SYMBOL.get_internals()["conv1_output"]
        params = {"conv1_weight": ARGS["conv1_weight"], "conv1_bias": ARGS["conv1_bias"]}
        _, kept = mxtrt.optimize(symbol, (params, {}), min_subgraph_size=1)
        assert kept == ({}, {})


@pytest.mark.parametrize("which", ["optimized", "divided"])
class TestUse:
    """Everything a user does with a symbol."""

    @pytest.fixture
    def symbol(self, which: str, request: pytest.FixtureRequest) -> mx.sym.Symbol:
        return request.getfixturevalue(which)

    @pytest.fixture
    def rest(self, symbol: mx.sym.Symbol) -> tuple[dict, dict]:
        aux = {n: AUX[n] for n in symbol.list_auxiliary_states()}
        return {n: ARGS[n] for n in symbol.list_arguments() if n in ARGS}, aux

    def test_bind(self, symbol: mx.sym.Symbol, rest: Any) -> None:
        data = images()
        executor = symbol.bind(mx.cpu(), {"data": mx.nd.array(data), **rest[0]}, aux_states=rest[1])
        assert_same(executor.forward()[0].asnumpy(), data)
        executor.forward(data=mx.nd.array(images(seed=1)))
        assert_same(executor.outputs[0].asnumpy(), images(seed=1))

    def test_simple_bind_and_reshape(self, symbol: mx.sym.Symbol, rest: Any) -> None:
        executor = symbol.simple_bind(mx.cpu(), data=(BATCH, *IMAGE), grad_req="null")
        executor.copy_params_from(*rest)
        executor.forward(is_train=False, data=mx.nd.array(images()))
        assert_same(executor.outputs[0].asnumpy(), images())
        for batch in (1, 7):
            other = executor.reshape(data=(batch, *IMAGE), allow_up_sizing=True)
            other.forward(is_train=False, data=mx.nd.array(images(batch)))
            assert_same(other.outputs[0].asnumpy(), images(batch))

    @pytest.mark.parametrize("labels", [True, False])
    def test_module(self, symbol: mx.sym.Symbol, rest: Any, labels: bool) -> None:
        module = mx.mod.Module(symbol, label_names=["softmax_label"] if labels else None)
        label_shapes = [("softmax_label", (BATCH,))] if labels else None
        module.bind([("data", (BATCH, *IMAGE))], label_shapes, for_training=False)
        module.set_params(*rest)
        for batch in (BATCH, 2, 9):
            data = images(batch)
            label = [mx.nd.zeros(batch)] if labels else None
            module.forward(mx.io.DataBatch([mx.nd.array(data)], label), is_train=False)
            assert_same(module.get_outputs()[0].asnumpy(), data)

    def test_module_predict_over_an_iterator(self, symbol: mx.sym.Symbol, rest: Any) -> None:
        data = images(10)
        batches = mx.io.NDArrayIter(data, np.zeros(10), batch_size=BATCH)
        module = mx.mod.Module(symbol)
        module.bind(batches.provide_data, batches.provide_label, for_training=False)
        module.set_params(*rest)
        assert_same(module.predict(batches).asnumpy(), data)
        assert module.score(batches, "acc")[0][1] >= 0

    @pytest.mark.parametrize(
        "flags", [{}, {"static_alloc": True}, {"static_alloc": True, "static_shape": True}]
    )
    def test_symbol_block(self, symbol: mx.sym.Symbol, rest: Any, flags: Any) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MXNet cannot infer the dtype of the input here
            block = mx.gluon.SymbolBlock(symbol, [mx.sym.var("data")])
        for name, parameter in block.collect_params().items():
            parameter.initialize(ctx=mx.cpu())
            parameter.set_data({**rest[0], **rest[1]}[name])
        block.hybridize(**flags)
        for batch in (BATCH, BATCH, 1, 6):
            assert_same(block(mx.nd.array(images(batch))).asnumpy(), images(batch))

    def test_json(self, symbol: mx.sym.Symbol, rest: Any, tmp_path: Path) -> None:
        again = mx.sym.load_json(symbol.tojson())
        arrays = {"data": mx.nd.array(images()), **rest[0]}
        assert_same(
            again.bind(mx.cpu(), arrays, aux_states=rest[1]).forward()[0].asnumpy(), images()
        )
        symbol.save(str(tmp_path / "s.json"))
        again = mx.sym.load(str(tmp_path / "s.json"))
        assert_same(
            again.bind(mx.cpu(), arrays, aux_states=rest[1]).forward()[0].asnumpy(), images()
        )

    def test_internals_and_composition(self, symbol: mx.sym.Symbol, rest: Any) -> None:
        head = symbol.get_internals()["softmax_output"]
        doubled = mx.sym.broadcast_add(head, head)
        arrays = {"data": mx.nd.array(images()), **rest[0]}
        found = doubled.bind(mx.cpu(), arrays, aux_states=rest[1]).forward()[0].asnumpy()
        assert_same(found / 2, images())

    def test_eight_threads(self, symbol: mx.sym.Symbol, rest: Any) -> None:
        failures: list[BaseException] = []

        def work(seed: int) -> None:
            try:
                data = images(1 + seed % 3, seed)
                arrays = {"data": mx.nd.array(data), **rest[0]}
                executor = symbol.bind(mx.cpu(), arrays, aux_states=rest[1], grad_req="null")
                expected = executor.forward()[0].asnumpy()
                for _ in range(25):
                    np.testing.assert_array_equal(executor.forward()[0].asnumpy(), expected)
                results[seed] = expected
            except BaseException as error:
                failures.append(error)

        results: dict[int, np.ndarray] = {}
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        for seed, found in results.items():
            assert_same(found, images(1 + seed % 3, seed))

    def test_a_wrong_input_raises_a_sentence_and_the_next_call_works(
        self, symbol: mx.sym.Symbol, rest: Any
    ) -> None:
        with pytest.raises(RuntimeError, match=r"cannot take data \(4, 5, 12, 12\)"):
            symbol.simple_bind(mx.cpu(), data=(BATCH, 5, 12, 12))
        with pytest.raises(RuntimeError, match="cannot take data"):
            symbol.simple_bind(mx.cpu(), data=(BATCH, 12))
        with pytest.raises(mx.MXNetError, match=r"'data' is float64.*converted for float32"):
            arrays = {"data": mx.nd.array(images(), dtype="float64"), **rest[0]}
            symbol.bind(mx.cpu(), arrays, aux_states=rest[1])
        self.test_bind(symbol, rest)


def test_train_mode_is_inference_all_the_same(optimized: mx.sym.Symbol) -> None:
    executor = optimized.bind(mx.cpu(), {"data": mx.nd.array(images())})
    assert_same(executor.forward(is_train=True)[0].asnumpy(), images())


class TestSizes:
    """Batch and image size may change from call to call where the net lets them."""

    def test_a_fully_convolutional_net_without_shapes(self) -> None:
        symbol = SYMBOL.get_internals()["relu2_output"]
        args = {n: a for n, a in ARGS.items() if n in symbol.list_arguments()}
        optimized, _ = mxtrt.optimize(symbol, (args, AUX))
        assert optimized.list_arguments() == ["data"]
        for shape in ((1, 3, 12, 12), (2, 3, 31, 8), (1, 3, 1, 1)):
            data = mx.nd.random.normal(shape=shape)
            want = symbol.bind(mx.cpu(), {"data": data, **args}, aux_states=AUX).forward()[0]
            have = optimized.bind(mx.cpu(), {"data": data}).forward()[0]
            np.testing.assert_allclose(have.asnumpy(), want.asnumpy(), rtol=1e-4, atol=1e-5)

    def test_static_shapes_hold_for_other_batches_too(self) -> None:
        optimized, _ = mxtrt.optimize(SYMBOL, (ARGS, AUX), shapes={"data": (BATCH, *IMAGE)})
        executor = optimized.bind(mx.cpu(), {"data": mx.nd.array(images(2))})
        with pytest.raises(mx.MXNetError, match="data"):
            executor.forward()[0].asnumpy()

    def test_ranges_are_open_sizes(self) -> None:
        shapes = {"data": ((1, 4, 16), *IMAGE)}
        optimized, _ = mxtrt.optimize(SYMBOL, (ARGS, AUX), shapes=shapes)
        executor = optimized.bind(mx.cpu(), {"data": mx.nd.array(images(2))})
        assert_same(executor.forward()[0].asnumpy(), images(2))


class TestOptions:
    """Misspelt and impossible options."""

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            (
                {"engine": "onnxruntim"},
                "engine='onnxruntim' is none of.*did you mean 'onnxruntime'",
            ),
            ({"min_subgraph_size": 0}, "min_subgraph_size=0 must be an integer of at least 1"),
            ({"exclude_ops": "Convolution"}, r"must be a list of names, such as \['Convolution'\]"),
            ({"shapes": {"data": (0.5, 3)}}, "the size 0.5 of 'data' must be a number, None"),
            ({"shapes": {"data": ((4, 2, 1), 3)}}, r"the range \(4, 2, 1\).*ascending"),
            ({"shapes": 3}, "shapes=3 must be a dict"),
            ({"dtypes": {"data": "flaot32"}}, "'flaot32' of 'data' is not a dtype"),
            ({"dtypes": {"data": "complex64"}}, "'data' cannot be complex64"),
            (
                {"session_options": {"intra_op_num_thread": 1}},
                "did you mean 'intra_op_num_threads'",
            ),
            ({"strict": "yes"}, "strict='yes' must be True or False"),
        ],
    )
    def test_bad_option(self, options: dict[str, Any], sentence: str) -> None:
        with pytest.raises(BadOption, match=sentence):
            mxtrt.optimize(SYMBOL, (ARGS, AUX), **options)

    def test_misspelt_option_of_explain(self) -> None:
        with pytest.raises(BadOption, match="no option 'shape'; did you mean 'shapes'"):
            mxtrt.explain(SYMBOL, (ARGS, AUX), shape={})


class TestFailures:
    """Engines that fail, while they are built and while they run."""

    @pytest.fixture
    def broken_build(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from mxtrt.engines import onnxruntime

        def build(*_: object) -> None:
            raise EngineError("no engine today")

        monkeypatch.setattr(onnxruntime, "build", build)

    @pytest.mark.usefixtures("broken_build")
    def test_a_part_that_cannot_be_built_stays_in_mxnet_with_a_warning(self) -> None:
        with pytest.warns(UserWarning, match=r"mxtrt0 \(10 operators\) stays.*no engine today"):
            symbol, kept = mxtrt.optimize(SYMBOL, (ARGS, AUX))
        assert symbol.tojson() == SYMBOL.tojson()
        assert set(kept[0]) == set(ARGS)

    @pytest.mark.usefixtures("broken_build")
    def test_strict_raises_instead(self) -> None:
        with pytest.raises(EngineError, match="no engine today"):
            mxtrt.optimize(SYMBOL, (ARGS, AUX), strict=True)

    def test_an_engine_that_raises_in_the_middle(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from mxtrt.engines.onnxruntime import OnnxRuntimeEngine

        run = OnnxRuntimeEngine.execute
        fail = [True]

        def execute(self: Any, inputs: Any, outputs: Any, stream: int) -> None:
            if fail[0]:
                raise EngineError("the engine broke")
            run(self, inputs, outputs, stream)

        monkeypatch.setattr(OnnxRuntimeEngine, "execute", execute)
        symbol, _ = mxtrt.optimize(SYMBOL, (ARGS, AUX))
        executor = symbol.bind(mx.cpu(), {"data": mx.nd.array(images())})
        with pytest.raises(mx.MXNetError, match="the engine broke"):
            executor.forward()[0].asnumpy()
        fail[0] = False
        assert_same(executor.forward()[0].asnumpy(), images())

    def test_a_released_engine_says_so(self) -> None:
        symbol, _ = mxtrt.optimize(SYMBOL, (ARGS, AUX))
        mxtrt.release(symbol)
        with pytest.raises(RuntimeError, match="no engine is registered"):
            symbol.simple_bind(mx.cpu(), data=(BATCH, *IMAGE))
        with pytest.raises(BadModel, match="holds no engine of this process"):
            mxtrt.report(symbol)


class TestMemory:
    """No weight is held twice, and calls take no memory."""

    def test_a_released_engine_goes_at_once(self) -> None:
        """Without waiting for the garbage collector: it may hold memory of a GPU."""
        symbol, _ = mxtrt.optimize(SYMBOL, (ARGS, AUX))
        symbol.eval(mx.cpu(), data=mx.nd.array(images()))[0].wait_to_read()
        gc.collect()
        [engine] = [weakref.ref(engine) for engine in engines(symbol)]
        gc.disable()
        try:
            mxtrt.release(symbol)
            assert engine() is None
        finally:
            gc.enable()

    def test_the_engines_do_not_hold_mxnets_arrays(self) -> None:
        arrays: Any = (
            {n: a.copy() for n, a in ARGS.items()},
            {n: a.copy() for n, a in AUX.items()},
        )
        symbol, _ = mxtrt.optimize(SYMBOL, arrays)
        gc.collect()
        for array in (*arrays[0].values(), *arrays[1].values()):
            # one reference from the dict, one from the loop, one from the call
            assert len([r for r in gc.get_referrers(array) if isinstance(r, dict)]) == 1
            array[:] = float("nan")  # and they are not read any more
        executor = symbol.bind(mx.cpu(), {"data": mx.nd.array(images())})
        assert_same(executor.forward()[0].asnumpy(), images())

    def test_calls_do_not_grow(self, optimized: mx.sym.Symbol) -> None:
        def calls(count: int) -> Iterator[int]:
            for i in range(count):
                data = mx.nd.array(images(1 + i % 5))
                optimized.bind(mx.cpu(), {"data": data}).forward()[0].wait_to_read()
            with open("/proc/self/statm") as statm:
                yield int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")

        first = next(calls(300))
        assert next(calls(1500)) - first < 8 << 20
