"""Attributes are strings in the symbol's JSON; the types in a converter's signature read them."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Callable, get_origin


def _read_bool(text: str) -> bool:
    lowered = text.lower()
    if lowered not in {"true", "false", "1", "0"}:
        raise ValueError(text)
    return lowered in {"true", "1"}


def _read_int(text: str) -> int:
    # MXNet writes some integers as 1L (old Python 2 models) and some as True/False
    return _whole(ast.literal_eval(text.rstrip("L")))


def _whole(number: Any) -> int:
    """Return an integer as one: an operator of the user's own may have 2.5 there."""
    if int(number) != number:
        raise ValueError(number)
    return int(number)


def _read_float(text: str) -> float:
    return float(text)


def _read_ints(text: str) -> tuple[int, ...]:
    value = ast.literal_eval(text.replace("L", ""))
    return tuple(map(_whole, value)) if isinstance(value, (tuple, list)) else (_whole(value),)


def _read_optional_ints(text: str) -> tuple[int | None, ...]:
    value = ast.literal_eval(text.replace("L", ""))
    items = value if isinstance(value, (tuple, list)) else (value,)
    return tuple(None if v is None else _whole(v) for v in items)


def _read_floats(text: str) -> tuple[float, ...]:
    value = ast.literal_eval(text)
    return tuple(float(v) for v in value) if isinstance(value, (tuple, list)) else (float(value),)


def _read_pairs(text: str) -> tuple[tuple[int, ...], ...]:
    value = ast.literal_eval(text.replace("L", ""))
    rows = value if all(isinstance(row, (tuple, list)) for row in value) else (value,)
    return tuple(tuple(map(_whole, row)) for row in rows)


READERS: Mapping[str, Callable[[str], Any]] = {
    "bool": _read_bool,
    "int": _read_int,
    "float": _read_float,
    "str": str,
    "tuple[int, ...]": _read_ints,
    "tuple[int | None, ...]": _read_optional_ints,
    "tuple[float, ...]": _read_floats,
    "tuple[tuple[int, ...], ...]": _read_pairs,
}
"""How the text of an attribute is read, by the type in the converter's signature."""


@dataclass(frozen=True)
class Attribute:
    """One keyword-only parameter of a converter.

    Attributes
    ----------
    name : str
        MXNet's name of the attribute.
    annotation : str
        The type as written in the signature, one of `READERS`, with or without ``| None``.
    default : object
        MXNet's own default; `inspect.Parameter.empty` when MXNet requires the attribute.
    """

    name: str
    annotation: str
    default: Any

    def read(self, text: str) -> Any:
        """Return the attribute's value from its text in the symbol's JSON."""
        base = self.annotation.removesuffix(" | None")
        if text == "None" and base != self.annotation:
            return None
        return READERS[base](text)


def annotation_text(annotation: Any) -> str:
    """Return a type as `READERS` has it, from any way to write it."""
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return annotation.__name__
    # `from __future__ import annotations` keeps annotations as text on every Python
    text = str(annotation).replace("typing.", "").replace("Tuple[", "tuple[")
    return re.sub(r"^Optional\[(.*)\]$", r"\1 | None", text)
