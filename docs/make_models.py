"""Write docs/models.md: how much of each known model moves, and how close its outputs are.

    python docs/make_models.py                   # measures all models: an hour
    python docs/make_models.py --missing         # those without a result in docs/models.json
    python docs/make_models.py --only NAME,…     # some
    python docs/make_models.py --page            # none: writes the page from docs/models.json

GluonCV and GluonNLP have to be there, as after `make install`:

    pip install -c constraints.txt -e '.[models]'
    pip install -c constraints.txt --no-deps gluoncv gluonnlp

Results are saved one by one, so an interrupted run goes on with --missing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
PAGE = FOLDER / "models.md"
RESULTS = FOLDER / "models.json"
sys.path.insert(0, str(FOLDER.parent / "tests"))

import mxtrt  # noqa: E402, F401  # first: it makes MXNet importable

INTRODUCTION = """\
# Models

{models} models of Gluon, GluonCV 0.10.5, GluonNLP 0.10.0 and InsightFace (their nets, with
seeded weights), run by MXNet 1.9.1 and through `mxtrt.optimize(..., engine="onnxruntime")`.
{whole} of them move as a whole, into one engine.

- **operators**: how many nodes the model has, and what share of them moves, into how many parts,
  with the sizes of its inputs given as `shapes`, and with only their ranks given.
- **difference**: the largest difference to MXNet's outputs, divided by the largest number of that
  output. Sums of thousands of float32 numbers in another order differ by about 1e-6 in each layer.
- **rows**: detectors return boxes as rows. Where two boxes have nearly equal scores, or overlap by
  nearly the threshold, rounding decides which comes first or stays: rows that stand at another
  place, and rows that MXNet does not have, of all.

BatchNorms have the statistics of the data that they see, as after training, so that activations
neither vanish nor explode. The second stage of a detector sees 60 proposals. In models of 8 bits
(`_int8`) a number between two steps may go to either, and the steps that follow are as large:
scores are equal more often, and rows count as the same up to 5 % of the largest number.

MXNet's own fusions are off (`MXNET_SUBGRAPH_BACKEND=NONE`), and regions of no image, whose values
its ROIAlign leaves to chance on the CPU, count as zeros in its outputs.

This page is written by `python docs/make_models.py` from `docs/models.json`, which it measures.
"""


def main() -> None:
    """Measure what was asked for, and write the page."""
    options = _options()
    results = read_results()
    if not options.page:
        os.environ["MXNET_SUBGRAPH_BACKEND"] = "NONE"
        _measure(_chosen(options, results), results)
    PAGE.write_text(page(results.values()), encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", help="names of models, separated by commas")
    parser.add_argument("--missing", action="store_true", help="models without a result")
    parser.add_argument("--page", action="store_true", help="write the page, measure nothing")
    return parser.parse_args()


def _chosen(options: argparse.Namespace, results: Mapping[str, Any]) -> list[str]:
    from models.catalogue import CATALOGUE

    names = options.only.split(",") if options.only else list(CATALOGUE)
    unknown = sorted(set(names) - set(CATALOGUE))
    if unknown:
        sys.exit(f"no model {unknown[0]!r}; there are {', '.join(CATALOGUE)}")
    return [name for name in names if not (options.missing and name in results)]


def _measure(names: list[str], results: dict[str, Any]) -> None:
    from models.catalogue import CATALOGUE
    from models.measure import measure

    failed = []
    for number, name in enumerate(names, 1):
        print(f"[{number}/{len(names)}] {name}", end=" ", flush=True)
        start = time.perf_counter()
        try:
            results[name] = measure(CATALOGUE[name]).to_dict()
        except Exception as error:  # whatever a package's own code raises; the others go on
            print(f"cannot be measured: {error!r}")
            failed.append(name)
            continue
        known = results[name]["known"]
        print(
            f"{known['moved']} of {known['operators']} move, {known['difference']:.1e}, "
            f"{time.perf_counter() - start:.0f} s"
        )
        in_order = {name: results[name] for name in CATALOGUE if name in results}
        RESULTS.write_text(json.dumps(in_order, indent=1) + "\n", encoding="utf-8")
        results.clear()
        results.update(in_order)
    if failed:
        sys.exit(f"not measured: {', '.join(failed)}")


def read_results() -> dict[str, Any]:
    """Return what was measured, by the name of the model."""
    if not RESULTS.exists():
        return {}
    results: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8"))
    return results


def page(results: Iterable[Mapping[str, Any]]) -> str:
    """Return the page for these results."""
    rows = list(results)
    whole = sum(_is_whole(row["known"]) for row in rows)
    families: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        families.setdefault(row["family"], []).append(row)
    sections = [INTRODUCTION.format(models=len(rows), whole=whole)]
    sections += [_section(family, members) for family, members in families.items()]
    return "\n".join([*sections, _reasons(rows)])


def _is_whole(moved: Mapping[str, Any]) -> bool:
    return bool(moved["moved"] == moved["operators"] and moved["parts"] == 1)


def _section(family: str, rows: list[Mapping[str, Any]]) -> str:
    lines = [f"## {family[0].upper()}{family[1:]}", ""]
    lines += [
        "| model | input | operators | moved, sizes known | moved, unknown | difference | rows |",
        "| --- | --- | ---: | --- | --- | ---: | --- |",
    ]
    return "\n".join([*lines, *map(_line, rows), ""])


def _line(row: Mapping[str, Any]) -> str:
    known, unknown = row["known"], row["unknown"]
    difference = max(known["difference"], unknown["difference"])
    shapes = ", ".join(" x ".join(map(str, shape)) for shape in row["inputs"].values())
    cells = (
        f"`{row['name']}`",
        shapes,
        known["operators"],
        _share(known),
        _share(unknown),
        f"{difference:.1e}",
        _boxes(row),
    )
    return f"| {' | '.join(map(str, cells))} |"


def _share(moved: Mapping[str, Any]) -> str:
    if _is_whole(moved):
        return "all"
    share = 100 * moved["moved"] / moved["operators"]
    parts = moved["parts"]
    return f"{share:.1f} % in {parts} part{'s' if parts != 1 else ''}"


def _boxes(row: Mapping[str, Any]) -> str:
    found = [row[sizes] for sizes in ("known", "unknown") if row[sizes]["rows"]]
    if not found:
        return ""
    reordered, other = (max(moved[kind] for moved in found) for kind in ("reordered", "other"))
    rows = f"{found[0]['rows']:,}"
    if not reordered and not other:
        return f"the same {rows}"
    return f"{reordered} moved, {other} other of {rows}"


def _reasons(rows: list[Mapping[str, Any]]) -> str:
    lines = ["## What stays in MXNet, and why", ""]
    for row in rows:
        for key, sizes in (("known", "sizes known"), ("unknown", "sizes unknown")):
            for reason, nodes in row[key]["left"].items():
                more = f" and {len(nodes) - 1} more" if len(nodes) > 1 else ""
                lines.append(f"- `{row['name']}`, {sizes}: `{nodes[0]}`{more}: {reason}")
    if len(lines) == 2:
        lines.append("Nothing of these models.")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
