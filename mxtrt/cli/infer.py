"""``mxtrt infer``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from ..errors import BadOption, nearest
from ..graph import format_shape
from .arguments import OUTPUT, each
from .run import times
from .terminal import progress

if TYPE_CHECKING:
    from ..array_files import Array, Arrays
    from ..runtime import Plan


def _maybe_name_and_file(text: str) -> tuple[str, str]:
    """Read ``data=x.npy``, or ``x.npy`` for the only input."""
    name, _, path = text.partition("=") if "=" in text else ("", "", text)
    if not path:
        raise click.BadParameter(f"{text!r} must look like x.npy, data=x.npy or x.npz")
    return name, path


def _feeds(arrays: Arrays, plan: Plan) -> dict[str, Array]:
    """Return arrays from files in the dtypes that the plan reads."""
    from ..array_files import cast

    read = {tensor.name: tensor.dtype for tensor in plan.inputs}
    if "" in arrays and len(read) == 1:
        arrays = {next(iter(read)): arrays[""], **{n: a for n, a in arrays.items() if n}}
    for name in arrays:
        if not name:
            raise BadOption(f"the plan reads {', '.join(read)}; pass --input NAME=FILE.npy")
        if name not in read:
            raise BadOption(f"the plan has no input {name!r}{nearest(name, read)}")
    return {name: cast(array, name, read[name]) for name, array in arrays.items()}


@click.command()
@click.argument("plan", type=click.Path())
@click.option(
    "--input",
    "inputs",
    metavar="FILE",
    multiple=True,
    callback=each(_maybe_name_and_file),
    help="What to feed: x.npy for the only input, data=x.npy, or x.npz. Repeatable.",
)
@click.option(
    "--batch", metavar="N", type=click.IntRange(min=1), help="Feed so many rows at a time."
)
@click.option("-o", "--output", **OUTPUT, help="Write the outputs as .npz, by name.")
@click.option("--engine", default="auto", metavar="NAME", help="Whose plan, where no file says so.")
@click.option("--device", metavar="N", type=int, default=0, help="The GPU.")
def infer(
    plan: str,
    inputs: tuple[tuple[str, str], ...],
    batch: int | None,
    output: str | None,
    engine: str,
    device: int,
) -> None:
    """Run a TensorRT plan on arrays from files.

    A plan is a program: run none whose origin you do not know.

    \b
    Examples:
      mxtrt infer net.plan --input x.npy
      mxtrt infer net.plan --input data=x.npy --batch 32 -o scores.npz
    """  # noqa: D301
    from .. import runtime
    from ..array_files import join, read_arrays, split, write_arrays

    arrays = read_arrays(inputs)
    with progress("loading the plan"):
        loaded = runtime.load(plan, engine=engine, device=device)
    feeds = _feeds(arrays, loaded)
    batches = [feeds] if batch is None else split(feeds, batch)
    parts, seconds = [], []
    with progress("running", total=len(batches)) as advance:
        for fed in batches:
            start = time.perf_counter()
            parts.append(loaded(fed))
            seconds.append(time.perf_counter() - start)
            advance()
    rows = [len(next(iter(fed.values()))) for fed in batches] if len(batches) > 1 else []
    outputs = {name: join(name, [made[name] for made in parts], rows) for name in loaded.outputs}
    for name, array in outputs.items():
        click.echo(f"{name}  {format_shape(array.shape)}  {array.dtype}")
    click.echo(times(seconds))
    if output is not None:
        write_arrays(output, outputs)
