"""The same work: Fleetwheel's own stages, called by whoever wrote the loop. By partition, as the topology has it:
the decisions are those of every engine. All states are in memory and nowhere else."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Protocol

from fleet.contender import event_ns, work
from streams.contracts.codec import Message, decode_many, encode_many
from streams.contracts.drive import TriggerEvent
from streams.stage import step_all
from streams.topics import BY_NAME, keys_of
from streams.transport.memory import partition_of
from tests.benchmarks.peers.work import Record, Work

PARTITIONS = BY_NAME["fleet.events"].partitions


class Batched(Protocol):
    """What a loop asks of its work: all at once, or an event's two halves."""

    def batch(self, values: Sequence[bytes]) -> list[Record]:
        """What follows from these records; one that is no event is passed over."""

    def event(self, value: bytes) -> Any:
        """The event, if it is a sound one; None."""

    def decide(self, events: Sequence[Any]) -> list[Record]:
        """What follows from sound events."""


class Stages:
    """Dedup, tagging, novelty and selection over batches of records' values."""

    def __init__(self, prototypes: int) -> None:
        *self._in_lanes, self._selection = work(prototypes)
        self._states = {s.name: dict.fromkeys(range(PARTITIONS), s.initial()) for s in self._in_lanes}
        self._event_ns = event_ns()
        self._window = self._selection.initial()
        self._now_ns = 0

    def batch(self, values: Sequence[bytes]) -> list[Record]:
        """What follows from these records; one that is no event is passed over."""
        events = decode_many((TriggerEvent,), values, self._now_ns or time.time_ns())
        return self.decide([e for e in events if isinstance(e, TriggerEvent)])

    def event(self, value: bytes) -> TriggerEvent | None:
        """The event, if it is a sound one; None."""
        (event,) = decode_many((TriggerEvent,), [value], self._now_ns or time.time_ns())
        return event if isinstance(event, TriggerEvent) else None

    def decide(self, events: Sequence[TriggerEvent]) -> list[Record]:
        """What follows from sound events: scenarios, then the requests of a window that has ended."""
        self._now_ns = max(time.time_ns(), self._now_ns) + len(events) * self._event_ns
        lanes: dict[int, list[Message]] = {}
        for event in events:
            lanes.setdefault(partition_of(event.vehicle.encode(), PARTITIONS), []).append(event)
        for stage in self._in_lanes:
            states = self._states[stage.name]
            outcomes = step_all(stage, [states[lane] for lane in lanes], list(lanes.values()), self._now_ns)
            states |= {lane: o.state for lane, o in zip(lanes, outcomes, strict=True)}
            lanes = {lane: [e.message for e in o.emits] for lane, o in zip(lanes, outcomes, strict=True)}
        scenarios = [s for some in lanes.values() for s in some]
        chosen = self._selection.step(self._window, scenarios, self._now_ns)
        self._window = chosen.state
        requests = [e.message for e in chosen.emits]
        return _records("fleet.scenarios", scenarios) + _records("fleet.clip-requests", requests)


def _records(topic: str, messages: Sequence[Message]) -> list[Record]:
    told = zip(keys_of(BY_NAME[topic], messages), encode_many(messages, "peer"), strict=True)
    return [(topic, key, list(headers), value) for key, (headers, value) in told]


WORKS: dict[str, Any] = {"same": Stages, "rough": Work}


def work_of(name: str, prototypes: str) -> Batched:
    """What a contender is told to do, by its name in WORKS."""
    work: Batched = WORKS[name](int(prototypes))
    return work
