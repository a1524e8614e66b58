"""Kafka keeps the contract of transports, with an idempotent and with a transactional producer."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

import pytest

from fleet.kafka import NativeKafka, free_port
from streams.transport.base import ConnectionFailed, Fenced
from streams.transport.kafka import KafkaConfig, KafkaTransport
from streams.transport.messages import after
from tests.contract.transport import EVENTS, HEADERS, JOBS, TransportContract, read_all

pytestmark = pytest.mark.services
_prefixes = (f"t{n}." for n in itertools.count())


def connect(broker: NativeKafka, transactional_id: str = "", prefix: str = "") -> KafkaTransport:
    return KafkaTransport(KafkaConfig(broker.bootstrap, transactional_id, prefix or next(_prefixes)))


class TestIdempotent(TransportContract):
    @pytest.fixture
    def transport(self, broker: NativeKafka) -> Iterator[KafkaTransport]:
        transport = connect(broker)
        yield transport
        transport.close()


class TestTransactional(TransportContract):
    @pytest.fixture
    def transport(self, broker: NativeKafka) -> Iterator[KafkaTransport]:
        transport = connect(broker, transactional_id="writer")
        yield transport
        transport.close()

    def test_output_and_offsets_become_visible_together(self, broker: NativeKafka) -> None:
        prefix = next(_prefixes)
        worker, watcher = connect(broker, "worker", prefix), connect(broker, prefix=prefix)
        watcher.publish(EVENTS, b"car", HEADERS, b"in")
        watcher.flush()
        records = read_all(worker, "stage", [EVENTS])
        worker.publish(JOBS, b"job", HEADERS, b"out")
        assert watcher.poll("watch", [JOBS], 10, timeout_s=0.5) == []
        worker.commit("stage", after(records))
        assert [r.value for r in read_all(watcher, "watch", [JOBS])] == [b"out"]
        assert watcher.committed("stage", [EVENTS]) == after(records)
        worker.close()
        watcher.close()

    def test_what_a_dead_process_left_open_is_never_seen(self, broker: NativeKafka) -> None:
        prefix = next(_prefixes)
        dead = connect(broker, "worker", prefix)
        dead.publish(JOBS, b"job", HEADERS, b"half")
        alive = connect(broker, "worker", prefix)
        alive.publish(JOBS, b"job", HEADERS, b"whole")
        alive.flush()
        assert [r.value for r in read_all(alive, "watch", [JOBS])] == [b"whole"]
        with pytest.raises(Fenced):
            dead.commit("stage", {(EVENTS, 0): 0})
        alive.close()


def test_nobody_there_is_said_within_seconds() -> None:
    port, began = free_port(), time.monotonic()
    with pytest.raises(ConnectionFailed, match=f"127.0.0.1:{port}"):
        KafkaTransport(KafkaConfig(f"127.0.0.1:{port}"))
    assert time.monotonic() - began < 10


def test_an_address_without_a_port_is_refused() -> None:
    with pytest.raises(ConnectionFailed, match="HOST:PORT"):
        KafkaTransport(KafkaConfig("localhost"))


def test_topics_are_made_from_the_table(broker: NativeKafka) -> None:
    from confluent_kafka.admin import AdminClient
    from confluent_kafka.admin._config import ConfigResource

    from streams.topics import TOPICS

    transport = connect(broker, prefix="table.")
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    topics = admin.list_topics(timeout=10).topics
    for topic in TOPICS:
        resource = ConfigResource(ConfigResource.Type.TOPIC, "table." + topic.name)
        config = {k: v.value for k, v in admin.describe_configs([resource])[resource].result(10).items()}
        assert len(topics["table." + topic.name].partitions) == topic.partitions
        assert config["retention.ms"] == str(topic.retention_ms)
        assert config["cleanup.policy"] == ("compact" if topic.compacted else "delete")
    transport.close()


@pytest.mark.parametrize("transactional_id", ["", "interrupted"])
def test_an_interrupt_while_deliveries_are_reported_is_an_interrupt(
    broker: NativeKafka, monkeypatch: pytest.MonkeyPatch, transactional_id: str
) -> None:
    reports = itertools.count()

    def interrupt(*_: object) -> None:
        if not next(reports):
            raise KeyboardInterrupt

    monkeypatch.setattr(KafkaTransport, "_delivered", interrupt)
    transport = connect(broker, transactional_id)
    with pytest.raises(KeyboardInterrupt):
        for n in range(100):
            transport.publish(EVENTS, b"k%d" % n, HEADERS, b"v")
        transport.flush()
    transport.close()
