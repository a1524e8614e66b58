"""`fleet benchmark NAME`: the one way a number is made."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import typer

from fleet.benchmarks.machine import this_machine
from fleet.benchmarks.result import Measured


class UnknownBenchmark(ValueError):
    """No benchmark of that name: names those that exist."""


Benchmark = Callable[[list[int], Path, bool], Measured]
"""(seeds, scratch folder, quick) -> Measured. Shows its progress on stderr."""


def _named(name: str) -> Benchmark:
    """Imported when it is run: contenders of one benchmark are processes that import this package, and must not
    carry what another one needs."""

    def measure(seeds: list[int], scratch: Path, quick: bool) -> Measured:
        benchmark: Benchmark = import_module(f"{__name__}.{name.replace('-', '_')}").measure
        return benchmark(seeds, scratch, quick)

    return measure


CATALOG: dict[str, Benchmark] = {
    name: _named(name)
    for name in (
        "adaptation",
        "chaos",
        "driving",
        "flywheel",
        "heads",
        "language",
        "novelty",
        "rigs",
        "scaling",
        "streams",
        "training",
        "world-model",
    )
}
FRESH = "51,52,53"
"""Reporting seeds that nobody had looked at when the recipes were last changed. A page that misses a bar, and is
made again with another recipe, needs others."""
SEEDS: dict[str, str] = {
    **dict.fromkeys(("adaptation", "driving", "heads", "language", "rigs", "scaling", "world-model"), FRESH),
    "training": "11",
}
"""Where nobody says otherwise; 11,12 for the others."""


def run_benchmark(name: str, *, seeds: str, out: Path | None, quick: bool, as_json: bool) -> int:
    """Measure, write NAME.json and NAME.md, print; 0 where every bar holds, else 1. What is cut down is no result
    of the product, and does not take its place. Raises UnknownBenchmark, BadSeeds."""
    if name not in CATALOG:
        raise UnknownBenchmark(f"no benchmark {name!r}; there are: {', '.join(CATALOG)}")
    numbers = _seeds(seeds or SEEDS.get(name, "11,12"))
    machine = this_machine()
    scratch = Path("runs") / "benchmarks" / (f"{name}-quick" if quick else name)
    out = out or (scratch if quick else Path("docs/results"))
    measured = CATALOG[name](numbers, scratch, quick)
    document = {
        "name": name,
        "command": _command(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": machine.told(),
        "seeds": numbers,
        "quick": quick,
        "results": measured.results,
        "bars": [asdict(bar) for bar in measured.bars],
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
    (out / f"{name}.md").write_text(_page(document, measured))
    for picture, svg in measured.pictures.items():
        (out / picture).write_text(svg)
    typer.echo(json.dumps(document) if as_json else _page(document, measured))
    return 0 if all(bar.holds for bar in measured.bars) else 1


class BadSeeds(ValueError):
    """Seeds that are not whole numbers."""


def _seeds(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise BadSeeds(f"--seeds {text!r}: give whole numbers with commas between, such as 11,12") from error


def _page(document: dict[str, Any], measured: Measured) -> str:
    rows = [
        f"| {b.id} | {b.what} | {b.value:.3g} | {b.bar} | {'yes' if b.holds else '**no**'} |"
        for b in measured.bars
    ]
    cut = "  **cut down (--quick): says nothing about the product**" if document["quick"] else ""
    return "\n".join(
        [
            f"# {document['name']}",
            "",
            f"`{document['command']}`, {document['date']}, {document['machine']}, seeds {document['seeds']}.{cut}",
            "",
            "| bar | what | measured | asked | holds |",
            "|---|---|---|---|---|",
            *rows,
            "",
            measured.table,
            "",
        ]
    )


def _command() -> str:
    return " ".join(["fleet", *sys.argv[1:]])
