"""Topics against the table and lag, on a real broker."""

from __future__ import annotations

import itertools
import time

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from fleet.kafka import NativeKafka
from streams.topics import TOPICS
from streams.transport.kafka import KafkaConfig, KafkaTransport
from streams.transport.kafka_admin import KafkaAdmin
from streams.transport.messages import after, send
from tests.contract.transport import read_all
from tests.samples import event

pytestmark = pytest.mark.services
_prefixes = (f"admin{n}." for n in itertools.count())


@pytest.fixture
def config(broker: NativeKafka) -> KafkaConfig:
    return KafkaConfig(broker.bootstrap, prefix=next(_prefixes))


def test_an_empty_broker_gets_the_table_and_then_nothing_differs(config: KafkaConfig) -> None:
    admin = KafkaAdmin(config)
    todo = admin.changes()
    assert [c.create for c in todo] == [True] * len(TOPICS)
    assert len(admin.apply(todo)) == len(TOPICS)
    assert admin.changes() == []
    assert {n: t.partitions for n, t in admin.topics().items()} == {t.name: t.partitions for t in TOPICS}


def test_settings_are_put_right_and_partitions_grow_only_when_told(config: KafkaConfig) -> None:
    client = AdminClient({"bootstrap.servers": config.bootstrap})
    few = NewTopic(config.prefix + "fleet.events", 2, 1, config={"retention.ms": "1000"})
    client.create_topics([few])[few.topic].result(10)
    admin = KafkaAdmin(config)
    while "fleet.events" not in admin.topics():
        time.sleep(0.05)
    done = admin.apply(admin.changes())
    assert any("retention.ms set to" in line for line in done)
    (left,) = admin.changes()
    assert left.grow_from == 2
    assert admin.apply([left]) == []
    assert admin.apply([left], grow=True) == ["fleet.events: grown from 2 to 8 partitions"]
    assert admin.changes() == []


def test_lag_is_told_by_group_topic_and_partition(config: KafkaConfig) -> None:
    transport = KafkaTransport(config)
    for n in range(20):
        send(transport, "fleet.events", event(n, f"car-{n}"))
    transport.flush()
    first = read_all(transport, "readers", ["fleet.events"])[:12]
    transport.commit("readers", after(first))
    admin = KafkaAdmin(config)
    places = admin.places()
    assert {p.group for p in places} == {"readers"}
    assert sum(p.committed for p in places) == sum(after(first).values())
    ends = transport.end_offsets(["fleet.events"])
    assert all(p.end == ends[p.topic, p.partition] for p in places)
    assert admin.places(groups=["others"]) == []
    transport.close()
