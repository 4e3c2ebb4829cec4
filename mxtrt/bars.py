"""Throughput as bars: an SVG picture that needs no library."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from .errors import BadOption
from .picture import COLOURS

WIDTH, LEFT, RIGHT, TOP = 760, 250, 110, 56
BAR, GAP, GROUP = 20, 6, 18  # pixels
GREY = ("#d9d9d9", "#8c8c8c")


@dataclass(frozen=True)
class Bar:
    """One bar.

    Attributes
    ----------
    name : str
        What was measured.
    value : float
        How long the bar is.
    label : str
        What stands at its end.
    """

    name: str
    value: float
    label: str


def check_name(path: str) -> None:
    """Raise BadOption unless a picture's name ends in ``.svg``."""
    if not path.lower().endswith(".svg"):
        raise BadOption(f"{path}: this picture's name ends in .svg")


def draw(title: str, subtitle: str, groups: Sequence[tuple[str, Sequence[Bar]]]) -> str:
    """Return a picture of groups of bars; bars of one name have one colour.

    Parameters
    ----------
    title, subtitle : str
        What stands above.
    groups : sequence of (str, sequence of Bar)
        The groups with what stands beside them; the first name is that of the baseline, in grey.
    """
    names = list(dict.fromkeys(bar.name for _, bars in groups for bar in bars))
    colours = {name: _colour(index) for index, name in enumerate(names)}
    largest = max((bar.value for _, bars in groups for bar in bars), default=1.0) or 1.0
    rows = sum(len(bars) * (BAR + GAP) + GROUP for _, bars in groups)
    height = TOP + rows + GROUP
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" font-family="Helvetica,Arial,sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="16" y="24" font-size="16" font-weight="bold">{escape(title)}</text>',
        f'<text x="16" y="42" fill="#666666">{escape(subtitle)}</text>',
    ]
    top = TOP
    for label, bars in groups:
        lines.append(f'<text x="16" y="{top + BAR - 6}" font-weight="bold">{escape(label)}</text>')
        for bar in bars:
            lines += _bar(bar, top, bar.value / largest, colours[bar.name])
            top += BAR + GAP
        top += GROUP
    return "\n".join([*lines, "</svg>"]) + "\n"


def _colour(index: int) -> tuple[str, str]:
    if not index:
        return GREY
    _, fill, border = COLOURS[(index - 1) % len(COLOURS)]
    return fill, border


def _bar(bar: Bar, top: int, share: float, colour: tuple[str, str]) -> Iterator[str]:
    width = max(1.0, share * (WIDTH - LEFT - RIGHT))
    fill, border = colour
    middle = top + BAR - 6
    yield f'<text x="{LEFT - 8}" y="{middle}" text-anchor="end">{escape(bar.name)}</text>'
    yield (
        f'<rect x="{LEFT}" y="{top}" width="{width:.1f}" height="{BAR}" fill="{fill}" '
        f'stroke="{border}"/>'
    )
    yield f'<text x="{LEFT + width + 6:.1f}" y="{middle}">{escape(bar.label)}</text>'
