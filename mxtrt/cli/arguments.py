"""What the commands' options take, and the options that several commands share."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
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


Option = Callable[[Callable[..., None]], Callable[..., None]]

shape_option: Option = click.option(
    "--shape",
    metavar="NAME=SIZES",
    multiple=True,
    callback=each(name_and_sizes),
    help="Sizes of an input, as far as they are fixed: data=1,3,224,224, data=?,3,224,224, "
    "data=1..8..32,3,224,224 (smallest, best, largest) or data=1..32,3,224,224 (best at 32).",
)
dtype_option: Option = click.option(
    "--dtype",
    metavar="NAME=DTYPE",
    multiple=True,
    callback=each(name_and_dtype),
    help="Type of an input: data=float16.",
)
input_option: Option = click.option(
    "--input",
    "inputs",
    metavar="NAME=FILE",
    multiple=True,
    callback=each(name_and_file),
    help="What to feed: data=x.npy, or x.npz with an array for each input. Repeatable.",
)


def _with(options: Sequence[Option], command: Callable[..., None]) -> Callable[..., None]:
    for add in reversed(options):
        command = add(command)
    return command


# -- what is asked of TensorRT -----------------------------------------------------------------


def of_tensorrt(command: Callable[..., None]) -> Callable[..., None]:
    """Add TensorRT's options; the command gets those that were given, as `mxtrt.optimize` does."""
    return _tensorrt((*_PLAN_OPTIONS, *_RUN_OPTIONS), command)


def with_tensorrt(command: Callable[..., None]) -> Callable[..., None]:
    """Add TensorRT's options to those of the model, beneath `of_a_model`."""

    @functools.wraps(command)
    def with_both(model: Model, *, tensorrt: Mapping[str, Any], **others: Any) -> None:
        symbol, params, options = model
        command((symbol, params, {**options, **tensorrt}), **others)

    return of_tensorrt(with_both)


def of_a_plan(command: Callable[..., None]) -> Callable[..., None]:
    """Add those of TensorRT's options that say how a plan is built; see `of_tensorrt`."""
    return _tensorrt(_PLAN_OPTIONS, command)


def _tensorrt(added: Sequence[Option], command: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(command)
    def with_options(*arguments: Any, **others: Any) -> None:
        names = [name for name in others if name in _TENSORRT_NAMES]
        given = {name: others.pop(name) for name in names}
        options = {name: value for name, value in given.items() if value is not None}
        command(*arguments, tensorrt=options, **others)

    return _with(added, with_options)


def _names(ctx: click.Context, param: click.Parameter, text: str | None) -> list[str] | None:
    """Read ``CUDNN,CUBLAS``."""
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def _bytes(ctx: click.Context, param: click.Parameter, text: str | None) -> int | None:
    """Read ``1073741824``, ``1G``, ``512M`` or ``64K``."""
    if text is None:
        return None
    units = {"K": 10, "M": 20, "G": 30}
    number, shift = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 0)
    if not number.isdigit():
        raise click.BadParameter(f"{text!r} must look like 1073741824, 512M or 1G")
    return int(number) << shift


_TENSORRT_NAMES = frozenset(
    {"precision", "tf32", "workspace", "optimization_level", "timing_cache", "device",
     "sparse_weights", "tactic_sources", "dla_core", "version_compatible", "hardware_compatible",
     "refit", "progress", "cuda_graph", "contexts", "background"}
)  # fmt: skip
_PLAN_OPTIONS: tuple[Option, ...] = (
    click.option(
        "--precision",
        metavar="NAME",
        help="What TensorRT computes in: fp32 (the default), fp16 or bf16.",
    ),
    click.option(
        "--tf32/--no-tf32",
        default=None,
        help="Round the factors of fp32 products to 11 bits, or do not.  [default: tf32]",
    ),
    click.option(
        "--workspace",
        metavar="BYTES",
        callback=_bytes,
        help="GPU memory that TensorRT may use while it runs a layer: 512M or 1G.",
    ),
    click.option(
        "--optimization-level",
        metavar="0-5",
        type=int,
        help="How long TensorRT's builder may search.",
    ),
    click.option(
        "--timing-cache",
        metavar="FILE",
        type=click.Path(dir_okay=False),
        help="What earlier builds timed: read and written.",
    ),
    click.option(
        "--sparse-weights",
        is_flag=True,
        default=None,
        help="Use that two in each four weights are 0, where they are.",
    ),
    click.option(
        "--tactic-sources",
        metavar="NAME,…",
        callback=_names,
        help="The only libraries that kernels may be of: CUDNN,JIT_CONVOLUTIONS.",
    ),
    click.option(
        "--dla-core",
        metavar="N",
        type=int,
        help="The deep learning accelerator that runs what it can; needs --precision fp16.",
    ),
    click.option(
        "--refit",
        is_flag=True,
        default=None,
        help="Build plans that can get other weights.",
    ),
    click.option(
        "--version-compatible",
        is_flag=True,
        default=None,
        help="Build plans that newer versions of TensorRT load.",
    ),
    click.option(
        "--hardware-compatible",
        is_flag=True,
        default=None,
        help="Build plans that other GPUs of Ampere and newer run.",
    ),
    click.option(
        "--progress/--no-progress",
        default=None,
        help="Show on a terminal that a build goes on, or do not.  [default: progress]",
    ),
    click.option("--device", metavar="N", type=int, help="The GPU."),
)
_RUN_OPTIONS: tuple[Option, ...] = (
    click.option(
        "--cuda-graph/--no-cuda-graph",
        default=None,
        help="Replay a CUDA graph, or do not; by default where it measures faster.",
    ),
    click.option(
        "--contexts",
        metavar="N",
        type=int,
        help="How many calls may run at once in an engine, each with memory of its own.",
    ),
    click.option(
        "--background",
        is_flag=True,
        default=None,
        help="Let ONNX Runtime serve other sizes while TensorRT builds for them.",
    ),
)


# -- which model, and what is asked of it ------------------------------------------------------


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

    return _with(_MODEL_OPTIONS, with_model)


_MODEL_OPTIONS: tuple[Option, ...] = (
    click.argument("symbol", type=click.Path()),
    click.argument("params", type=click.Path(), required=False),
    shape_option,
    dtype_option,
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
