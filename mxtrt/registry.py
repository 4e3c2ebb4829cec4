"""Which function converts which operator, and its attributes as typed arguments.

A converter is one function. Its positional parameters are the node's inputs, its keyword-only
parameters are the operator's attributes with MXNet's own defaults; their annotations say how the
strings of the symbol's JSON are read. One annotated ``Node`` receives the node itself: control flow
has its bodies there. It either returns the names of the ONNX tensors it made or raises
`UnsupportedOp` with the sentence that the report shows.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Callable, TypeVar

from .attributes import READERS, Attribute, annotation_text
from .errors import BadConverter, UnsupportedOp, nearest

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


@dataclass(frozen=True)
class Registration:
    """A converter and the schema that its signature states.

    Attributes
    ----------
    ignored : frozenset of int
        Positions of the inputs that inference does not read.
    without_effect : frozenset of str
        Attributes that no parameter needs to name.
    """

    convert: Converter
    attributes: Mapping[str, Attribute]
    min_inputs: int
    max_inputs: int | None
    ignored: frozenset[int]
    without_effect: frozenset[str] = WITHOUT_EFFECT


_REGISTRY: dict[str, Registration] = {}
_REFUSED: dict[str, str] = {}
_EXPORTED: dict[str, Registration] = {}


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
    BadConverter
        An operator has a converter already, or an annotation cannot be read.
    """

    def register(function: F) -> F:
        registration = _describe(function, ignores)
        for op in ops:
            _check_new(op)
            _REGISTRY[op] = registration
        return function

    return register


def exports(*ops: str) -> Callable[[F], F]:
    """Register a converter for `export_model` only, of operators that `optimize` has to refuse.

    Their results cannot go back to MXNet: random numbers of another generator, or outputs whose
    sizes depend on values.
    """

    def register(function: F) -> F:
        found = _describe(function, ())
        for op in ops:
            if op in _EXPORTED:
                raise BadConverter(f"{op} has a converter for exports already")
            _EXPORTED[op] = found
        return function

    return register


def register_converter(
    op: str, *, op_type: str | None = None, ignores: Iterable[str] = (), replaces: bool = False
) -> Callable[[F], F]:
    """Register a function of your own as the converter of an operator; use it as a decorator.

    Parameters
    ----------
    op : str
        The operator's name in the symbol's JSON: that of an operator from a library
        (``mx.library.load``), or ``"Custom"`` for one that is written in Python.
    op_type : str, optional
        For ``"Custom"``: the name in ``mx.operator.register``.
    ignores : iterable of str
        Inputs that the function does not touch: the engine then does not read them.
    replaces : bool
        Take the place of a converter, or of a refusal, that is there already.

    Raises
    ------
    BadConverter
        The operator has a converter already, or the function's signature cannot be read. Nothing
        is registered then.

    Notes
    -----
    The function is called as ``function(onnx, *inputs, **attributes)`` and returns the name of the
    tensor that it made, or a tuple of names for an operator with several outputs. Its parameters
    say what the operator takes:

    - first the ONNX model to write into. ``onnx.op("Relu", x)`` adds an operator and returns the
      name of its output, ``onnx.ops("Split", x, outputs=2, axis=1)`` adds one with several;
      keywords are ONNX's attributes. ``onnx.constant(0.5, x.dtype)`` and ``onnx.ints([0, 1])`` are
      constants, ``onnx.cast(x, "float32")`` changes the type. The operators are those of ONNX's
      opset 17. All of these take inputs and names alike;
    - then the inputs in MXNet's order, parameters and auxiliary states included; one with the
      default None may be missing. An input has ``name``, ``dtype`` (NumPy's name), ``shape`` and
      ``rank``: ``shape`` may be None or hold None for a size that is not known;
    - keyword-only, the attributes, each with its type and the value that it has where the symbol
      does not give it: ``int``, ``float``, ``bool``, ``str``, ``tuple[int, ...]`` or
      ``tuple[float, ...]``, or one of these ``| None``. An attribute that no parameter names
      leaves the node in MXNet.

    Where ONNX cannot say the same, ``raise mxtrt.errors.UnsupportedOp("why")``: the node then stays
    in MXNet, and the report shows the sentence.

    Examples
    --------
    >>> import mxtrt
    >>> @mxtrt.register_converter("Custom", op_type="scaled_tanh")
    ... def scaled_tanh(onnx, x, *, scale: float = 1.0):
    ...     return onnx.op("Mul", onnx.op("Tanh", x), onnx.constant(scale, x.dtype))
    """
    name = _checked_name(op, op_type)

    def register(function: F) -> F:
        found = _describe(function, ignores)
        _load_converters()
        if not replaces:
            _check_new(name, "; replaces=True puts this one in its place")
        _REFUSED.pop(name, None)
        # what these names mean to MXNet's own operators they need not mean to this one
        known = {"op_type"} if op_type is not None else set()
        _REGISTRY[name] = replace(found, without_effect=frozenset(known))
        return function

    return register


