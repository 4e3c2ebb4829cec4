"""Random numbers, which `export_model` converts and `optimize` leaves.

ONNX draws uniform, normal and categorical numbers. Others are made of uniform ones by the inverse
of their distribution function. ONNX Runtime has no float16 generator: those are cast.
"""

from __future__ import annotations

from ..errors import UnsupportedOp
from ..graph import Node, Shape, Value
from ..onnx_model import ELEMENT_TYPES, OnnxModel, Operand
from ..registry import exports
from . import known_rank, known_size, shape_vector


@exports("_random_uniform")
def random_uniform(
    onnx: OnnxModel,
    *,
    low: float = 0,
    high: float = 1,
    shape: tuple[int, ...] | None = None,
    dtype: str = "None",
    node: Node,
) -> str:
    """``_random_uniform`` -> ``RandomUniform``."""
    return _fixed(onnx, "RandomUniform", node.outputs[0], low=low, high=high)


@exports("_random_normal")
def random_normal(
    onnx: OnnxModel,
    *,
    loc: float = 0,
    scale: float = 1,
    shape: tuple[int, ...] | None = None,
    dtype: str = "None",
    node: Node,
) -> str:
    """``_random_normal`` -> ``RandomNormal``."""
    return _fixed(onnx, "RandomNormal", node.outputs[0], mean=loc, scale=scale)


@exports("_random_exponential")
def random_exponential(
    onnx: OnnxModel,
    *,
    lam: float = 1,
    shape: tuple[int, ...] | None = None,
    dtype: str = "None",
    node: Node,
) -> str:
    """``_random_exponential`` -> ``RandomUniform``, ``Log``."""
    out = node.outputs[0]
    return _exponential(onnx, _fixed(onnx, "RandomUniform", out), lam, out.dtype)


@exports("_random_randint")
def random_randint(
    onnx: OnnxModel,
    *,
    low: int,
    high: int,
    shape: tuple[int, ...] | None = None,
    dtype: str = "None",
    node: Node,
) -> str:
    """``_random_randint`` -> ``RandomUniform``, ``Floor``."""
    out = node.outputs[0]
    real = Value(out.name, out.shape, "float64")  # exact for integers up to 2 to the 53rd
    drawn = _fixed(onnx, "RandomUniform", real, high=float(high - low))
    whole = onnx.cast(onnx.op("Floor", drawn), out.dtype)
    return onnx.op("Add", whole, onnx.constant(low, out.dtype))


@exports("_random_uniform_like")
def random_uniform_like(onnx: OnnxModel, x: Value, *, low: float = 0, high: float = 1) -> str:
    """``_random_uniform_like`` -> ``RandomUniformLike``."""
    return _like(onnx, "RandomUniformLike", x, x.dtype, low=low, high=high)


@exports("_random_normal_like")
def random_normal_like(onnx: OnnxModel, x: Value, *, loc: float = 0, scale: float = 1) -> str:
    """``_random_normal_like`` -> ``RandomNormalLike``."""
    return _like(onnx, "RandomNormalLike", x, x.dtype, mean=loc, scale=scale)


@exports("_random_exponential_like")
def random_exponential_like(onnx: OnnxModel, x: Value, *, lam: float = 1) -> str:
    """``_random_exponential_like`` -> ``RandomUniformLike``, ``Log``."""
    return _exponential(onnx, _like(onnx, "RandomUniformLike", x, x.dtype), lam, x.dtype)


@exports("_sample_uniform")
def sample_uniform(
    onnx: OnnxModel,
    low: Value,
    high: Value,
    *,
    shape: tuple[int, ...] = (),
    dtype: str = "None",
    node: Node,
) -> str:
    """``_sample_uniform`` -> ``RandomUniformLike``, ``Mul``, ``Add``."""
    width = _spread(onnx, onnx.op("Sub", high, low), low, len(shape))
    start = _spread(onnx, low, low, len(shape))
    drawn = _drawn_for(onnx, "RandomUniformLike", low, shape)
    return onnx.cast(onnx.op("Add", start, onnx.op("Mul", drawn, width)), node.outputs[0].dtype)


@exports("_sample_normal")
def sample_normal(
    onnx: OnnxModel,
    mu: Value,
    sigma: Value,
    *,
    shape: tuple[int, ...] = (),
    dtype: str = "None",
    node: Node,
) -> str:
    """``_sample_normal`` -> ``RandomNormalLike``, ``Mul``, ``Add``."""
    middle, width = (_spread(onnx, x, mu, len(shape)) for x in (mu, sigma))
    drawn = _drawn_for(onnx, "RandomNormalLike", mu, shape)
    return onnx.cast(onnx.op("Add", middle, onnx.op("Mul", drawn, width)), node.outputs[0].dtype)


