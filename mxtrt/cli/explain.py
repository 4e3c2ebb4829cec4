"""``mxtrt explain``."""

from __future__ import annotations

import click

from .arguments import OUTPUT, Model, of_a_model, with_tensorrt
from .terminal import print_report, progress


@click.command()
@of_a_model
@with_tensorrt
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of the table.")
@click.option("--dot", **OUTPUT, help="Write the graph in Graphviz's language.")
@click.option("--picture", **OUTPUT, help="Draw the graph as .svg, .png or .pdf.")
def explain(model: Model, as_json: bool, dot: str | None, picture: str | None) -> None:
    """Say what moves into an engine, what stays in MXNet, and why.

    \b
    Examples:
      mxtrt explain net-symbol.json net-0000.params
      mxtrt explain net-symbol.json net-0000.params --shape data=1,3,224,224
      mxtrt explain net-symbol.json --picture net.svg
      mxtrt explain net-symbol.json net-0000.params --json > report.json
    """  # noqa: D301
    from ..pipeline import explain as explain_model

    symbol, params, options = model
    with progress("reading the model"):
        report = explain_model(symbol, params, **options)
    if as_json:
        click.echo(report.to_json())
    else:
        print_report(report)
    if dot is not None:
        with open(dot, "w", encoding="utf-8") as file:
            file.write(report.to_dot())
    if picture is not None:
        report.render(picture)
