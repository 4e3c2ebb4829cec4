"""The operator library and the bridge, with small parts written in Python."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from contextlib import contextmanager

import mxnet as mx
import numpy as np
import pytest

from mxtrt import _bridge, _library
from mxtrt.errors import EngineError
from mxtrt.gluon.engines import _count_writes

FLAGS = {"float32": 0, "float64": 1, "float16": 2, "uint8": 3, "int32": 4, "int8": 5, "int64": 6}


@pytest.fixture(scope="module", autouse=True)
def library():
    _library.load()


class Identity:
    """Copies its one input to its one output, through NumPy views."""

    def infer_shape(self, shapes):
        return shapes

    def infer_type(self, types):
        return types, types

    def execute(self, inputs, outputs, stream):
        for source, target in zip(inputs, outputs):
            target.to_numpy()[...] = source.to_numpy()


class SumAndDifference(Identity):
    """Takes two inputs of one shape and returns their sum and their difference."""

    def execute(self, inputs, outputs, stream):
        left, right = (buffer.to_numpy() for buffer in inputs)
        outputs[0].to_numpy()[...] = left + right
        outputs[1].to_numpy()[...] = left - right


@contextmanager
def engine(part, *inputs, outputs=1):
    """Register `part` and yield a symbol that runs it on variables called as in `inputs`."""
    key = uuid.uuid4().hex
    _bridge.register(key, part)
    try:
        yield engine_symbol(key, *inputs, outputs=outputs)
    finally:
        mx.nd.waitall()
        _bridge.unregister(key)


def engine_symbol(key, *inputs, outputs=1):
    variables = [mx.sym.var(name) for name in inputs]
    return mx.sym._internal._mxtrt_engine(
        *variables, key=key, num_inputs=len(inputs), num_outputs=outputs
    )


def run(symbol, **arrays):
    return [output.asnumpy() for output in symbol.bind(mx.cpu(), arrays).forward()]


def memory(array):
    """Return the address of an array's memory as MXNet itself tells it."""
    pointer = ctypes.c_void_p()
    array.wait_to_read()
    mx.base.check_call(mx.base._LIB.MXNDArrayGetData(array.handle, ctypes.byref(pointer)))
    return pointer.value


def test_load_again_does_nothing():
    _library.load()
    _library.load()


def test_registered_lists_keys():
    _bridge.register("Schlüssel", Identity())
    assert "Schlüssel" in _bridge.registered()
    _bridge.unregister("Schlüssel")
    _bridge.unregister("Schlüssel")
    assert "Schlüssel" not in _bridge.registered()


# -- data ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLAGS)
@pytest.mark.parametrize("shape", [(1,), (2, 3), (2, 1, 3, 4), (1, 2, 1, 2, 3)])
def test_data_of_every_dtype_and_rank(dtype, shape):
    values = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    with engine(Identity(), "x") as symbol:
        (result,) = run(symbol, x=mx.nd.array(values, dtype=dtype))
    assert result.dtype == values.dtype
    np.testing.assert_array_equal(result, values)


def test_bool_data():
    values = mx.np.array([True, False, True], dtype=bool)
    with engine(Identity(), "x") as symbol:
        block = mx.gluon.SymbolBlock(symbol.as_np_ndarray(), [mx.sym.var("x").as_np_ndarray()])
        result = block(values).asnumpy()
    assert result.dtype == np.bool_
    np.testing.assert_array_equal(result, [True, False, True])


def test_data_without_elements():
    with mx.util.np_shape(True), engine(Identity(), "x") as symbol:
        (result,) = run(symbol, x=mx.nd.zeros((2, 0, 3)))
    assert result.shape == (2, 0, 3)


def test_scalar():
    with mx.util.np_shape(True), engine(Identity(), "x") as symbol:
        (result,) = run(symbol, x=mx.nd.ones(()))
    assert result.shape == ()
    assert result == 1


def test_several_inputs_and_outputs():
    left, right = np.full((2, 2), 5, "float32"), np.full((2, 2), 3, "float32")
    with engine(SumAndDifference(), "a", "b", outputs=2) as symbol:
        sums, differences = run(symbol, a=mx.nd.array(left), b=mx.nd.array(right))
    np.testing.assert_array_equal(sums, left + right)
    np.testing.assert_array_equal(differences, left - right)


