"""Which sizes an engine is built for.

Sizes that are known stand in the network. Ranges are taken as the caller states them. Unknown
sizes are taken from the call that needs the engine: the first size of an array, the batch, may go
from 1 to the next power of two; the others are built for the size seen. A call with other sizes
gets a profile that covers both, rounded to powers of two, so that an engine is built at most a few
times however the sizes change.

A plan has one profile: kernels are chosen for its best sizes, and ``shapes`` gives one range for an
axis. What calls for several is served by several plans of one engine: inputs of other ranks, and
other GPUs. With ``background=True`` a call that no plan covers does not wait: ONNX Runtime serves
until the plan is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Union

import onnx

from ..errors import EngineError, ShapesDisagree
from ..graph import format_shape

Range = tuple[int, int, int]
"""The smallest, the best and the largest size of an axis."""

Declared = tuple[Union[int, Range, None], ...]
"""What is known of an input before the first call."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Profile:
    """The sizes that an engine takes.

    Attributes
    ----------
    inputs : tuple of tuple of Range
        For each input, for each axis.
    """

    inputs: tuple[tuple[Range, ...], ...]

    @property
    def is_static(self) -> bool:
        """Whether every size is fixed."""
        return all(low == high for sizes in self.inputs for low, _, high in sizes)

    def covers(self, shapes: Sequence[Shape]) -> bool:
        """Say whether an engine of this profile takes inputs of these shapes."""
        for sizes, shape in zip(self.inputs, shapes):
            if len(sizes) != len(shape):
                return False
            for (low, _, high), size in zip(sizes, shape):
                if not low <= size <= high:
                    return False
        return True

    def corners(self, index: int) -> tuple[Shape, Shape, Shape]:
        """Return the smallest, the best and the largest shape of an input."""
        low, best, high = zip(*self.inputs[index]) if self.inputs[index] else ((), (), ())
        return low, best, high

    def __str__(self) -> str:
        return ", ".join(
            "(" + ", ".join(_format(sizes) for sizes in axes) + ")" for axes in self.inputs
        )


def declared_sizes(
    proto: onnx.ModelProto, shapes: Mapping[str, Sequence[object]]
) -> tuple[Declared | None, ...]:
    """Return what is known of each input of a model: from the model, and the caller's ranges.

    Parameters
    ----------
    proto : onnx.ModelProto
        The model.
    shapes : mapping of str to sequence
        The caller's option ``shapes``.
    """
    return tuple(_declared(info, shapes.get(info.name, ())) for info in proto.graph.input)


def _declared(info: onnx.ValueInfoProto, ranges: Sequence[object]) -> Declared | None:
    if not info.type.tensor_type.HasField("shape"):
        return None
    sizes: list[int | Range | None] = []
    for axis, dim in enumerate(info.type.tensor_type.shape.dim):
        given = ranges[axis] if axis < len(ranges) else None
        if dim.HasField("dim_value"):
            sizes.append(dim.dim_value)
        else:
            sizes.append(given if isinstance(given, tuple) else None)
    return tuple(sizes)


def known_profile(declared: Sequence[Declared | None]) -> Profile | None:
    """Return the profile of a model whose sizes are all numbers or ranges, else None."""
    inputs: list[tuple[Range, ...]] = []
    for sizes in declared:
        if sizes is None or None in sizes:
            return None
        inputs.append(tuple((s, s, s) if isinstance(s, int) else s for s in sizes if s is not None))
    return Profile(tuple(inputs))


def seen_profile(
    declared: Sequence[Declared | None],
    shapes: Sequence[Shape],
    before: Profile | None,
    *,
    generous: bool,
) -> Profile:
    """Return a profile that covers a call.

    Parameters
    ----------
    declared : sequence
        What `declared_sizes` returned.
    shapes : sequence of tuple of int
        The shapes of the call's inputs.
    before : Profile, optional
        An earlier profile of the same ranks, which the new one covers as well.
    generous : bool
        Whether to leave room to grow; without it only what was seen is covered, because some
        models cannot be built for every mixture of sizes.

    Raises
    ------
    ShapesDisagree
        An input has another rank or another fixed size than the model.
    EngineError
        An input has no elements.
    """
    inputs = []
    for index, (sizes, shape) in enumerate(zip(declared, shapes)):
        if 0 in shape:
            raise EngineError(f"input {index} is {format_shape(shape)}: it has no elements")
        known = (None,) * len(shape) if sizes is None else sizes
        if len(known) != len(shape):
            raise ShapesDisagree(
                f"input {index} is {format_shape(shape)}; the engine takes {len(known)} dimensions"
            )
        earlier = before.inputs[index] if before is not None else (None,) * len(shape)
        inputs.append(
            tuple(
                _grow(axis, size, known[axis], earlier[axis], generous)
                for axis, size in enumerate(shape)
            )
        )
    return Profile(tuple(inputs))


def _grow(
    axis: int, size: int, known: int | Range | None, before: Range | None, generous: bool
) -> Range:
    if isinstance(known, int):
        if size != known:
            raise ShapesDisagree(f"axis {axis} of an input is {size}, but was fixed to {known}")
        return known, known, known
    low, best, high = before or known or (1 if axis == 0 and generous else size, size, 0)
    if size > high:
        best, high = (
            size,
            _power_of_two_above(size) if generous and _may_grow(axis, before) else size,
        )
    if size < low:
        low = _power_of_two_below(size) if generous else size
    return min(low, best), best, high


def _may_grow(axis: int, before: Range | None) -> bool:
    return axis == 0 or before is not None


def _power_of_two_above(size: int) -> int:
    return 1 << (size - 1).bit_length()


def _power_of_two_below(size: int) -> int:
    return 1 << (size.bit_length() - 1)


def _format(sizes: Range) -> str:
    low, best, high = sizes
    return str(best) if low == high else f"{low}..{best}..{high}"
