"""A flow in a Faust worker: an agent that takes what comes, a table on a changelog that keeps the journals.

At least once: contents are stored, then the journal's row is durable, then outputs are published, then the input
is acknowledged. Dying anywhere repeats outputs byte for byte, or nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, cast

from faust import Stream
from faust.types import TP, EventT, StreamT

from streams.contracts.clock import SECOND_NS
from streams.contracts.codec import Headers
from streams.engines.faust_flow import Flow
from streams.engines.faust_parts import JournaledApp
from streams.engines.inline import ContentSink, NowhereToStore
from streams.engines.journal import Row
from streams.engines.lane import Lane, Turn
from streams.engines.now import Now
from streams.engines.round import Counts, Outgoing, by_partition
from streams.stage import Content
from streams.topics import BY_NAME
from streams.transport.base import Record
from streams.transport.memory import partition_of

TURN_BYTES = 2_000_000
"""Records of one turn weigh about so much at most: the row of a step fits into a record of the changelog."""


class FlowAgent:
    """Runs one flow on the partitions that this worker holds."""

    def __init__(
        self, app: JournaledApp, flow: Flow, now: Now, *, sink: ContentSink | None, limit: int, period_s: float
    ) -> None:
        """`limit`: records of a turn, and that wait for the next; `period_s`: silence after which an empty batch
        lets time pass."""
        self.flow, self.counts = flow, {s.name: Counts() for s in flow.stages}
        self.lanes: dict[int, Lane] = {}
        self._app, self._now, self._sink = app, now, sink
        self._limit, self._period_s = limit, period_s
        self._queue: asyncio.Queue[EventT[Any]] = asyncio.Queue(limit)
        self._lock = asyncio.Lock()
        self.whole = True
        """Whether all that followed from the lanes' last steps was told."""
        raw: dict[str, Any] = {
            "key_type": bytes,
            "value_type": bytes,
            "key_serializer": "raw",
            "value_serializer": "raw",
        }
        changelog = app.topic(
            flow.changelog,
            partitions=flow.lanes,
            compacting=True,
            acks=False,
            internal=True,
            allow_empty=True,
            **raw,
        )
        self._table = app.Table(
            flow.label, partitions=flow.lanes, key_type=bytes, value_type=bytes, changelog_topic=changelog
        )
        inputs = app.topic(*flow.inputs, allow_empty=True, **raw)
        app.agent(inputs, name=f"streams.{flow.label}")(self._pump)
        app.task(self._run)

    def positions(self) -> dict[TP, int]:
        """Where the lanes go on: the journals know, whatever was committed; where they know nothing, the start."""
        return {
            TP(self.flow.prefix + topic, partition): lane.positions.get((topic, partition), 0)
            for lane in self.lanes.values()
            for topic in self.flow.topics
            for partition in self._partitions(topic, lane.number)
        }

    async def restore(self) -> None:
        """Take up the lanes that this worker was given: their rows have been read into the table. What followed
        from their last step is told again."""
        async with self._lock:
            rows: dict[bytes, bytes] = dict(self._table.data)
            self.lanes = {n: Lane(n, self.flow.stages, self.counts, rows) for n in self._given()}
            self.whole = False
            for lane in self.lanes.values():
                await self._publish(lane.untold, lane.now_ns)
            self.whole = True

    async def release(self) -> None:
        """Give the lanes up, each with a snapshot, so that whoever takes them has nothing to tell again; without,
        where a turn was broken off."""
        async with self._lock:
            for lane in (x for x in self.lanes.values() if x.steps and self.whole):
                await self._keep(lane.number, lane.snapshot())
            self.lanes = {}

    def describe(self) -> dict[str, Any]:
        """For people: what it did and where it stands."""
        return {
            "stages": {
                name: {"taken": c.taken, "emitted": c.emitted, "refused": c.refused}
                for name, c in self.counts.items()
            },
            "scope": self.flow.scope,
            "reads": self.flow.inputs,
            "changelog": self.flow.changelog,
            "lanes": {
                lane.number: {
                    "steps": lane.steps,
                    "now_ns": lane.now_ns,
                    "positions": {f"{t}/{p}": o for (t, p), o in sorted(lane.positions.items())},
                }
                for lane in self.lanes.values()
            },
        }

    def _given(self) -> list[int]:
        held = {(tp.topic, tp.partition) for tp in self._app.consumer.assignment()}
        return [n for n in range(self.flow.lanes) if (self.flow.changelog, n) in held]

    def _partitions(self, topic: str, lane: int) -> Iterable[int]:
        return [lane] if self.flow.scope == "partition" else range(BY_NAME[topic].partitions)

    async def _pump(self, stream: StreamT[bytes]) -> None:
        """Acknowledged by hand: an event that a crash of the agent would acknowledge were lost."""
        async for event in cast(Stream[bytes], stream).noack().events():
            await self._queue.put(event)

    async def _run(self) -> None:
        while not self._app.should_stop:
            events = await self._take()
            async with self._lock:
                current = [e for e in events if self._current(e)]
                self.whole = False
                try:
                    await self._turn(current)
                except Exception as error:
                    await self._app.crash(error)
                    raise
                self.whole = True
            for event in current:
                event.ack()

    async def _take(self) -> list[EventT[Any]]:
        """What waits, up to the limits; nothing after a period of silence."""
        try:
            events = [await asyncio.wait_for(self._queue.get(), self._period_s)]
        except TimeoutError:
            return []
        weight = len(events[0].message.value or b"")
        while len(events) < self._limit and weight < TURN_BYTES and not self._queue.empty():
            events.append(self._queue.get_nowait())
            weight += len(events[-1].message.value or b"")
        return events

    def _current(self, event: EventT[Any]) -> bool:
        """Whether it was read since the last rebalance: what was read before comes again to whoever has it now."""
        return bool(event.message.generation_id == self._app.consumer_generation_id)

    async def _turn(self, events: Sequence[EventT[Any]]) -> None:
        records = [self._record(e) for e in events]
        taken = by_partition(records) if self.flow.scope == "partition" else {0: records} if records else {}
        turns = [(n, turn) for n in self.lanes if (turn := self._step(n, taken.get(n, ()))) is not None]
        await self._store([c for _, turn in turns for c in turn.contents])
        await asyncio.gather(*(self._keep(n, turn.rows) for n, turn in turns))
        for number, turn in turns:
            await self._publish(turn.outgoing, self.lanes[number].now_ns)

    def _step(self, number: int, records: Iterable[Record]) -> Turn | None:
        """None where there is nothing to do: no new record, and no period has passed."""
        lane = self.lanes[number]
        fresh = [r for r in records if lane.fresh(r)]
        now_ns = self._now(fresh, lane.now_ns)
        if not fresh and now_ns - lane.now_ns < self._period_s * SECOND_NS:
            return None
        return lane.step(fresh, now_ns)

    async def _store(self, contents: Sequence[Content]) -> None:
        for content in contents:
            if self._sink is None:
                raise NowhereToStore(f"content {content.sha256} has no sink: give the engine a store")
            await asyncio.to_thread(self._sink.put, content.data, content.sha256)

    async def _keep(self, lane: int, rows: Sequence[Row]) -> None:
        """In the changelog first, then in the table. The last row counts once those before it are there."""
        await self._send([(self.flow.changelog, key, None, value, lane, None) for key, value in rows[:-1]])
        await self._send([(self.flow.changelog, key, None, value, lane, None) for key, value in rows[-1:]])
        self._table.data.update(dict(rows))

    async def _publish(self, outgoing: Sequence[Outgoing], now_ns: int) -> None:
        """With the instant of the decision as the record's time."""
        await self._send(
            [
                (self.flow.prefix + t, key, list(headers), value, partition_of(key, BY_NAME[t].partitions), now_ns)
                for t, key, headers, value in outgoing
            ]
        )

    async def _send(self, messages: Sequence[tuple[str, bytes, Any, bytes, int, int | None]]) -> None:
        if not messages:
            return
        producer = await self._app.maybe_start_producer()
        sent = [
            await producer.send(topic, key, value, partition, None if ns is None else _seconds(ns), headers)
            for topic, key, headers, value, partition, ns in messages
        ]
        await asyncio.gather(*sent)

    def _record(self, event: EventT[Any]) -> Record:
        m = event.message
        return Record(
            topic=m.topic.removeprefix(self.flow.prefix),
            partition=m.partition,
            offset=m.offset,
            key=m.key or b"",
            headers=_headers(m.headers),
            value=m.value or b"",
            time_ns=round(m.timestamp * 1000) * 1_000_000,
        )


def _headers(headers: Any) -> Headers:  # noqa: ANN401
    """As a consumer gives them; Faust's type allows more."""
    return tuple((name, value or b"") for name, value in headers or ())


def _seconds(time_ns: int) -> float:
    """Half a millisecond on, as the client cuts to whole ones."""
    return (time_ns // 1_000_000 + 0.5) / 1000
