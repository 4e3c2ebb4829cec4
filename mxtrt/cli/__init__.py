"""The command line: one module for each command, on checkpoint files.

Nothing heavy is imported here: ``mxtrt --help`` needs neither MXNet nor rich.
"""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from typing import Any

import click

from .. import __version__, compat
from ..errors import EngineError, UserError
from . import bench, build, cache, doctor, explain, export, infer, inspect, optimize, run


class _Commands(click.Group):
    """Commands that tell a user's error in one sentence; own bugs keep their traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        ctx.with_resource(warnings.catch_warnings())
        warnings.simplefilter("ignore", DeprecationWarning)  # MXNet's, about NumPy and SciPy
        warnings.showwarning = _tell_warning
        # MXNet otherwise logs a line at every bind
        os.environ.setdefault("MXNET_SUBGRAPH_VERBOSE", "0")
        try:
            return super().invoke(ctx)
        except (UserError, EngineError) as error:
            raise click.ClickException(str(error)) from None
        except Exception as error:
            if not _from_importing_mxnet(error):
                raise
            if isinstance(error, ModuleNotFoundError) and error.name == "mxnet":
                raise click.ClickException(str(compat.not_installed())) from None
            raise click.ClickException(
                f"MXNet is installed and cannot be imported: {type(error).__name__}: {error} "
                "(mxtrt doctor says more)"
            ) from None


def _from_importing_mxnet(error: BaseException) -> bool:
    """Say whether an error was raised by ``import mxnet``, and not later by MXNet at work."""
    if isinstance(error, ModuleNotFoundError) and error.name == "mxnet":
        return True
    frames = [frame.f_globals for frame, _ in traceback.walk_tb(error.__traceback__)]
    names = [str(globals_.get("__name__", "")) for globals_ in frames]
    return "mxnet" in names and "mxnet" not in sys.modules


def _tell_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    click.echo(f"Warning: {message}", err=True)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mxtrt", message="%(prog)s %(version)s")
def main() -> None:
    """Run MXNet models in TensorRT and ONNX Runtime, inside the same MXNet symbol.

    SYMBOL and PARAMS are the two files of an MXNet checkpoint.

    \b
    Examples:
      mxtrt explain net-symbol.json net-0000.params
      mxtrt optimize net-symbol.json net-0000.params --shape data=1,3,224,224
      mxtrt run net-symbol.json net-0000.params --input data=images.npy -o scores.npz
    """  # noqa: D301


main.add_command(bench.bench)
main.add_command(build.build)
main.add_command(cache.cache)
main.add_command(doctor.doctor)
main.add_command(explain.explain)
main.add_command(export.export)
main.add_command(infer.infer)
main.add_command(inspect.inspect)
main.add_command(optimize.optimize)
main.add_command(run.run)
