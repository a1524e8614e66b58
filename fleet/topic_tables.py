"""`fleet topics diff` and `apply`: a broker's topics held against the table."""

from __future__ import annotations

import json

import typer

from streams.topic_changes import unknown
from streams.transport.kafka import KafkaConfig
from streams.transport.kafka_admin import KafkaAdmin


def print_differences(broker: str, prefix: str, *, as_json: bool) -> int:
    """What differs; the exit status. Raises ConnectionFailed, Retry."""
    admin = KafkaAdmin(KafkaConfig(broker, prefix=prefix))
    differs = [line for change in admin.changes() for line in change.told()]
    others = unknown(admin.topics())
    if as_json:
        typer.echo(json.dumps({"differs": differs, "unknown": others}))
    else:
        lines = [*differs, *(f"{name}: not in the table" for name in others)]
        typer.echo("\n".join(lines or ["the broker is as the table"]))
    return 1 if differs else 0


def apply_table(broker: str, prefix: str, replication: int, *, grow: bool, as_json: bool) -> int:
    """What was done and what is left; the exit status. Raises ConnectionFailed, Retry."""
    admin = KafkaAdmin(KafkaConfig(broker, prefix=prefix, replication=replication))
    done = admin.apply(admin.changes(), grow)
    left = [line for change in admin.changes() for line in change.told()]
    if as_json:
        typer.echo(json.dumps({"done": done, "left": left}))
    else:
        typer.echo("\n".join(done or ["nothing to do"]))
        hint = "" if grow else " (--grow adds partitions)"
        typer.echo("".join(f"left: {line}{hint}\n" for line in left), nl=False)
    return 1 if left else 0
