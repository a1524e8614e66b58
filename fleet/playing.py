"""`fleet streams play`: a recording onto a broker."""

from __future__ import annotations

from collections import Counter
from itertools import chain
from pathlib import Path

import typer

from fleet.console import Watcher
from fleet.dry_run import NoInput, named_topics
from streams.recording import read_recording, time_of
from streams.transport.kafka import KafkaConfig, KafkaTransport

FLUSHED = 1000
"""Records between two times that the broker is asked whether it has them."""


def play_recording(source: Path, broker: str, prefix: str, topics: str) -> None:
    """Send the records of some topics in the file's order, and tell how many the broker has, however it ends.
    Raises NoInput before anything is done, NotTaken, BadRecording, ConnectionFailed, Retry, OSError."""
    names = named_topics(topics)
    records = (record for record in read_recording(source) if record.topic in names)
    first = next(records, None)
    if first is None:
        raise NoInput(f"{source}: no record of {topics!r} in it")
    transport = KafkaTransport(KafkaConfig(broker, prefix=prefix))
    sent, safe = Counter[str](), Counter[str]()
    with Watcher() as watch:
        try:
            for record in chain((first,), records):
                transport.publish(record.topic, record.key, record.headers, record.value, time_of(record))
                sent[record.topic] += 1
                if sent.total() % FLUSHED == 0:
                    transport.flush()
                    safe = sent.copy()
                    watch(f"play {source.name}", safe.total(), safe.total(), "records")
            transport.flush()
            safe = sent
        finally:
            for topic, count in sorted(safe.items()):
                typer.echo(f"{count:>8} {topic}")
    transport.close()
