"""Tables for people and for scripts: topics, dead letters."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import msgspec
import typer

from fleet.times import inside, span, utc
from streams.contracts.clock import SystemClock
from streams.contracts.dead_letter import DeadLetter
from streams.topics import DEAD_LETTER, TOPICS, Topic
from streams.transport.base import topic_of
from streams.transport.dead_letter import letters_of, numbered, send_again
from streams.transport.kafka import KafkaConfig, KafkaTransport
from streams.transport.kafka_stretch import stretch


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


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which dead letters; "" is any."""

    topic: str = ""
    reason: str = ""
    begin: str = ""
    """RFC 3339 time or how long ago, as of `end`."""
    end: str = ""


def print_dead_letters(broker: str, prefix: str, wanted: Wanted, *, as_json: bool) -> None:
    """One line each, with its number among all. Raises BadTime, NotTaken for a topic that there is not,
    ConnectionFailed, Retry."""
    if wanted.topic:
        topic_of(wanted.topic)
    when = span(wanted.begin, wanted.end)
    letters = _letters(KafkaConfig(broker, prefix=prefix))
    found = {
        number: letter
        for number, letter in enumerate(letters)
        if wanted.topic in ("", letter.topic)
        and wanted.reason in ("", letter.reason)
        and inside(letter.time_ns, when)
    }
    if as_json:
        typer.echo(json.dumps([{"number": number, **_letter(letter)} for number, letter in found.items()]))
        return
    for number, letter in found.items():
        place = f"{letter.topic}[{letter.partition}]@{letter.offset}"
        typer.echo(f"{number:>5}  {utc(letter.time_ns)}  {place}  {letter.reason}: {letter.detail}")
    typer.echo(f"{len(found)} dead letters" + (f" of {len(letters)}" if len(found) < len(letters) else ""))


def show_dead_letter(broker: str, prefix: str, number: int) -> None:
    """One letter whole. Raises ConnectionFailed, Retry, NoSuchLetter."""
    letter = numbered(_letters(KafkaConfig(broker, prefix=prefix)), number)
    typer.echo(json.dumps(_letter(letter), indent=1))


def replay_dead_letter(broker: str, prefix: str, number: int) -> None:
    """Send the original again. Raises ConnectionFailed, Retry, NoSuchLetter, NotTaken."""
    config = KafkaConfig(broker, prefix=prefix)
    letter = numbered(_letters(config), number)
    transport = KafkaTransport(config)
    send_again(transport, letter)
    transport.close()
    typer.echo(f"sent again to {letter.topic}: {len(letter.value)} bytes")
    typer.echo(f"where nothing was mended since, it comes back as a new letter: {letter.reason}")


def _letters(config: KafkaConfig) -> list[DeadLetter]:
    """Read without a group, and without making a topic: to look changes nothing."""
    return letters_of(stretch(config, (DEAD_LETTER,)), SystemClock().now_ns())


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
