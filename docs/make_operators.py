"""Write docs/operators.md: what becomes of each operator of MXNet.

    python docs/make_operators.py          # from the registry; seconds
    python docs/parse_operators.py         # NVIDIA's parser, for the page's last column; minutes

The limits are the sentences that the converters and what they call can raise, read from their
source: what an f-string fills in when it runs stands as ``…``.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import onnx

from mxtrt.registry import exported_ops, refused_ops, registered_ops, registration

FOLDER = Path(__file__).resolve().parent
PAGE = FOLDER / "operators.md"
PARSER = FOLDER / "operators_parser.json"
CONVERTERS = "mxtrt.converters"
FILLED_IN = "…"
SPECIAL = "Special numbers: "
LONGEST = 120  # characters of what the parser says
SAFE = frozenset({"sorted", "min", "max"})  # functions that sentences use on constants

INTRODUCTION = """\
# Operators

What becomes of each operator of MXNet 1.9.1: {converted} have a converter into ONNX (opset 17,
without domains of its own), {refused} stay in MXNet whatever their attributes are. Operators whose
names begin with `_backward` are not listed: inference has none. Operators of your own, from a
library or written in Python (`Custom`), move when you register a converter for them: see
`help(mxtrt.register_converter)` and `examples/05_custom_operator`.

Names are the primary ones, which stand in a symbol's JSON; an alias such as `identity` becomes its
primary name, `_copy`, when MXNet reads the symbol.

- **becomes**: what the converter makes of it, and what ONNX Runtime then computes otherwise than
  MXNet of special numbers: of NaN, of infinities, or where something overflows. In any operator
  the sign of a zero may be lost. Sums of float16 are formed in float32, in which fewer overflow.
  Integers beyond 2**53, which MXNet takes through float64, stay exact, and squares that int32 or
  int64 cannot hold wrap around.
- **stays in MXNet where**: the sentences with which the converter, or what it calls, can refuse a
  node, as reports show them; `…` stands for what depends on the node. Two limits hold for all: an
  attribute that the converter does not know, and element types for which an engine has no kernel.
  Where the reason is that MXNet is faster, `mxtrt.export_model` writes the operator all the same.
- **TensorRT's parser**: how many of the ONNX graphs that the tests make of this operator, with
  sizes known and unknown, the parser of {parser} takes, asked about one operator at a
  time, and what it says of the first that it does not take. It is not asked about graphs that read
  or make float64, int8 or uint8: TensorRT has no float64, and the others for quantised data only.
  That it takes a graph does not say that it has a kernel for every type in it.

This page is written by `python docs/make_operators.py`; `python docs/parse_operators.py` asks the
parser anew.
"""


def page() -> str:
    """Return the text of docs/operators.md."""
    parsed = json.loads(PARSER.read_text(encoding="utf-8"))
    families: dict[str, list[str]] = {}
    for op in registered_ops():
        families.setdefault(_module(_function_of(op)), []).append(op)
    text = [
        INTRODUCTION.format(
            converted=len(registered_ops()), refused=len(refused_ops()), parser=parsed["parser"]
        )
    ]
    text += [_family(name, families[name], parsed["operators"]) for name in sorted(families)]
    text.append(_refused())
    return "\n".join(text)


def _family(module: str, ops: list[str], parsed: Mapping[str, Any]) -> str:
    lines = [f"## {_title(module)}", ""]
    lines += ["| operator | becomes | stays in MXNet where | TensorRT's parser |"]
    lines += ["| --- | --- | --- | --- |"]
    for op in sorted(ops, key=str.lower):
        function = _function_of(op)
        becomes = "<br>".join([_becomes(function), *_special(function)])
        cells = [f"`{op}`", becomes, "<br>".join(limits(function))]
        lines.append(_row([*cells, _verdict(parsed.get(op))]))
    return "\n".join([*lines, ""])


def _refused() -> str:
    by_reason: dict[str, list[str]] = {}
    for op, reason in refused_ops().items():
        by_reason.setdefault(reason, []).append(op)
    exported = set(exported_ops())
    lines = ["## Always in MXNet", ""]
    lines += [
        "`mxtrt.export_model` writes some of them: a file may draw random numbers of its own,"
    ]
    lines += ["and nobody has to know sizes before it runs.", ""]
    lines += ["| operators | why they stay | `export_model` writes |", "| --- | --- | --- |"]
    for reason, ops in sorted(by_reason.items()):
        written = [op for op in ops if op in exported]
        lines.append(_row([_code(ops), reason, _code(written)]))
    return "\n".join([*lines, ""])


def _code(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _title(module: str) -> str:
    """Return a family's heading: the first sentence of its module's docstring."""
    first = (sys.modules[module].__doc__ or module).splitlines()[0]
    return first.replace("``", "`").rstrip(".:")


def _becomes(function: Any) -> str:
    """Return what a converter says that it makes: behind the arrow in its docstring's first line.

    Rows of tables have no docstring of their own: then the ONNX operators that they name.
    """
    named: dict[str, None] = {}
    for code in _parts(function):
        if isinstance(code, str):
            named.update(dict.fromkeys([code] if onnx.defs.has(code) else []))
            continue
        first = (inspect.getdoc(code) or "").partition("\n\n")[0].replace("\n", " ")
        if "->" in first:
            return first.partition("->")[2].strip().replace("``", "`").rstrip(".")
        named.update(dict.fromkeys(_onnx_operators(code)))
    if not named:
        named.update(
            dict.fromkeys(op for code in _called(function) for op in _onnx_operators(code))
        )
    return _code(list(named)) or "a constant"


def _special(function: Any) -> Iterator[str]:
    """Yield what a converter's docstring says of special numbers."""
    for code in _parts(function):
        if not isinstance(code, str):
            for paragraph in (inspect.getdoc(code) or "").split("\n\n"):
                if paragraph.startswith(SPECIAL):
                    yield paragraph.replace("\n", " ").replace("``", "`").rstrip(".")