def _checked_name(op: str, op_type: str | None) -> str:
    if not isinstance(op, str) or not op:
        raise BadConverter(f"register_converter takes the name of an operator, not {op!r}")
    if (op == "Custom") != (op_type is not None):
        wrong = "Custom needs op_type=…" if op == "Custom" else f"{op!r} takes no op_type"
        raise BadConverter(
            f"{wrong}: an operator that is written in Python is named as in "
            "register_converter('Custom', op_type='my_sigmoid')"
        )
    return op if op_type is None else f"Custom:{op_type}"


def registered_name(node: Node) -> str:
    """Return the name that a node's converter is registered by: ``"Custom:my_sigmoid"``."""
    return f"Custom:{node.attrs.get('op_type')}" if node.op == "Custom" else node.op


def converts_alike(op: str, *others: str) -> None:
    """Register the converter of `op`, whose module is loaded, for operators that mean the same.

    Raises
    ------
    BadConverter
        One of them has a converter, or is refused, already.
    """
    for other in others:
        _check_new(other)
        _REGISTRY[other] = _REGISTRY[op]


def refuses(sentence: str, *ops: str) -> None:
    """Register the reason why the operators `ops` stay in MXNet whatever their attributes are.

    Raises
    ------
    BadConverter
        An operator has a converter, or is refused, already.
    """
    for op in ops:
        _check_new(op)
    _REFUSED.update(dict.fromkeys(ops, sentence))


def _check_new(op: str, remedy: str = "") -> None:
    if op in _REGISTRY:
        where = _title(_REGISTRY[op].convert)
        raise BadConverter(f"{op} has a converter already, {where}{remedy}")
    if op in _REFUSED:
        raise BadConverter(f"{op} is refused already ({_REFUSED[op]}){remedy}")


def refused_ops() -> Mapping[str, str]:
    """Return the operators that are always refused, each with the reason."""
    _load_converters()
    return dict(sorted(_REFUSED.items()))


def exported_ops() -> tuple[str, ...]:
    """Return the names of the operators that `export_model` alone converts, sorted."""
    _load_converters()
    return tuple(sorted(set(_EXPORTED) - set(_REGISTRY)))


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
    found = registration(registered_name(node))
    if found is None or not found.ignored:
        return node.inputs
    return tuple(value for i, value in enumerate(node.inputs) if i not in found.ignored)


def convert_node(onnx: OnnxModel, node: Node) -> None:
    """Convert one node into `onnx`.

    Raises
    ------
    UnsupportedOp
        The sentence why the node has to stay in MXNet.
    BadConverter
        The converter returned something else than names.
    """
    found = registration(registered_name(node))
    if found is None and onnx.leaves_mxnet:
        found = _EXPORTED.get(node.op)
    if found is None:
        raise UnsupportedOp(_REFUSED.get(node.op) or _missing(node))
    attrs = read_attributes(node, found)
    count = len(node.inputs)
    if count < found.min_inputs or (found.max_inputs is not None and count > found.max_inputs):
        raise UnsupportedOp(
            f"{count} inputs; the converter of {registered_name(node)} does not know this form"
        )
    with onnx.converting(node):
        made = found.convert(onnx, *node.inputs, **attrs)
        names = (made,) if isinstance(made, str) else made
        if not isinstance(names, (tuple, list)) or not all(isinstance(n, str) for n in names):
            raise BadConverter(
                f"{_title(found.convert)} converts {node} and returned {made!r}; it has to return "
                "the names that onnx.op returns, for an input itself onnx.op('Identity', x)"
            )
        onnx.bind(node.outputs, names)


