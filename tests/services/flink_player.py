"""Recordings on Flink: all of them as pipelines of one job, in a cluster inside a process of its environment."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import Consumer, IsolationLevel, KafkaError, Producer, TopicPartition

from fleet.flink import FlinkEnvironment
from fleet.kafka import NativeKafka
from streams.engines.flink.config import FlinkConfig, group_id, plan
from tests.contract.engines import Told
from tests.contract.recordings import Recording
from tests.services.players import PATIENCE_S, KafkaPlayer

_missing = FlinkEnvironment().missing()
NEEDS_FLINK = [pytest.mark.services, pytest.mark.slow, pytest.mark.skipif(bool(_missing), reason=_missing)]

Span = tuple[str, int, int, int]
"""Topic, partition, and the offsets from and to which."""


class FlinkPlayer(KafkaPlayer):
    """Time passes as records say; a checkpoint three times a second."""

    exactly_once = True
    _process: subprocess.Popen[str] | None = None
    _started = 0
    restored = ""
    """The checkpoint from which the job went on."""

    def __init__(self, broker: NativeKafka, folder: Path, parallelism: int = 1, master: str = "") -> None:
        super().__init__(broker, folder)
        self.parallelism, self.master = parallelism, master
        settings: dict[str, str | int | bool] = {
            "bootstrap.servers": broker.bootstrap,
            "group.id": f"{self.run}.scout",
        }
        settings |= {"enable.auto.commit": False, "enable.partition.eof": True, "fetch.wait.max.ms": 10}
        self._scout = Consumer(settings)
        self._void: set[Span] = set()
        """Of which it is known that no record is in them."""
        self._nudger = Producer({"bootstrap.servers": broker.bootstrap, "transactional.id": f"{self.run}.nudge"})
        self._nudger.init_transactions(PATIENCE_S)

    def start(self) -> None:
        """After an end: go on from the newest checkpoint."""
        self._started += 1
        self._process = FlinkEnvironment().submit(
            [self._config(name) for name in self.recordings], self.folder / f"job-{self._started}"
        )
        assert self._process.stdout is not None
        told = msgspec.json.decode(self._process.stdout.readline() or b"{}", type=dict[str, str])
        assert told.get("event") == "started", self.waiting_for()
        self.restored = told["restored"]

    def idle(self) -> bool:
        """Nothing was being written, all that stood there is taken, and nothing was written meanwhile."""
        assert self._process is not None and self._process.poll() is None, f"the job ended: {self.waiting_for()}"
        places = list({(p.topic, p.partition): p for p in (*self.inputs(), *self.outputs())}.values())
        ends = self.ends(places)
        if not ends or ends != self.ends(places, IsolationLevel.READ_COMMITTED):
            return False
        left = [span for group in self._reading() for span in self._left(*group, ends)]
        if self._any_record(left):
            self._nudge(left)
            return False
        self._void.update(left)
        return ends == self.ends(places)

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """JVM and Python at once, as the machine's end would."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def contents(self, name: str) -> dict[str, bytes]:
        objects = (p for p in Path(self._store(name)).rglob("*") if len(p.name) == 64)
        return {p.name: p.read_bytes() for p in objects}

    def waiting_for(self) -> str:
        return "\n".join(p.read_text(errors="replace")[-3000:] for p in sorted(self.folder.glob("job-*/job.log")))

    def _reading(self) -> Iterator[tuple[str, set[str]]]:
        """Each consumer group and its topics."""
        for name in self.recordings:
            config = self._config(name)
            for group in plan(config.stages):
                yield group_id(group, config), {self.prefix(name) + t for t in group.topics}

    def _left(self, group: str, topics: set[str], ends: Mapping[tuple[str, int], int]) -> set[Span]:
        """What a group has not committed: it does so with the checkpoint that makes the outputs visible."""
        wanted = {place: end for place, end in ends.items() if place[0] in topics and end}
        committed = self.committed(group, [TopicPartition(*place) for place in wanted])
        found = {(*place, max(committed.get(place, 0), 0), end) for place, end in wanted.items()}
        return {span for span in found if span[2] < span[3]} - self._void

    def _any_record(self, spans: Sequence[Span]) -> bool:
        """Whether a record is in them: Flink never commits past the markers of transactions, which its own outputs
        have."""
        self._scout.assign([TopicPartition(*span[:3]) for span in spans])
        left = len(spans)
        while left:
            found = self._scout.consume(left, 5.0)
            errors = [m.error() for m in found]
            if not found or any(e is None or e.code() != KafkaError._PARTITION_EOF for e in errors):
                return True
            left -= len(found)
        return False

    def _nudge(self, spans: Sequence[Span]) -> None:
        """Flink's reader commits when something comes, or else every ten seconds. A transaction that is given up
        comes, and holds nothing."""
        self._nudger.begin_transaction()
        for topic, partition, *_ in spans:
            self._nudger.produce(topic, b"", partition=partition)
        assert self._nudger.flush(PATIENCE_S) == 0
        self._nudger.abort_transaction(PATIENCE_S)

    def _store(self, name: str) -> str:
        return str(self.folder / "store" / name)

    def _config(self, name: str) -> FlinkConfig:
        environment = FlinkEnvironment()
        return FlinkConfig(
            kafka=self.broker.bootstrap,
            stages=tuple(s.name for s in self.recordings[name].stages()),
            checkpoints=(self.folder / "checkpoints").as_uri(),
            jars=environment.jars,
            python=str(environment.python),
            make=f"tests.services.flink_stages:{name}",
            store=self._store(name),
            prefix=self.prefix(name),
            master=self.master,
            parallelism=self.parallelism,
            restore="latest",
            time="recorded",
            checkpoint_ms=300,
            batch_ms=20,
        )


class RestlessFlinkPlayer(FlinkPlayer):
    """Killed after the second phase was fed, when there is a state to lose, and after the third; restored with as
    many subtasks as `after` says."""

    def __init__(
        self, broker: NativeKafka, folder: Path, after: Sequence[int] = (2, 1), wait_s: float = 0.0
    ) -> None:
        """`wait_s`: from feeding to the kill."""
        super().__init__(broker, folder)
        self.after, self.wait_s = after, wait_s

    def play(
        self, recordings: Mapping[str, Recording], between: Callable[[int], None] = lambda number: None
    ) -> dict[str, Told]:
        """See KafkaPlayer."""

        def die(number: int) -> None:
            between(number)
            if 0 < number <= len(self.after):
                time.sleep(self.wait_s)
                self.kill()
                self.parallelism = self.after[number - 1]
                self.start()
                assert "/chk-" in self.restored

        return super().play(recordings, die)