def _parts(function: Any) -> Iterator[Any]:
    """Yield the functions and strings that a partial function, or a function in one, is made of."""
    if isinstance(function, partial):
        for part in (*function.args, function.func):
            yield from _parts(part)
    elif isinstance(function, str):
        yield function
    elif isinstance(function, FunctionType):
        for inner in inspect.getclosurevars(function).nonlocals.values():
            yield from _parts(inner)
        yield function


def _onnx_operators(code: FunctionType | type) -> Iterator[str]:
    for node in ast.walk(_syntax(code)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"onnx.op", "onnx.ops"}:
            name = node.args[0]
            if isinstance(name, ast.Constant):
                yield str(name.value)


def _verdict(parsed: Mapping[str, Any] | None) -> str:
    if parsed is None:
        return "not tried"
    if not parsed["tried"]:
        return "not asked"
    if parsed["accepted"] == parsed["tried"]:
        return f"takes all {parsed['tried']}"
    return f"takes {parsed['accepted']} of {parsed['tried']}: “{_shortened(parsed['refusal'])}”"


def _shortened(message: str) -> str:
    """Return what the parser says without the places in its own source."""
    said = re.sub(r"^ITensor::getDimensions: Error Code \d+: [\w ]+ Error \(", "", message)
    said = re.sub(r" In \w+ at /.*", "", said)
    said = "Assertion failed: false" if said == "false" else said
    return said if len(said) <= LONGEST else said[: LONGEST - 1].rstrip() + "…"


# -- the sentences of a converter ------------------------------------------------------------------


def limits(function: Any) -> list[str]:
    """Return the sentences with which a converter, or what it calls, can refuse a node."""
    found: dict[str, None] = {}
    for code in _called(function):
        for node in ast.walk(_syntax(code)):
            if isinstance(node, ast.Raise) and _raises_unsupported(node):
                found[_sentence(node.exc.args[0], code)] = None  # type: ignore[union-attr]
    return sorted(found)


def _called(function: Any) -> list[Any]:
    """Return a function and what it uses of the converters' package, directly or not."""
    waiting: list[Any] = [function]
    seen: dict[Any, None] = {}
    while waiting:
        one = waiting.pop()
        if isinstance(one, partial):
            waiting += [one.func, *one.args, *one.keywords.values()]
        elif _is_ours(one) and one not in seen:
            seen[one] = None
            waiting += _uses(one)
    return list(seen)


def _is_ours(value: Any) -> bool:
    is_code = isinstance(value, (FunctionType, type))
    return is_code and str(value.__module__).startswith(CONVERTERS)


def _uses(code: FunctionType | type) -> Iterator[Any]:
    names = _names(code)
    for node in ast.walk(_syntax(code)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            yield names.get(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = names.get(node.value.id)
            if isinstance(module, ModuleType):
                yield getattr(module, node.attr, None)


def _names(code: FunctionType | type) -> dict[str, Any]:
    """Return what the names in a function mean: of its module, and of a function around it."""
    names = dict(vars(sys.modules[code.__module__]))
    if isinstance(code, FunctionType):
        around = inspect.getclosurevars(code).nonlocals
        names.update(around)
    return names


@cache
def _syntax(code: FunctionType | type) -> ast.AST:
    return ast.parse(textwrap.dedent(inspect.getsource(code)))


def _raises_unsupported(node: ast.Raise) -> bool:
    raised = node.exc
    return (
        isinstance(raised, ast.Call)
        and isinstance(raised.func, ast.Name)
        and raised.func.id == "UnsupportedOp"
    )


def _sentence(expression: ast.expr, code: FunctionType | type) -> str:
    """Return a sentence with the constants of its module filled in, and ``…`` for the rest."""
    names = _names(code)

    def text(part: ast.expr) -> str:
        if isinstance(part, ast.JoinedStr):
            return "".join(map(text, part.values))
        inner = part.value if isinstance(part, ast.FormattedValue) else part
        return _constant(inner, names)

    return re.sub(rf"{FILLED_IN}'?s? ?(?={FILLED_IN})", "", text(expression))


def _constant(expression: ast.expr, names: Mapping[str, Any]) -> str:
    """Return the value of an expression of nothing but a module's constants, or ``…``."""
    read = {node.id for node in ast.walk(expression) if isinstance(node, ast.Name)}
    if not all(name.isupper() or name in SAFE for name in read):
        return FILLED_IN
    return str(eval(compile(ast.Expression(expression), "<limit>", "eval"), dict(names)))


def _function_of(op: str) -> Any:
    found = registration(op)
    assert found is not None
    return found.convert


def _module(function: Any) -> str:
    return str(getattr(function, "func", function).__module__)


def main() -> None:
    """Write the page, or say whether it is what the registry says."""
    parser = argparse.ArgumentParser(description="Write docs/operators.md from the registry.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when it is old")
    if not parser.parse_args().check:
        PAGE.write_text(page(), encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != page():
        sys.exit(f"{PAGE.name} is old: python docs/make_operators.py writes it anew")


if __name__ == "__main__":
    main()