def test_no_inputs():
    class Constant(Identity):
        def infer_shape(self, shapes):
            return [(2,)]

        def infer_type(self, types):
            return [], [0]

        def execute(self, inputs, outputs, stream):
            outputs[0].to_numpy()[...] = (1, 2)

    with engine(Constant()) as symbol:
        (result,) = run(symbol)
    np.testing.assert_array_equal(result, [1, 2])


def test_other_shape_and_dtype_than_the_input():
    class Count(Identity):
        def infer_shape(self, shapes):
            return [(shapes[0][0],)]

        def infer_type(self, types):
            return [0], [FLAGS["int64"]]

        def execute(self, inputs, outputs, stream):
            outputs[0].to_numpy()[...] = inputs[0].to_numpy().sum(axis=1)

    with engine(Count(), "x") as symbol:
        (result,) = run(symbol, x=mx.nd.ones((3, 4)))
    assert result.dtype == np.int64
    np.testing.assert_array_equal(result, [4, 4, 4])


def test_between_mxnet_operators():
    # oneDNN keeps convolutions in a layout of its own, which MXNet must undo for the engine.
    data = mx.nd.random.uniform(shape=(2, 3, 8, 8))
    weight = mx.nd.random.uniform(shape=(16, 3, 3, 3))
    before = mx.sym.Convolution(mx.sym.var("x"), kernel=(3, 3), num_filter=16, no_bias=True)
    _, weight_name = before.list_arguments()
    with engine(Identity(), "part") as symbol:
        after = mx.sym.Activation(symbol(part=before), act_type="relu")
        (result,) = run(after, **{"x": data, weight_name: weight})
    (expected,) = run(before, **{"x": data, weight_name: weight})
    np.testing.assert_allclose(result, np.maximum(expected, 0), rtol=1e-6)


# -- buffers ---------------------------------------------------------------------------------------


def test_buffers_are_mxnets_own_memory():
    seen = {}

    class Look(Identity):
        def execute(self, inputs, outputs, stream):
            seen.update(inputs=list(inputs), addresses=[b.address for b in inputs + outputs])
            seen.update(shape=inputs[0].shape, nbytes=inputs[0].nbytes, stream=stream)
            seen.update(dtype=inputs[0].dtype, repr=repr(inputs[0]))
            seen.update(device=(inputs[0].device_type, inputs[0].device_id))
            super().execute(inputs, outputs, stream)

    data = mx.nd.ones((2, 3), dtype="float16")
    with engine(Look(), "x") as symbol:
        executor = symbol.bind(mx.cpu(), {"x": data})
        executor.forward()[0].wait_to_read()
        addresses = [memory(data), memory(executor.outputs[0])]
    assert seen["addresses"] == addresses
    assert (seen["shape"], seen["nbytes"], seen["dtype"]) == ((2, 3), 12, FLAGS["float16"])
    assert (seen["device"], seen["stream"]) == ((1, 0), 0)
    assert f"{addresses[0]:#x}" in seen["repr"]

    # The buffer of a call that is over gives nothing away.
    assert seen["inputs"][0].address == 0
    with pytest.raises(ValueError, match="only while execute runs"):
        seen["inputs"][0].to_numpy()


def test_buffer_offers_its_memory_to_anyone():
    seen = {}

    class Look(Identity):
        def execute(self, inputs, outputs, stream):
            with memoryview(inputs[0]) as view:
                seen.update(format=view.format, shape=view.shape, contiguous=view.c_contiguous)
                memoryview(outputs[0]).cast("B")[:] = view.cast("B")

    with engine(Look(), "x") as symbol:
        (result,) = run(symbol, x=mx.nd.array([[1, 2]], dtype="int32"))
    assert seen == {"format": "i", "shape": (1, 2), "contiguous": True}
    np.testing.assert_array_equal(result, [[1, 2]])


