"""The command line: ``mxtrt explain``, ``mxtrt optimize`` and ``mxtrt run`` on checkpoint files.

Nothing heavy is imported here: ``mxtrt --help`` needs neither MXNet nor rich.
"""

from __future__ import annotations

import functools
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import median
from typing import TYPE_CHECKING, Any, Optional

import click

from . import __version__
from .errors import UserError
from .graph import format_shape

if TYPE_CHECKING:
    from .reports import Report

Model = tuple[str, Optional[str], Mapping[str, Any]]
"""The paths of a symbol and of its parameters, and the options for `mxtrt.optimize`."""

PATIENCE = 2.0  # seconds without a sign of life


class _Commands(click.Group):
    """Commands that tell a user's error in one sentence; own bugs keep their traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        ctx.with_resource(warnings.catch_warnings())
        warnings.simplefilter("ignore", DeprecationWarning)  # MXNet's, about NumPy and SciPy
        warnings.showwarning = _tell_warning
        # MXNet otherwise logs a line at every bind
        os.environ.setdefault("MXNET_SUBGRAPH_VERBOSE", "0")
        try:
            return super().invoke(ctx)
        except UserError as error:
            raise click.ClickException(str(error)) from None


def _tell_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    click.echo(f"Warning: {message}", err=True)


# -- what options take -------------------------------------------------------------------------


def _each(read: Callable[[str], Any]) -> Callable[..., tuple[Any, ...]]:
    """Return the callback of an option that may be repeated."""
    return lambda ctx, param, texts: tuple(read(text) for text in texts)


def _name_and_dtype(text: str) -> tuple[str, str]:
    name, _, dtype = text.rpartition("=")
    if not name or not dtype:
        raise click.BadParameter(f"{text!r} must look like data=float16")
    return name, dtype


def _name_and_sizes(text: str) -> tuple[str, tuple[Any, ...]]:
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


def _name_and_file(text: str) -> tuple[str, str]:
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


_OUTPUT: dict[str, Any] = {
    "type": click.Path(dir_okay=False, writable=True),
    "callback": _in_a_folder,
}


def _of_a_model(command: Callable[..., None]) -> Callable[..., None]:
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
        callback=_each(_name_and_sizes),
        help="Sizes of an input, as far as they are fixed: data=1,3,224,224, data=?,3,224,224, "
        "data=1..8..32,3,224,224 (smallest, best, largest) or data=1..32,3,224,224 (best at 32).",
    ),
    click.option(
        "--dtype",
        metavar="NAME=DTYPE",
        multiple=True,
        callback=_each(_name_and_dtype),
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

_input_option = click.option(
    "--input",
    "inputs",
    metavar="NAME=FILE",
    multiple=True,
    callback=_each(_name_and_file),
    help="What to feed: data=x.npy, or x.npz with an array for each input. Repeatable.",
)


# -- commands ----------------------------------------------------------------------------------


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mxtrt", message="%(prog)s %(version)s")
def main() -> None:
    """Run MXNet models in ONNX Runtime, inside the same MXNet symbol.

    SYMBOL and PARAMS are the two files of an MXNet checkpoint.

    \b
    Examples:
      mxtrt explain net-symbol.json net-0000.params
      mxtrt optimize net-symbol.json net-0000.params --shape data=1,3,224,224
      mxtrt run net-symbol.json net-0000.params --input data=images.npy -o scores.npz
    """  # noqa: D301


@main.command()
@_of_a_model
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of the table.")
@click.option("--dot", **_OUTPUT, help="Write the graph in Graphviz's language.")
@click.option("--picture", **_OUTPUT, help="Draw the graph as .svg, .png or .pdf.")
def explain(model: Model, as_json: bool, dot: str | None, picture: str | None) -> None:
    """Say what moves into an engine, what stays in MXNet, and why.

    \b
    Examples:
      mxtrt explain net-symbol.json net-0000.params
      mxtrt explain net-symbol.json net-0000.params --shape data=1,3,224,224
      mxtrt explain net-symbol.json --picture net.svg
      mxtrt explain net-symbol.json net-0000.params --json > report.json
    """  # noqa: D301
    from .pipeline import explain as explain_model

    symbol, params, options = model
    with _progress("reading the model"):
        report = explain_model(symbol, params, **options)
    if as_json:
        click.echo(report.to_json())
    else:
        _print_report(report)
    if dot is not None:
        with open(dot, "w", encoding="utf-8") as file:
            file.write(report.to_dot())
    if picture is not None:
        report.render(picture)


@main.command()
@_of_a_model
@_input_option
def optimize(model: Model, inputs: tuple[tuple[str, str], ...]) -> None:
    """Optimise a model and compare it with MXNet: outputs and speed.

    Inputs that are not given are random; an unknown batch size is then 1. Nothing is written.

    \b
    Examples:
      mxtrt optimize net-symbol.json net-0000.params --shape data=1,3,224,224
      mxtrt optimize net-symbol.json net-0000.params --input data=images.npy
    """  # noqa: D301
    from .trials import Trial, compare, read_arrays

    given = read_arrays(inputs)
    with _progress("optimising"):
        trial = Trial(*model)
    feeds = trial.with_random(trial.feeds(given))
    _print_report(trial.report)
    with _progress("comparing with MXNet"):
        comparison = compare(trial, feeds)
    click.echo()
    for line in comparison.lines():
        click.echo(line)


@main.command()
@_of_a_model
@_input_option
@click.option(
    "--batch", metavar="N", type=click.IntRange(min=1), help="Feed so many rows at a time."
)
@click.option("-o", "--output", **_OUTPUT, help="Write the outputs as .npz, by name.")
def run(
    model: Model, inputs: tuple[tuple[str, str], ...], batch: int | None, output: str | None
) -> None:
    """Optimise a model and run it on arrays from files.

    \b
    Examples:
      mxtrt run net-symbol.json net-0000.params --input data=images.npy
      mxtrt run net-symbol.json net-0000.params --input inputs.npz --batch 32 -o scores.npz
    """  # noqa: D301
    from .trials import Trial, read_arrays, split, write_arrays

    given = read_arrays(inputs)
    with _progress("optimising"):
        trial = Trial(*model)
    feeds = trial.feeds(given)
    batches = [feeds] if batch is None else split(feeds, batch)
    click.echo(trial.report.headline)
    with _progress("running", total=len(batches)) as advance:
        outputs, seconds = trial.run(batches, advance)
    for name, array in outputs.items():
        click.echo(f"{name}  {format_shape(array.shape)}  {array.dtype}")
    click.echo(_times(seconds))
    if output is not None:
        write_arrays(output, outputs)


# -- what people see ---------------------------------------------------------------------------


def _print_report(report: Report) -> None:
    from rich.console import Console

    Console().print(report, soft_wrap=True)


def _times(seconds: Sequence[float]) -> str:
    if len(seconds) == 1:
        return f"{1000 * seconds[0]:.2f} ms"
    return (
        f"{sum(seconds):.3f} s in {len(seconds)} batches, "
        f"{1000 * median(seconds):.2f} ms a batch (median)"
    )


@contextmanager
def _progress(what: str, total: int | None = None) -> Iterator[Callable[[], None]]:
    """Show on a terminal's stderr that work goes on once it has taken `PATIENCE` seconds.

    Yields
    ------
    callable
        Says that one of `total` steps is done.
    """
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    bar = Progress(console=console, transient=True, disable=not console.is_terminal)
    task = bar.add_task(what, total=total)
    timer = threading.Timer(PATIENCE, bar.start)
    timer.start()
    try:
        yield lambda: bar.advance(task)
    finally:
        timer.cancel()
        timer.join()  # it may be about to start the bar
        if bar.live.is_started:
            bar.stop()