@exports("_sample_multinomial")
def sample_multinomial(
    onnx: OnnxModel,
    x: Value,
    *,
    shape: tuple[int, ...] = (),
    get_prob: bool = False,
    dtype: str = "int32",
) -> str | tuple[str, str]:
    """``_sample_multinomial`` -> ``Log``, ``Multinomial``; ``get_prob`` gathers the ``Log``."""
    count = 1
    for size in shape:
        count *= size
    classes = known_size(x, -1)
    # ONNX Runtime draws from float32 rows, whose logarithms it takes
    logs = onnx.op("Log", onnx.op("Reshape", x, onnx.ints([-1, classes])))
    drawn = onnx.op(
        "Multinomial", onnx.cast(logs, "float32"), sample_size=count, dtype=ELEMENT_TYPES["int32"]
    )
    sizes = onnx.ints(shape)
    if known_rank(x) > 1:
        rows = onnx.op("Slice", shape_vector(onnx, x), onnx.ints([0]), onnx.ints([-1]))
        sizes = onnx.op("Concat", rows, sizes, axis=0)
    elif not shape:
        sizes = onnx.ints([1])
    made = onnx.op("Reshape", onnx.cast(drawn, dtype), sizes)
    if not get_prob:
        return made
    likelihood = onnx.op("GatherElements", logs, drawn, axis=1)
    return made, onnx.op("Reshape", likelihood, sizes)


@exports("_shuffle")
def shuffle(onnx: OnnxModel, x: Value) -> str:
    """``_shuffle`` -> ``RandomUniformLike``, ``TopK``, ``Gather``: rows in the order of chance."""
    length = onnx.op("Slice", shape_vector(onnx, x), onnx.ints([0]), onnx.ints([1]))
    rows = onnx.op("Expand", onnx.constant(0, "float32"), length)
    drawn = onnx.op("RandomUniformLike", rows)
    _, order = onnx.ops("TopK", drawn, length, outputs=2, axis=0)
    return onnx.op("Gather", x, order, axis=0)


# -- drawing -----------------------------------------------------------------------------------


def _fixed(onnx: OnnxModel, op: str, out: Value, **attrs: float) -> str:
    """Draw numbers in the shape of an operator's output."""
    drawn = onnx.op(op, dtype=_drawable(out.dtype), shape=_sizes(out.shape), **attrs)
    return onnx.cast(drawn, out.dtype) if out.dtype == "float16" else drawn


def _like(onnx: OnnxModel, op: str, x: Operand, dtype: str, **attrs: float) -> str:
    drawn = onnx.op(op, x, dtype=_drawable(dtype), **attrs)
    return onnx.cast(drawn, dtype) if dtype == "float16" else drawn


def _drawable(dtype: str) -> int:
    return ELEMENT_TYPES["float64" if dtype == "float64" else "float32"]


def _sizes(shape: Shape) -> list[int]:
    sizes = [size for size in shape or () if size is not None]
    if shape is None or len(sizes) != len(shape):
        raise UnsupportedOp("draws random numbers of a shape that is not known; pass shapes")
    return sizes


def _drawn_for(onnx: OnnxModel, op: str, x: Value, shape: tuple[int, ...]) -> str:
    """Draw numbers of `shape` for each element of `x`."""
    sizes = shape_vector(onnx, x)
    if shape:
        sizes = onnx.op("Concat", sizes, onnx.ints(shape), axis=0)
    return _like(onnx, op, onnx.op("Expand", onnx.constant(0, x.dtype), sizes), x.dtype)


def _spread(onnx: OnnxModel, x: Operand, like: Value, count: int) -> Operand:
    """Append axes of size 1 for the numbers that are drawn for each element."""
    if count == 0:
        return x
    rank = known_rank(like)
    return onnx.op("Unsqueeze", x, onnx.ints(range(rank, rank + count)))


def _exponential(onnx: OnnxModel, uniform: str, rate: float, dtype: str) -> str:
    rest = onnx.op("Sub", onnx.constant(1, dtype), uniform)  # never 0, unlike the number itself
    return onnx.op("Div", onnx.op("Log", rest), onnx.constant(-rate, dtype))
