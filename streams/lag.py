"""How far readers are behind, and how fast records come and go: from two looks at a broker's offsets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """A group's place in a partition: what `end` counts and `committed` does not is still to be read."""

    group: str
    topic: str
    partition: int
    committed: int
    """Offset at which the group goes on; the partition's begin where it never committed."""
    end: int
    """Offset of the next record to come."""

    @property
    def lag(self) -> int:
        """Records, markers of transactions among them."""
        return max(self.end - self.committed, 0)


@dataclass(frozen=True, slots=True)
class Row:
    """A group's standing in a topic."""

    group: str
    topic: str
    partitions: int
    lag: int
    worst: int
    """Lag of the partition that is furthest behind."""
    coming_per_s: float | None = None
    """Records written a second since the look before; None at the first look."""
    read_per_s: float | None = None
    catch_up_s: float | None = None
    """Until the lag is gone at these rates; None where it grows, or nothing is known yet."""


def rows(now: Iterable[Place], before: Iterable[Place] = (), seconds: float = 0.0) -> list[Row]:
    """By group and topic, the furthest behind first; `seconds` lie between the two looks."""
    by_topic: dict[tuple[str, str], list[Place]] = {}
    for place in now:
        by_topic.setdefault((place.group, place.topic), []).append(place)
    old = {(p.group, p.topic, p.partition): p for p in before}
    found = [_row(places, old, seconds) for places in by_topic.values()]
    return sorted(found, key=lambda r: (-r.lag, r.group, r.topic))


def _row(places: list[Place], old: Mapping[tuple[str, str, int], Place], seconds: float) -> Row:
    first, lags = places[0], [p.lag for p in places]
    row = Row(first.group, first.topic, len(places), sum(lags), max(lags))
    pairs = [(p, old[p.group, p.topic, p.partition]) for p in places if (p.group, p.topic, p.partition) in old]
    if not pairs or seconds <= 0:
        return row
    coming = sum(max(p.end - o.end, 0) for p, o in pairs) / seconds
    # A group that was sent back reads nothing new meanwhile.
    read = sum(max(p.committed - o.committed, 0) for p, o in pairs) / seconds
    catch_up = row.lag / (read - coming) if row.lag and read > coming else (None if row.lag else 0.0)
    return Row(row.group, row.topic, row.partitions, row.lag, row.worst, coming, read, catch_up)
