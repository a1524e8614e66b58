"""`fleet streams lag`: how far each group is behind."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict

import typer

from streams.lag import Place, Row, rows
from streams.transport.kafka import KafkaConfig
from streams.transport.kafka_admin import KafkaAdmin


class NoSuchGroup(ValueError):
    """No group of that name has committed anything: says which have."""


def print_lag(broker: str, prefix: str, groups: Sequence[str], every_s: float | None, *, as_json: bool) -> None:
    """One look, or one every so many seconds until interrupted: what is not there yet may come. Raises
    ConnectionFailed, Retry, and where it looks once NoSuchGroup."""
    admin = KafkaAdmin(KafkaConfig(broker, prefix=prefix))
    before: list[Place] = []
    looked_s = time.monotonic()
    while True:
        places, now_s = admin.places(groups), time.monotonic()
        found = rows(places, before, now_s - looked_s)
        if every_s is None:
            _check_groups(groups, places, admin)
        typer.echo(_json(found, places) if as_json else _table(found))
        if every_s is None:
            return
        before, looked_s = places, now_s
        time.sleep(every_s)


def _check_groups(groups: Sequence[str], places: Sequence[Place], admin: KafkaAdmin) -> None:
    if missing := sorted(set(groups) - {p.group for p in places}):
        known = ", ".join(sorted({p.group for p in admin.places()})) or "none yet"
        raise NoSuchGroup(f"no group {missing[0]!r} has committed anything; those that have: {known}")


def _json(found: Sequence[Row], places: Sequence[Place]) -> str:
    partitions = [{**asdict(p), "lag": p.lag} for p in places]
    return json.dumps({"lag": sum(r.lag for r in found), "rows": [asdict(r) for r in found], "places": partitions})


def _table(found: Sequence[Row]) -> str:
    head = f"{'group':32} {'topic':22} {'lag':>10} {'worst':>9} {'in/s':>9} {'read/s':>9}  catches up in"
    return "\n".join([head, *map(_line, found), "" if found else "no group has committed anything yet"]).rstrip()


def _line(row: Row) -> str:
    coming, read = ("-" if r is None else f"{r:,.0f}" for r in (row.coming_per_s, row.read_per_s))
    if row.read_per_s is None:
        gone = "-"
    else:
        gone = "never at this rate" if row.catch_up_s is None else f"{row.catch_up_s:,.0f} s"
    return f"{row.group:32} {row.topic:22} {row.lag:>10,} {row.worst:>9,} {coming:>9} {read:>9}  {gone}"
