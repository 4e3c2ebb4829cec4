"""``mxtrt run``."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

import click

from ..errors import BadOption
from ..graph import format_shape
from .arguments import OUTPUT, Model, each, of_a_model, with_tensorrt
from .terminal import progress

if TYPE_CHECKING:
    from ..array_files import Array, Arrays
    from ..graph import Value
    from ..image_files import Images, Preparation
    from ..trials import Trial

IMAGES_AT_A_TIME = 32
FILES = "files"  # the name of the array that says which row is of which image


def _name_and_path(text: str) -> tuple[str, str]:
    """Read ``data=x.npy``, or ``x.npy`` and ``images/`` for the only input."""
    name, _, path = (
        text.partition("=") if "=" in text and not os.path.exists(text) else ("", "", text)
    )
    if not path:
        raise click.BadParameter(f"{text!r} must look like x.npy, data=x.npy, x.npz or images/")
    return name, path


def _numbers(ctx: click.Context, param: click.Parameter, text: str) -> tuple[float, ...]:
    try:
        return tuple(map(float, text.split(",")))
    except ValueError:
        raise click.BadParameter(f"{text!r} must look like 123.7,116.3,103.5") from None


def _height_and_width(
    ctx: click.Context, param: click.Parameter, text: str | None
) -> tuple[int, int] | None:
    sizes = (text or "").split(",")
    if text is not None and not (len(sizes) == 2 and all(n.isdigit() and int(n) for n in sizes)):
        raise click.BadParameter(f"{text!r} must look like 224,224")
    return None if text is None else (int(sizes[0]), int(sizes[1]))


@click.command()
@of_a_model
@with_tensorrt
@click.option(
    "--input",
    "inputs",
    metavar="[NAME=]FILE",
    multiple=True,
    callback=each(_name_and_path),
    help="What to feed: an .npy file, an .npz file with an array for each input, an image, a "
    "folder of images, or a RecordIO file (.rec). Repeatable.",
)
@click.option(
    "--batch",
    metavar="N",
    type=click.IntRange(min=1),
    help="Feed so many rows at a time; by default arrays as a whole, and 32 images.",
)
@click.option("-o", "--output", **OUTPUT, help="Write the outputs as .npz, by name.")
@click.option(
    "--size",
    metavar="H,W",
    callback=_height_and_width,
    help="Scale images until they cover so many pixels and cut out the middle; by default the size "
    "that the model reads.",
)
@click.option(
    "--mean",
    metavar="R,G,B",
    default="0",
    callback=_numbers,
    help="Taken from images, whose values are 0 to 255.",
)
@click.option(
    "--std", metavar="R,G,B", default="1", callback=_numbers, help="Then images are divided by it."
)
@click.option("--bgr", is_flag=True, help="The model reads blue first, and red last.")
def run(
    model: Model,
    inputs: tuple[tuple[str, str], ...],
    batch: int | None,
    output: str | None,
    **preparation: Any,
) -> None:
    """Run a model on arrays and images from files.

    SYMBOL is what mxtrt optimize -o wrote, without the endings of its files, or with PARAMS a
    checkpoint, which is optimised first. Images are fed as float32 (N, C, H, W).

    \b
    Examples:
      mxtrt run out --input images/ --batch 32 -o scores.npz
      mxtrt run out --input val.rec --mean 123.68,116.28,103.53 --std 58.4,57.1,57.4
      mxtrt run net-symbol.json net-0000.params --input data=images.npy
      mxtrt run net-symbol.json net-0000.params --input inputs.npz --batch 32 -o scores.npz
    """  # noqa: D301
    from ..array_files import read_arrays, write_arrays
    from ..image_files import Images, is_image_source

    pictured = [pair for pair in inputs if is_image_source(pair[1])]
    arrays = read_arrays([pair for pair in inputs if pair not in pictured])
    images = Images([path for _, path in pictured]) if pictured else None
    trial = _load(model)
    feeds = trial.feeds(arrays)
    click.echo(trial.report.headline)
    if images is None:
        feed: _Feed = _of_arrays(feeds, batch)
    else:
        feed = _of_images(trial, images, [name for name, _ in pictured], batch, preparation, feeds)
    start = time.perf_counter()
    with progress("running", total=feed.count) as advance:
        outputs, seconds = trial.run(feed.batches, advance, fill=feed.fill)
    for name, array in outputs.items():
        click.echo(f"{name}  {format_shape(array.shape)}  {array.dtype}")
    click.echo(times(seconds))
    if feed.rows:
        click.echo(throughput(feed.rows, sum(seconds), time.perf_counter() - start))
    if output is not None:
        write_arrays(output, {**feed.files(), **outputs})


def _load(model: Model) -> Trial:
    from ..errors import BadModel
    from ..saved import file_names
    from ..trials import Trial

    symbol, params, options = model
    names = file_names(symbol)
    if params is not None or os.path.isfile(symbol):
        with progress("optimising"):
            return Trial(*model)
    if os.path.exists(names[2]):
        with progress("loading"):
            return Trial.of_saved(symbol, {n: v for n, v in options.items() if _is_given(n, v)})
    if not os.path.exists(names[0]):
        raise BadModel(f"{symbol}: no such symbol file, and {names[2]} is not there either")
    with progress("optimising"):
        return Trial(names[0], names[1] if os.path.exists(names[1]) else None, options)


def _is_given(name: str, value: Any) -> bool:
    """Say whether the value of an option is not its default."""
    return bool(value) and (name, value) not in (("engine", "auto"), ("min_subgraph_size", 2))


# -- what is fed -------------------------------------------------------------------------------


@dataclass
class _Feed:
    """Batches, and what is known of them.

    Attributes
    ----------
    batches : iterator of mapping
        What to feed.
    count : int or None
        How many batches there are, as far as that is known.
    rows : int
        How many rows have been fed so far.
    names : list of str
        Where images came from.
    fill : bool
        Whether a batch may have fewer rows than the model reads.
    """

    batches: Iterator[Arrays] = field(default_factory=lambda: iter(()))
    count: int | None = None
    rows: int = 0
    names: list[str] = field(default_factory=list)
    fill: bool = False

    def files(self) -> Mapping[str, Array]:
        """Return where images came from as an array, under a name of its own."""
        import numpy as np

        return {FILES: np.array(self.names)} if self.names else {}


def _of_arrays(feeds: Arrays, batch: int | None) -> _Feed:
    from ..array_files import split

    batches = [feeds] if batch is None else split(feeds, batch)
    lengths = {len(array) for array in feeds.values() if array.ndim}
    rows = lengths.pop() if len(lengths) == 1 else 0
    return _Feed(iter(batches), len(batches), rows, fill=batch is not None)


def _of_images(
    trial: Trial,
    images: Images,
    names: Sequence[str],
    batch: int | None,
    preparation: Mapping[str, Any],
    others: Arrays,
) -> _Feed:
    from ..image_files import Preparation

    value = _image_input(trial, names)
    if others:
        raise BadOption("images cannot be fed together with arrays; put all inputs into an .npz")
    rows = batch or _fixed_size(value, 0) or IMAGES_AT_A_TIME
    height, width = _fixed_size(value, 2), _fixed_size(value, 3)
    prepare = Preparation(
        size=preparation["size"] or ((height, width) if height and width else None),
        channels=1 if _fixed_size(value, 1) == 1 else 3,
        **{name: preparation[name] for name in ("mean", "std", "bgr")},
    )
    feed = _Feed(fill=True)
    feed.count = None if images.count is None else -(-images.count // rows)
    feed.batches = _image_batches(feed, trial, value, images, prepare, rows)
    return feed


def _image_batches(
    feed: _Feed, trial: Trial, value: Value, images: Images, prepare: Preparation, rows: int
) -> Iterator[Arrays]:
    for names, array in images.batches(prepare, rows):
        feed.names += names
        feed.rows += len(names)
        yield trial.feeds({value.name: array})


def _image_input(trial: Trial, names: Sequence[str]) -> Value:
    inputs = trial.data_inputs()
    named = set(names) - {""}
    wanted = [v for v in inputs if v.name in named] if named else inputs
    if len(named) > 1 or len(wanted) != 1:
        read = ", ".join(value.name for value in inputs)
        raise BadOption(f"the model reads {read}; images go to one of them: --input NAME=images/")
    if wanted[0].rank not in (None, 4):
        raise BadOption(f"the model reads {wanted[0]}, and images are (N, C, H, W)")
    return wanted[0]


def _fixed_size(value: Value, axis: int) -> int | None:
    return None if value.shape is None else value.shape[axis]


# -- what is told ------------------------------------------------------------------------------


def times(seconds: Sequence[float]) -> str:
    """Return how long the batches took, in words."""
    if len(seconds) == 1:
        return f"{1000 * seconds[0]:.2f} ms"
    return (
        f"{sum(seconds):.3f} s in {len(seconds)} batches, "
        f"{1000 * median(seconds):.2f} ms a batch (median)"
    )


def throughput(rows: int, running: float, in_all: float) -> str:
    """Return how many rows were run in a second, in words."""
    return f"{rows / running:,.0f} rows a second, {rows / in_all:,.0f} with reading and feeding"
