"""Cases for `export_model`: MXNet's operators with their attributes, dtypes and shapes.

Every operator that MXNet's own exporter knows is here, and some more. Arrays are drawn so that each
attribute matters. What MXNet itself does not compute on the CPU (float16 products, comparisons of
bools, ...) is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np

HALVES, SINGLES, DOUBLES = "float16", "float32", "float64"
FLOATS = (HALVES, SINGLES, DOUBLES)
WIDE = (SINGLES, DOUBLES)  # what MXNet multiplies matrices of on the CPU
LONG = ("int32", "int64")
NUMBERS = (*FLOATS, *LONG)
INTEGERS = (*LONG, "int8", "uint8")
TYPES = (*FLOATS, *INTEGERS)
WITH_BOOL = (*TYPES, "bool")
SHAPES = ((4,), (3, 4, 5), (1, 3, 2, 4))

RNG = np.random.default_rng()


@dataclass(frozen=True)
class Case:
    """One operator on some arrays.

    Attributes
    ----------
    op : str
        Its name in ``mx.nd`` and ``mx.sym``.
    arrays : tuple of numpy.ndarray
        Its inputs.
    attrs : dict
        Its attributes.
    no_kernel : bool
        Whether ONNX says it and ONNX Runtime's CPU provider has no kernel for the type.
    tolerances : dict
        ``rtol`` and ``atol`` where those of the dtype are too small.
    call : callable, optional
        What to do with ``mx.nd`` or ``mx.sym`` and the inputs; by default to call the operator.
    """

    op: str
    arrays: tuple[np.ndarray, ...]
    attrs: dict[str, Any]
    no_kernel: bool = False
    tolerances: dict[str, float] = field(default_factory=dict)
    call: Callable[..., Any] | None = None

    def apply(self, module: Any, *inputs: Any) -> list[Any]:
        """Return the outputs, arrays or symbols as `module` says."""
        if self.call is not None:
            made = self.call(module, *inputs)
        else:
            function = module
            for part in self.op.split("."):
                function = getattr(function, part)
            made = function(*inputs, **self.attrs)
        return list(made) if isinstance(made, (list, tuple)) else [made]

    def __str__(self) -> str:
        arrays = ", ".join(f"{array.shape} {array.dtype}" for array in self.arrays)
        return f"{self.op} {self.attrs} of {arrays}"


def draw(shape: Sequence[int], dtype: str = SINGLES, low: Any = None, high: Any = None) -> Any:
    """Return normally distributed floats, integers around 0, or what lies between two numbers."""
    kind = np.dtype(dtype).kind
    if kind == "b":
        return RNG.integers(0, 2, shape).astype(dtype)
    if kind in "iu":
        smallest = 0 if kind == "u" else -5
        return RNG.integers(smallest if low is None else low, high or 6, shape).astype(dtype)
    if low is not None:
        return RNG.uniform(low, high, shape).astype(dtype)
    return RNG.standard_normal(shape).astype(dtype)


def case(op: str, *arrays: Any, **attrs: Any) -> Case:
    """Return a case; ``attrs`` are the operator's."""
    return Case(op, tuple(map(np.asarray, arrays)), attrs)


def seeded(cases: Iterator[Case]) -> Iterator[Case]:
    """Yield cases whose arrays are the same in every run."""
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state
    yield from cases


def each(
    op: str, dtypes: Iterable[str], *shapes: Sequence[int], low: Any = None, high: Any = None,
    **attrs: Any,
) -> Iterator[Case]:  # fmt: skip
    """Yield an operator in several types."""
    for dtype in dtypes:
        yield case(op, *(draw(shape, dtype, low, high) for shape in shapes), **attrs)


# -- element by element ------------------------------------------------------------------------


