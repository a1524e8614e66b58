"""Recordings over a real broker: topics, records with the phases' instants as their time, outputs. An engine adds
how it is started, when it is idle and how it ends."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec
from confluent_kafka.cimpl import NewTopic

from fleet.kafka import NativeKafka
from streams.engines.undisturbed import Phase
from streams.topics import BY_NAME, TOPICS, Topic
from streams.topology import topics_read
from streams.transport.base import Record
from streams.transport.kafka import topic_settings
from streams.transport.memory import partition_of
from tests.conftest import ROOT
from tests.contract.engines import Told, without_inputs, written_by
from tests.contract.recordings import Recording

_runs = itertools.count()
PATIENCE_S = 300.0


class KafkaPlayer(ABC):
    """Each recording under a prefix of its own, all of them at once: phase by phase, idle in between."""

    exactly_once = False

    def __init__(self, broker: NativeKafka, folder: Path) -> None:
        """`folder` is this run's own."""
        self.broker, self.folder, self.run = broker, folder, f"{type(self).__name__.lower()}{next(_runs)}"
        self.recordings: Mapping[str, Recording] = {}
        self._admin = AdminClient({"bootstrap.servers": broker.bootstrap})
        self._groups: dict[str, Consumer] = {}
        """Consumers that only ask."""

    @abstractmethod
    def start(self) -> None:
        """The engine takes up `recordings`, or goes on after it was stopped or killed."""

    @abstractmethod
    def idle(self) -> bool:
        """Whether everything that was fed is taken, and what followed is told and safe."""

    @abstractmethod
    def stop(self) -> None:
        """The engine ends. May be called again."""

    @abstractmethod
    def contents(self, name: str) -> dict[str, bytes]:
        """What a recording's stages have stored, by sha256."""

    def play(
        self, recordings: Mapping[str, Recording], between: Callable[[int], None] = lambda number: None
    ) -> dict[str, Told]:
        """`between` is called after a phase was fed, before the engine is idle."""
        with self.playing(recordings):
            for number in range(max(len(r.phases) for r in recordings.values())):
                self.feed(number)
                between(number)
                self.settle()
            return {name: self.told(name) for name in recordings}

    @contextmanager
    def playing(self, recordings: Mapping[str, Recording]) -> Iterator[None]:
        """Topics are there and the engine runs; it ends with the context."""
        self.recordings = recordings
        self._make_topics()
        try:
            self.start()
            yield
        finally:
            self.stop()
            for consumer in self._groups.values():
                consumer.close()

    def prefix(self, name: str) -> str:
        """Before a recording's topics."""
        return f"{self.run}.{name}."

    def feed(self, number: int) -> None:
        """Send phase `number` of each recording."""
        producer = Producer({"bootstrap.servers": self.broker.bootstrap, "linger.ms": 1})
        for name, recording in self.recordings.items():
            if number < len(recording.phases):
                self._send(producer, self.prefix(name), recording.phases[number])
        assert producer.flush(PATIENCE_S) == 0

    def settle(self) -> None:
        """Wait until the engine is idle."""
        ends = time.monotonic() + PATIENCE_S
        while not self.idle():
            assert time.monotonic() < ends, f"not idle after {PATIENCE_S:.0f} s: {self.waiting_for()}"
            time.sleep(0.03)

    def waiting_for(self) -> str:
        """For the message of a test that fails."""
        return ""

    def inputs(self) -> list[TopicPartition]:
        """Every partition that the recordings' stages read."""
        return [
            TopicPartition(self.prefix(name) + topic, p)
            for name, recording in self.recordings.items()
            for topic in topics_read(tuple(s.name for s in recording.stages()))
            for p in range(BY_NAME[topic].partitions)
        ]

    def outputs(self) -> list[TopicPartition]:
        """Every partition that the recordings' stages write."""
        return [
            TopicPartition(self.prefix(name) + topic, p)
            for name, recording in self.recordings.items()
            for topic in written_by(recording)
            for p in range(BY_NAME[topic].partitions)
        ]

    def ends(
        self, places: list[TopicPartition], isolation: IsolationLevel = IsolationLevel.READ_UNCOMMITTED
    ) -> dict[tuple[str, int], int]:
        """Offset of the next record to come; read committed, of the first that is not decided yet. Empty while the
        broker cannot tell."""
        newest: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        asked = self._admin.list_offsets(
            dict.fromkeys(places, newest), request_timeout=30, isolation_level=isolation
        )
        try:
            return {(place.topic, place.partition): f.result().offset for place, f in asked.items()}
        except KafkaException:
            return {}

    def committed(self, group: str, places: list[TopicPartition]) -> dict[tuple[str, int], int]:
        """What a group has committed; negative where nothing. Empty while the broker cannot tell."""
        if group not in self._groups:
            settings = {"bootstrap.servers": self.broker.bootstrap, "group.id": group, "enable.auto.commit": False}
            self._groups[group] = Consumer(settings)
        try:
            found = self._groups[group].committed(places, timeout=10)
        except KafkaException:
            return {}
        return {(p.topic, p.partition): p.offset for p in found}

    def told(self, name: str) -> Told:
        """What is committed of a recording's outputs."""
        prefix, recording = self.prefix(name), self.recordings[name]
        records = [r for topic in written_by(recording) for r in self._read(prefix, BY_NAME[topic])]
        return Told(without_inputs(records, recording.phases), self.contents(name))

    def _make_topics(self) -> None:
        wanted = []
        for name, recording in self.recordings.items():
            read = topics_read(tuple(s.name for s in recording.stages()))
            used = [t for t in TOPICS if t.name in {*read, *written_by(recording)}]
            wanted += [self._topic(self.prefix(name) + t.name, t) for t in used]
        for made in self._admin.create_topics(wanted, operation_timeout=30).values():
            made.result(30)

    def _topic(self, name: str, topic: Topic) -> NewTopic:
        """Recorded time is not the broker's: nothing may be too old to keep or too new to take. And all that was
        told is compared: nothing may be compacted away."""
        all_time = {
            "retention.ms": "-1",
            "message.timestamp.after.max.ms": str(2**63 - 1),
            "cleanup.policy": "delete",
        }
        return NewTopic(name, num_partitions=topic.partitions, config=topic_settings(topic) | all_time)

    def _send(self, producer: Producer, prefix: str, phase: Phase) -> None:
        for r in phase.records:
            partition = partition_of(r.key, BY_NAME[r.topic].partitions)
            at_ms = phase.time_ns // 1_000_000
            producer.produce(
                prefix + r.topic, r.value, r.key, partition=partition, headers=list(r.headers), timestamp=at_ms
            )

    def _read(self, prefix: str, topic: Topic) -> list[Record]:
        """A topic, partition after partition."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.broker.bootstrap,
                "group.id": f"{self.run}.watch",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 10,
            }
        )
        consumer.assign([TopicPartition(prefix + topic.name, p, 0) for p in range(topic.partitions)])
        found: list[Record] = []
        left = topic.partitions
        while left:
            (message,) = consumer.consume(1, 30)
            error = message.error()
            if error is not None:
                assert error.code() == KafkaError._PARTITION_EOF, error
                left -= 1
                continue
            found.append(_record(topic.name, message))
        consumer.close()
        return sorted(found, key=lambda r: (r.partition, r.offset))


class FaustPlayer(KafkaPlayer):
    """Workers that share all recordings, each a process of its own."""

    def __init__(self, broker: NativeKafka, folder: Path) -> None:
        super().__init__(broker, folder)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._left: dict[tuple[str, int], tuple[int, int]] = {}
        """What is there and not committed: how far it is, and to where."""

    def start(self, member: str = "a") -> None:
        """A worker; one of the same name takes its place back."""
        words = {
            "bootstrap": self.broker.bootstrap,
            "group": self.run,
            "member": member,
            "folder": str(self.folder),
            "prefixes": {name: self.prefix(name) for name in self.recordings},
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            command = [sys.executable, "-m", "tests.services.faust_worker", json.dumps(words)]
            self._processes[member] = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)

    def idle(self) -> bool:
        ended = [name for name, process in self._processes.items() if process.poll() is not None]
        assert not ended, f"workers {ended} ended: {self.waiting_for()}"
        places = self.inputs()
        # In this order: what follows from a record is told before the record counts as taken.
        committed, ends = self.committed(self.run, places), self.ends(places)
        self._left = {p: (committed.get(p, 0), end) for p, end in ends.items() if committed.get(p, 0) < end > 0}
        return bool(ends) and not self._left

    def stop(self) -> None:
        for process in self._processes.values():
            process.terminate()
        for name, process in list(self._processes.items()):
            try:
                process.wait(20)
                del self._processes[name]
            except subprocess.TimeoutExpired:
                self.kill(name)

    def kill(self, member: str = "a") -> None:
        """As the end of its machine would."""
        process = self._processes.pop(member)
        process.kill()
        process.wait()

    def contents(self, name: str) -> dict[str, bytes]:
        return {p.name: p.read_bytes() for p in self.folder.glob("contents/*")} if name == "archive" else {}

    def waiting_for(self) -> str:
        left = "; ".join(f"{place}: {at} of {end}" for place, (at, end) in self._left.items())
        return f"{self._log.read_text(errors='replace')[-2000:]}\nnot committed: {left[:800]}"

    @property
    def _log(self) -> Path:
        return self.folder / "worker.log"


def _record(topic: str, message: Message) -> Record:
    pairs = message.headers() or []
    assert isinstance(pairs, list)
    headers = tuple((k, v.encode() if isinstance(v, str) else v or b"") for k, v in pairs)
    key, value = message.key() or b"", message.value() or b""
    assert isinstance(key, bytes) and isinstance(value, bytes)
    return Record(topic, message.partition() or 0, message.offset() or 0, key, headers, value)
