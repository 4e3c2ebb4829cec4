"""Which function converts which operator, and its attributes as typed arguments.

A converter is one function. Its positional parameters are the node's inputs, its keyword-only
parameters are the operator's attributes with MXNet's own defaults; their annotations say how the
strings of the symbol's JSON are read. One annotated ``Node`` receives the node itself: control flow
has its bodies there. It either returns the names of the ONNX tensors it made or raises
`UnsupportedOp` with the sentence that the report shows.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Callable, TypeVar

from .errors import UnsupportedOp, nearest

if TYPE_CHECKING:
    from .graph import Node, Value
    from .onnx_model import OnnxModel

Converter = Callable[..., Any]
F = TypeVar("F", bound=Converter)

WITHOUT_EFFECT = frozenset(
    {"workspace", "cudnn_tune", "cudnn_off", "cudnn_algo_verbose", "cudnn_algo_fwd",
     "cudnn_algo_bwd_data", "cudnn_algo_bwd_filter", "cudnn_algo_fwd_prec",
     "cudnn_algo_bwd_prec", "cudnn_tensor_core", "num_args", "sparse_grad", "ctx"}
)  # fmt: skip
"""Attributes that change how MXNet computes, or what a count already says, but no result."""


def _read_bool(text: str) -> bool:
    lowered = text.lower()
    if lowered not in {"true", "false", "1", "0"}:
        raise ValueError(text)
    return lowered in {"true", "1"}


def _read_int(text: str) -> int:
    # MXNet writes some integers as 1L (old Python 2 models) and some as True/False
    return int(ast.literal_eval(text.rstrip("L")))


def _read_float(text: str) -> float:
    return float(text)


def _read_ints(text: str) -> tuple[int, ...]:
    value = ast.literal_eval(text.replace("L", ""))
    return tuple(int(v) for v in value) if isinstance(value, (tuple, list)) else (int(value),)


def _read_optional_ints(text: str) -> tuple[int | None, ...]:
    value = ast.literal_eval(text.replace("L", ""))
    items = value if isinstance(value, (tuple, list)) else (value,)
    return tuple(None if v is None else int(v) for v in items)


def _read_floats(text: str) -> tuple[float, ...]:
    value = ast.literal_eval(text)
    return tuple(float(v) for v in value) if isinstance(value, (tuple, list)) else (float(value),)


def _read_pairs(text: str) -> tuple[tuple[int, ...], ...]:
    value = ast.literal_eval(text.replace("L", ""))
    rows = value if all(isinstance(row, (tuple, list)) for row in value) else (value,)
    return tuple(tuple(int(v) for v in row) for row in rows)


_READERS: Mapping[str, Callable[[str], Any]] = {
    "bool": _read_bool,
    "int": _read_int,
    "float": _read_float,
    "str": str,
    "tuple[int, ...]": _read_ints,
    "tuple[int | None, ...]": _read_optional_ints,
    "tuple[float, ...]": _read_floats,
    "tuple[tuple[int, ...], ...]": _read_pairs,
}


@dataclass(frozen=True)
class Attribute:
    """One keyword-only parameter of a converter.

    Attributes
    ----------
    name : str
        MXNet's name of the attribute.
    annotation : str
        The type as written in the signature, one of the types that `registry` can read, with
        or without ``| None``.
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
        return _READERS[base](text)


@dataclass(frozen=True)
class Registration:
    """A converter and the schema that its signature states.

    Attributes
    ----------
    ignored : frozenset of int
        Positions of the inputs that inference does not read.
    """

    convert: Converter
    attributes: Mapping[str, Attribute]
    min_inputs: int
    max_inputs: int | None
    ignored: frozenset[int]


_REGISTRY: dict[str, Registration] = {}
_REFUSED: dict[str, str] = {}


def converts(*ops: str, ignores: Iterable[str] = ()) -> Callable[[F], F]:
    """Register a function as the converter of the operators `ops`.

    Parameters
    ----------
    *ops : str
        MXNet's primary names of the operators.
    ignores : iterable of str
        Parameters of the function that it does not touch, such as the label of a training head:
        these inputs vanish from the part.

    Raises
    ------
    ValueError
        An operator has a converter already, or an annotation cannot be read.
    """

    def register(function: F) -> F:
        registration = _describe(function, frozenset(ignores))
        for op in ops:
            _check_new(op)
            _REGISTRY[op] = registration
        return function

    return register


def converts_alike(op: str, *others: str) -> None:
    """Register the converter of `op`, whose module is loaded, for operators that mean the same.

    Raises
    ------
    ValueError
        One of them has a converter, or is refused, already.
    """
    for other in others:
        _check_new(other)
        _REGISTRY[other] = _REGISTRY[op]


