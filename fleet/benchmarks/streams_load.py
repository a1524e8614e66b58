"""What the streams benchmark feeds and what it reads back."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import msgspec
import numpy as np
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from numpy.typing import NDArray

from streams.contracts.codec import Headers, encode
from streams.contracts.drive import ClipOffer, Pose, Scores, Trigger, TriggerEvent
from streams.contracts.ids import event_id
from streams.contracts.odd import ACCELERATION, LIGHT, SPEED, STEERING_ANGLE, VISIBILITY, YAW_RATE
from streams.tagging import RAIN, TIME_GAP
from streams.topics import BY_NAME
from streams.transport.kafka import ONE_AT_A_TIME, KafkaConfig, KafkaTransport
from streams.transport.memory import partition_of

OUT = ("fleet.scenarios", "fleet.clip-requests")
VEHICLES, CLUSTERS, DIMENSION = 1_000, 40, 64
Floats = NDArray[np.float64]
Ends = dict[tuple[str, int], int]
Keyed = tuple[bytes, Headers, bytes]
"""Key, headers, value."""
_SIGNALS: tuple[tuple[str, float, float], ...] = (
    (SPEED, 0.0, 130.0), (YAW_RATE, -12.0, 12.0), (ACCELERATION, -6.0, 3.0), (STEERING_ANGLE, -90.0, 90.0),
    (LIGHT, 0.0, 100.0), (VISIBILITY, 100.0, 9_000.0), (RAIN, 0.0, 80.0), (TIME_GAP, 300.0, 5_000.0),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Load:
    """Events of about 1 KB: 1,000 vehicles, embeddings around 40 directions."""

    seed: int
    events: int
    partitions: int = 8
    """Vehicles whose keys fall into the first so many partitions."""

    def all(self, number: int | None = None) -> Iterator[TriggerEvent]:
        """The events; without a number as many as the load has."""
        rng = np.random.default_rng(self.seed)
        vehicles = self._vehicles()
        centres = rng.normal(size=(CLUSTERS, DIMENSION))
        now_ns = time.time_ns()
        for i in range(self.events if number is None else number):
            vector = centres[i % CLUSTERS] + 0.3 * rng.normal(size=DIMENSION)
            yield _event(vehicles[i % len(vehicles)], i, now_ns, vector, rng.random(len(_SIGNALS) + 3))

    def _vehicles(self) -> list[str]:
        names = (f"vehicle-{i:05d}" for i in range(100 * VEHICLES))
        fitting = (
            n for n in names if partition_of(n.encode(), BY_NAME["fleet.events"].partitions) < self.partitions
        )
        return [name for name, _ in zip(fitting, range(VEHICLES), strict=False)]


def _event(vehicle: str, i: int, now_ns: int, vector: Floats, random: Floats) -> TriggerEvent:
    name = event_id(vehicle, "boot-0001", i)
    shares = random.tolist()
    signals = {s: round(low + (high - low) * u, 3) for (s, low, high), u in zip(_SIGNALS, shares, strict=False)}
    return TriggerEvent(
        event_id=name,
        vehicle=vehicle,
        boot="boot-0001",
        sequence=i,
        time_ns=now_ns,
        kind=list(Trigger)[i % len(Trigger)],
        model_version="m-2026-11-21",
        region=("us-ca", "gb", "de-by")[i % 3],
        cause=("lateral", "", "pedestrian", "stop_sign")[i % 4],
        pose=Pose(52.2 + shares[0], 0.12 + shares[1], shares[2]),
        signals=signals,
        scores=Scores(*(round(2 * u, 4) for u in shares[-3:])),
        embedding=np.rint(vector / np.linalg.norm(vector) * 127).astype(np.int8).tobytes(),
        embedding_version="m-2026-11-21",
        clip=ClipOffer(name, now_ns, now_ns + 4 * 10**9, 100_000 + int(200_000 * shares[3])),
    )


def prepare(kafka: str, prefix: str) -> None:
    """Topics as in the table; the outputs carry the time at which the broker took them."""
    KafkaTransport(KafkaConfig(kafka, prefix=prefix)).close()
    entry: Any = ConfigEntry(
        "message.timestamp.type", "LogAppendTime", incremental_operation=AlterConfigOpType.SET
    )
    resources = [ConfigResource(ConfigResource.Type.TOPIC, prefix + t, incremental_configs=[entry]) for t in OUT]
    admin = AdminClient({"bootstrap.servers": kafka})
    for done in admin.incremental_alter_configs(resources).values():
        done.result(timeout=30)


def _producer(kafka: str, more: Mapping[str, str | int] = MappingProxyType({})) -> Producer:
    return Producer({
        "bootstrap.servers": kafka, "partitioner": "consistent", "compression.type": "lz4", "linger.ms": 5,
        "queue.buffering.max.messages": 1_000_000, **ONE_AT_A_TIME, **more,
    })  # fmt: skip


def _send(producer: Producer, prefix: str, event: TriggerEvent) -> None:
    headers, value = encode(event, event.vehicle)
    producer.produce(f"{prefix}fleet.events", value, event.vehicle.encode(), headers=list(headers))


def feed(kafka: str, prefix: str, load: Load) -> None:
    """All of it, durable when this returns."""
    _write(_producer(kafka), prefix, encoded(load))


def encoded(load: Load) -> list[Keyed]:
    """The records of a load."""
    return [(e.vehicle.encode(), *encode(e, e.vehicle)) for e in load.all()]


def _write(producer: Producer, prefix: str, records: Iterable[Keyed]) -> None:
    for i, (key, headers, value) in enumerate(records):
        producer.produce(f"{prefix}fleet.events", value, key, headers=list(headers))
        if i % 1_000 == 0:
            producer.poll(0)
    producer.flush()


class Gate:
    """Records in new topics. The first of them are there; the others wait in an open transaction. A contender
    warms up on the first, and begins with the others at a known instant: a rate told from outputs alone says
    nothing of one that decides all and then writes all.

    They are meant for readers of what is committed."""

    def __init__(self, kafka: str, prefix: str, records: Sequence[Keyed], first: int) -> None:
        self.kafka, self.prefix, self.first, self.records = kafka, prefix, first, len(records)
        prepare(kafka, prefix)
        _write(_producer(kafka), prefix, records[:first])
        held: dict[str, str | int] = {"transactional.id": f"{prefix}gate", "transaction.timeout.ms": 900_000}
        self._producer = _producer(kafka, held)
        self._producer.init_transactions()
        self._producer.begin_transaction()
        _write(self._producer, prefix, records[first:])

    def open(self) -> int:
        """Let the others be read; the time before, ms."""
        opened_ms = time.time_ns() // 1_000_000
        self._producer.commit_transaction()
        return opened_ms

    def written(self) -> int:
        """Scenarios there are, markers of transactions among them."""
        return sum(
            offset for (topic, _), offset in ends(self.kafka, self.prefix).items() if topic.endswith(OUT[0])
        )


def ends(kafka: str, prefix: str) -> Ends:
    """Offset behind the last output, aborted and committed, by partition."""
    consumer = _consumer(kafka)
    found: Ends = {}
    for place in _places(prefix):
        marks = consumer.get_watermark_offsets(TopicPartition(*place), timeout=30)
        found[place] = int(marks[1]) if marks else 0
    consumer.close()
    return found


@dataclass(frozen=True, slots=True)
class Outputs:
    """Committed outputs of one run."""

    scenarios: int
    distinct: int
    requests: int
    times_ms: list[int]
    """When the broker took each scenario, in order."""

    def per_s(self, first: int, since_ms: int) -> float:
        """Scenarios behind the first so many, over the time from that instant to the last."""
        passed_s = (self.times_ms[-1] - since_ms) / 1e3 if self.times_ms else 0.0
        return (len(self.times_ms) - first) / max(passed_s, 1e-3)


class _Told(msgspec.Struct):
    event_id: str
    time_ns: int


class _Scenario(msgspec.Struct):
    event: _Told


_decode = msgspec.json.Decoder(_Scenario).decode


def read_outputs(kafka: str, prefix: str, since: Ends | None = None) -> Outputs:
    """What a reader of committed records finds; behind these offsets, or all."""
    times: list[int] = []
    names: set[str] = set()
    requests = 0
    for message in _committed(kafka, since or dict.fromkeys(_places(prefix), 0)):
        if str(message.topic()).endswith(OUT[1]):
            requests += 1
            continue
        times.append(message.timestamp()[1])
        names.add(_decode(message.value() or b"").event.event_id)
    return Outputs(len(times), len(names), requests, sorted(times))


def _committed(kafka: str, since: Ends) -> Iterator[Message]:
    consumer = _consumer(kafka)
    consumer.assign([TopicPartition(t, p, offset) for (t, p), offset in since.items()])
    left = set(since)
    while left:
        for message in consumer.consume(10_000, 1.0):
            error = message.error()
            if error is None:
                yield message
            elif error.code() == KafkaError._PARTITION_EOF:
                left.discard((str(message.topic()), int(message.partition() or 0)))
    consumer.close()


def latencies(kafka: str, prefix: str, load: Load, rate: int, seconds: float) -> list[float]:
    """Milliseconds from an event's sending to its scenario, for a stretch at a fixed rate, once a first few have
    been decided and the rate has held for a while. Fewer than were sent where some never came."""
    total, warm = int(rate * seconds), int(rate * _HELD_S)
    # Made before: making an event takes longer than sending one. And kept out of collections: a pause here would
    # be told as the engine's.
    events = list(load.all(_FIRST + warm + total))
    gc.freeze()
    reader = _Reader(kafka, prefix)
    try:
        _pace(kafka, prefix, events[:_FIRST], rate)
        reader.read(_FIRST)
        sender = threading.Thread(target=_pace, args=(kafka, prefix, events[_FIRST:], rate), daemon=True)
        sender.start()
        reader.read(warm)
        found = reader.read(total)
        sender.join(60)
    finally:
        reader.close()
        gc.unfreeze()
    return found


_FIRST = 200
_HELD_S = 20.0
"""A broker's virtual machine compiles what it does often: for so long it takes a second core for that."""
_PATIENCE_S = 60.0


