"""`fleet streams record` and `dry-run`: recorded input, and what a stage would make of it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import typer

from fleet.operations import BROKER
from fleet.stages import make_stages
from fleet.times import duration_ns, inside, span
from registry.store import Store
from streams.dry_run import DryRun, Report, chain
from streams.engines.round import UnknownStage
from streams.recording import read_recording, write_recording
from streams.stage import Emit
from streams.topics import BY_NAME
from streams.topology import BY_STAGE, topics_read
from streams.transport.base import Record, topic_of
from streams.transport.kafka import KafkaConfig
from streams.transport.kafka_stretch import stretch


class NoInput(ValueError):
    """Neither or both of --input and --kafka, or nothing in it that a stage reads."""


def record_topics(broker: str, prefix: str, topics: str, begin: str, end: str, out: Path) -> None:
    """Write a stretch of topics into a file. Raises NotTaken, ConnectionFailed, BadTime, OSError."""
    names = named_topics(topics)
    count = write_recording(out, _stretch(broker, prefix, names, begin, end))
    typer.echo(f"{count} records of {', '.join(names)} in {out}")


def named_topics(text: str) -> list[str]:
    """Topics of the table, with commas between. Raises NotTaken."""
    return [topic_of(name.strip()).name for name in text.split(",") if name.strip()]


def print_dry_run(
    stage: str,
    source: Path | None,
    broker: str | None,
    prefix: str,
    times: tuple[str, str, str],
    show: int,
    *,
    as_json: bool,
) -> None:
    """What the stage would emit. Raises UnknownStage, NoInput, BadTime, BadRecording, ConnectionFailed."""
    begin, end, settle = times
    if stage not in BY_STAGE:
        raise UnknownStage(f"no stage {stage!r}; there are: {', '.join(BY_STAGE)}")
    settle_ns = duration_ns(settle)
    names = chain(stage)
    records = recorded(source, broker, prefix, topics_read(names), begin, end)
    run = DryRun(make_stages(names, Store("memory://dry-run")), stage)
    emits = run.run(records, settle_ns)
    shown = [_emit(time_ns, emit) for time_ns, emit in islice(emits, show)]
    for _ in emits:  # the rest is counted
        pass
    if not (run.report.records or begin or end):
        names_read = ", ".join(topics_read(names))
        raise NoInput(f"{source or broker}: no record of {names_read} in it, and {stage} reads nothing else")
    if as_json:
        typer.echo(json.dumps({"stage": stage, "chain": names, **asdict(run.report), "emits": shown}))
    else:
        typer.echo(_told(stage, names, run.report, shown))


def recorded(
    source: Path | None, broker: str | None, prefix: str, topics: Sequence[str], begin: str, end: str
) -> Iterable[Record]:
    """What was recorded of topics, in a file or on a broker: where neither is given, on that of BROKER. Raises
    NoInput, BadTime; and while it is read, BadRecording, ConnectionFailed, OSError."""
    if source is not None and broker is not None:
        raise NoInput("give --input FILE or --kafka HOST:PORT, one of them")
    if source is None:
        broker = broker or os.environ.get(BROKER)
        if not broker:
            raise NoInput(f"give --input FILE or --kafka HOST:PORT, or set {BROKER}")
        return _stretch(broker, prefix, topics, begin, end)
    when = span(begin, end)
    return (r for r in read_recording(source) if r.topic in topics and (not r.time_ns or inside(r.time_ns, when)))


def _stretch(broker: str, prefix: str, topics: Sequence[str], begin: str, end: str) -> Iterator[Record]:
    return stretch(KafkaConfig(broker, prefix=prefix), topics, *span(begin, end))


def _emit(at_ns: int, emit: Emit) -> dict[str, Any]:
    return {"time_ns": at_ns, "stream": emit.stream, "message": msgspec.to_builtins(emit.message)}


def _told(stage: str, names: Sequence[str], report: Report, shown: Sequence[dict[str, Any]]) -> str:
    emitted = ", ".join(f"{n} to {s}{'' if s in BY_NAME else ' (inside)'}" for s, n in report.emitted.items())
    lines = [
        f"{report.records} records through {' -> '.join(names)}; {stage} took {report.taken} messages",
        f"would emit   {emitted or 'nothing'}",
        *(f"would refuse {count}: {reason}" for reason, count in report.refused.items()),
        *(f"dead letters {count}: {reason}" for reason, count in report.dead_letters.items()),
    ]
    if report.contents:
        lines.append(f"would store  {report.contents} objects, {report.content_bytes} bytes")
    return "\n".join(lines + [json.dumps(emit) for emit in shown])
