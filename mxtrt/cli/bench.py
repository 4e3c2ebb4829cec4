"""``mxtrt bench``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from .arguments import OUTPUT, Model, of_a_model, of_tensorrt
from .terminal import progress

if TYPE_CHECKING:
    from ..bars import Bar
    from ..bench import Results, Row

MANY = 20  # layers: more are not printed, but stand in the JSON


def _numbers(ctx: click.Context, param: click.Parameter, text: str | None) -> tuple[int, ...]:
    """Read ``1,8,32``."""
    if text is None:
        return ()
    numbers = [word.strip() for word in text.split(",")]
    if not all(word.isdigit() and int(word) for word in numbers):
        raise click.BadParameter(f"{text!r} must look like 1,8,32,128")
    return tuple(map(int, numbers))


@click.command()
@of_a_model
@of_tensorrt
@click.option(
    "--batch",
    "batches",
    metavar="N,…",
    callback=_numbers,
    help="First sizes of the inputs: 1,8,32,128; by default the one in --shape, else 1.",
)
@click.option(
    "--seconds",
    metavar="S",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="How long each column is called, about.",
)
@click.option("--layers", is_flag=True, help="Time the layers, and say why it is slow.")
@click.option("--json", "json_file", **OUTPUT, help="Write everything as JSON.")
@click.option("--picture", **OUTPUT, help="Draw rows per second as bars, as .svg.")
def bench(
    model: Model,
    tensorrt: dict[str, Any],
    batches: tuple[int, ...],
    seconds: float,
    layers: bool,
    json_file: str | None,
    picture: str | None,
) -> None:
    """Measure a model in MXNet, through mxtrt, and in the engine alone, side by side.

    --precision takes several names, one after another: fp32,fp16. Inputs are random, and the
    columns take turns, so that a busy moment of the machine hits all of them.

    \b
    Examples:
      mxtrt bench net-symbol.json net-0000.params --shape data=1,3,224,224
      mxtrt bench net-symbol.json net-0000.params --shape data=1,3,224,224 \\
          --batch 1,8,32,128 --precision fp32,fp16 --json bench.json --picture bench.svg
      mxtrt bench net-symbol.json net-0000.params --shape data=1,3,224,224 --layers
    """  # noqa: D301
    from ..bars import check_name
    from ..bench import bench as run_bench

    symbol, params, options = model
    precisions = tensorrt.pop("precision", "fp32").split(",")
    if picture is not None:
        check_name(picture)
    with progress("measuring"):
        results = run_bench(
            symbol,
            params,
            batches=batches,
            precisions=precisions,
            seconds=seconds,
            layers=layers,
            **options,
            **tensorrt,
        )
    _print(results)
    if json_file is not None:
        with open(json_file, "w", encoding="utf-8") as file:
            json.dump(results.to_dict(), file, indent=1)
    if picture is not None:
        with open(picture, "w", encoding="utf-8") as file:
            file.write(_picture(symbol, results))


def _print(results: Results) -> None:
    from ..timing import table

    for line in table(results.table()):
        click.echo(line)
    for row in results.rows:
        for note in row.notes:
            click.echo(f"batch {row.batch}, {row.precision}: {note}")
        if row.layers:
            _print_layers(row)
    for note in results.notes:
        click.echo(note)


def _print_layers(row: Row) -> None:
    from ..graph import align_columns

    click.echo(f"\nbatch {row.batch}, {row.precision}: {len(row.layers)} layers, the slowest first")
    slowest = sorted(row.layers, key=lambda layer: -layer.milliseconds)
    lines = [("ms", "type", "MXNet's nodes")]
    lines += [
        (f"{layer.milliseconds:.3f}", layer.kind, ", ".join(layer.nodes) or f"({layer.name})")
        for layer in slowest[:MANY]
    ]
    for line in align_columns(lines):
        click.echo(line)
    if len(slowest) > MANY:
        rest = sum(layer.milliseconds for layer in slowest[MANY:])
        click.echo(f"{rest:.3f}  in {len(slowest) - MANY} others")
    for sentence in row.slow:
        click.echo(f"Slow: {sentence}.")


def _picture(symbol: str, results: Results) -> str:
    from ..bars import draw
    from ..timing import machine

    told = machine()
    subtitle = f"rows per second; {told['processor']}, {told['cores']} cores"
    groups = [(f"batch {row.batch}, {row.precision}", _bars(row)) for row in results.rows]
    return draw(symbol, subtitle, groups)


def _bars(row: Row) -> list[Bar]:
    from ..bars import Bar

    slowest = row.columns["MXNet"].per_second
    return [
        Bar(
            name,
            measured.per_second,
            f"{measured.per_second:,.0f}"
            + (f"  ({measured.per_second / slowest:.2f}x)" if name != "MXNet" else ""),
        )
        for name, measured in row.columns.items()
    ]
