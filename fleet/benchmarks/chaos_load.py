"""What a trial of chaos feeds, and what an undisturbed run decides about it. Same seed, same load. Pure.

A load knows by construction which events must be accepted and which records must be refused, and why: the
undisturbed run is held against that too.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import msgspec

from fleet.benchmarks.chaos_verdict import CONTENTS, Word, letter_name, word
from fleet.stages import make_stages
from registry.store import Store
from streams.contracts.clips import CHUNK_BYTES, ClipChunk, ClipRequest
from streams.contracts.clock import SECOND_NS
from streams.contracts.codec import FUTURE_NS, MAX_RECORD_BYTES, STALE_NS, Headers, encode
from streams.contracts.drive import ClipOffer, Telemetry, Trigger, TriggerEvent
from streams.contracts.ids import event_id, sha256_hex
from streams.contracts.odd import LIGHT, SPEED, VISIBILITY
from streams.engines.undisturbed import Contents, Phase, Sent, play, sent
from streams.selection import SelectionConfig
from streams.topics import BY_NAME, DEAD_LETTER
from streams.topology import topics_read, topics_written
from streams.transport.memory import partition_of

WINDOW_NS = SelectionConfig().window_ns
DATA_PLANE = ("dedup", "tagging", "novelty")
WHOLE = (*DATA_PLANE, "selection")
VEHICLES = tuple(f"car-{i:02d}" for i in range(40))
BURST = 200
"""Events that come at once."""
CLIPS = 12
"""Clips that come at once."""


@dataclass(frozen=True, slots=True)
class Load:
    """Bursts in their order, and what must become of them."""

    bursts: tuple[Phase, ...]
    accepted: frozenset[str] = frozenset()
    """Ids of the events that pass."""
    refused: frozenset[str] = frozenset()
    """Names of the dead letters (chaos_verdict.letter_name)."""


Make = Callable[[random.Random, int, int], Load]
"""(dice, start of the recorded time in ns, number of bursts) -> load."""


class BadReference(AssertionError):
    """The undisturbed run itself did not decide as the load was made to be decided."""


def reference(load: Load, stages: Sequence[str], store: Store) -> list[list[Word]]:
    """What the inline engine decides over memory, burst by burst; `store` only names its contents. Raises
    BadReference."""
    sink, stored, told = Contents(), set[str](), list[list[Word]]()
    for transport in play(load.bursts, make_stages(stages, store), sink):
        found = transport.poll("look", written_by(stages), 1_000_000)
        new = sorted(sink.held.keys() - stored)
        stored.update(new)
        contents = [Word(CONTENTS, name, sha256_hex(sink.held[name])) for name in new]
        told.append([word(r.topic, r.value) for r in found] + contents)
    _check(load, stages, [w for words in told for w in words])
    return told


def written_by(stages: Sequence[str]) -> list[str]:
    """Topics on which stages tell their decisions."""
    return [*topics_written(stages), DEAD_LETTER]


def fed_to(stages: Sequence[str]) -> list[str]:
    """Topics that come from outside."""
    return [t for t in topics_read(tuple(stages)) if t not in written_by(stages)]


def _check(load: Load, stages: Sequence[str], words: Sequence[Word]) -> None:
    letters = {w.name for w in words if w.topic == DEAD_LETTER}
    if letters != load.refused:
        raise BadReference(f"undisturbed, these were or were not refused: {sorted(letters ^ load.refused)[:5]}")
    passed = {w.name for w in words if w.topic == "fleet.scenarios"}
    if "novelty" in stages and passed != load.accepted:
        raise BadReference(f"undisturbed, these did or did not pass: {sorted(passed ^ load.accepted)[:5]}")


# --- events


@dataclass(slots=True)
class Maker:
    """Gathers records and what must become of them."""

    dice: random.Random
    start_ns: int
    accepted: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    _number: int = 0

    def event(self, skew_ns: int = 0) -> TriggerEvent:
        """The next one, of any vehicle; its clock is off by so much."""
        self._number += 1
        vehicle = self.dice.choice(VEHICLES)
        name = event_id(vehicle, "boot-1", self._number)
        centre = [float(self.dice.randrange(6) == k) for k in range(6)]
        vector = [c + self.dice.gauss(0, 0.1) for c in centre] + [self.dice.gauss(0, 0.1) for _ in range(10)]
        return TriggerEvent(
            event_id=name,
            vehicle=vehicle,
            boot="boot-1",
            sequence=self._number,
            time_ns=self.start_ns + skew_ns,
            kind=self.dice.choice([Trigger.DISENGAGEMENT, Trigger.HARD_BRAKE, Trigger.SAMPLE]),
            model_version="m1",
            region=self.dice.choice(["us-ca", "gb", "de"]),
            signals={SPEED: self.dice.choice([0.0, 30.0, 100.0]), LIGHT: 90.0, VISIBILITY: 8_000.0},
            embedding=_int8(vector),
            embedding_version="m1",
            clip=ClipOffer(name, self.start_ns, self.start_ns, self.dice.randrange(50_000, 100_000)),
        )

    def good(self, event: TriggerEvent) -> Sent:
        """A record that must be accepted."""
        self.accepted.add(event.event_id)
        return sent(event)

    def bad(self, record: Sent, reason: str) -> Sent:
        """A record that must be refused."""
        self.refused.add(letter_name(reason, record.value))
        return record

    def poison(self) -> Sent:
        """A record that nobody can take."""
        event = self.event()
        good = sent(event)
        reason, headers, value = self.dice.choice(_POISONS)(event, good)
        return self.bad(Sent(good.topic, good.key, headers, value), reason)

    def load(self, bursts: Iterable[Sequence[Sent]]) -> Load:
        """With a last burst a window later, which ends the window of all the others."""
        made = [Phase(self.start_ns, tuple(some)) for some in bursts]
        last = tuple(self.good(self.event(WINDOW_NS)) for _ in range(BURST // 4))
        made.append(Phase(self.start_ns + WINDOW_NS, last))
        return Load(tuple(made), frozenset(self.accepted), frozenset(self.refused))


_Poison = Callable[[TriggerEvent, Sent], tuple[str, Headers, bytes]]


def _misplaced(event: TriggerEvent, _good: Sent) -> tuple[str, Headers, bytes]:
    report = Telemetry(event.event_id, event.vehicle, event.boot, event.sequence, event.time_ns, "m1", "gb")
    return "misplaced", *encode(report)


def _not_its_id(event: TriggerEvent, _good: Sent) -> tuple[str, Headers, bytes]:
    return "mismatch", *encode(msgspec.structs.replace(event, sequence=event.sequence + 10**6))


_POISONS: tuple[_Poison, ...] = (
    lambda event, good: ("unknown-type", (), b"junk of " + event.event_id.encode()),
    lambda event, good: ("malformed", good.headers, good.value[:-9]),
    lambda event, good: ("malformed", good.headers, good.value.replace(b"90.0", b"NaN")),
    lambda event, good: (
        "unknown-version",
        (("ce_type", b"fleetwheel.event.v99"),),
        b'{"id":"' + event.event_id.encode() + b'"}',
    ),
    _misplaced,
    _not_its_id,
)


def _oversized(event: TriggerEvent) -> Sent:
    """A sound event with more around it than a record may hold, but not more than the broker takes."""
    good = sent(event)
    value = good.value[:-1] + b',"padding":"' + b"x" * MAX_RECORD_BYTES + b'"}'
    return Sent(good.topic, good.key, good.headers, value)


def usual(dice: random.Random, start_ns: int, bursts: int) -> Load:
    """Each seventh event is sent twice, each twelfth comes back changed, and now and then there is poison."""
    make = Maker(dice, start_ns)

    def burst() -> Iterator[Sent]:
        for i in range(BURST):
            event = make.event()
            yield make.good(event)
            if i % 7 == 0:
                yield sent(event)
            if i % 12 == 0:
                yield make.bad(sent(msgspec.structs.replace(event, cause="driver")), "replayed")
            if i % 40 == 0:
                yield make.poison()

    return make.load([list(burst()) for _ in range(bursts)])


def again(dice: random.Random, start_ns: int, bursts: int) -> Load:
    """At least once: two of three events come again, in the same burst or a later one, some of them often; and
    partitions overtake each other, which is all the order that a broker promises."""
    make = Maker(dice, start_ns)
    made: list[list[Sent]] = [[] for _ in range(bursts)]
    for number in range(bursts):
        for _ in range(BURST):
            record = make.good(make.event())
            made[number].append(record)
            for _ in range(dice.choice([0, 1, 3])):
                made[dice.randrange(number, bursts)].append(record)
    return make.load([_overtaking(dice, some) for some in made])


def late(dice: random.Random, start_ns: int, bursts: int) -> Load:
    """Events overtake each other within a partition too, by up to 30 places, and come twice."""
    make = Maker(dice, start_ns)

    def burst() -> list[Sent]:
        events = [make.good(make.event()) for _ in range(BURST)]
        placed = [(i + dice.uniform(0, 30), dice.random(), s) for i, s in enumerate(events) for _ in range(2)]
        return [s for _, _, s in sorted(placed, key=lambda p: p[:2])]

    return make.load([burst() for _ in range(bursts)])


def poisoned(dice: random.Random, start_ns: int, bursts: int) -> Load:
    """As much poison as there are good events, one of it too large."""
    make = Maker(dice, start_ns)

    def burst() -> Iterator[Sent]:
        yield make.bad(_oversized(make.event()), "oversized")
        for _ in range(BURST):
            yield from (make.good(make.event()), make.poison())

    return make.load([list(burst()) for _ in range(bursts)])


_DAY_NS = 24 * 3600 * SECOND_NS


def skewed(dice: random.Random, start_ns: int, bursts: int) -> Load:
    """Vehicles whose clocks are off: by what is allowed, and by more."""
    make = Maker(dice, start_ns)

    def burst() -> Iterator[Sent]:
        for _ in range(BURST // 4):
            yield make.good(make.event())
            yield make.good(make.event(dice.choice([FUTURE_NS, -STALE_NS, dice.randrange(-STALE_NS, FUTURE_NS)])))
            yield make.bad(sent(make.event(FUTURE_NS + 1 + dice.randrange(400 * _DAY_NS))), "future-dated")
            yield make.bad(sent(make.event(-STALE_NS - 1 - dice.randrange(400 * _DAY_NS))), "stale")

    return make.load([list(burst()) for _ in range(bursts)])


def around_now(dice: random.Random, start_ns: int, bursts: int) -> Load:
    """Vehicles a minute off; now and then one an hour ahead or a year behind. For workers whose own clocks are up
    to 200 s off, which leaves 40 s of the tolerance."""
    make = Maker(dice, start_ns)

    def burst() -> Iterator[Sent]:
        for i in range(BURST):
            yield make.good(make.event(dice.randrange(-60, 60) * SECOND_NS))
            if i % 20 == 0:
                yield make.bad(sent(make.event(3600 * SECOND_NS)), "future-dated")
                yield make.bad(sent(make.event(-365 * _DAY_NS)), "stale")

    made = [Phase(start_ns, tuple(burst())) for _ in range(bursts)]
    return Load(tuple(made), frozenset(make.accepted), frozenset(make.refused))


def _overtaking(dice: random.Random, some: Sequence[Sent]) -> list[Sent]:
    """A random order that keeps each partition's."""
    lanes: dict[int, list[Sent]] = {}
    for record in some:
        lanes.setdefault(partition_of(record.key, BY_NAME[record.topic].partitions), []).append(record)
    order = [lane for lane, mine in lanes.items() for _ in mine]
    dice.shuffle(order)
    rest = {lane: iter(mine) for lane, mine in lanes.items()}
    return [next(rest[lane]) for lane in order]


