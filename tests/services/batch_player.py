"""Recordings on the batch engine: one engine each, in this process."""

from __future__ import annotations

from pathlib import Path

from confluent_kafka import Consumer, TopicPartition

from fleet.kafka import NativeKafka
from streams.engines.batch.engine import BatchConfig, BatchEngine
from streams.engines.now import record_time
from streams.engines.undisturbed import Contents
from streams.transport.kafka import KafkaConfig
from tests.services.players import KafkaPlayer

GROUP = "batch"


class BatchPlayer(KafkaPlayer):
    """Time passes as records say."""

    exactly_once = True

    def __init__(self, broker: NativeKafka, folder: Path) -> None:
        super().__init__(broker, folder)
        self._engines: dict[str, BatchEngine] = {}
        self._sinks: dict[str, Contents] = {}

    def start(self) -> None:
        for name, recording in self.recordings.items():
            sink = self._sinks.setdefault(name, Contents())
            kafka = KafkaConfig(self.broker.bootstrap, prefix=self.prefix(name))
            self._engines[name] = BatchEngine(
                BatchConfig(kafka, GROUP, "a"), recording.stages(), record_time, sink
            )

    def idle(self) -> bool:
        """Steps while something comes."""
        if sum(engine.step(0.02) for engine in self._engines.values()):
            return False
        places, committed = self.inputs(), dict[tuple[str, int], int]()
        for name in self._engines:
            mine = [p for p in places if p.topic.startswith(self.prefix(name))]
            committed |= self.committed(self.prefix(name) + GROUP, mine)
        ends = self.ends(places)
        behind = {place: max(committed.get(place, 0), 0) for place in ends}
        left = [place for place, end in ends.items() if behind[place] < end]
        return bool(ends) and all(self._only_markers(*place, behind[place]) for place in left)

    def stop(self) -> None:
        for engine in self._engines.values():
            engine.close()
        self._engines = {}

    def contents(self, name: str) -> dict[str, bytes]:
        return self._sinks[name].held

    def _only_markers(self, topic: str, partition: int, offset: int) -> bool:
        """Whether what lies from here on are marks of transactions, which are no records."""
        settings = {"bootstrap.servers": self.broker.bootstrap, "group.id": f"{self.run}.probe"}
        consumer = Consumer(settings | {"isolation.level": "read_committed", "enable.partition.eof": "true"})
        try:
            consumer.assign([TopicPartition(topic, partition, offset)])
            (message,) = consumer.consume(1, 30)
            return message.error() is not None
        finally:
            consumer.close()
