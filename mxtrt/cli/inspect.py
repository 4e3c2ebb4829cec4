"""``mxtrt inspect``."""

from __future__ import annotations

import json

import click

from .terminal import progress


@click.command()
@click.argument("file", type=click.Path())
@click.argument("params", type=click.Path(), required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of the table.")
@click.option("--device", metavar="N", type=int, default=0, help="The GPU that loads a plan.")
def inspect(file: str, params: str | None, as_json: bool, device: int) -> None:
    """Say what a file holds: a plan, an ONNX model, a symbol, or parameters.

    Of a plan also the layers, with their precisions and tactics, where its GPU is.

    \b
    Examples:
      mxtrt inspect net.plan
      mxtrt inspect net.onnx
      mxtrt inspect net-symbol.json net-0000.params
    """  # noqa: D301
    from ..contents import inspect_file

    with progress("reading"):
        contents = inspect_file(file, params, device=device)
    if as_json:
        click.echo(json.dumps(contents.to_dict(), indent=1))
        return
    for line in contents.lines():
        click.echo(line)
