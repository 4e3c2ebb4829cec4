"""`check_operator`: one operator, or a small symbol, in MXNet and as an engine.

MXNet's own output is always the reference. The whole path runs: optimise, bind, forward.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Any

import mxnet as mx
import numpy as np
import onnxruntime as ort
import pytest

import mxtrt
from mxtrt.infer import single_node_symbol

ENGINE = os.environ.get("MXTRT_TEST_ENGINE", "onnxruntime")
"""The engine under test; ``tensorrt`` on a machine with a GPU."""

OPTIONS: dict[str, Any] = json.loads(os.environ.get("MXTRT_TEST_OPTIONS", "{}"))
"""More options for it, as JSON, such as ``{"optimization_level": 0}``."""

ENGINE_OPTIONS: dict[str, Any] = {
    "engine": ENGINE,
    **({"tf32": False, "strict": True} if ENGINE == "tensorrt" else {}),
    **OPTIONS,
}
"""For tests that call `mxtrt.optimize` themselves: by default it takes the GPU where one is."""

without_nan = pytest.mark.skipif(ENGINE == "tensorrt", reason="TensorRT makes a number of NaN here")
"""See `docs/tuning.md`, on precision."""

OLD_RUNTIME = ENGINE == "onnxruntime" and tuple(map(int, ort.__version__.split(".")[:2])) < (1, 32)
"""Whether ONNX Runtime has the limits that these sentences of the engine's tell."""

LIMITS = re.compile("Could not find an implementation|cannot take arrays without elements")

NOT_BUILT = re.compile(
    r"cannot build|has no elements|TensorRT: (?!the CUDA graph)|int(8|64): |"
    r"holds numbers beyond int32"
)
"""What TensorRT says before it runs where ONNX Runtime would serve; what it says then fails."""

TOLERANCES = {  # from the arithmetic: float32 sums of a few thousand terms; float16 has 11 bits
    "float64": (1e-10, 1e-12),
    "float32": (1e-4, 1e-5),
    "float16": (1e-2, 1e-3),
}


def random_array(shape: tuple[int, ...], dtype: str = "float32", seed: int = 0) -> np.ndarray:
    """Return normally distributed numbers, or small integers for integer types."""
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind in "iu":
        return rng.integers(0 if dtype[0] == "u" else -5, 6, shape).astype(dtype)
    return rng.standard_normal(shape).astype(dtype)


def check_operator(
    symbol: mx.sym.Symbol,
    inputs: Mapping[str, Any],
    params: Mapping[str, Any] | None = None,
    *,
    rtol: float | None = None,
    atol: float | None = None,
    unknown_sizes: bool = True,
    engine: str = ENGINE,
) -> None:
    """Assert that every operator moves and that the outputs equal MXNet's.

    Parameters
    ----------
    symbol : mxnet.sym.Symbol
        One operator, or a few.
    inputs : mapping of str to array or shape
        Arrays that are fed at run time; a tuple stands for random float32 of that shape.
    params : mapping of str to array or shape, optional
        Arrays that become weights of the engine.
    rtol, atol : float, optional
        By default those of the output's dtype in `TOLERANCES`. Give the reason where you pass them.
    unknown_sizes : bool
        Check once more with every size unknown (ranks known), skipping what a converter then
        refuses: what it does convert must be right for the sizes that come.
    """
    inputs, params = _arrays(inputs), _arrays(params or {})
    expected = run_mxnet(symbol, {**inputs, **params})
    shapes = {name: array.shape for name, array in inputs.items()}
    dtypes = {name: array.dtype.name for name, array in inputs.items()}
    options = {"dtypes": dtypes, "engine": engine}
    optimized, kept = optimize_whole(symbol, _nd(params), shapes=shapes, **options)
    _compare(expected, run_engines(optimized, {**inputs, **_np(kept)}), rtol, atol)
    mxtrt.release(optimized)
    if unknown_sizes:
        unknown = {name: (None,) * array.ndim for name, array in inputs.items()}
        optimized, kept = _optimize(symbol, _nd(params), {**options, "shapes": unknown})
        _compare(expected, run_engines(optimized, {**inputs, **_np(kept)}), rtol, atol)
        mxtrt.release(optimized)


def check_any_rank(symbol: mx.sym.Symbol, inputs: Mapping[str, Any]) -> None:
    """Assert as `check_operator` does, when not even how many axes the inputs have is known."""
    arrays = _arrays(inputs)
    dtypes = {name: array.dtype.name for name, array in arrays.items()}
    optimized, kept = optimize_whole(symbol, dtypes=dtypes)
    found = run_engines(optimized, {**arrays, **_np(kept)})
    _compare(run_mxnet(symbol, arrays), found, None, None)
    mxtrt.release(optimized)


def optimize_whole(
    symbol: Any, params: Any = None, *, engine: str = ENGINE, **options: Any
) -> tuple[mx.sym.Symbol, dict[str, mx.nd.NDArray]]:
    """Optimise with the engine under test and assert that every operator moves.

    Where TensorRT refuses what ONNX Runtime takes, the test is skipped with TensorRT's sentence.
    Run what this returns with `run_engines`.

    Parameters
    ----------
    symbol, params
        As `mxtrt.optimize` takes them.
    **options
        Of `mxtrt.optimize`; ``min_subgraph_size`` is 1 by default.
    """
    optimized, kept = _optimize(symbol, params or {}, {"engine": engine, **options})
    try:
        left = mxtrt.report(optimized).left
    except mxtrt.errors.BadModel:  # all stays, and has to be asked anew
        left = mxtrt.explain(symbol, params or {}, **_complete({"engine": engine, **options})).left
        assert left, "the engine could not be built; the warning says why"
    check_none_left(left, engine)
    return optimized, kept


