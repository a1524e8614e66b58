"""Faust's parts with what its settings do not offer: readers that see only what is committed, an idempotent
producer, positions from the journals, and one active worker for flows of scope "fleet"."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import cached_property
from typing import Any, cast

import faust
from aiokafka import AIOKafkaConsumer
from aiokafka.cluster import ClusterMetadata
from aiokafka.errors import KafkaError
from faust.assignor.client_assignment import ClientAssignment
from faust.assignor.partition_assignor import (
    ClientAssignmentMapping,
    CopartitionedGroups,
    MemberAssignmentMapping,
    MemberMetadataMapping,
    MemberSubscriptionMapping,
    PartitionAssignor,
)
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode.utils.queues import FlowControlEvent

Positions = Mapping[TP, int]

COMMIT_S = 5.0
"""What takes longer to be told or said is left to the next look."""


class _Thread(driver.AIOKafkaConsumerThread):
    """Reads committed records alone: what writes upstream may use transactions."""

    def _create_worker_consumer(self, transport: driver.Transport) -> AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = "read_committed"
        return consumer

    async def seek_to(self, positions: Positions) -> Mapping[TP, int]:
        """Go on at these, elsewhere at what was committed. Never at a commit first: the streams may flow, and a
        record from there would make those before it look as if they were taken."""
        return cast(Mapping[TP, int], await self.call_thread(self._seek_to, positions))

    async def _seek_to(self, positions: Positions) -> Mapping[TP, int]:
        consumer = self._ensure_consumer()
        assigned = consumer.assignment()
        known = {tp: offset for tp, offset in positions.items() if tp in assigned}
        for tp, offset in known.items():
            consumer.seek(driver.ensure_aiokafka_TP(tp), offset)
        await self._commit_what_lies_behind(known)
        others = [tp for tp in assigned if tp not in known]
        committed: dict[TP, int] = await consumer.seek_to_committed(*others) if others else {}
        return committed | known

    async def commit_what_lies_behind(self, positions: Positions) -> None:
        """Of what is assigned. Faust commits what it acknowledges, which records before these positions never will
        be, and never repeats a commit that failed: the group would look late until new ones come. Where it cannot
        be said now, the next look says it."""
        await self.call_thread(self._commit_what_lies_behind, positions)

    async def _commit_what_lies_behind(self, positions: Positions) -> None:
        consumer = self._ensure_consumer()
        assigned = consumer.assignment()
        places = {tp: driver.ensure_aiokafka_TP(tp) for tp in positions if tp in assigned}
        with suppress(KafkaError, TimeoutError):
            async with asyncio.timeout(COMMIT_S):
                # All at once; asked one by one they are hundreds of requests, and too many for a slow broker.
                said = await consumer._coordinator.fetch_committed_offsets(list(places.values()))
                behind = {
                    place: positions[tp]
                    for tp, place in places.items()
                    if positions[tp] > max(said[place].offset if place in said else 0, 0)
                }
                if behind:
                    await consumer.commit(behind)


class _Consumer(driver.Consumer):
    """Goes on where the journals say: Faust's commits may run ahead, as it acknowledges what a rebalance skips."""

    def _new_consumer_thread(self) -> _Thread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        assert isinstance(self.app, JournaledApp) and isinstance(self._thread, _Thread)
        return await self._thread.seek_to(self.app.positions())

    async def look(self, stood_still: StoodStill) -> None:
        """Say what was taken and told where the group's commits do not. Fetch again what is there and does
        not come, also from partitions that Faust has left out: it stops fetching where a queue is full, and
        must be told when it no longer is."""
        assert isinstance(self.app, JournaledApp) and isinstance(self._thread, _Thread)
        held, ends = self.assignment(), None
        taken = {tp: offset for tp, offset in self.app.positions().items() if tp in held}
        await self._thread.commit_what_lies_behind(self.app.told())
        # Where it cannot be told now, the next look tells.
        with suppress(KafkaError, TimeoutError):
            async with asyncio.timeout(COMMIT_S):
                ends = await self.highwaters(*map(driver.ensure_aiokafka_TP, taken))
        if ends is None:
            return
        again = stood_still.look(taken, ends)
        if again:
            self.resume_partitions(again)
            await self.perform_seek()


