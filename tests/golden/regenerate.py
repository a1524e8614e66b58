"""Write the golden files anew: `python -m tests.golden.regenerate`. Review the diff: what changes here changes
what is on the wire, and records that are stored must stay readable. Files of released versions are never
removed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import msgspec

from streams.asyncapi import asyncapi
from streams.contracts.codec import Message, encode, type_of
from tests.golden.matrix import page
from tests.samples import SAMPLES

MESSAGES = Path(__file__).parent / "messages"
DOCS = Path(__file__).resolve().parents[2] / "docs"


def golden_bytes(message: Message) -> bytes:
    """A record as a file: headers, and the value byte for byte in a JSON string."""
    headers, value = encode(message)
    record = {"headers": {name: text.decode() for name, text in headers}, "value": value.decode()}
    return msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n"


def golden_path(message: Message) -> Path:
    """Named by type and version."""
    return MESSAGES / f"{type_of(message).removeprefix('fleetwheel.')}.json"


def documents() -> dict[Path, str]:
    """What is generated from the contracts, by where it lies."""
    return {DOCS / "asyncapi.json": document_text(), DOCS / "schema-evolution.md": page()}


def document_text() -> str:
    """As `fleet streams asyncapi` prints it."""
    return json.dumps(asyncapi(), indent=1) + "\n"


def main() -> None:
    """Write a file for each message, and the documents."""
    MESSAGES.mkdir(exist_ok=True)
    for message in SAMPLES.values():
        golden_path(message).write_bytes(golden_bytes(message))
    for path, text in documents().items():
        path.write_text(text)
    sys.stdout.write(f"{len(SAMPLES)} golden messages in {MESSAGES}, documents in {DOCS}\n")


if __name__ == "__main__":
    main()
