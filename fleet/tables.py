"""Tables for people and for scripts: topics, dead letters."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import typer

from streams.contracts.clock import SystemClock
from streams.contracts.dead_letter import DeadLetter
from streams.topics import TOPICS, Topic
from streams.transport.dead_letter import list_letters, replay, show
from streams.transport.kafka import KafkaConfig, KafkaTransport


def print_topics(*, as_json: bool) -> None:
    """The table of topics."""
    rows = [_topic(topic) for topic in TOPICS]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    typer.echo(f"{'topic':22} {'key':12} {'partitions':>10}  {'kept':>9}  carries")
    for row in rows:
        kept = "compacted" if row["compacted"] else f"{row['retention_ms'] / 86_400_000:g} d"
        carries = ", ".join(row["carries"])
        typer.echo(f"{row['name']:22} {row['key']:12} {row['partitions']:>10}  {kept:>9}  {carries}")


def print_dead_letters(broker: str, prefix: str = "", *, as_json: bool) -> None:
    """One line each. Raises ConnectionFailed."""
    transport = KafkaTransport(KafkaConfig(broker, prefix=prefix))
    letters = list_letters(transport, SystemClock().now_ns())
    transport.close()
    if as_json:
        typer.echo(json.dumps([{"number": i, **_letter(letter)} for i, letter in enumerate(letters)]))
        return
    for number, letter in enumerate(letters):
        typer.echo(
            f"{number:>5}  {letter.topic}[{letter.partition}]@{letter.offset}  {letter.reason}: {letter.detail}"
        )
    typer.echo(f"{len(letters)} dead letters")


def show_dead_letter(broker: str, prefix: str, number: int) -> None:
    """One letter whole. Raises ConnectionFailed, NoSuchLetter."""
    transport = KafkaTransport(KafkaConfig(broker, prefix=prefix))
    letter = show(transport, number, SystemClock().now_ns())
    transport.close()
    typer.echo(json.dumps(_letter(letter), indent=1))


def replay_dead_letter(broker: str, prefix: str, number: int) -> None:
    """Send the original again. Raises ConnectionFailed, NoSuchLetter, NotTaken."""
    transport = KafkaTransport(KafkaConfig(broker, prefix=prefix))
    letter = replay(transport, number, SystemClock().now_ns())
    transport.close()
    typer.echo(f"sent again to {letter.topic}: {len(letter.value)} bytes")


def _topic(topic: Topic) -> dict[str, Any]:
    return {
        "name": topic.name,
        "key": topic.key,
        "partitions": topic.partitions,
        "retention_ms": topic.retention_ms,
        "compacted": topic.compacted,
        "carries": [t.__name__ for t in topic.carries],
    }


def _letter(letter: DeadLetter) -> dict[str, Any]:
    """JSON; the original value as text where it is text, else in base64 as msgspec writes bytes."""
    built: dict[str, Any] = msgspec.to_builtins(letter)
    try:
        built["value_text"] = letter.value.decode()
    except UnicodeDecodeError:
        built["value_text"] = None
    return built
