"""``mxtrt run``."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import click

from ..graph import format_shape
from .arguments import OUTPUT, Model, input_option, of_a_model
from .terminal import progress


@click.command()
@of_a_model
@input_option
@click.option(
    "--batch", metavar="N", type=click.IntRange(min=1), help="Feed so many rows at a time."
)
@click.option("-o", "--output", **OUTPUT, help="Write the outputs as .npz, by name.")
def run(
    model: Model, inputs: tuple[tuple[str, str], ...], batch: int | None, output: str | None
) -> None:
    """Optimise a model and run it on arrays from files.

    \b
    Examples:
      mxtrt run net-symbol.json net-0000.params --input data=images.npy
      mxtrt run net-symbol.json net-0000.params --input inputs.npz --batch 32 -o scores.npz
    """  # noqa: D301
    from ..array_files import read_arrays, split, write_arrays
    from ..trials import Trial

    given = read_arrays(inputs)
    with progress("optimising"):
        trial = Trial(*model)
    feeds = trial.feeds(given)
    batches = [feeds] if batch is None else split(feeds, batch)
    click.echo(trial.report.headline)
    with progress("running", total=len(batches)) as advance:
        outputs, seconds = trial.run(batches, advance)
    for name, array in outputs.items():
        click.echo(f"{name}  {format_shape(array.shape)}  {array.dtype}")
    click.echo(times(seconds))
    if output is not None:
        write_arrays(output, outputs)


def times(seconds: Sequence[float]) -> str:
    """Return how long the batches took, in words."""
    if len(seconds) == 1:
        return f"{1000 * seconds[0]:.2f} ms"
    return (
        f"{sum(seconds):.3f} s in {len(seconds)} batches, "
        f"{1000 * median(seconds):.2f} ms a batch (median)"
    )
