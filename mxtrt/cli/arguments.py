"""What the commands' options take, and the options that several commands share."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from typing import Any, Optional

import click

Model = tuple[str, Optional[str], Mapping[str, Any]]
"""The paths of a symbol and of its parameters, and the options for `mxtrt.optimize`."""


def each(read: Callable[[str], Any]) -> Callable[..., tuple[Any, ...]]:
    """Return the callback of an option that may be repeated."""
    return lambda ctx, param, texts: tuple(read(text) for text in texts)


def name_and_dtype(text: str) -> tuple[str, str]:
    """Read ``data=float16``."""
    name, _, dtype = text.rpartition("=")
    if not name or not dtype:
        raise click.BadParameter(f"{text!r} must look like data=float16")
    return name, dtype


def name_and_sizes(text: str) -> tuple[str, tuple[Any, ...]]:
    """Read ``data=1,3,224,224``; see `_size` for each size."""
    name, _, sizes = text.rpartition("=")
    try:
        if name:
            return name, tuple(map(_size, sizes.split(",")))
    except ValueError:
        pass
    raise click.BadParameter(
        f"{text!r} must look like data=1,3,224,224 with numbers, ? for an unknown size, or a range "
        "such as 1..32 or 1..8..32"
    )


def _size(text: str) -> int | tuple[int, ...] | None:
    """Return a size: ``?`` is None, ``1..32`` is (1, 32, 32) and ``1..8..32`` is (1, 8, 32)."""
    if text.strip() == "?":
        return None
    numbers = tuple(map(int, text.split("..")))
    if len(numbers) > 3:
        raise ValueError(text)
    if len(numbers) == 2:
        return (*numbers, numbers[-1])
    return numbers if len(numbers) == 3 else numbers[0]


def name_and_file(text: str) -> tuple[str, str]:
    """Read ``data=x.npy``, ``data=x.npz`` or ``x.npz``."""
    name, _, path = text.partition("=") if "=" in text else ("", "", text)
    if not path or (not name and not path.endswith(".npz")):
        raise click.BadParameter(f"{text!r} must look like data=x.npy or x.npz")
    return name, path


def _in_a_folder(ctx: click.Context, param: click.Parameter, path: str | None) -> str | None:
    """Check before any work is done that a file can be written."""
    if path is not None:
        folder = os.path.dirname(path) or "."
        if not os.path.isdir(folder) or not os.access(folder, os.W_OK):
            raise click.BadParameter(f"{folder!r} is no folder that can be written to")
    return path


OUTPUT: dict[str, Any] = {
    "type": click.Path(dir_okay=False, writable=True),
    "callback": _in_a_folder,
}


def of_a_model(command: Callable[..., None]) -> Callable[..., None]:
    """Add the arguments and options that say which model, and what is asked of it."""

    @functools.wraps(command)
    def with_model(
        symbol: str,
        params: str | None,
        shape: tuple[tuple[str, Any], ...],
        dtype: tuple[tuple[str, str], ...],
        exclude_op: tuple[str, ...],
        exclude_node: tuple[str, ...],
        engine: str,
        min_subgraph_size: int,
        strict: bool,
        allow_extra_params: bool,
        **others: Any,
    ) -> None:
        options = {
            "shapes": dict(shape),
            "dtypes": dict(dtype),
            "exclude_ops": exclude_op,
            "exclude_nodes": exclude_node,
            "engine": engine,
            "min_subgraph_size": min_subgraph_size,
            "strict": strict,
            "allow_extra_params": allow_extra_params,
        }
        command((symbol, params, options), **others)

    for add in reversed(_MODEL_OPTIONS):
        with_model = add(with_model)
    return with_model


_MODEL_OPTIONS: tuple[Callable[[Callable[..., None]], Callable[..., None]], ...] = (
    click.argument("symbol", type=click.Path()),
    click.argument("params", type=click.Path(), required=False),
    click.option(
        "--shape",
        metavar="NAME=SIZES",
        multiple=True,
        callback=each(name_and_sizes),
        help="Sizes of an input, as far as they are fixed: data=1,3,224,224, data=?,3,224,224, "
        "data=1..8..32,3,224,224 (smallest, best, largest) or data=1..32,3,224,224 (best at 32).",
    ),
    click.option(
        "--dtype",
        metavar="NAME=DTYPE",
        multiple=True,
        callback=each(name_and_dtype),
        help="Type of an input: data=float16.",
    ),
    click.option(
        "--engine",
        default="auto",
        metavar="NAME",
        help="What runs the parts: auto, onnxruntime, tensorrt or tensorrt_rtx.",
    ),
    click.option(
        "--min-subgraph-size",
        metavar="N",
        type=click.IntRange(min=1),
        default=2,
        show_default=True,
        help="Parts with fewer operators stay in MXNet.",
    ),
    click.option("--exclude-op", metavar="OP", multiple=True, help="Keep an operator in MXNet."),
    click.option("--exclude-node", metavar="NAME", multiple=True, help="Keep a node in MXNet."),
    click.option("--strict", is_flag=True, help="Fail where a part would fall back to MXNet."),
    click.option(
        "--allow-extra-params", is_flag=True, help="Accept parameters that the model never reads."
    ),
)

input_option = click.option(
    "--input",
    "inputs",
    metavar="NAME=FILE",
    multiple=True,
    callback=each(name_and_file),
    help="What to feed: data=x.npy, or x.npz with an array for each input. Repeatable.",
)