def functions() -> Iterator[Case]:
    """Yield functions of one number."""
    anything = ["abs", "ceil", "floor", "negative", "square", "relu", "zeros_like", "ones_like",
                "identity", "BlockGrad", "make_loss", "logical_not", "shape_array", "size_array",
                "round", "rint", "fix", "trunc", "sign"]  # fmt: skip
    real = ["sigmoid", "tanh", "exp", "sin", "cos", "tan", "arctan", "hard_sigmoid", "softsign",
            "sinh", "cosh", "arcsinh", "expm1", "degrees", "radians"]  # fmt: skip
    for shape in SHAPES:
        for op in anything:
            yield from each(op, NUMBERS, shape)
        for op in real:
            yield from each(op, FLOATS, shape)
        for op in ("log", "log2", "log10", "log1p", "sqrt", "reciprocal", "rsqrt", "gamma"):
            yield from each(op, FLOATS, shape, low=1, high=9 if op != "gamma" else 3)
        for op in ("arcsin", "arccos", "arctanh"):
            yield from each(op, FLOATS, shape, low=-0.9, high=0.9)
        yield from each("arccosh", FLOATS, shape, low=1.1, high=3)
    for op in ("log", "sqrt", "reciprocal"):
        yield from each(op, LONG, (3, 4), low=1, high=9)
    for op in ("abs", "negative", "relu", "logical_not"):
        yield from each(op, ("int8", "uint8"), (3, 4))
    for op in ("identity", "BlockGrad", "shape_array", "size_array", "zeros_like", "ones_like"):
        yield from each(op, ("int8", "uint8", "bool"), (3, 4))
    yield from each("hard_sigmoid", FLOATS, (3, 4), alpha=0.3, beta=0.1)
    for low, high in ((-1, 2), (0.5, 2.5), (-100, 1), (1, 3)):
        types = [dtype for dtype in TYPES if dtype != "uint8" or low >= 0]
        yield from each("clip", types, (3, 4), a_min=low, a_max=high)


def casts() -> Iterator[Case]:
    """Yield casts between all types; below 0 C leaves those to uint8 open."""
    for source, target in product(WITH_BOOL, WITH_BOOL):
        if source == "bool" and target in ("bool", "int8", "uint8"):
            continue  # MXNet does not
        unsigned = "uint8" in (source, target)
        numbers = draw((3, 4), source, 0 if unsigned else None, 6 if unsigned else None)
        yield case("cast", numbers, dtype=target)


def binaries() -> Iterator[Case]:
    """Yield functions of two tensors."""
    broadcast = ["add", "sub", "mul", "div", "mod", "power", "minimum", "maximum", "equal",
                 "not_equal", "greater", "greater_equal", "lesser", "lesser_equal", "logical_and",
                 "logical_or", "logical_xor", "hypot"]  # fmt: skip
    pairs = [((3, 4, 5), (3, 4, 5)), ((3, 1, 5), (1, 4, 1)), ((2, 3, 4), (1, 1, 1)),
             ((1, 4), (3, 1))]  # fmt: skip
    for op, shapes in product(broadcast, pairs):
        limits = {"low": 1, "high": 5} if op in ("div", "mod", "power") else {}
        yield from each(f"broadcast_{op}", TYPES, *shapes, **limits)
    for dtype in FLOATS:
        yield case("broadcast_mod", draw((3, 4), dtype) * 5, draw((1, 4), dtype) + 0.1)
    for dtype in ("int32", "int64", "int8"):
        for divisors in ([[3, -2, 1, 5]], [[3, -2, 0, 5]]):
            yield case("broadcast_mod", draw((3, 4), dtype) * 5, np.array(divisors, dtype))
    for op, dtype in product(("add", "sub", "mul", "div"), TYPES):
        yield case(f"elemwise_{op}", draw((3, 4), dtype), draw((3, 4), dtype, 1, 5))
    for dtype, count in product(TYPES, (1, 3)):
        yield case("add_n", *(draw((3, 4), dtype) for _ in range(count)))


