"""Output shapes where MXNet needs numbers, and numbers in place of unknown sizes do not fit.

Sizes that have to agree say each other: whatever the unknown one is, at run time it is the known
one or MXNet refuses.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence

from .attributes import READERS
from .graph import Shape

_integers = READERS["tuple[int, ...]"]

SameRank = Callable[[Mapping[str, str], Sequence["tuple[int | None, ...]"]], Shape]


def shape_by_rule(op: str, attrs: Mapping[str, str], inputs: Sequence[Shape]) -> Shape:
    """Return the shape of an operator's output as far as its inputs say it, or None."""
    if op == "slice_like" and len(inputs) == 2:
        return _cut(attrs, *inputs)
    if op == "reshape_like":
        return _reshaped(attrs, *inputs)
    if op == "Reshape":
        return _decoded(attrs)
    known = [shape for shape in inputs if shape is not None]
    same_rank = len(known) == len(inputs) and len({len(shape) for shape in known}) == 1
    rule = _RULES.get(op)
    return rule(attrs, known) if rule is not None and same_rank else None


def _cut(attrs: Mapping[str, str], data: Shape, like: Shape) -> Shape:
    if data is None:
        return None
    axes = _integers(attrs.get("axes", "()"))
    cut = {axis % len(data) for axis in axes or range(len(data))}
    sizes = (None,) * len(data) if like is None else like
    return tuple(sizes[axis] if axis in cut else size for axis, size in enumerate(data))


def _reshaped(attrs: Mapping[str, str], data: Shape, like: Shape) -> Shape:
    if data is None or like is None:
        return None
    (first, end), (like_first, like_end) = (
        slice(
            *(ast.literal_eval(attrs.get(f"{side}_{edge}", "None")) for edge in ("begin", "end"))
        ).indices(rank)[:2]
        for side, rank in (("lhs", len(data)), ("rhs", len(like)))
    )
    return data[:first] + like[like_first:like_end] + data[end:]


def _decoded(attrs: Mapping[str, str]) -> Shape:
    """Return the shape that the codes of ``Reshape`` say without a look at the data."""
    codes = list(_integers(attrs.get("shape", "()")))
    is_reversed = READERS["bool"](attrs.get("reverse", "False"))
    if is_reversed:
        codes.reverse()
    sizes: list[int | None] = []
    while codes:
        code = codes.pop(0)
        if code == -2:  # all axes that are left
            return None
        if code == -4 and len(codes) < 2:  # MXNet refuses it when it knows the data
            return None
        parts = [codes.pop(0), codes.pop(0)] if code == -4 else [code]
        sizes += [size if size > 0 else None for size in parts]
    return tuple(reversed(sizes) if is_reversed else sizes) or None


def _joined(attrs: Mapping[str, str], inputs: Sequence[tuple[int | None, ...]]) -> Shape:
    axis = int(attrs.get("dim", "1")) % len(inputs[0])
    sizes = list(_equal(attrs, inputs))
    joined = [shape[axis] for shape in inputs]
    sizes[axis] = None if None in joined else sum(size for size in joined if size is not None)
    return tuple(sizes)


def _equal(
    attrs: Mapping[str, str], inputs: Sequence[tuple[int | None, ...]]
) -> tuple[int | None, ...]:
    return tuple(next((size for size in seen if size is not None), None) for seen in zip(*inputs))


def _broadcast(attrs: Mapping[str, str], inputs: Sequence[tuple[int | None, ...]]) -> Shape:
    return tuple(_broadcast_size(seen) for seen in zip(*inputs))


def _broadcast_size(seen: Sequence[int | None]) -> int | None:
    """Return the size that is not 1, else 1 where all are 1."""
    larger = [size for size in seen if size not in {None, 1}]
    return larger[0] if larger else (None if None in seen else 1)


_BINARY = (
    "add", "sub", "mul", "div", "mod", "power", "maximum", "minimum", "hypot", "equal", "not_equal",
    "greater", "greater_equal", "lesser", "lesser_equal", "logical_and", "logical_or",
    "logical_xor",
)  # fmt: skip

_RULES: dict[str, SameRank] = {
    "Concat": _joined,
    **dict.fromkeys(
        ("elemwise_add", "elemwise_sub", "elemwise_mul", "elemwise_div", "add_n"), _equal
    ),
    **dict.fromkeys((f"broadcast_{name}" for name in _BINARY), _broadcast),
}
