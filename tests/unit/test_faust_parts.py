"""Where a Faust worker goes on: at its journals, before anything is fetched, never at a commit that ran ahead."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from aiokafka.errors import CommitFailedError, KafkaConnectionError
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.types import TP
from mode.utils.queues import FlowControlQueue

from streams.contracts.clock import VirtualClock
from streams.dedup import Dedup
from streams.engines.faust_app import FaustConfig, build_app
from streams.engines.faust_flow import flows_of
from streams.engines.faust_parts import JournaledApp, Positions, StoodStill, _Consumer, _Thread
from streams.engines.now import clock_time
from streams.novelty import NoveltyStage
from streams.tagging import Tagging
from tests.conftest import ROOT

EVENTS, CHANGELOG, NEW = TP("fleet.events", 0), TP("g-novelty-changelog", 0), TP("other", 1)


class Broker:
    """A consumer that remembers its positions, and every one that it ever had."""

    def __init__(self) -> None:
        self.commits: dict[TP, int | None] = {EVENTS: 83, CHANGELOG: 5, NEW: None}
        self.had: list[tuple[TP, int | None]] = []
        self.refuses = 0
        self._coordinator = self

    def assignment(self) -> set[TopicPartition]:
        return {TopicPartition(*tp) for tp in self.commits}

    def seek(self, tp: TopicPartition, offset: int) -> None:
        self.had.append((TP(*tp), offset))

    async def fetch_committed_offsets(self, tps: list[TopicPartition]) -> dict[TopicPartition, OffsetAndMetadata]:
        found = {tp: self.commits[TP(*tp)] for tp in tps}
        return {tp: OffsetAndMetadata(-1 if offset is None else offset, "") for tp, offset in found.items()}

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        self.refuses -= 1
        if self.refuses >= 0:
            raise CommitFailedError("the group has already rebalanced")
        self.commits |= {TP(*tp): offset for tp, offset in offsets.items()}

    async def seek_to_committed(self, *tps: TopicPartition) -> dict[TopicPartition, int | None]:
        found = {tp: self.commits[TP(*tp)] for tp in tps}
        self.had += [(TP(*tp), offset) for tp, offset in found.items()]
        return found


class Thread(_Thread):
    """Calls at once what the consumer's thread would."""

    def __init__(self, broker: Broker) -> None:
        self.broker, self.log = broker, logging.getLogger()  # type: ignore[assignment]

    def _ensure_consumer(self) -> Any:
        return self.broker

    async def call_thread(self, method: Any, *args: Any) -> Any:
        return await method(*args)


def sought(positions: Mapping[TP, int]) -> tuple[Broker, Mapping[TP, int]]:
    broker = Broker()
    return broker, asyncio.run(Thread(broker).seek_to(positions))


def test_what_a_journal_knows_is_never_sought_at_a_commit() -> None:
    broker, told = sought({EVENTS: 78, TP("gone", 3): 4})
    assert [offset for tp, offset in broker.had if tp == EVENTS] == [78]
    assert (CHANGELOG, 5) in broker.had and told[EVENTS] == 78 and told[CHANGELOG] == 5
    assert TP("gone", 3) not in told


def test_what_is_there_and_does_not_come_is_fetched_again_ever_more_seldom() -> None:
    looks = StoodStill()
    assert not looks.look({EVENTS: 5, NEW: 3}, {EVENTS: 5, NEW: 9})  # on its way
    assert not looks.look({EVENTS: 5, NEW: 4}, {EVENTS: 7, NEW: 9})  # it moves
    asked = [looks.look({EVENTS: 7, NEW: 4}, {EVENTS: 7, NEW: 9}) for _ in range(1, 16)]
    assert [n for n, again in enumerate(asked, 1) if again] == [1, 3, 7, 15] and asked[0] == {NEW}
    assert not looks.look({EVENTS: 7, NEW: 9}, {EVENTS: 7, NEW: 9})
    assert not looks.look({EVENTS: 7, NEW: 9}, {EVENTS: 7, NEW: 12})
    assert looks.look({EVENTS: 7, NEW: 9}, {EVENTS: 7, NEW: 12}) == {NEW}