SCALARS: dict[str, Callable[..., Any]] = {
    "x + 2": lambda module, x: x + 2,
    "x - 1.5": lambda module, x: x - 1.5,
    "3 - x": lambda module, x: 3 - x,
    "x * 2.5": lambda module, x: x * 2.5,
    "x * -1e4": lambda module, x: x * -1e4,
    "x / 2": lambda module, x: x / 2,
    "3 / x": lambda module, x: 3 / x,
    "x ** 2": lambda module, x: x**2,
    "x ** 0.5": lambda module, x: x**0.5,
    "2 ** x": lambda module, x: 2**x,
    "x % 3": lambda module, x: x % 3,
    "7 % x": lambda module, x: 7 % x,
    "x == 2": lambda module, x: x == 2,
    "x != 2": lambda module, x: x != 2,
    "x > 2": lambda module, x: x > 2,
    "x >= 2": lambda module, x: x >= 2,
    "x < 2": lambda module, x: x < 2,
    "x <= 2": lambda module, x: x <= 2,
    "maximum(x, 1)": lambda module, x: module.maximum(x, 2),
    "minimum(x, 1)": lambda module, x: module.minimum(x, 2),
    "maximum(x, y)": lambda module, x: module.maximum(x, x * 0 + 2),
    "minimum(x, y)": lambda module, x: module.minimum(x, x * 0 + 2),
    "power(x, y)": lambda module, x: module.power(x, x * 0 + 2),
}


def scalars() -> Iterator[Case]:
    """Yield functions of a tensor and a number."""
    for (formula, call), dtype, shape in product(SCALARS.items(), TYPES, ((4,), (2, 3, 4))):
        yield Case(formula, (draw(shape, dtype, 1, 5),), {}, call=call)
    for formula, call in SCALARS.items():
        if formula not in ("3 / x", "7 % x", "2 ** x", "x ** 0.5"):  # not of 0 and below
            for dtype in LONG:
                yield Case(formula, (draw((4,), dtype),), {}, call=call)


# -- reductions --------------------------------------------------------------------------------


def reductions() -> Iterator[Case]:
    """Yield sums, norms and the places of the largest."""
    axes: list[dict[str, Any]] = [
        {}, {"axis": 1}, {"axis": -1, "keepdims": True}, {"axis": (0, 2)}, {"keepdims": True},
        {"axis": (0, 2), "keepdims": True}, {"axis": 1, "exclude": True}, {"axis": (0, 1, 2)},
    ]  # fmt: skip
    for op in ("sum", "mean", "max", "min", "prod", "nansum", "nanprod", "sum_axis"):
        for attrs in axes:
            yield from each(op, NUMBERS, (3, 4, 2), low=1, high=4, **attrs)
    for order, attrs in product((1, 2), axes[:6]):
        yield from each("norm", FLOATS, (3, 4, 2), ord=order, **attrs)
    for op in ("argmax", "argmin"):
        for attrs in ({}, {"keepdims": True}, {"axis": 0}, {"axis": -1, "keepdims": True}):
            yield from each(op, NUMBERS, (3, 4, 5), **attrs)
    yield from each("moments", FLOATS, (2, 3, 4), axes=(0, 2))


# -- shapes ------------------------------------------------------------------------------------

RESHAPES = [
    ((2, 3, 4), shape, reverse)
    for shape, reverse in [
        ((0, -1), 0), ((-1,), 0), ((2, -1), 0), ((0, 0, -1), 0), ((-2,), 0), ((0, -2), 0),
        ((-3, -2), 0), ((0, -3), 0), ((-4, 1, 2, -2), 0), ((-1, 0), 1), ((0, -1, 0), 1),
        ((-3, 0), 0), ((-1, 0, 0), 1), ((0, 0, -4, 2, 2), 0), ((0, 0, -4, -1, 2), 0),
    ]
] + [
    ((4, 6, 2), (-4, -1, 2, -2), 0), ((4, 6, 2), (-4, 2, -1, 0, 0), 0),
    ((2, 3, 4, 5), (-3, -3), 0),
    ((2, 3, 4, 5), (0, -3, 0), 0), ((2, 3, 4, 5), (-3, 0, 0), 1), ((2, 3, 4, 5), (-1, 0), 1),
]  # fmt: skip