def refuses(sentence: str, *ops: str) -> None:
    """Register the reason why the operators `ops` stay in MXNet whatever their attributes are.

    Raises
    ------
    ValueError
        An operator has a converter, or is refused, already.
    """
    for op in ops:
        _check_new(op)
    _REFUSED.update(dict.fromkeys(ops, sentence))


def _check_new(op: str) -> None:
    if op in _REGISTRY:
        raise ValueError(f"{op} has a converter already: {_REGISTRY[op].convert}")
    if op in _REFUSED:
        raise ValueError(f"{op} is refused already: {_REFUSED[op]}")


def refused_ops() -> Mapping[str, str]:
    """Return the operators that are always refused, each with the reason."""
    _load_converters()
    return dict(sorted(_REFUSED.items()))


def registered_ops() -> tuple[str, ...]:
    """Return the names of all operators that have a converter, sorted."""
    _load_converters()
    return tuple(sorted(_REGISTRY))


def registration(op: str) -> Registration | None:
    """Return what is registered for the operator `op`, or None."""
    _load_converters()
    return _REGISTRY.get(op)


def read_inputs(node: Node) -> tuple[Value, ...]:
    """Return the inputs of a node that its converter reads."""
    found = registration(node.op)
    if found is None or not found.ignored:
        return node.inputs
    return tuple(value for i, value in enumerate(node.inputs) if i not in found.ignored)


def convert_node(onnx: OnnxModel, node: Node) -> None:
    """Convert one node into `onnx`.

    Raises
    ------
    UnsupportedOp
        The sentence why the node has to stay in MXNet.
    """
    found = registration(node.op)
    if found is None:
        raise UnsupportedOp(_REFUSED.get(node.op, f"no converter for {node.op}"))
    attrs = read_attributes(node, found)
    count = len(node.inputs)
    if count < found.min_inputs or (found.max_inputs is not None and count > found.max_inputs):
        raise UnsupportedOp(f"{count} inputs; the converter of {node.op} does not know this form")
    with onnx.converting(node):
        made = found.convert(onnx, *node.inputs, **attrs)
        onnx.bind(node.outputs, (made,) if isinstance(made, str) else tuple(made))


def read_attributes(node: Node, found: Registration) -> dict[str, Any]:
    """Return the node's attributes, typed as the converter's signature says.

    Raises
    ------
    UnsupportedOp
        An attribute that the converter does not name, or whose text cannot be read.
    """
    typed: dict[str, Any] = {}
    for name, text in node.attrs.items():
        attribute = found.attributes.get(name)
        if attribute is not None:
            try:
                typed[name] = attribute.read(text)
            except (ValueError, SyntaxError, TypeError):
                raise UnsupportedOp(f"{name}={text!r} is not a {attribute.annotation}") from None
        elif name not in WITHOUT_EFFECT:
            raise UnsupportedOp(
                f"the converter of {node.op} does not know the attribute {name}={text!r}"
                f"{nearest(name, found.attributes)}"
            )
    for name, attribute in found.attributes.items():
        if attribute.annotation == "Node":
            typed[name] = node
        elif name not in typed and attribute.default is inspect.Parameter.empty:
            raise UnsupportedOp(f"the attribute {name} is missing")
    return typed


def _describe(function: Converter, ignores: frozenset[str]) -> Registration:
    positional: list[inspect.Parameter] = []
    attributes: dict[str, Attribute] = {}
    variadic = False
    for parameter in list(inspect.signature(function).parameters.values())[1:]:
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            attributes[parameter.name] = _attribute(parameter)
        elif parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            variadic = True
        else:
            positional.append(parameter)
    required = [p for p in positional if p.default is inspect.Parameter.empty]
    names = [parameter.name for parameter in positional]
    return Registration(
        function,
        attributes,
        len(required),
        None if variadic else len(positional),
        frozenset(names.index(name) for name in ignores),
    )


def _attribute(parameter: inspect.Parameter) -> Attribute:
    # `from __future__ import annotations` keeps annotations as text on every Python
    annotation = str(parameter.annotation)
    if annotation.removesuffix(" | None") not in _READERS and annotation != "Node":
        raise ValueError(f"{parameter}: the registry cannot read this type")
    return Attribute(parameter.name, annotation, parameter.default)


@lru_cache(maxsize=1)
def _load_converters() -> None:
    package = importlib.import_module(".converters", __package__)
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f".converters.{module.name}", __package__)