def test_pointers_may_change_between_calls():
    with engine(Identity(), "x") as symbol:
        executor = symbol.simple_bind(mx.cpu(), x=(2, 2))
        for value in range(3):
            executor.copy_params_from({"x": mx.nd.full((2, 2), value)})
            assert executor.forward()[0].asnumpy().sum() == 4 * value
        bigger = executor.reshape(x=(5, 2), allow_up_sizing=True)
        assert bigger.forward(x=mx.nd.ones((5, 2)))[0].asnumpy().sum() == 10


# -- the ways to run a symbol ----------------------------------------------------------------------

HYBRID = {
    "plain": None,
    "hybridized": {},
    "static_alloc": {"static_alloc": True},
    "static_shape": {"static_alloc": True, "static_shape": True},
}


@pytest.mark.parametrize("options", HYBRID.values(), ids=HYBRID)
def test_symbol_block(options):
    with engine(SumAndDifference(), "a", "b", outputs=2) as symbol:
        block = mx.gluon.SymbolBlock(symbol, [mx.sym.var("a"), mx.sym.var("b")])
        if options is not None:
            block.hybridize(**options)
        for rows in (2, 2, 5, 1):
            sums, differences = block(mx.nd.ones((rows, 3)), mx.nd.full((rows, 3), 4))
            assert sums.shape == (rows, 3)
            assert sums.asnumpy().min() == 5
            assert differences.asnumpy().max() == -3


def test_module():
    with engine(Identity(), "data") as symbol:
        module = mx.mod.Module(symbol, label_names=None)
        module.bind([("data", (2, 3))], for_training=False)
        module.init_params()
        batches = mx.io.NDArrayIter(np.arange(12).reshape(4, 3).astype("float32"), batch_size=2)
        result = module.predict(batches).asnumpy()
    np.testing.assert_array_equal(result, np.arange(12).reshape(4, 3))


def test_bind_for_training_runs_forward_and_refuses_backward():
    with engine(Identity(), "x") as symbol:
        executor = symbol.simple_bind(mx.cpu(), x=(2,), grad_req="write")
        executor.forward(is_train=True, x=mx.nd.ones(2))
        assert executor.outputs[0].asnumpy().sum() == 2
        with pytest.raises(mx.MXNetError, match="has no gradient: train the original symbol"):
            executor.backward([mx.nd.ones(2)])
            executor.grad_dict["x"].asnumpy()


def test_json_round_trip():
    with engine(Identity(), "x") as symbol:
        (result,) = run(mx.sym.load_json(symbol.tojson()), x=mx.nd.ones((2,)))
    assert result.sum() == 2


def test_infer_type_completes_inputs():
    class Half(Identity):
        def infer_type(self, types):
            return [2 for _ in types], [0]

    with engine(Half(), "x") as symbol:
        inputs, outputs, _ = symbol.infer_type()
    assert inputs == [np.float16]
    assert outputs == [np.float32]


