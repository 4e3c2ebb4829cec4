"""Draw the pictures of docs/how_it_works.md into docs/pictures, with Graphviz.

    python docs/make_pictures.py

``pipeline.svg`` is the table of ``mxtrt/pipeline.py``; ``report.svg`` is what ``Report.render``
draws of a net with a Python operator in its middle.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import mxtrt  # isort: skip  # before mxnet: MXNet 1.9.1 needs help with today's NumPy

import mxnet as mx

from mxtrt.picture import write_picture

FOLDER = Path(__file__).resolve().parent / "pictures"

PIPELINE = """\
digraph {
  graph [fontname="Helvetica,Arial,sans-serif" fontsize=11 rankdir=LR nodesep=0.2 ranksep=0.35]
  node [fontname="Helvetica,Arial,sans-serif" fontsize=10 shape=box style="rounded,filled"
        fillcolor="#c3dcf3" color="#4a7fb5" margin="0.12,0.06"]
  edge [fontname="Helvetica,Arial,sans-serif" fontsize=9 color="#666666" arrowsize=0.6]
  model [label="Symbol, parameters,\\nsizes" fillcolor="#ffffff" color="#666666"]
  read [label="1 read_symbol"]
  partition [label="2 partition"]
  export [label="3 export_onnx"]
  build [label="4 build"]
  write [label="5 write_symbol"]
  store [label="store" shape=cylinder fillcolor="#f9d9b0" color="#c98425"]
  report [label="report:\\nwhy nodes stay" fillcolor="#ffffff" color="#666666"]
  optimized [label="Symbol with\\nengines in it" fillcolor="#ffffff" color="#666666"]
  model -> read
  read -> partition [label="Graph"]
  partition -> export [label="parts"]
  partition -> report [style=dashed]
  export -> build [label="ONNX"]
  build -> write [label="engines"]
  build -> store [dir=both style=dashed label="plans"]
  write -> optimized
}
"""


class Swish(mx.operator.CustomOp):  # type: ignore[misc]
    """An operator in Python: mxtrt cannot know what it computes."""

    def forward(self, is_train, req, in_data, out_data, aux):  # type: ignore[no-untyped-def]
        """Compute ``x * sigmoid(x)``."""
        self.assign(out_data[0], req[0], in_data[0] * mx.nd.sigmoid(in_data[0]))


@mx.operator.register("swish_of_the_docs")
class SwishProp(mx.operator.CustomOpProp):  # type: ignore[misc]
    """Its one input and one output have the same shape."""

    def create_operator(self, ctx, shapes, dtypes):  # type: ignore[no-untyped-def]
        """Return what computes it."""
        return Swish()


def report() -> mxtrt.Report:
    """Return the report of a small residual net with that operator behind its first block."""
    x = _unit(mx.sym.var("data"), "stem")
    x = mx.sym.Activation(
        mx.sym.elemwise_add(x, _unit(x, "block"), name="block_add"),
        act_type="relu",
        name="block_out",
    )
    x = mx.sym.Custom(x, op_type="swish_of_the_docs", name="swish")
    x = mx.sym.Pooling(
        _unit(x, "last"), global_pool=True, kernel=(1, 1), pool_type="avg", name="pool"
    )
    x = mx.sym.FullyConnected(x, num_hidden=10, name="scores")
    symbol = mx.sym.softmax(x, name="softmax")
    shapes, _, aux_shapes = symbol.infer_shape(data=(1, 3, 32, 32))
    args = dict(zip(symbol.list_arguments(), map(mx.nd.zeros, shapes)))
    del args["data"]
    aux = dict(zip(symbol.list_auxiliary_states(), map(mx.nd.ones, aux_shapes)))
    return mxtrt.explain(
        symbol, (args, aux), shapes={"data": (None, 3, None, None)}, engine="onnxruntime"
    )


def _unit(x: mx.sym.Symbol, name: str) -> mx.sym.Symbol:
    x = mx.sym.Convolution(x, kernel=(3, 3), pad=(1, 1), num_filter=16, no_bias=True, name=name)
    x = mx.sym.BatchNorm(x, fix_gamma=False, name=f"{name}_bn")
    return mx.sym.Activation(x, act_type="relu", name=f"{name}_relu")


def draw(folder: Path) -> None:
    """Draw both pictures into a folder."""
    folder.mkdir(exist_ok=True)
    write_picture(PIPELINE, str(folder / "pipeline.svg"))
    report().render(folder / "report.svg")


if __name__ == "__main__":
    warnings.simplefilter("ignore", DeprecationWarning)  # MXNet's, about NumPy
    draw(FOLDER)