def rearrangements() -> Iterator[Case]:
    """Yield what moves numbers and keeps them."""
    types = (SINGLES, "int64")
    for shape, target, reverse in RESHAPES:
        yield from each("reshape", types, shape, shape=target, reverse=bool(reverse))
    for attrs in ({"axes": (1, 0, 2)}, {"axes": (2, 0, 1)}, {}):
        yield from each("transpose", TYPES, (2, 3, 4), **attrs)
    yield from each("transpose", types, (4,))
    yield from each("transpose", types, (2, 3, 4, 5), axes=(0, 2, 3, 1))
    for axis in (0, 1, 3, -1, -2):
        yield from each("expand_dims", WITH_BOOL, (2, 3, 4), axis=axis)
    for axis in (None, 0, -1, (0, 2), (0, -1), (2,)):
        yield from each("squeeze", WITH_BOOL, (1, 3, 1, 1), axis=axis)
    for shape in ((2, 3, 4), (2, 3, 4, 5), (2, 3), (3,)):
        yield from each("flatten", WITH_BOOL, shape)
    for dims in ((0, 1), (0, 2), (2, 1), (-1, 0), (1, -1), (1, 1)):
        yield from each("swapaxes", TYPES, (2, 3, 4), dim1=dims[0], dim2=dims[1])
    for axis in (0, 1, (0, 2)):
        yield from each("reverse", TYPES, (2, 3, 4), axis=axis)
    for size in (2, 3):
        yield from each("depth_to_space", TYPES, (1, 4 * 9, 2, 3), block_size=size)
        yield from each("space_to_depth", TYPES, (1, 2, 6, 12), block_size=size)


def slices() -> Iterator[Case]:
    """Yield what cuts tensors."""
    for axis, begin, end in ((0, 1, 3), (1, 0, None), (-1, -3, -1), (2, -2, None)):
        yield from each("slice_axis", TYPES, (4, 5, 6), axis=axis, begin=begin, end=end)
    for attrs in (
        {"begin": (1,), "end": (3,)},
        {"begin": (0, 1), "end": (2, 4)},
        {"begin": (None, 1), "end": (None, 4)},
        {"begin": (-3, None, 1), "end": (None, -1, 5)},
        {"begin": (0, 0, 0), "end": (4, 5, 6), "step": (2, 1, 3)},
        {"begin": (None, 4), "end": (None, 0), "step": (1, -2)},
        {"begin": (3,), "end": (None,), "step": (-1,)},
        {"begin": (1, 2), "end": (100, 100)},
    ):
        yield from each("slice", TYPES, (4, 5, 6), **attrs)
    for dtype, attrs in product(
        TYPES, ({}, {"axes": (0,)}, {"axes": (0, 1)}, {"axes": (-1,)}, {"axes": (1, -1)})
    ):
        yield case("slice_like", draw((4, 5, 6), dtype), draw((2, 3, 4)), **attrs)
    yield case("slice_like", draw((4, 5, 6)), draw((2, 3)), axes=(0, 1))
    for attrs in ({"num_outputs": 2}, {"num_outputs": 2, "axis": 0}, {"num_outputs": 3, "axis": -1},
                  {"num_outputs": 4, "squeeze_axis": True}, {"num_outputs": 1}):  # fmt: skip
        yield from each("SliceChannel", TYPES, (2, 4, 3), **attrs)
    for where, attrs in ((2, {}), ((1, 3), {"axis": 1}), ((2,), {"axis": -1}), (3, {"axis": 2}),
                         (4, {"axis": 1, "squeeze_axis": True}),
                         ((2, 2, 3), {"axis": 1})):  # fmt: skip
        yield from each("split_v2", TYPES, (2, 4, 3), indices_or_sections=where, **attrs)