def test_eight_threads():
    failures = []

    def work(block, value):
        for _ in range(50):
            data = mx.nd.full((4, 4), value)
            if block(data).asnumpy().sum() != 16 * value:
                failures.append(value)

    with engine(Identity(), "x") as symbol:
        blocks = [mx.gluon.SymbolBlock(symbol, [mx.sym.var("x")]) for _ in range(8)]
        threads = [threading.Thread(target=work, args=(block, i)) for i, block in enumerate(blocks)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []


def test_a_slow_part_does_not_hold_the_interpreter():
    class Slow(Identity):
        def execute(self, inputs, outputs, stream):
            time.sleep(0.3)
            super().execute(inputs, outputs, stream)

    with engine(Slow(), "x") as symbol:
        executor = symbol.bind(mx.cpu(), {"x": mx.nd.ones(1)})
        start = time.perf_counter()
        executor.forward()
        assert time.perf_counter() - start < 0.2
        assert executor.outputs[0].asnumpy() == 1


# -- heads -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLAGS)
def test_heads_copy_and_name(dtype):
    names = ["a", "b", "c"]
    heads = mx.sym._internal._mxtrt_heads(*map(mx.sym.var, names), num=3, name="split")
    assert heads.list_outputs() == ["split_output0", "split_output1", "split_output2"]
    arrays = {name: mx.nd.arange(2 * i).astype(dtype) for i, name in enumerate(names, 1)}
    for name, result in zip(names, run(heads, **arrays)):
        assert result.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(result, arrays[name].asnumpy())


# -- errors ----------------------------------------------------------------------------------------


class Failing(Identity):
    """Raises `error` from the function called `where`, until told to stop."""

    def __init__(self, where, error):
        self.where, self.error = where, error

    def _maybe(self, where):
        if self.where == where:
            raise self.error

    def infer_shape(self, shapes):
        self._maybe("infer_shape")
        return super().infer_shape(shapes)

    def infer_type(self, types):
        self._maybe("infer_type")
        return super().infer_type(types)

    def execute(self, inputs, outputs, stream):
        self._maybe("execute")
        super().execute(inputs, outputs, stream)


def message(call):
    # simple_bind wraps MXNetError into a RuntimeError.
    with pytest.raises((mx.MXNetError, RuntimeError)) as caught:
        call()
    return str(caught.value) + "\n"


@pytest.mark.parametrize("where", ["infer_shape", "infer_type"])
def test_error_in_inference_surfaces_at_bind(where):
    part = Failing(where, RuntimeError("the widget is worn"))
    with engine(part, "x") as symbol:
        text = message(lambda: symbol.simple_bind(mx.cpu(), x=(2,)))
        assert "RuntimeError: the widget is worn" in text
        part.where = None
        assert run(symbol, x=mx.nd.ones(2))[0].sum() == 2


def test_error_in_execute_surfaces_at_the_output():
    part = Failing("execute", RuntimeError("the widget is worn"))
    with engine(part, "x") as symbol:
        executor = symbol.simple_bind(mx.cpu(), x=(2,))
        outputs = executor.forward(x=mx.nd.ones(2))
        assert "RuntimeError: the widget is worn" in message(outputs[0].asnumpy)
        part.where = None
        assert executor.forward(x=mx.nd.ones(2))[0].asnumpy().sum() == 2


def test_messages_do_not_pile_up():
    part = Failing("execute", ValueError("the first"))
    with engine(part, "x") as symbol:
        executor = symbol.simple_bind(mx.cpu(), x=(2,))
        assert "the first" in message(executor.forward()[0].asnumpy)
        part.error = ValueError("the second")
        text = message(executor.forward()[0].asnumpy)
    assert "the second" in text
    assert "the first" not in text


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (EngineError("a sentence"), "] a sentence\n"),
        (KeyboardInterrupt(), "] KeyboardInterrupt\n"),
        (SystemExit(3), "] SystemExit: 3\n"),
        (ValueError("naïve ✓"), "ValueError: naïve ✓"),
        (ValueError("with\0zero"), "ValueError: with zero"),
        (ValueError("lone \udc80"), "ValueError: lone ?"),
    ],
    ids=["mxtrt", "interrupt", "exit", "unicode", "zero", "surrogate"],
)
def test_text_of_errors(error, expected):
    with engine(Failing("infer_shape", error), "x") as symbol:
        text = message(lambda: symbol.simple_bind(mx.cpu(), x=(2,)))
    assert expected in text


@pytest.mark.parametrize("padding", range(4))
def test_long_errors_end_between_characters(padding):
    error = ValueError("x" * padding + "✓" * 5000)
    with engine(Failing("infer_shape", error), "x") as symbol:
        text = message(lambda: symbol.simple_bind(mx.cpu(), x=(2,)))
    assert text.count("✓") > 1000
    assert "�" not in text


def test_error_that_cannot_be_told():
    class MuteError(Exception):
        def __str__(self):
            raise RuntimeError

    with engine(Failing("infer_shape", MuteError()), "x") as symbol:
        assert "so did its error message" in message(lambda: symbol.simple_bind(mx.cpu(), x=(2,)))


def test_unknown_key():
    symbol = engine_symbol("no such key", "x")
    text = message(lambda: symbol.simple_bind(mx.cpu(), x=(2,)))
    assert "no engine is registered under key 'no such key'" in text
    assert "the process that called mxtrt.optimize" in text


