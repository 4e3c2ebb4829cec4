"""``mxtrt build``."""

from __future__ import annotations

from typing import Any

import click

from .arguments import OUTPUT, dtype_option, of_a_plan, shape_option
from .terminal import progress


@click.command()
@click.argument("model", type=click.Path())
@click.argument("params", type=click.Path(), required=False)
@click.option("-o", "--output", **OUTPUT, required=True, help="The plan's file.")
@shape_option
@dtype_option
@click.option(
    "--engine",
    default="auto",
    metavar="NAME",
    help="Whose plan: auto, tensorrt or tensorrt_rtx.",
)
@click.option(
    "--target",
    metavar="GPU,…",
    default="",
    help="Build for other GPUs, with TensorRT-RTX and without one: sm86,sm89,sm120.",
)
@of_a_plan
def build(
    model: str,
    params: str | None,
    output: str,
    shape: tuple[tuple[str, Any], ...],
    dtype: tuple[tuple[str, str], ...],
    engine: str,
    target: str,
    tensorrt: dict[str, Any],
) -> None:
    """Build a TensorRT plan from any ONNX file, or from a checkpoint.

    MODEL is an ONNX file, or a symbol with its PARAMS. What is known of the plan goes into
    OUTPUT.json beside it; trtexec reads the plan as well.

    \b
    Examples:
      mxtrt build net.onnx -o net.plan
      mxtrt build net.onnx -o net.plan --shape data=1..8..32,3,224,224 --precision fp16
      mxtrt build net-symbol.json net-0000.params --shape data=1,3,224,224 -o net.plan
      mxtrt build net.onnx -o net.plan --target sm86,sm89,sm120
    """  # noqa: D301
    from .. import runtime

    with progress("building the plan"):
        info = runtime.build(
            model,
            output,
            params,
            shapes=dict(shape),
            dtypes=dict(dtype),
            engine=engine,
            targets=[name for name in target.split(",") if name],
            **tensorrt,
        )
    for line in info.lines():
        click.echo(line)
