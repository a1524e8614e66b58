"""A vehicle whose disk is full now and then and whose agent loses its memory: what its spool accepted, it
delivers, at least once."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from edge.agent.spool import DELIVERED, Spool, SpoolFull
from fleet.benchmarks.chaos_disk import SmallDisk
from fleet.benchmarks.chaos_load import BURST, Load, Maker
from streams.contracts.codec import message_id
from streams.engines.undisturbed import Sent, sent

_DISK_KB = 768
_FULL, _FREE, _CRASH, _DELIVER = 0.03, 0.06, 0.03, 0.1
"""Chances of each with every event."""


class SpoolLost(AssertionError):
    """Something that was accepted is gone without a word."""


def spooled(dice: random.Random, start_ns: int, bursts: int) -> Load:
    """What the spool delivers of the events that are offered to it, and which of them it accepted. Raises
    NotPermitted, SpoolLost."""
    make = Maker(dice, start_ns)
    with tempfile.TemporaryDirectory() as folder, SmallDisk(Path(folder), _DISK_KB) as disk:
        vehicle = _Vehicle(dice, make, disk)
        made = [vehicle.burst() for _ in range(bursts)]
        disk.free()
        made.append(vehicle.deliver(every=True))
        vehicle.check()
        vehicle.spool.close()
    return make.load(made)


@dataclass(slots=True)
class _Vehicle:
    dice: random.Random
    make: Maker
    disk: SmallDisk
    spool: Spool = field(init=False)
    clips: dict[str, bytes] = field(default_factory=dict)
    waiting: set[str] = field(default_factory=set)
    """Ids of events that were accepted and not delivered yet."""

    def __post_init__(self) -> None:
        self.spool = self._open()

    def burst(self) -> list[Sent]:
        """Offer as many events, each with a clip; what was delivered meanwhile."""
        out: list[Sent] = []
        for _ in range(BURST):
            self._happen()
            self._offer()
            if self.dice.random() < _DELIVER:
                out += self.deliver()
        return out

    def deliver(self, every: bool = False) -> list[Sent]:
        """What waits, and the word that it arrived; now and then that word is lost, and it goes again. Half of
        the clips go as well."""
        messages = list(self.spool.outbox.values())
        known = [message_id(m) for m in messages if every or self.dice.random() < 0.9]
        self.waiting -= set(known)
        self.spool.delivered(known)
        for name in list(self.spool.clips)[::2]:
            self.spool.remove(name, DELIVERED, self.make.start_ns)
        return [sent(m) for m in messages]

    def check(self) -> None:
        """Raises SpoolLost where something that was accepted is neither there nor accounted for."""
        lost = self.waiting - self.spool.outbox.keys()
        if lost:
            raise SpoolLost(f"{len(lost)} events were accepted and not delivered, and wait no more")
        for name, data in self.clips.items():
            if name in self.spool.clips:
                if self.spool.read(name, 0) != data:
                    raise SpoolLost(f"clip {name} has other bytes")
            elif self.spool.why_gone(name) is None:
                raise SpoolLost(f"clip {name} was accepted and is gone without a word")

    def _happen(self) -> None:
        chance = self.dice.random()
        if chance < _FULL:
            self.disk.fill(self.dice, 20_000)
        elif chance < _FULL + _FREE:
            self.disk.free()
        elif chance < _FULL + _FREE + _CRASH:
            self.spool.close()
            self.spool = self._open()
            self.check()

    def _offer(self) -> None:
        event = self.make.event()
        data = self.dice.randbytes(self.dice.randrange(500, 5_000))
        with _unless_full():
            self.spool.put(event.event_id, data, self.dice.random(), event.time_ns)
            self.clips[event.event_id] = data
        with _unless_full():
            self.spool.enqueue([event])
            self.make.good(event)
            self.waiting.add(event.event_id)

    def _open(self) -> Spool:
        return Spool(self.disk.folder, 10**9)


@contextmanager
def _unless_full() -> Iterator[None]:
    """What is not taken because the disk is full was told so: it may be given up."""
    try:
        yield
    except SpoolFull:
        return