@pytest.mark.parametrize(
    ("inferred", "expected"),
    [
        ([], "returned 0 outputs, not 1"),
        ([(1,) * 33], "33 dimensions"),
        ([(-1,)], "a size below 0"),
        ([("a",)], "TypeError"),
        (None, "TypeError"),
    ],
)
def test_wrong_answers_of_a_part(inferred, expected):
    class Wrong(Identity):
        def infer_shape(self, shapes):
            return inferred

    with engine(Wrong(), "x") as symbol:
        assert expected in message(lambda: symbol.simple_bind(mx.cpu(), x=(2,)))


@pytest.mark.parametrize("count", ["", "two", "-1", "1.5", "99999999999999999999"])
def test_bad_attributes(count):
    text = message(
        lambda: mx.sym._internal._mxtrt_engine(
            mx.sym.var("x"), key="k", num_inputs=count, num_outputs=1
        ).list_outputs()
    )
    assert "'num_inputs'" in text


def test_unknown_size():
    with engine(Identity(), "x") as symbol:
        text = message(lambda: symbol.infer_shape(x=(2, 0)))
    assert "the shape of input 0 of the engine" in text
    assert "pass its shape to bind/simple_bind/infer_shape" in text


def test_sparse_input():
    with engine(Identity(), "x") as symbol:
        sparse = mx.nd.ones((2, 2)).tostype("csr")
        assert "dense arrays only" in message(lambda: run(symbol, x=sparse))


# -- weights and the planner ----------------------------------------------------------------------


def parameter(*shape):
    param = mx.gluon.Parameter("p", shape=shape)
    param.initialize(mx.init.Zero())
    return param


def test_writes_are_counted_per_parameter():
    _count_writes()
    one, other = parameter(2, 3), parameter(2, 3)
    writes, others = _bridge.Writes([one]), _bridge.Writes([other])
    one.data().asnumpy()
    one.data() + 1
    assert not writes.happened()
    one.data().reshape((6,))[5:] = 1
    assert writes.happened()
    assert writes.happened(wait=False)
    assert not others.happened()
    other.cast("float16")
    assert others.happened()


def test_writes_to_a_parameter_on_several_devices():
    _count_writes()
    param = mx.gluon.Parameter("p", shape=(2,))
    param.initialize(ctx=[mx.cpu(0), mx.cpu(1)])
    writes = _bridge.Writes([param])
    param.data(mx.cpu(1))[:] = 5
    assert writes.happened()


def test_writes_of_nothing():
    _count_writes()
    assert not _bridge.Writes([]).happened()
    assert not _bridge.Writes([mx.gluon.Parameter("p", shape=(2,))]).happened()


def test_checksums_tell_memories_apart():
    rng = np.random.default_rng(0)
    seen = {}
    for size in range(70):
        data = rng.integers(0, 256, size + 1, "uint8")
        for position in range(size):
            for bit in (1, 128):
                data[position] ^= bit
                seen.setdefault(_bridge.checksum(data.ctypes.data, size), bytes(data[:size]))
                assert seen[_bridge.checksum(data.ctypes.data, size)] == bytes(data[:size])
    words = np.arange(8, dtype="uint64")
    swapped = words[[4, 1, 2, 3, 0, 5, 6, 7]]
    sums = {_bridge.checksum(w.ctypes.data, w.nbytes) for w in (words, swapped, words * 0)}
    assert len(sums) == 3


# -- the end of a process --------------------------------------------------------------------------

PREAMBLE = """
import os, sys, threading, time
from mxtrt import _bridge, _library
_library.load()
import mxnet as mx

class Slow:
    def infer_shape(self, shapes): return shapes
    def infer_type(self, types): return types, types
    def execute(self, inputs, outputs, stream):
        started.set()
        time.sleep(0.02)
        outputs[0].to_numpy()[...] = inputs[0].to_numpy() + 1

started = threading.Event()
_bridge.register("slow", Slow())
symbol = mx.sym._internal._mxtrt_engine(mx.sym.var("x"), key="slow", num_inputs=1, num_outputs=1)
executor = symbol.bind(mx.cpu(), {"x": mx.nd.ones(3)})
"""