class _Reader:
    """Committed scenarios, and how long after its sending each came."""

    def __init__(self, kafka: str, prefix: str) -> None:
        self._consumer = _consumer(kafka)
        self._consumer.assign([TopicPartition(t, p, 0) for t, p in _places(prefix) if t.endswith(OUT[0])])
        self.close = self._consumer.close

    def read(self, number: int) -> list[float]:
        """The next so many, ms; fewer where none came for a minute."""
        found: list[float] = []
        heard = time.monotonic()
        while len(found) < number and time.monotonic() - heard < _PATIENCE_S:
            most = min(5_000, number - len(found))
            for message in (m for m in self._consumer.consume(most, 0.005) if m.error() is None):
                heard = time.monotonic()
                sent_ns = _decode(message.value() or b"").event.time_ns
                found.append((time.time_ns() - sent_ns) / 1e6)
        return found


def _pace(kafka: str, prefix: str, events: Sequence[TriggerEvent], rate: int) -> None:
    """Even slices of 5 ms; an event's time is when it was handed to the client."""
    producer = _producer(kafka)
    began = time.monotonic()
    sent = 0
    while sent < len(events):
        due = min(len(events), int((time.monotonic() - began) * rate) + 1)
        for event in events[sent:due]:
            _send(producer, prefix, msgspec.structs.replace(event, time_ns=time.time_ns()))
        sent = due
        producer.poll(0)
        time.sleep(0.005)
    producer.flush()


def _places(prefix: str) -> list[tuple[str, int]]:
    return [(prefix + t, p) for t in OUT for p in range(BY_NAME[t].partitions)]


def _consumer(kafka: str) -> Consumer:
    return Consumer({
        "bootstrap.servers": kafka, "group.id": "benchmark", "enable.auto.commit": False,
        "isolation.level": "read_committed", "enable.partition.eof": True, "auto.offset.reset": "earliest",
        "fetch.wait.max.ms": 5,
    })  # fmt: skip
