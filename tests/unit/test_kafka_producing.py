"""What keeps a first record from being lost on topics that are new."""

from __future__ import annotations

from concurrent.futures import Future
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.cimpl import NewTopic

from streams.engines.batch import client
from streams.engines.batch.client import Client, Commit
from streams.transport import kafka
from streams.transport.base import Fenced, Retry, Spent, TransportError
from streams.transport.kafka import KafkaConfig, KafkaTransport, make_topics, persist

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

    def __init__(self, leaders: list[int], refusals: int, code: int = KafkaError.NOT_LEADER_FOR_PARTITION) -> None:
        self.leaders, self.refusals, self.code, self.asked = leaders, refusals, code, 0

    def create_topics(self, topics: list[NewTopic], **_: object) -> dict[str, Future[Any]]:
        return {t.topic: told(None) for t in topics}

    def list_topics(self, **_: object) -> SimpleNamespace:
        partitions = {p: SimpleNamespace(leader=leader) for p, leader in enumerate(self.leaders)}
        return SimpleNamespace(topics={TOPIC.topic: SimpleNamespace(partitions=partitions)})

    def list_offsets(self, places: dict[Any, Any], **_: object) -> dict[Any, Future[Any]]:
        self.asked += 1
        ready = self.asked > self.refusals
        answer = SimpleNamespace(offset=0) if ready else KafkaException(KafkaError(self.code))
        return {place: told(answer if place.partition else SimpleNamespace(offset=0)) for place in places}


@pytest.mark.parametrize(
    "code", [KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.UNKNOWN_LEADER_EPOCH, KafkaError._TIMED_OUT]
)
def test_a_new_topic_is_ready_once_each_leader_answers(code: int) -> None:
    """Whatever a leader says until then, short of what waiting does not mend."""
    admin = Admin([1, 1], 2, code)
    make_topics(admin, CONFIG, [TOPIC])  # type: ignore[arg-type]
    assert admin.asked == 3


@pytest.mark.parametrize(
    ("admin", "why"),
    [
        (Admin([1, -1], 0), "t is led by nobody"),
        (Admin([], 0), "t is led by nobody"),
        (Admin([1, 1], 10**6), "Broker: Not leader"),
    ],
)
def test_leaders_that_do_not_come_are_told(admin: Admin, why: str) -> None:
    with pytest.raises(Retry, match=f"no leader for every topic yet: {why}"):
        make_topics(admin, CONFIG, [TOPIC])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("code", "kind"), [(KafkaError._FENCED, Fenced), (KafkaError.TOPIC_AUTHORIZATION_FAILED, TransportError)]
)
def test_what_waiting_does_not_mend_is_told_at_once(code: int, kind: type[TransportError]) -> None:
    admin = Admin([1, 1], 10**6, code)
    with pytest.raises(kind) as told:
        make_topics(admin, CONFIG, [TOPIC])  # type: ignore[arg-type]
    assert type(told.value) is kind
    assert admin.asked == 1


class Consumer:
    """A client's: nothing waits, or the process is interrupted while it looks."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error, self.taken, self.closed = error, 0, 0

    def assignment(self) -> list[object]:
        return []

    def pause(self, places: list[object]) -> None: ...

    def consume(self, number: int, timeout_s: float) -> list[object]:
        if self.error is not None:
            raise self.error
        self.taken += 1
        return [None] if self.taken < 3 else []

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize(("member", "taken"), [("a", 3), ("", 0)])
def test_a_static_member_takes_what_waits_before_it_closes(member: str, taken: int) -> None:
    client_ = object.__new__(Client)
    client_.member, consumer = member, Consumer()
    client_.consumer = consumer  # type: ignore[assignment]
    client_.close()
    assert (consumer.taken, consumer.closed) == (taken, 1)


@pytest.mark.parametrize(
    ("error", "told"),
    [(RuntimeError("closed"), False), (KeyboardInterrupt(), True), (SystemError(), True)],
)
def test_a_client_is_closed_whatever_comes(error: BaseException, told: bool) -> None:
    client_ = object.__new__(Client)
    client_.member, consumer = "a", Consumer(error)
    client_.consumer = consumer  # type: ignore[assignment]
    with pytest.raises(type(error)) if told else nullcontext():
        client_.close()
    assert consumer.closed == 1


SPENT = KafkaException(KafkaError(KafkaError.INVALID_TXN_STATE, "Failed to end transaction", fatal=True))
BUSY = KafkaException(KafkaError(KafkaError.COORDINATOR_LOAD_IN_PROGRESS))


class Giving:
    """A transactional producer whose commit fails, and whose abort may."""

    def __init__(self, commit: Exception, abort: Exception | None = None) -> None:
        self.failures = {"commit": commit, "abort": abort}
        self.asked: list[str] = []

    def begin_transaction(self) -> None: ...

    def send_offsets_to_transaction(self, *_: object) -> None: ...

    def _fail(self, what: str) -> None:
        self.asked.append(what)
        if (failure := self.failures[what]) is not None:
            raise failure

    def commit_transaction(self, _timeout_s: float) -> None:
        self._fail("commit")

    def abort_transaction(self, _timeout_s: float) -> None:
        self._fail("abort")


@pytest.mark.parametrize(
    ("commit", "abort", "kind", "asked"),
    [
        (BUSY, None, Retry, ["commit", "abort"]),
        (BUSY, SPENT, Spent, ["commit", "abort"]),
        (SPENT, SPENT, Spent, ["commit"]),
        (KafkaException(KafkaError(KafkaError._FENCED, fatal=True)), None, Fenced, ["commit"]),
    ],
)
def test_a_client_that_cannot_go_on_asks_for_a_new_one(
    commit: Exception, abort: Exception | None, kind: type[TransportError], asked: list[str]
) -> None:
    """And for no person: where a transaction was given up by the broker before, librdkafka can neither commit nor
    abort it any more."""
    client_ = object.__new__(Client)
    client_.config, producer = CONFIG, Giving(commit, abort)
    client_._producer = producer  # type: ignore[assignment]
    with pytest.raises(kind) as told:
        client_.commit(Commit([], [], {}), None)
    assert type(told.value) is kind and producer.asked == asked
    assert issubclass(kind, Retry) == (kind is not Fenced)


def test_a_spent_client_is_asked_once() -> None:
    asked: list[int] = []

    def ask() -> None:
        asked.append(1)
        raise SPENT

    with pytest.raises(Spent, match="cannot go on: Failed to end"):
        persist(ask, 30.0)
    assert asked == [1]


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