def run_process(body, **environment):
    process = subprocess.run(
        [sys.executable, "-c", PREAMBLE + textwrap.dedent(body)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, **environment},
    )
    return process.returncode, process.stdout, process.stderr


@pytest.mark.parametrize(
    "ending",
    [
        pytest.param("", marks=pytest.mark.slow),  # tests/test_faults.py has it with real engines
        pytest.param("sys.exit(0)", marks=pytest.mark.slow),
        "raise RuntimeError('wanted')",
        "threading.Thread(target=many).start()",
    ],
    ids=["falls off", "exit", "raises", "from a thread"],
)
def test_exit_with_work_in_flight(ending):
    code, _, errors = run_process(
        f"""
        def many():
            for _ in range(20):
                executor.forward()
        many()
        {ending}
        """
    )
    assert code == (1 if "raise" in ending else 0), errors
    assert "Fatal" not in errors


def test_exit_from_daemon_threads_in_mid_call():
    code, _, errors = run_process(
        """
        def forever():
            own = symbol.bind(mx.cpu(), {"x": mx.nd.ones(3)})
            while True:
                own.forward()[0].wait_to_read()
        for _ in range(4):
            threading.Thread(target=forever, daemon=True).start()
        time.sleep(0.1)
        """
    )
    assert code == 0, errors


def test_detached_operator_fails_with_a_sentence():
    code, out, errors = run_process(
        """
        executor.forward()
        _bridge.detach()
        _bridge.detach()
        found = []
        for call in (lambda: executor.forward()[0].asnumpy(), lambda: symbol.infer_shape(x=(2,))):
            try:
                call()
            except mx.MXNetError as error:
                found.append("mxtrt is detached from MXNet" in str(error))
        _bridge.attach(str(_library._PATH))
        print(found, executor.forward()[0].asnumpy())
        """
    )
    assert code == 0, errors
    assert out.endswith("[True, True] [2. 2. 2.]\n")


def test_detach_waits_for_calls_in_progress():
    code, out, errors = run_process(
        """
        executor.forward()
        started.wait()
        _bridge.detach()
        print(executor.outputs[0].asnumpy())
        """
    )
    assert code == 0, errors
    assert out.startswith("[2. 2. 2.]")


@pytest.mark.parametrize(
    ("sources", "threads", "met"), [("1", 1, False), ("2", 1, True), ("1", 2, True)]
)
def test_calls_at_once(sources, threads, met):
    """MXNet gives each operator of a library a source of random numbers: each thread has one."""
    code, out, errors = run_process(
        f"""
        from concurrent.futures import ThreadPoolExecutor

        class Meeting(Slow):
            def execute(self, inputs, outputs, stream):
                try:
                    both.wait(timeout=1)
                except threading.BrokenBarrierError:
                    pass

        both = threading.Barrier(2)
        _bridge.register("slow", Meeting())
        def bind():
            return symbol.bind(mx.cpu(), {{"x": mx.nd.ones(3)}})
        pools = [ThreadPoolExecutor(1) for _ in range({threads})]
        bound = [pools[i % {threads}].submit(bind).result() for i in range(2)]
        for output in [executor.forward()[0] for executor in bound]:
            output.wait_to_read()
        print(not both.broken)
        """,
        MXNET_CPU_WORKER_NTHREADS="2",
        MXNET_CPU_PARALLEL_RAND_COPY=sources,
    )
    assert (code, out) == (0, f"{met}\n"), errors


def test_fork():
    code, out, errors = run_process(
        """
        executor.forward()[0].wait_to_read()
        child = os.fork()
        if child == 0:
            print(executor.forward()[0].asnumpy(), flush=True)
            sys.exit(0)
        print(os.waitpid(child, 0)[1])
        """
    )
    assert code == 0, errors
    assert out == "[2. 2. 2.]\n0\n"


def test_attach_needs_the_library(tmp_path):
    with pytest.raises(OSError, match="is not loaded"):
        _bridge.attach(str(tmp_path / "nothing.so"))
    with pytest.raises(OSError, match="not mxtrt's operator library"):
        _bridge.attach(str(mx.libinfo.find_lib_path()[0]))
    assert _library.load() is None