def unions() -> Iterator[Case]:
    """Yield what joins and repeats tensors."""
    for count, axis in product((1, 2, 3), (0, 1, -1)):
        yield from each("concat", TYPES, *[(2, 3, 4)] * count, dim=axis)
        yield from each("stack", WITH_BOOL, *[(2, 3, 4)] * count, axis=axis)
    yield from each("concat", TYPES, (2, 3), (2, 5), (2, 1), dim=1)
    for reps in ((1,), (2,), (2, 3), (1, 2, 3), (3, 1, 1, 1)):
        yield from each("tile", TYPES, (2, 3, 4), reps=reps)
    for attrs in ({}, {"axis": 0}, {"axis": -1}):
        yield from each("repeat", WITH_BOOL, (2, 3, 4), repeats=2, **attrs)
    for axis, size in ((1, 3), ((0, 1), (2, 5)), ((0,), (3,))):
        yield from each("broadcast_axis", TYPES, (1, 1, 4), axis=axis, size=size)
    for shape in ((2, 3, 4), (0, 3, 0)):
        yield from each("broadcast_to", WITH_BOOL, (shape[0] or 2, 1, 4)[-3:], shape=shape)
    for dtype in WITH_BOOL:
        x = draw((1, 3, 1), dtype)
        yield case("broadcast_like", x, draw((2, 3, 4)))
        yield case("broadcast_like", x, draw((2, 5)), lhs_axes=(0, 2), rhs_axes=(1, 0))
        yield case("broadcast_like", x, draw((2, 5, 4)), lhs_axes=(-1,), rhs_axes=(-2,))
        yield case("reshape_like", draw((2, 6), dtype), draw((3, 4)))
        for shape, begin, end, at, to in (((12, 2), 0, 1, 1, 3), ((2, 6, 2), 1, None, 1, None),
                                          ((2, 12, 3), -2, -1, -2, None)):  # fmt: skip
            ends = {"lhs_begin": begin, "lhs_end": end, "rhs_begin": at, "rhs_end": to}
            yield case("reshape_like", draw(shape, dtype), draw((5, 3, 4)), **ends)


# -- indices -----------------------------------------------------------------------------------


def indices() -> Iterator[Case]:
    """Yield what picks elements."""
    rows = [[0, -3], [2, 9]]
    for dtype in TYPES:
        for kind in (SINGLES, "int32", "int64"):
            yield case("gather_nd", draw((4, 5, 6), dtype), np.array([[0, 3, 1], [4, 2, 0]], kind))
            yield case("gather_nd", draw((4, 5), dtype), np.array([[[0], [3]], [[1], [2]]], kind))
            for mode, axis in product(("clip", "wrap"), (0, 1, -1)):
                places = np.array(rows, kind)
                yield case("take", draw((5, 4, 3), dtype), places, mode=mode, axis=axis)
            yield case("take", draw((5, 4), dtype), np.array([2, 1], kind), mode="raise", axis=1)
        for condition in TYPES:
            yield case("where", draw((3, 4), condition), draw((3, 4), dtype), draw((3, 4), dtype))
        rows_of = np.array([1, 0, 1], SINGLES)
        yield case("where", rows_of, draw((3, 4), dtype), draw((3, 4), dtype))
        yield case("pick", draw((3, 4), dtype), np.array([0, 3, 1], SINGLES), axis=1)
    for dtype, kind in product(NUMBERS, (SINGLES, *LONG, "int8")):
        weight = draw((5, 3), dtype)
        places = np.array([[0, 3], [2, 4]], kind)
        yield case("Embedding", places, weight, input_dim=5, output_dim=3, dtype=dtype)
    for dtype, kind in product(TYPES, (SINGLES, *LONG)):
        places = np.array([[0, 3], [2, 5], [-1, 1]], kind)
        yield case("one_hot", places, depth=4, dtype=dtype)
        yield case("one_hot", places, depth=4, dtype=dtype, on_value=5, off_value=2)