def check_none_left(left: Mapping[Any, str], engine: str = ENGINE) -> None:
    """Assert that no operator stays in MXNet, given the report of the engine under test.

    The test is skipped where the reason is a limit of TensorRT, or of an old ONNX Runtime.
    """
    if OLD_RUNTIME and any(LIMITS.search(reason) for reason in left.values()):
        pytest.skip(f"ONNX Runtime before 1.32: {next(iter(left.values()))}")
    if engine == "tensorrt" and any("TensorRT" in reason for reason in left.values()):
        pytest.skip(f"refused: {next(reason for reason in left.values() if 'TensorRT' in reason)}")
    assert not left, left


def _complete(options: Mapping[str, Any]) -> dict[str, Any]:
    of_engine = ENGINE_OPTIONS if options["engine"] == ENGINE else {}
    return {"min_subgraph_size": 1, **of_engine, **options}


def _optimize(symbol: Any, params: Any, options: Mapping[str, Any]) -> Any:
    try:
        return mxtrt.optimize(symbol, params, **_complete(options))
    except mxtrt.errors.EngineError as error:
        if options["engine"] == "tensorrt":
            pytest.skip(f"left to ONNX Runtime: {error}")
        raise


def run_engines(symbol: mx.sym.Symbol, arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """`run_mxnet` for what was optimised: skipped where TensorRT could not be built in the call."""
    try:
        return run_mxnet(symbol, arrays)
    except mx.base.MXNetError as error:
        if OLD_RUNTIME and LIMITS.search(str(error)):
            pytest.skip(f"ONNX Runtime before 1.32: {error}")
        if ENGINE == "tensorrt" and NOT_BUILT.search(str(error)):
            pytest.skip(f"left to ONNX Runtime: {error}")
        raise


def operator(op: str, num_inputs: int, **attrs: Any) -> mx.sym.Symbol:
    """Return the symbol that is one operator, by its primary name, reading ``x0``, ``x1``, …

    Outputs with names that no other operator can give have a copy behind them.
    """
    node = {"op": op, "attrs": {name: str(value) for name, value in attrs.items()}}
    symbol = single_node_symbol(node, num_inputs)
    if all(name.startswith("node_output") for name in symbol.list_outputs()):
        return symbol
    return mx.sym.Group([mx.sym.identity(output) for output in symbol])


def check_numpy(op: str, *arrays: Any, **attrs: Any) -> None:
    """`check_operator` for one operator by its primary name: the NumPy ones have no other."""
    inputs = {f"x{i}": np.asarray(array) for i, array in enumerate(arrays)}
    check_operator(operator(op, len(arrays), **attrs), inputs)


def check_refused(
    symbol: mx.sym.Symbol,
    inputs: Mapping[str, Any],
    sentence: str,
    params: Mapping[str, Any] | None = None,
) -> None:
    """Assert that the operator stays in MXNet with a reason that contains `sentence`."""
    inputs, params = _arrays(inputs), _arrays(params or {})
    report = mxtrt.explain(
        symbol,
        _nd(params),
        shapes={name: array.shape for name, array in inputs.items()},
        dtypes={name: array.dtype.name for name, array in inputs.items()},
        min_subgraph_size=1,
        engine=ENGINE,
    )
    reasons = list(report.left.values())
    found = any(sentence in reason for reason in reasons)
    if not found and ENGINE == "tensorrt" and any(r.startswith("float64: ") for r in reasons):
        pytest.skip(f"refused before: {reasons[0]}")
    assert found, reasons or "everything moved"


def run_mxnet(symbol: mx.sym.Symbol, arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Bind the symbol to the arrays and return its outputs for inference."""
    names = [*symbol.list_arguments(), *symbol.list_auxiliary_states()]
    nd = _nd({name: array for name, array in arrays.items() if name in names})
    executor = symbol.bind(
        mx.cpu(),
        {n: nd[n] for n in symbol.list_arguments()},
        aux_states={n: nd[n] for n in symbol.list_auxiliary_states()},
        grad_req="null",
    )
    outputs = [output.asnumpy() for output in executor.forward(is_train=False)]
    mx.nd.waitall()  # asnumpy does not wait for arrays without elements, nor tells their errors
    return outputs


def _compare(
    expected: list[np.ndarray], found: list[np.ndarray], rtol: float | None, atol: float | None
) -> None:
    assert len(expected) == len(found)
    for want, have in zip(expected, found):
        assert want.shape == have.shape
        assert want.dtype == have.dtype
        default = TOLERANCES.get(want.dtype.name, (0, 0))
        np.testing.assert_allclose(
            have,
            want,
            rtol=default[0] if rtol is None else rtol,
            atol=default[1] if atol is None else atol,
        )


def _arrays(given: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {
        name: random_array(a, seed=i) if isinstance(a, tuple) else np.asarray(a)
        for i, (name, a) in enumerate(given.items())
    }


def _nd(arrays: Mapping[str, np.ndarray]) -> dict[str, mx.nd.NDArray]:
    return {name: mx.nd.array(array, dtype=array.dtype) for name, array in arrays.items()}


def _np(arrays: Mapping[str, mx.nd.NDArray]) -> dict[str, np.ndarray]:
    return {name: array.asnumpy() for name, array in arrays.items()}