def _missing(node: Node) -> str:
    if node.op == "Custom":
        op_type = node.attrs.get("op_type")
        how = f"'Custom', op_type={op_type!r}"
        return f"no converter for {op_type!r}; write one with mxtrt.register_converter({how})"
    return f"no converter for {node.op}; write one with mxtrt.register_converter({node.op!r})"


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
                raise UnsupportedOp(f"{name}={text!r} is no {attribute.annotation}") from None
        elif name not in found.without_effect:
            raise UnsupportedOp(
                f"the converter of {registered_name(node)} does not know the attribute "
                f"{name}={text!r}{nearest(name, found.attributes)}"
            )
    for name, attribute in found.attributes.items():
        if attribute.annotation == "Node":
            typed[name] = node
        elif name not in typed and attribute.default is inspect.Parameter.empty:
            raise UnsupportedOp(f"the attribute {name} is missing")
    return typed


def _describe(function: Converter, ignores: Iterable[str]) -> Registration:
    """Read the schema of an operator from the signature of its converter.

    Raises
    ------
    BadConverter
        It has no place for the model, takes any keyword, or has a type that cannot be read.
    """
    parameters = list(_signature(function).parameters.values())
    positional: list[inspect.Parameter] = []
    attributes: dict[str, Attribute] = {}
    variadic = False
    for parameter in parameters[1:]:
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            attributes[parameter.name] = _attribute(function, parameter)
        elif parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            variadic = True
        elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
            raise BadConverter(
                f"{_title(function)} takes **{parameter.name}; an attribute has to be named, with "
                "its type"
            )
        else:
            positional.append(parameter)
    required = [p for p in positional if p.default is inspect.Parameter.empty]
    names = [parameter.name for parameter in positional]
    unread = tuple(ignores)
    for name in unread:
        if name not in names:
            raise BadConverter(
                f"ignores names {name!r}, which is no input of {_title(function)}"
                f"{nearest(name, names)}"
            )
    return Registration(
        function,
        attributes,
        len(required),
        None if variadic else len(positional),
        frozenset(names.index(name) for name in unread),
    )


def _signature(function: Converter) -> inspect.Signature:
    if not callable(function):
        raise BadConverter(f"a converter is a function, not {function!r}")
    signature = inspect.signature(function)
    first = next(iter(signature.parameters.values()), None)
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if first is None or first.kind not in by_position:
        raise BadConverter(
            f"{_title(function)} takes no model to write into; its first parameter has to be that, "
            "then come the inputs, and keyword-only the attributes"
        )
    return signature


def _attribute(function: Converter, parameter: inspect.Parameter) -> Attribute:
    annotation = annotation_text(parameter.annotation)
    if annotation.removesuffix(" | None") not in READERS and annotation != "Node":
        has = "no type" if parameter.annotation is inspect.Parameter.empty else repr(annotation)
        raise BadConverter(
            f"{_title(function)}: the attribute {parameter.name} has {has}; the types that can be "
            f"read are {', '.join(READERS)}, each also with ' | None'"
        )
    return Attribute(parameter.name, annotation, parameter.default)


def _title(function: Any) -> str:
    """Return what errors call a converter: its name and where it is written."""
    inner = getattr(function, "func", function)  # rows of tables are partial functions
    name = getattr(inner, "__qualname__", repr(inner))
    return f"{getattr(inner, '__module__', '?')}.{name}"


@lru_cache(maxsize=1)
def _load_converters() -> None:
    package = importlib.import_module(".converters", __package__)
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f".converters.{module.name}", __package__)
