"""``mxtrt export``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .arguments import OUTPUT, dtype_option, shape_option
from .terminal import progress

if TYPE_CHECKING:
    import onnx


@click.command()
@click.argument("symbol", type=click.Path())
@click.argument("params", type=click.Path(), required=False)
@shape_option
@dtype_option
@click.option("-o", "--output", required=True, **OUTPUT, help="The ONNX file to write.")
@click.option(
    "--external", is_flag=True, help="Put the weights into a second file, OUTPUT.data, beside it."
)
@click.option("--check", is_flag=True, help="Let ONNX's own checker look at what was written.")
def export(
    symbol: str,
    params: str | None,
    shape: tuple[tuple[str, Any], ...],
    dtype: tuple[tuple[str, str], ...],
    output: str,
    external: bool,
    check: bool,
) -> None:
    """Write the whole model as one ONNX file, opset 17.

    Inputs, outputs and weights keep MXNet's names. Sizes that are not given, or are given as ? or
    as a range, may be any. Weights of 2 GiB and more go into a second file in any case.

    \b
    Examples:
      mxtrt export net-symbol.json net-0000.params --shape data=1,3,224,224 -o net.onnx
      mxtrt export net-symbol.json net-0000.params --shape data=?,3,224,224 -o net.onnx --check
    """  # noqa: D301
    from ..onnx_file import write_onnx
    from ..params import read_params
    from ..symbol import load_symbol
    from ..whole_model import whole_model

    with progress("exporting"):
        arrays = read_params(params).arrays
        proto, model = whole_model(load_symbol(symbol), arrays, dict(shape), dict(dtype))
        write_onnx(proto, model.weights, output, external=external)
        if check:
            _check(output)
    for kind, values in ("input", proto.graph.input), ("output", proto.graph.output):
        for value in values:
            click.echo(f"{kind:6}  {_described(value)}")
    click.echo(f"{output}: {len(proto.graph.node)} ONNX operators, {len(model.weights)} weights")


def _check(path: str) -> None:
    import onnx

    onnx.checker.check_model(path, full_check=True)


def _described(value: onnx.ValueInfoProto) -> str:
    """Return name, shape and type as reports show them."""
    from onnx.helper import tensor_dtype_to_np_dtype

    from ..graph import format_shape

    tensor = value.type.tensor_type
    sizes = [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]
    shape = format_shape(tuple(sizes) if tensor.HasField("shape") else None)
    return f"{value.name}  {shape}  {tensor_dtype_to_np_dtype(tensor.elem_type)}"
