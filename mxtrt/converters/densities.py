"""Densities of random numbers, each sample with the parameters of its distribution.

Parameters have the first axes of the samples. MXNet does not ask whether a sample is possible, and
neither do the formulas. The error of a logarithm is that of the density itself: halves are computed
in float32.
"""

from __future__ import annotations

from functools import partial
from math import pi, sqrt
from typing import Callable

from ..errors import UnsupportedOp
from ..graph import Value
from ..onnx_model import OnnxModel
from ..registry import converts
from . import known_rank, value_of
from .elementwise import as_type, single
from .functions import gammaln

Formula = Callable[[OnnxModel, str, bool, Value, Value, Value], str]
"""Writes the density in a type, or its logarithm: of a sample, with one or two parameters."""


def density(op: str) -> Callable[[Formula], Formula]:
    """Register a formula as the converter of the density `op`."""

    def register(formula: Formula) -> Formula:
        converts(op)(partial(_density, formula))
        return formula

    return register


def _density(
    formula: Formula,
    onnx: OnnxModel,
    sample: Value,
    first: Value,
    second: Value | None = None,
    *,
    is_log: bool = False,
) -> str:
    dtype = "float32" if sample.dtype == "float16" else sample.dtype
    rank = known_rank(sample)
    own = [_aligned(onnx, x, rank, dtype) for x in (sample, first, second or first)]
    made = formula(onnx, dtype, is_log, *own)
    return onnx.cast(made, sample.dtype) if dtype != sample.dtype else made


def _aligned(onnx: OnnxModel, x: Value, rank: int, dtype: str) -> Value:
    """Return `x` in the type of the formulas, with as many axes as the samples have."""
    made = as_type(onnx, x, dtype)
    missing = range(known_rank(x), rank)
    if missing:
        made = onnx.op("Unsqueeze", made, onnx.ints(missing))
    return value_of(onnx, made, None, dtype) if isinstance(made, str) else x


def _log_gamma_above(onnx: OnnxModel, dtype: str, x: Value) -> str:
    """Return log gamma of ``x + 1``: the logarithm of a factorial."""
    return gammaln(onnx, value_of(onnx, onnx.op("Add", x, onnx.constant(1, dtype)), None, dtype))


def _exp_unless(onnx: OnnxModel, is_log: bool, logarithm: str) -> str:
    return logarithm if is_log else onnx.op("Exp", logarithm)


@density("_random_pdf_uniform")
def uniform(
    onnx: OnnxModel, dtype: str, is_log: bool, sample: Value, low: Value, high: Value
) -> str:
    """``_random_pdf_uniform`` -> ``Reciprocal`` of the width for any sample."""
    width = onnx.op("Sub", high, low)
    found = onnx.op("Neg", onnx.op("Log", width)) if is_log else onnx.op("Reciprocal", width)
    return onnx.op("Expand", found, onnx.op("Shape", sample))


@density("_random_pdf_normal")
def normal(
    onnx: OnnxModel, dtype: str, is_log: bool, sample: Value, mu: Value, sigma: Value
) -> str:
    """``_random_pdf_normal`` -> ``Exp`` of the squared distance, over its normaliser."""
    distance = onnx.op("Sub", sample, mu)
    square = onnx.op("Mul", onnx.op("Mul", onnx.constant(-0.5, dtype), distance), distance)
    exponent = onnx.op("Div", square, onnx.op("Mul", sigma, sigma))
    # MXNet holds pi as float32
    normaliser = onnx.op("Mul", onnx.constant(sqrt(2 * single(pi)), dtype), sigma)
    if is_log:
        return onnx.op("Sub", exponent, onnx.op("Log", normaliser))
    return onnx.op("Div", onnx.op("Exp", exponent), normaliser)


@density("_random_pdf_exponential")
def exponential(
    onnx: OnnxModel, dtype: str, is_log: bool, sample: Value, lam: Value, _: Value
) -> str:
    """``_random_pdf_exponential`` -> ``lam Exp(-lam x)``."""
    exponent = onnx.op("Mul", lam, sample)
    if is_log:
        return onnx.op("Sub", onnx.op("Log", lam), exponent)
    return onnx.op("Mul", lam, onnx.op("Exp", onnx.op("Neg", exponent)))


