"""A flow's agent against a broker that is played: in which order things become safe, and what a break leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from faust.types import TP

from streams.archive import Archive
from streams.contracts.ids import sha256_hex
from streams.dedup import Dedup
from streams.engines.faust_agent import FlowAgent
from streams.engines.faust_flow import flows_of
from streams.engines.now import record_time
from streams.engines.undisturbed import Sent, sent
from streams.novelty import NoveltyStage
from streams.stage import AnyStage
from streams.tagging import Tagging
from tests.contract.recordings import START
from tests.samples import chunks, event, request


class Broken(Exception):
    """The played broker or store refuses."""


@dataclass
class Message:
    """As Faust gives it."""

    topic: str
    partition: int
    offset: int
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]
    timestamp: float = START / 1e9
    generation_id: int = 1


@dataclass
class Event:
    """Counts how often it was acknowledged."""

    message: Message
    acked: int = 0

    def ack(self) -> bool:
        self.acked += 1
        return True


@dataclass
class Table:
    """What was read from the changelog."""

    data: dict[bytes, bytes] = field(default_factory=dict)


@dataclass
class App:
    """The application and the broker in one: remembers what was done, in order, and can refuse."""

    held: set[TP] = field(default_factory=set)
    done: list[tuple[str, bytes]] = field(default_factory=list)
    """(topic, key) of what was sent, and ("stored", sha256)."""
    broken: str = ""
    """The topic that refuses."""
    should_stop: bool = False
    consumer_generation_id: int = 1
    crashed: Exception | None = None
    table: Table = field(default_factory=Table)
    tasks: list[Any] = field(default_factory=list)

    @property
    def consumer(self) -> App:
        return self

    def assignment(self) -> set[TP]:
        return self.held

    def topic(self, *names: str, **_: object) -> tuple[str, ...]:
        return names

    def Table(self, *_: object, **__: object) -> Table:  # noqa: N802  # Faust's name
        return self.table

    def agent(self, *_: object, **__: object) -> Any:
        return lambda pump: pump

    def task(self, run: Any) -> None:
        self.tasks.append(run)

    async def crash(self, error: Exception) -> None:
        self.crashed = error

    async def maybe_start_producer(self) -> App:
        return self

    async def send(self, topic: str, key: bytes, *_: object) -> Coroutine[Any, Any, None]:
        if topic == self.broken:
            raise Broken(topic)
        self.done.append((topic, key))
        return asyncio.sleep(0)

    def put(self, data: bytes, sha256: str | None = None) -> None:
        assert sha256 == sha256_hex(data)
        if self.broken == "store":
            raise Broken("store")
        self.done.append(("stored", sha256.encode()))


CHANGELOG = "streams-archive-changelog"


def agent_of(app: App, stages: Sequence[AnyStage]) -> FlowAgent:
    (flow,) = flows_of(stages)
    app.held = {TP(flow.changelog, n) for n in range(flow.lanes)}
    return FlowAgent(app, flow, record_time, sink=app, limit=100, period_s=0.01)  # type: ignore[arg-type]


def events(records: Sequence[Sent], partition: int = 0, first: int = 0) -> list[Event]:
    return [
        Event(Message(r.topic, partition, first + i, r.key, r.value, list(r.headers)))
        for i, r in enumerate(records)
    ]


def work(app: App, agent: FlowAgent, some: Sequence[Event]) -> None:
    """The worker's loop until these were taken, or until it crashed."""

    async def scenario() -> None:
        for e in some:
            agent._queue.put_nowait(e)  # type: ignore[arg-type]
        loop = asyncio.ensure_future(agent._run())
        while not agent._queue.empty() or agent._lock.locked():
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.02)
        app.should_stop = True
        await asyncio.wait([loop])
        app.should_stop = False
        if app.crashed is not None:
            assert loop.exception() is app.crashed

    asyncio.run(scenario())


def a_clip() -> list[Event]:
    """Its request and its only chunk."""
    asked = request("clip-1", before_ns=START + 10**12)
    return events([sent(asked)]) + events([sent(c) for c in chunks(b"bytes", "clip-1", time_ns=START)], first=0)


def test_content_then_row_then_word_then_acknowledgement() -> None:
    app = App()
    agent = agent_of(app, [Archive(str)])
    asyncio.run(agent.restore())
    some = a_clip()
    work(app, agent, some)
    assert [topic for topic, _ in app.done] == ["stored", CHANGELOG, "fleet.archive"]
    assert [e.acked for e in some] == [1, 1]
    assert agent.positions()[TP("fleet.clips", 0)] == 1
    assert agent.positions()[TP("fleet.clips", 5)] == 0


@pytest.mark.parametrize("broken", ["store", CHANGELOG, "fleet.archive"])
def test_wherever_it_breaks_off_the_next_worker_tells_it_once_it_can(broken: str) -> None:
    """What was not told is told by whoever takes the lane; nothing is acknowledged in between."""
    app = App(broken=broken)
    agent = agent_of(app, [Archive(str)])
    asyncio.run(agent.restore())
    some = a_clip()
    work(app, agent, some)
    assert isinstance(app.crashed, Broken) and [e.acked for e in some] == [0, 0]
    app.broken = ""
    before = len(app.done)
    asyncio.run(agent.release())
    assert len(app.done) == before, "a broken turn was kept as if it had been told"

    other = App(table=app.table)
    heir = agent_of(other, [Archive(str)])
    asyncio.run(heir.restore())
    work(other, heir, a_clip())
    assert [topic for topic, _ in other.done if topic == "fleet.archive"] == ["fleet.archive"]


def test_lanes_that_are_given_up_in_order_have_nothing_to_tell_again() -> None:
    app = App()
    agent = agent_of(app, [Archive(str)])
    asyncio.run(agent.restore())
    work(app, agent, a_clip())
    asyncio.run(agent.release())
    assert agent.lanes == {}
    other = App(table=app.table)
    heir = agent_of(other, [Archive(str)])
    asyncio.run(heir.restore())
    assert other.done == []
    again = a_clip()
    work(other, heir, again)
    assert other.done == [] and [e.acked for e in again] == [1, 1]


def test_what_was_read_before_a_rebalance_waits_for_its_new_owner() -> None:
    app = App(consumer_generation_id=2)
    agent = agent_of(app, [Archive(str)])
    asyncio.run(agent.restore())
    some = a_clip()
    work(app, agent, some)
    assert app.done == [] and [e.acked for e in some] == [0, 0]


def test_a_worker_has_the_lanes_of_the_partitions_it_was_given() -> None:
    app = App()
    agent = agent_of(app, [Dedup(), Tagging(), NoveltyStage()])
    app.held = {TP(agent.flow.changelog, 2), TP(agent.flow.changelog, 5), TP("fleet.events", 2)}
    asyncio.run(agent.restore())
    assert sorted(agent.lanes) == [2, 5]
    assert agent.positions() == {TP("fleet.events", 2): 0, TP("fleet.events", 5): 0}
    work(app, agent, events([sent(event(1, time_ns=START))], partition=5))
    assert agent.positions() == {TP("fleet.events", 2): 0, TP("fleet.events", 5): 1}
    assert agent.describe()["lanes"][5]["steps"] == 1