# --- clips


def clips(dice: random.Random, start_ns: int, bursts: int) -> Load:
    """Requests, and the clips that were asked for, some of them twice."""
    made = []
    for number in range(bursts):
        names = [sha256_hex(f"{number}/{i}".encode())[:32] for i in range(CLIPS)]
        asked = [_request(dice, name, start_ns) for name in names]
        came = [chunk for request in asked for chunk in _chunks(dice, request, start_ns)]
        made.append(Phase(start_ns, (*map(sent, asked), *map(sent, came), *map(sent, came[::3]))))
    return Load(tuple(made))


def _request(dice: random.Random, name: str, start_ns: int) -> ClipRequest:
    return ClipRequest(
        clip_id=name,
        event_id=name,
        vehicle=dice.choice(VEHICLES),
        requested_ns=start_ns,
        before_ns=start_ns + 3600 * SECOND_NS,
        region="gb",
        cell="left/day/clear/urban",
        event_ns=start_ns,
    )


def _chunks(dice: random.Random, request: ClipRequest, start_ns: int) -> list[ClipChunk]:
    data = dice.randbytes(dice.choice([20_000, CHUNK_BYTES, CHUNK_BYTES + 9_000]))
    pieces = [data[i : i + CHUNK_BYTES] for i in range(0, len(data), CHUNK_BYTES)]
    return [
        ClipChunk(request.clip_id, request.vehicle, start_ns, i, len(pieces), sha256_hex(data), len(data), piece)
        for i, piece in enumerate(pieces)
    ]


def _int8(vector: Sequence[float]) -> bytes:
    norm = sum(v * v for v in vector) ** 0.5
    return bytes(round(v / norm * 127) & 0xFF for v in vector)
