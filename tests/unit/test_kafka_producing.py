"""What keeps a first record from being lost on topics that are new."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.cimpl import NewTopic

from streams.engines.batch import client
from streams.engines.batch.client import Client
from streams.transport import kafka
from streams.transport.base import Retry
from streams.transport.kafka import KafkaConfig, KafkaTransport, make_topics

CONFIG = KafkaConfig("127.0.0.1:1", timeout_s=0.3)
TOPIC = NewTopic("t", num_partitions=2)


def told(result: object) -> Future[Any]:
    future: Future[Any] = Future()
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
    return future


class Admin:
    """A broker whose new leaders do not know of it for some questions."""

    def __init__(self, leaders: list[int], refusals: int) -> None:
        self.leaders, self.refusals, self.asked = leaders, refusals, 0

    def create_topics(self, topics: list[NewTopic], **_: object) -> dict[str, Future[Any]]:
        return {t.topic: told(None) for t in topics}

    def list_topics(self, topic: str, **_: object) -> SimpleNamespace:
        partitions = {p: SimpleNamespace(leader=leader) for p, leader in enumerate(self.leaders)}
        return SimpleNamespace(topics={topic: SimpleNamespace(partitions=partitions)})

    def list_offsets(self, places: dict[Any, Any], **_: object) -> dict[Any, Future[Any]]:
        self.asked += 1
        ready = self.asked > self.refusals
        answer = (
            SimpleNamespace(offset=0) if ready else KafkaException(KafkaError(KafkaError.NOT_LEADER_FOR_PARTITION))
        )
        return {place: told(answer if place.partition else SimpleNamespace(offset=0)) for place in places}


def test_a_new_topic_is_ready_once_each_leader_answers() -> None:
    admin = Admin([1, 1], refusals=2)
    make_topics(admin, CONFIG, [TOPIC])  # type: ignore[arg-type]
    assert admin.asked == 3


@pytest.mark.parametrize("admin", [Admin([1, -1], 0), Admin([1, 1], 10**6)])
def test_leaders_that_do_not_come_are_told(admin: Admin) -> None:
    with pytest.raises(Retry, match="no leader"):
        make_topics(admin, CONFIG, [TOPIC])  # type: ignore[arg-type]


def test_every_producer_sends_one_request_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second one would be taken where the first was refused, and the client would count both."""
    settings: list[dict[str, Any]] = []

    def producer(given: dict[str, Any], **_: object) -> SimpleNamespace:
        settings.append(given)
        return SimpleNamespace(init_transactions=lambda _timeout_s: None)

    for module in (kafka, client):
        monkeypatch.setattr(module, "Producer", producer)
    for transactional_id in ("", "t"):
        transport = object.__new__(KafkaTransport)
        transport.config = KafkaConfig("127.0.0.1:1", transactional_id=transactional_id)
        transport._new_producer()
    batch = object.__new__(Client)
    batch.config = transport.config
    batch._new_producer()
    assert [s["max.in.flight.requests.per.connection"] for s in settings] == [1, 1, 1]
