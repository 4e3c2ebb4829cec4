"""``mxtrt cache``: the store of engines."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ..errors import BadStore

if TYPE_CHECKING:
    from ..store import Entry, Store

HEAD = ("last used", "MiB", "built in", "what", "precision", "engine", "GPU")


@click.group()
def cache() -> None:
    """Show and tidy the store, where built engines wait for the next process.

    Without --dir it is the folder that MXTRT_CACHE_DIR names, else the user's folder for caches.

    \b
    Examples:
      mxtrt cache list
      mxtrt cache size
      mxtrt cache verify
      mxtrt cache clear
    """  # noqa: D301


def _store(context: click.Context, option: click.Parameter, folder: str | None) -> Store:
    from ..store import FOLDER_VARIABLE, OFF, open_store

    store = open_store(True if folder is None else folder)
    if store is None:
        raise BadStore(f"there is no store: {FOLDER_VARIABLE} is {OFF!r}; --dir names one")
    return store


_of_a_store = click.option(
    "--dir", "store", metavar="FOLDER", callback=_store, help="Another store."
)


@cache.command("list")
@_of_a_store
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of the table.")
def list_(store: Store, as_json: bool) -> None:
    """List what the store holds, the most recently used first."""
    entries = store.entries()
    if as_json:
        click.echo(json.dumps([_to_dict(entry) for entry in entries], indent=2))
        return
    if not entries:
        click.echo(f"{store.root} is empty.")
        return
    for line in _aligned([HEAD, *map(_row, entries)]):
        click.echo(line)


@cache.command()
@_of_a_store
def size(store: Store) -> None:
    """Say where the store is, how large it is, and its limit."""
    count, used = len(store.entries()), store.size()
    click.echo(f"{store.root}: {_count(count)}, {_mib(used)} of at most {_mib(store.limit)} MiB")


@cache.command()
@_of_a_store
@click.option("--drop", is_flag=True, help="Remove the files that will not be used.")
def verify(store: Store, drop: bool) -> None:
    """Read and check every file.

    The exit code is 1 if one is damaged. mxtrt checks each file before it uses it, and builds
    again what is damaged.
    """
    entries = store.entries(verify=True)
    bad = [entry for entry in entries if entry.problem]
    for entry in bad:
        click.echo(f"{entry.path}: {entry.problem}")
        if drop:
            store.remove(entry)
    click.echo(f"{store.root}: {_count(len(entries))}, {len(bad)} of them bad")
    if bad and not drop:
        raise click.exceptions.Exit(1)


@cache.command()
@_of_a_store
def clear(store: Store) -> None:
    """Remove everything; what is needed again is built again."""
    count = len(store.entries())
    click.echo(f"{store.root}: removed {_count(count)}, {_mib(store.clear())} MiB")


# -- what people see -------------------------------------------------------------------------------


def _row(entry: Entry) -> tuple[str, ...]:
    key = entry.key
    used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
    if entry.problem:
        return used, _mib(entry.nbytes), "", f"not used: {entry.problem}", "", "", ""
    targets = ", ".join(key.get("targets", ()))
    return (
        used,
        _mib(entry.nbytes),
        f"{entry.seconds:.1f} s" if entry.seconds else "",
        " ".join(filter(None, (key.get("name", "timing cache"), key.get("sizes")))),
        str(key.get("options", {}).get("precision", "")),
        str(key.get("version", "")),
        str(key.get("gpu", targets)),
    )


def _to_dict(entry: Entry) -> dict[str, Any]:
    return {
        "path": str(entry.path),
        "bytes": entry.nbytes,
        "used": entry.used,
        "seconds": entry.seconds,
        "problem": entry.problem,
        "key": dict(entry.key),
    }


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _mib(nbytes: int) -> str:
    return f"{nbytes / 2**20:,.1f}"


def _count(number: int) -> str:
    return f"{number} entr{'y' if number == 1 else 'ies'}"
