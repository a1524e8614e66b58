"""`fleet streams asyncapi`: the document of all topics, and what a change of it breaks."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from streams.asyncapi import asyncapi
from streams.evolution import breaks, refusals


class NotADocument(ValueError):
    """The file is no AsyncAPI document of ours."""


def print_asyncapi() -> None:
    """The document, as docs/asyncapi.json has it."""
    typer.echo(json.dumps(asyncapi(), indent=1))


def print_breaks(released: Path) -> int:
    """What broke since a released document, and what readers of that release would refuse; the exit status is 1
    where something broke. Raises NotADocument, OSError."""
    try:
        told = json.loads(released.read_bytes())
        broken, refused = breaks(told, asyncapi()), refusals(told, asyncapi())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotADocument(f"{released}: not a document of fleet streams asyncapi: {error!r}") from error
    lines = [
        *(f"broken: {line}" for line in broken),
        *(f"readers of that release refuse: {line}" for line in refused),
    ]
    typer.echo("\n".join(lines or ["nothing broke"]))
    return 1 if broken else 0
