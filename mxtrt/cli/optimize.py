"""``mxtrt optimize``."""

from __future__ import annotations

import click

from .arguments import Model, input_option, of_a_model
from .terminal import print_report, progress


@click.command()
@of_a_model
@input_option
def optimize(model: Model, inputs: tuple[tuple[str, str], ...]) -> None:
    """Optimise a model and compare it with MXNet: outputs and speed.

    Inputs that are not given are random; an unknown batch size is then 1. Nothing is written.

    \b
    Examples:
      mxtrt optimize net-symbol.json net-0000.params --shape data=1,3,224,224
      mxtrt optimize net-symbol.json net-0000.params --input data=images.npy
    """  # noqa: D301
    from ..array_files import read_arrays
    from ..trials import Trial, compare

    given = read_arrays(inputs)
    with progress("optimising"):
        trial = Trial(*model)
    feeds = trial.with_random(trial.feeds(given))
    print_report(trial.report)
    with progress("comparing with MXNet"):
        comparison = compare(trial, feeds)
    click.echo()
    for line in comparison.lines():
        click.echo(line)