def orders() -> Iterator[Case]:
    """Yield sorting; all numbers differ."""
    sortable = [dtype for dtype in TYPES if dtype != HALVES]  # MXNet's sort has no float16
    for dtype in TYPES:
        x = RNG.permutation(60).reshape(3, 4, 5).astype(dtype)
        for axis, k, kind, ascending in product(
            (1, 0, -1), (1, 3), ("indices", "value", "both", "mask"), (False, True)
        ):
            yield case("topk", x, axis=axis, k=k, ret_typ=kind, is_ascend=ascending)
        yield case("topk", x, axis=None, k=3)
        yield case("topk", x, k=0, ret_typ="both")
        for result in ("int32", "int64", *FLOATS, "uint8"):
            yield case("topk", x, k=2, ret_typ="both", dtype=result)
            if dtype in sortable:
                yield case("argsort", x, dtype=result)
    for dtype, op in product(sortable, ("argsort", "sort")):
        x = RNG.permutation(60).reshape(3, 4, 5).astype(dtype)
        for attrs in ({}, {"axis": 1}, {"axis": 0, "is_ascend": False}, {"axis": None}):
            yield case(op, x, **attrs)


def sequences() -> Iterator[Case]:
    """Yield masks over the axis of time."""
    for dtype in TYPES:
        for kind in (dtype, *LONG):
            lengths = np.array([1, 4, 3], kind)
            for axis in (0, 1):
                x = draw((4, 3, 2) if axis == 0 else (3, 4, 2), dtype)
                attrs = {"use_sequence_length": True, "axis": axis}
                yield case("SequenceMask", x, lengths, value=7, **attrs)
                yield case("SequenceLast", x, lengths, **attrs)
            reverse = draw((4, 3, 2), dtype)
            yield case("SequenceReverse", reverse, lengths, use_sequence_length=True)
        for op in ("SequenceMask", "SequenceLast", "SequenceReverse"):
            yield case(op, draw((4, 3, 2), dtype))
        two = draw((4, 3), dtype)
        yield case("SequenceMask", two, np.array([1, 2, 3], dtype), use_sequence_length=True)


# -- tensors out of nothing --------------------------------------------------------------------


def ranges() -> Iterator[Case]:
    """Yield ranges and constants."""
    spans: list[dict[str, Any]] = [
        {"start": 0, "stop": 5}, {"start": 1, "stop": 10, "step": 3}, {"start": 5},
        {"start": 10, "stop": 0, "step": -2}, {"start": 0.5, "stop": 3, "step": 0.25},
        {"start": 0, "stop": 4, "repeat": 2}, {"start": 0, "stop": 4, "repeat": 3, "step": 2},
    ]  # fmt: skip
    likes: list[dict[str, Any]] = [
        {}, {"axis": 1}, {"axis": -1}, {"axis": 0, "start": 2, "step": 0.5},
        {"start": 1.5, "step": 2}, {"axis": 1, "repeat": 2}, {"repeat": 2},
    ]  # fmt: skip
    for dtype in TYPES:
        for attrs in spans:
            if dtype != "uint8" or attrs.get("step", 1) > 0:
                yield case("arange", dtype=dtype, **attrs)
        for attrs in likes:
            yield case("contrib.arange_like", draw((4, 6, 2), dtype), **attrs)
        for op in ("zeros", "ones"):
            yield case(op, shape=(2, 3), dtype=dtype)
        yield case("full", shape=(2, 3), val=2, dtype=dtype)
        yield case("eye", N=3, M=4, k=1, dtype=dtype)
