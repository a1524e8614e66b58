"""Which released message today's code reads, and the other way round: docs/schema-evolution.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from streams.asyncapi import asyncapi
from streams.contracts.codec import MESSAGES, Message, Rejected, decode
from streams.evolution import breaks, refusals
from tests.samples import T0

RELEASED = Path(__file__).parent / "released"
"""<version>/: the golden messages of a release; <version>.asyncapi.json: its document. Frozen, never removed."""
PAGE = """# Schema evolution

Made by `make golden`; the tests fail when it is out of date. Each column is a release, frozen in
`tests/golden/released`: its messages byte for byte, and its AsyncAPI document. A cell says whether today's code
reads that release's message.

{table}

Today's messages at readers of that release, which pass over unknown fields: {refused}.

**Rules.** A field never goes, never changes its type, never gets narrower bounds; a new field has a default; what
cannot be said so is a new message (`….v2`) beside the old one, which stays readable.
`fleet streams asyncapi --against FILE` tells what a change would break before it is made. **A release** copies
`tests/golden/messages` and `docs/asyncapi.json` into `tests/golden/released` under its version.
"""


def releases() -> list[str]:
    """Versions, oldest first."""
    return sorted((p.name for p in RELEASED.iterdir() if p.is_dir()), key=lambda v: [int(n) for n in v.split(".")])


def document(version: str) -> dict[str, Any]:
    """The AsyncAPI document of a release."""
    found: dict[str, Any] = msgspec.json.decode((RELEASED / f"{version}.asyncapi.json").read_bytes())
    return found


def golden(path: Path) -> tuple[tuple[tuple[str, bytes], ...], bytes]:
    """Headers and value of a golden file."""
    record = msgspec.json.decode(path.read_bytes())
    return tuple((name, text.encode()) for name, text in record["headers"].items()), record["value"].encode()


def read(path: Path) -> Message:
    """A golden file, read by today's code. Raises Rejected."""
    headers, value = golden(path)
    return decode(headers, value, T0)


def page() -> str:
    """docs/schema-evolution.md."""
    versions = releases()
    head = ["message", *versions, "today"]
    rows = [[name.removeprefix("fleetwheel."), *(_cell(v, name) for v in versions), "writes"] for name in MESSAGES]
    lines = [head, ["---"] * len(head), *rows]
    table = "\n".join(f"| {' | '.join(row)} |" for row in lines)
    return PAGE.format(table=table, refused="; ".join(_refused(v) for v in versions))


def _cell(version: str, name: str) -> str:
    path = RELEASED / version / f"{name.removeprefix('fleetwheel.')}.json"
    if not path.exists():
        return "not there yet"
    try:
        read(path)
    except Rejected as error:
        return f"REFUSED: {error}"
    kind = MESSAGES[name].__name__
    released, today = (
        set(d["components"]["schemas"][kind]["properties"]) for d in (document(version), asyncapi())
    )
    new = sorted(today - released)
    return f"read; since then {', '.join(new)}" if new else "read"


def _fields(told: dict[str, Any], kind: str) -> set[str]:
    return set(told["components"]["schemas"][kind]["properties"])


def _refused(version: str) -> str:
    broken, lines = breaks(document(version), asyncapi()), refusals(document(version), asyncapi())
    told = f"{version}: {', '.join(lines) if lines else 'all read'}"
    return f"{told}; BROKEN: {', '.join(broken)}" if broken else told
