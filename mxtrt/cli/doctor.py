"""``mxtrt doctor``."""

from __future__ import annotations

import json

import click

from .terminal import progress


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of sentences.")
@click.pass_context
def doctor(context: click.Context, as_json: bool) -> None:
    """Say what works on this machine, what does not, and what to install.

    The exit code is 0 where TensorRT builds and runs a model here, else 1.

    \b
    Examples:
      mxtrt doctor
      mxtrt doctor --json
    """  # noqa: D301
    from ..doctor import examine

    with progress("trying MXNet and the engines"):
        findings = examine()
    if as_json:
        click.echo(json.dumps(findings.to_dict(), indent=1))
    else:
        for line in findings.lines():
            click.echo(line)
    context.exit(0 if findings.tensorrt_works else 1)
