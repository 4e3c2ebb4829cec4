"""``mxtrt optimize``."""

from __future__ import annotations

import os

import click

from .arguments import Model, input_option, of_a_model, with_tensorrt
from .terminal import print_report, progress


def _prefix(ctx: click.Context, param: click.Parameter, prefix: str | None) -> str | None:
    """Check before any work is done that files can be written."""
    if prefix is not None:
        folder, name = os.path.split(prefix)
        if not name:
            raise click.BadParameter(f"{prefix!r} is a folder; pass the beginning of file names")
        if not os.path.isdir(folder or ".") or not os.access(folder or ".", os.W_OK):
            raise click.BadParameter(f"{folder or '.'!r} is no folder that can be written to")
    return prefix


@click.command()
@of_a_model
@with_tensorrt
@input_option
@click.option(
    "-o",
    "--output",
    metavar="PREFIX",
    callback=_prefix,
    help="Write PREFIX-symbol.json, PREFIX-0000.params and PREFIX-engines.mxtrt.",
)
@click.option("--plans", is_flag=True, help="With -o: write TensorRT's plans for this GPU, too.")
def optimize(
    model: Model, inputs: tuple[tuple[str, str], ...], output: str | None, plans: bool
) -> None:
    """Optimise a model, and save it or compare it with MXNet: outputs and speed.

    With -o the optimised model is saved: mxtrt run PREFIX and mxtrt.load(PREFIX) load it, here or
    on another machine, and so does mx.model.load_checkpoint(PREFIX, 0) after import mxtrt.

    Without -o it is compared. Inputs that are not given are random; an unknown batch size is then
    1. Nothing is written.

    \b
    Examples:
      mxtrt optimize net-symbol.json net-0000.params --shape data=1..32,3,224,224 -o out
      mxtrt optimize net-symbol.json net-0000.params --shape data=1,3,224,224
      mxtrt optimize net-symbol.json net-0000.params --input data=images.npy
    """  # noqa: D301
    if output is None and plans:
        raise click.UsageError("--plans needs -o")
    if output is None:
        _compare(model, inputs)
    elif inputs:
        raise click.UsageError("--input is for the comparison, and -o saves without one")
    else:
        _save(model, output, plans)


def _save(model: Model, prefix: str, plans: bool) -> None:
    from ..errors import BadModel
    from ..operator import report
    from ..pipeline import explain
    from ..pipeline import optimize as optimize_model
    from ..saved import file_names, save

    symbol, params, options = model
    with progress("optimising"):
        optimized, kept = optimize_model(symbol, params, **options)
    try:
        told = report(optimized)
    except BadModel:  # nothing moved
        told = explain(symbol, params, **options)
    print_report(told)
    with progress("saving"):
        save(prefix, optimized, kept, plans=plans)
    click.echo()
    for name in file_names(prefix):
        click.echo(f"{name}  {os.path.getsize(name) / 2**20:.1f} MiB")


def _compare(model: Model, inputs: tuple[tuple[str, str], ...]) -> None:
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
