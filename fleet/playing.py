"""`fleet streams play`: a recording onto a broker."""

from __future__ import annotations

from pathlib import Path

import typer

from fleet.console import Watcher
from fleet.dry_run import NoInput
from streams.recording import read_recording
from streams.transport.base import topic_of
from streams.transport.kafka import KafkaConfig, KafkaTransport

FLUSHED = 1000
"""Records between two times that the broker is asked whether it has them."""


def play_recording(source: Path, broker: str, prefix: str, topics: str) -> None:
    """Send the records of some topics, all where none is named, in the file's order; told as sent is what the
    broker has. Raises NoInput, NotTaken, BadRecording, ConnectionFailed, Retry, OSError."""
    names = {topic_of(name.strip()).name for name in topics.split(",") if name.strip()}
    size, done, sent = source.stat().st_size, 0, dict[str, int]()
    transport = KafkaTransport(KafkaConfig(broker, prefix=prefix))
    with Watcher() as watch:
        for record in read_recording(source):
            done += len(record.value)
            if names and record.topic not in names:
                continue
            transport.publish(record.topic, record.key, record.headers, record.value, record.time_ns)
            sent[record.topic] = sent.get(record.topic, 0) + 1
            if sum(sent.values()) % FLUSHED == 0:
                transport.flush()
                watch(f"play {source.name}", min(done, size), size, f"{sum(sent.values())} records")
        transport.close()
    if not sent:
        raise NoInput(f"{source}: no record{f' of {topics}' if topics else ''} in it")
    for topic, count in sorted(sent.items()):
        typer.echo(f"{count:>8} {topic}")
