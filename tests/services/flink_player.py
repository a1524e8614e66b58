"""Recordings on Flink: all of them as pipelines of one job, in a cluster inside a process of its environment."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from confluent_kafka import Consumer, IsolationLevel, KafkaError, TopicPartition

from fleet.flink import FlinkEnvironment
from fleet.kafka import NativeKafka
from streams.engines.flink.config import FlinkConfig, group_id, plan
from tests.contract.engines import Told
from tests.contract.recordings import Recording
from tests.services.players import KafkaPlayer


class FlinkPlayer(KafkaPlayer):
    """Time passes as records say; a checkpoint three times a second."""

    exactly_once = True
    _process: subprocess.Popen[str] | None = None
    _started = 0

    def __init__(self, broker: NativeKafka, folder: Path, parallelism: int = 1, master: str = "") -> None:
        super().__init__(broker, folder)
        self.parallelism, self.master = parallelism, master
        settings = {"bootstrap.servers": broker.bootstrap, "group.id": f"{self.run}.scout"}
        self._scout = Consumer(settings | {"enable.auto.commit": False, "enable.partition.eof": True})

    def start(self) -> None:
        """After an end: go on from the newest checkpoint."""
        self._started += 1
        self._process = FlinkEnvironment().submit(
            [self._config(name) for name in self.recordings], self.folder / f"job-{self._started}"
        )
        assert self._process.stdout is not None
        assert "started" in self._process.stdout.readline(), self.waiting_for()

    def idle(self) -> bool:
        """Nothing was being written, all that stood there is taken, and nothing was written meanwhile."""
        assert self._process is not None and self._process.poll() is None, f"the job ended: {self.waiting_for()}"
        places = list({(p.topic, p.partition): p for p in (*self.inputs(), *self.outputs())}.values())
        ends = self.ends(places)
        return (
            bool(ends)
            and ends == self.ends(places, IsolationLevel.READ_COMMITTED)
            and all(self._taken(group, ends) for group in self._reading())
            and ends == self.ends(places)
        )

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

    def _taken(self, group: tuple[str, set[str]], ends: Mapping[tuple[str, int], int]) -> bool:
        """Offsets are committed with the checkpoint that makes the outputs visible."""
        name, topics = group
        wanted = {place: end for place, end in ends.items() if place[0] in topics and end}
        committed = self.committed(name, [TopicPartition(*place) for place in wanted])
        left = {place: max(committed.get(place, 0), 0) for place in wanted}
        return not self._any_record([TopicPartition(*p, at) for p, at in left.items() if at < wanted[p]])

    def _any_record(self, places: list[TopicPartition]) -> bool:
        """Whether a record stands at these offsets or behind them: Flink never commits past the markers of
        transactions, which its own outputs have."""
        self._scout.assign(places)
        left = len(places)
        while left:
            found = self._scout.consume(left, 5.0)
            errors = [m.error() for m in found]
            if not found or any(e is None or e.code() != KafkaError._PARTITION_EOF for e in errors):
                return True
            left -= len(found)
        return False

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
    """Killed after each of the first phases was fed, and restored with as many subtasks as `after` says."""

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
            if number < len(self.after):
                time.sleep(self.wait_s)
                self.kill()
                self.parallelism = self.after[number]
                self.start()

        return super().play(recordings, die)