def test_what_came_while_it_flows_is_not_cleared_by_resuming_again() -> None:
    async def play() -> list[int]:
        flow = JournaledApp("g", fleet_topics=(), positions=dict, autodiscover=False).flow_control
        queue: FlowControlQueue[Any] = FlowControlQueue(flow_control=flow, clear_on_resume=True)
        queue.put_nowait("from before the rebalance")
        flow.resume()
        found = [queue.qsize()]
        queue.put_nowait("since")
        flow.resume()
        found.append(queue.qsize())
        flow.suspend()
        flow.resume()
        return [*found, queue.qsize()]

    assert asyncio.run(play()) == [0, 1, 0]


def test_a_commit_that_lies_behind_its_journal_is_brought_up_and_no_other() -> None:
    broker, _ = sought({EVENTS: 78, CHANGELOG: 9, NEW: 2})
    assert broker.commits == {EVENTS: 83, CHANGELOG: 9, NEW: 2}


def test_a_commit_that_failed_is_said_at_a_later_look_and_nothing_is_said_of_what_was_not_taken() -> None:
    broker = Broker()
    broker.refuses = 2

    async def look() -> dict[TP, int | None]:
        await Thread(broker).commit_what_lies_behind({EVENTS: 90, NEW: 0, TP("gone", 3): 4})
        return dict(broker.commits)

    behind = {EVENTS: 83, CHANGELOG: 5, NEW: None}
    assert [asyncio.run(look()) for _ in range(3)] == [behind, behind, behind | {EVENTS: 90}]


def test_a_look_says_what_is_taken_also_where_ends_cannot_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ends(_consumer: object, *_places: object) -> None:
        raise KafkaConnectionError

    def at(offset: int) -> Callable[[], Positions]:
        return lambda: {EVENTS: offset}

    broker = Broker()
    app = JournaledApp("g", fleet_topics=(), positions=at(97), told=at(90), autodiscover=False)
    consumer = object.__new__(_Consumer)
    consumer.app, consumer._thread = app, Thread(broker)
    monkeypatch.setattr(_Consumer, "assignment", lambda _consumer: {EVENTS})
    monkeypatch.setattr(_Consumer, "highwaters", ends)
    asyncio.run(consumer.look(StoodStill()))
    assert broker.commits[EVENTS] == 90


def test_without_a_journal_commits_count() -> None:
    broker, told = sought({})
    assert (EVENTS, 83) in broker.had and told == {EVENTS: 83, CHANGELOG: 5, NEW: None}


def test_the_journals_are_taken_up_before_the_streams_flow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faust tells of the rebalance, then lets the streams flow, then seeks."""
    done: list[str] = []

    held = {EVENTS}

    class Consumer:
        def assignment(self) -> set[TP]:
            return held

        async def perform_seek(self) -> None:
            done.append("seek")

    async def restore(_agent: object) -> None:
        done.append("restore")

    monkeypatch.setattr("streams.engines.faust_app.FlowAgent.restore", restore)
    monkeypatch.setattr(JournaledApp, "consumer", Consumer())
    flows = flows_of([Dedup(), Tagging(), NoveltyStage()], "", "g")
    app = build_app(FaustConfig("h:1", web_port=0), flows, tmp_path, sink=None, now=clock_time(VirtualClock(0)))
    asyncio.run(app.on_rebalance_complete.send())
    assert done == ["restore", "seek"]
    held.clear()
    asyncio.run(app.on_rebalance_complete.send())
    assert done == ["restore", "seek", "restore"]


STUCK = """
import sys, time
from types import SimpleNamespace
from streams.engines.faust_app import ends_once_crashed
app = SimpleNamespace(crash_reason=None)
with ends_once_crashed(app, stop_s=float(sys.argv[1])):
    app.crash_reason = OSError("no space left")
    time.sleep(float(sys.argv[2]))
print("stopped")
"""


@pytest.mark.parametrize(("patience_s", "stops_after_s", "status"), [(0.2, 60.0, 1), (60.0, 1.0, 0)])
def test_a_worker_that_has_crashed_ends_even_if_it_cannot_stop(
    patience_s: float, stops_after_s: float, status: int
) -> None:
    command = [sys.executable, "-c", STUCK, str(patience_s), str(stops_after_s)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == status and ("no space left" in done.stderr) == (status == 1), done.stderr