class StoodStill:
    """Partitions in which something lies that is not taken: around a rebalance Faust may drop records that it has
    fetched, or leave a partition out, and would not fetch them before the next one. What has not moved from one
    look to the next is such, or the marks of transactions, which look the same, or a long turn: it is asked for
    after 1 look, after 2 more, 4, 8, and so on."""

    def __init__(self) -> None:
        self._still: dict[TP, tuple[tuple[int, int], int]] = {}
        """What lies there, and for how many looks."""

    def look(self, taken: Positions, ends: Positions) -> set[TP]:
        """Which to fetch again from what was taken."""
        left = {tp: (offset, ends[tp]) for tp, offset in taken.items() if ends.get(tp, offset) > offset}
        before = self._still
        self._still = {
            tp: (span, before[tp][1] + 1 if tp in before and before[tp][0] == span else 0)
            for tp, span in left.items()
        }
        return {tp for tp, (_, looks) in self._still.items() if looks and not looks & (looks + 1)}


class _Producer(driver.Producer):
    """A retry neither doubles nor overtakes."""

    def _settings_extra(self) -> Mapping[str, Any]:
        return {"acks": "all", "enable_idempotence": True}


class _Transport(driver.Transport):
    Consumer = _Consumer
    Producer = _Producer


class OneForTheFleet(PartitionAssignor):
    """Topics of the fleet's flows, and their changelogs, all go to one worker: to the one that has them already,
    or to the first by name. The others are spread by Faust."""

    _holding: Mapping[str, int]

    def _perform_assignment(
        self, cluster: ClusterMetadata, member_metadata: MemberMetadataMapping
    ) -> MemberAssignmentMapping:
        held = {m: self._get_client_metadata(data).assignment.actives for m, data in member_metadata.items()}
        self._holding = {m: sum(len(held[m].get(t, ())) for t in self._fleet_topics()) for m in sorted(held)}
        return super()._perform_assignment(cluster, member_metadata)

    def _get_copartitioned_groups(  # type: ignore[override]  # a class method that is called on the object
        self, topics: set[str], cluster: ClusterMetadata, subscriptions: MemberSubscriptionMapping
    ) -> CopartitionedGroups:
        """The fleet's topics are in groups of their own, so that spreading the others does not count them."""
        groups = super()._get_copartitioned_groups(topics, cluster, subscriptions)
        fleet = self._fleet_topics()
        return {
            number: [part for some in sets for part in (some - fleet, some & fleet) if part]
            for number, sets in groups.items()
        }

    def _global_table_standby_assignments(
        self, assignments: ClientAssignmentMapping, partitions_by_topic: Mapping[str, int]
    ) -> ClientAssignmentMapping:
        assignments = super()._global_table_standby_assignments(assignments, partitions_by_topic)
        one = max(self._holding, key=lambda m: (self._holding[m], [-ord(c) for c in m]))
        for topic in self._fleet_topics():
            _gather(topic, assignments, one)
        return assignments

    def _fleet_topics(self) -> set[str]:
        assert isinstance(self.app, JournaledApp)
        return self.app.fleet_topics


def _gather(topic: str, assignments: Mapping[str, ClientAssignment], one: str) -> None:
    parts = {p for a in assignments.values() for p in a.actives.pop(topic, ())}
    if parts:
        assignments[one].actives[topic] = sorted(parts)


class _Flow(FlowControlEvent):
    """Faust's clears the streams' queues whenever it resumes. At the end of a rebalance it resumes what flows
    already, and what has come since would be lost: acknowledged by nobody, fetched again by nobody."""

    def resume(self) -> None:
        if not self.is_active():
            super().resume()


class JournaledApp(faust.App):
    """An application whose state and positions lie in journals."""

    fleet_topics: set[str]
    positions: Callable[[], Positions]
    told: Callable[[], Positions]
    """Those before which all that followed was told: a turn moves its positions on before it tells."""

    def __init__(
        self,
        name: str,
        *,
        fleet_topics: Iterable[str],
        positions: Callable[[], Positions],
        told: Callable[[], Positions] = dict,
        **options: Any,  # noqa: ANN401  # Faust's settings
    ) -> None:
        super().__init__(name, PartitionAssignor=OneForTheFleet, **options)
        self.fleet_topics, self.positions, self.told = set(fleet_topics), positions, told

    async def fetch_what_stood_still(self, stood_still: StoodStill) -> None:
        """Once in a while; while partitions change hands, positions are being sought anyway."""
        if self.flow_control.is_active():
            assert isinstance(self.consumer, _Consumer)
            await self.consumer.look(stood_still)

    @cached_property
    def flow_control(self) -> FlowControlEvent:
        return _Flow()

    def _new_transport(self) -> _Transport:
        return _Transport(self.conf.broker_consumer, self)

    def _new_producer_transport(self) -> _Transport:
        return _Transport(self.conf.broker_producer, self)