@density("_random_pdf_gamma")
def gamma(
    onnx: OnnxModel, dtype: str, is_log: bool, sample: Value, alpha: Value, beta: Value
) -> str:
    """``_random_pdf_gamma`` -> ``Exp`` of ``a log b + (a - 1) log x - b x - gammaln(a)``."""
    power = onnx.op("Sub", alpha, onnx.constant(1, dtype))
    total = onnx.op("Mul", alpha, onnx.op("Log", beta))
    total = onnx.op("Add", total, onnx.op("Mul", power, onnx.op("Log", sample)))
    total = onnx.op("Sub", total, onnx.op("Mul", beta, sample))
    return _exp_unless(onnx, is_log, onnx.op("Sub", total, gammaln(onnx, alpha)))


@density("_random_pdf_poisson")
def poisson(onnx: OnnxModel, dtype: str, is_log: bool, sample: Value, lam: Value, _: Value) -> str:
    """``_random_pdf_poisson`` -> ``Exp`` of ``x log lam - gammaln(x + 1) - lam``."""
    total = onnx.op("Mul", sample, onnx.op("Log", lam))
    total = onnx.op("Sub", total, _log_gamma_above(onnx, dtype, sample))
    return _exp_unless(onnx, is_log, onnx.op("Sub", total, lam))


@density("_random_pdf_negative_binomial")
def negative_binomial(
    onnx: OnnxModel, dtype: str, is_log: bool, sample: Value, limit: Value, prob: Value
) -> str:
    """``_random_pdf_negative_binomial`` -> ``Exp`` of log gammas and logarithms."""
    both = value_of(onnx, onnx.op("Add", sample, limit), None, dtype)
    total = onnx.op("Sub", gammaln(onnx, both), _log_gamma_above(onnx, dtype, sample))
    total = onnx.op("Sub", total, gammaln(onnx, limit))
    total = onnx.op("Add", total, onnx.op("Mul", limit, onnx.op("Log", prob)))
    rest = onnx.op("Log", onnx.op("Sub", onnx.constant(1, dtype), prob))
    return _exp_unless(onnx, is_log, onnx.op("Add", total, onnx.op("Mul", sample, rest)))


@density("_random_pdf_generalized_negative_binomial")
def generalized_negative_binomial(
    onnx: OnnxModel, dtype: str, is_log: bool, sample: Value, mu: Value, alpha: Value
) -> str:
    """``_random_pdf_generalized_negative_binomial`` -> that of ``1 / alpha``."""
    limit = onnx.op("Reciprocal", alpha)
    spread = onnx.op("Add", onnx.op("Mul", mu, alpha), onnx.constant(1, dtype))
    made = (value_of(onnx, x, None, dtype) for x in (limit, onnx.op("Reciprocal", spread)))
    return negative_binomial(onnx, dtype, is_log, sample, *made)


@converts("_random_pdf_dirichlet")
def dirichlet(onnx: OnnxModel, sample: Value, alpha: Value, *, is_log: bool = False) -> str:
    """``_random_pdf_dirichlet`` -> ``Exp`` of sums of logarithms and log gammas."""
    dtype = "float32" if sample.dtype == "float16" else sample.dtype
    rank = known_rank(sample)
    if known_rank(alpha) > rank:
        raise UnsupportedOp(f"{alpha.name!r} has more axes than {sample.name!r}")
    x, a = as_type(onnx, sample, dtype), as_type(onnx, alpha, dtype)
    if alpha.rank != rank:  # between its rows and their elements
        a = onnx.op("Unsqueeze", a, onnx.ints(range(known_rank(alpha) - 1, rank - 1)))
    keepdims, last = int(rank == 1), onnx.ints([-1])
    powers = onnx.op("Sub", a, onnx.constant(1, dtype))
    samples = onnx.op("Mul", powers, onnx.op("Log", x))
    whole = value_of(onnx, onnx.op("ReduceSum", a, last, keepdims=keepdims), None, dtype)
    each = gammaln(onnx, value_of(onnx, onnx.op("Identity", a), None, dtype))
    norm = onnx.op("Sub", gammaln(onnx, whole), onnx.op("ReduceSum", each, last, keepdims=keepdims))
    total = onnx.op("Add", onnx.op("ReduceSum", samples, last, keepdims=keepdims), norm)
    made = _exp_unless(onnx, is_log, total)
    return onnx.cast(made, sample.dtype) if dtype != sample.dtype else made
