"""What a campaign or a stage would have collected from recorded topics, before it goes live. Pure: equal records
give equal answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from heapq import merge

from msgspec.structs import replace as changed

from edge.agent.campaigns import DAY_NS, Watch, drawn, occurs, room
from edge.agent.expressions import Expression, Value, values_of
from fleet.estimates import Item
from streams.contracts.campaigns import Campaign
from streams.contracts.clips import ArchivedClip, ClipRequest
from streams.contracts.clock import SECOND_NS
from streams.contracts.codec import Message, Rejected, decode, encode
from streams.contracts.drive import Telemetry, Trigger, TriggerEvent
from streams.contracts.ids import sha256_hex
from streams.contracts.jobs import JobFinished, JobRequested
from streams.contracts.odd import odd_cell
from streams.contracts.scenarios import Scenario
from streams.dry_run import DryRun, chain
from streams.stage import AnyStage, Emit
from streams.topics import BY_NAME, key_of
from streams.topology import BY_STAGE
from streams.transport.base import Record
from streams.triggers import Triggers, TriggersConfig

TICK_NS = 600 * SECOND_NS


@dataclass(slots=True)
class Known:
    """What the recording tells of the fleet."""

    records: int = 0
    unreadable: int = 0
    events: dict[str, TriggerEvent] = field(default_factory=dict)
    novel: dict[str, bool] = field(default_factory=dict)
    """Event -> whether it was found novel; not every event was judged."""
    km: float = 0.0
    vehicles: set[str] = field(default_factory=set)
    from_ns: int = 0
    to_ns: int = 0
    _reports: set[str] = field(default_factory=set)

    def take(self, record: Record) -> None:
        """Once for each record."""
        self.records += 1
        message = message_of(record)
        if message is None:
            self.unreadable += 1
        else:
            self.learn(message)

    def learn(self, message: Message) -> None:
        """The same message again changes nothing."""
        if isinstance(message, Scenario):
            self.novel[message.event.event_id] = message.novelty.novel
            self._event(message.event)
        elif isinstance(message, TriggerEvent):
            self._event(message)
        elif isinstance(message, Telemetry) and message.event_id not in self._reports:
            self._reports.add(message.event_id)
            self._span(message.vehicle, message.time_ns)
            self.km += sum(e.engaged_m + e.manual_m for e in message.exposures) / 1000

    def _event(self, event: TriggerEvent) -> None:
        self.events.setdefault(event.event_id, event)
        self._span(event.vehicle, event.time_ns)

    def _span(self, vehicle: str, time_ns: int) -> None:
        self.vehicles.add(vehicle)
        self.from_ns = min(self.from_ns or time_ns, time_ns)
        self.to_ns = max(self.to_ns, time_ns)


@dataclass(frozen=True, slots=True)
class Found:
    """What would have been collected, and all that it was collected from."""

    collected: list[Item]
    seen: list[Item]
    undecided: int = 0
    """Events on which the condition could not be decided: they do not carry what it asks for."""
    gpu_hours: float = 0.0
    jobs: int = 0
    emitted: dict[str, int] = field(default_factory=dict)


def replay_campaign(campaign: Campaign, known: Known, triggers: TriggersConfig) -> Found:
    """The vehicle's own law over every recorded event, as if the campaign had been active all along. Events are
    the instants that are known: between them nothing is seen, so counts are of occurrences at events."""
    condition = Expression(campaign.expression)
    by_vehicle: dict[str, list[TriggerEvent]] = {}
    for event in sorted(known.events.values(), key=lambda e: (e.time_ns, e.event_id)):
        by_vehicle.setdefault(event.vehicle, []).append(event)
    rate = _clip_rate(known.events.values())
    found = [_on_vehicle(campaign, condition, events, known, rate) for _, events in sorted(by_vehicle.items())]
    collected = [i for f in found for i in f.collected]
    jobs, gpu_hours = jobs_for(collected, triggers)
    seen = [i for f in found for i in f.seen]
    return Found(collected, seen, sum(f.undecided for f in found), gpu_hours, jobs)


def replay_stages(
    stages: Sequence[str],
    make: Callable[[tuple[str, ...]], list[AnyStage]],
    records: Sequence[Record],
    settle_ns: int,
) -> tuple[Found, list[Message]]:
    """Stages one after another over the records; what one writes to a topic the next one reads instead of what was
    recorded there. The found items, and all messages that came about."""
    emits: list[tuple[int, Emit]] = []
    known = Known()
    for record in records:
        known.take(record)
    for stage in stages:
        run = DryRun(make(chain(stage)), stage)
        emits = list(run.run(records, settle_ns))
        kept = [r for r in records if r.topic not in BY_STAGE[stage].writes]
        records = list(merge(kept, _as_records(emits), key=_order))
        for _, emit in emits:
            known.learn(emit.message)
    items = [i for at, emit in emits if (i := _item(emit.message, known, at)) is not None]
    asked = [emit.message for _, emit in emits if isinstance(emit.message, JobRequested)]
    emitted = Counter(emit.stream for _, emit in emits)
    hours = sum(j.gpu_hours for j in asked)
    return Found(items, items, 0, hours, len(asked), dict(sorted(emitted.items()))), [e.message for _, e in emits]


def jobs_for(items: Sequence[Item], config: TriggersConfig) -> tuple[int, float]:
    """The jobs that these clips would start, if each passed at once: their number, and GPU-hours."""
    stage = Triggers(config)
    state = stage.initial()
    waiting = sorted((i for i in items if i.clip), key=lambda i: (i.time_ns, i.clip_id))
    if not waiting:
        return 0, 0.0
    jobs, hours, ended = 0, 0.0, list[Message]()
    now_ns, last_ns = waiting[0].time_ns, waiting[-1].time_ns + DAY_NS
    while now_ns <= last_ns:
        come = [i for i in waiting if i.time_ns <= now_ns]
        waiting = waiting[len(come) :]
        outcome = stage.step(state, [*ended, *map(_archived, come)], now_ns)
        state, ended = outcome.state, []
        for emit in outcome.emits:
            if isinstance(emit.message, JobRequested):
                jobs, hours = jobs + 1, hours + emit.message.gpu_hours
                name = emit.message.fingerprint
                ended.append(JobFinished(name, now_ns, "pass", model_version=name[:16]))
        now_ns += TICK_NS
    return jobs, hours


def message_of(record: Record) -> Message | None:
    """None where it is no message; the record's own time is now."""
    try:
        return decode(record.headers, record.value, record.time_ns)
    except Rejected:
        return None


def in_time_order(records: Iterable[Record]) -> list[Record]:
    """Each at the time when the broker took it, else when it happened."""
    return sorted((r if r.time_ns else replace(r, time_ns=_happened_ns(r)) for r in records), key=_order)


def _happened_ns(record: Record) -> int:
    told = next((value for name, value in record.headers if name == "ce_time"), b"")
    try:
        return int(datetime.fromisoformat(told.decode()).timestamp() * SECOND_NS)
    except (ValueError, OverflowError):
        return 0


def _on_vehicle(
    campaign: Campaign, condition: Expression, events: Sequence[TriggerEvent], known: Known, rate: float
) -> Found:
    """One vehicle's events in order of time, through the functions that run on the vehicle."""
    watch, collected, seen, undecided = Watch(campaign), list[Item](), list[Item](), 0
    takeovers = [e.time_ns for e in events if e.kind is Trigger.DISENGAGEMENT]
    for event in events:
        holds = condition.holds(_values(event))
        undecided += holds is None
        watch, occurred = occurs(watch, holds, event.time_ns)
        if not occurred:
            continue
        size = round((campaign.pre_s + campaign.post_s) * rate)
        item = replace(_of_event(event, known, event.collection_probability), bytes=size, clip=True)
        item = replace(item, disengaged=_within(campaign, event.time_ns, takeovers))
        seen.append(item)
        if room(watch, event.time_ns) >= size and drawn(campaign, event.vehicle, event.time_ns):
            collected.append(replace(item, probability=item.probability * campaign.sampling_probability))
            day = event.time_ns // DAY_NS
            spent = campaign.daily_bytes - room(watch, event.time_ns) + size
            watch = changed(watch, day=day, day_bytes=spent)
    return Found(collected, seen, undecided)


def _values(event: TriggerEvent) -> dict[str, Value]:
    """What an event tells of its instant; the vehicle's ranks it does not tell."""
    takeover = event.kind is Trigger.DISENGAGEMENT
    known: dict[str, Value] = {
        "takeover": takeover,
        "cause": event.cause if takeover else "",
        "model_version": event.model_version,
    }
    return values_of(event.signals, event.region, known)


def _within(campaign: Campaign, at_ns: int, takeovers: Sequence[int]) -> bool:
    """Whether the campaign's clip would show a takeover."""
    start, end = at_ns - int(campaign.pre_s * SECOND_NS), at_ns + int(campaign.post_s * SECOND_NS)
    return any(start <= t < end for t in takeovers)


def _clip_rate(events: Iterable[TriggerEvent]) -> float:
    """Bytes of a second of clip, as the recorded clips have it; 0 where none was recorded."""
    clips = [e.clip for e in events if e.clip is not None]
    seconds = sum(c.end_ns - c.start_ns for c in clips) / SECOND_NS
    return sum(c.bytes for c in clips) / seconds if seconds > 0 else 0.0


def _item(message: Message, known: Known, at_ns: int) -> Item | None:
    """What a message costs and shows; None for those that collect nothing."""
    if isinstance(message, Scenario):
        return _of_event(message.event, known, message.event.collection_probability)
    if isinstance(message, TriggerEvent):
        return _of_event(message, known, message.collection_probability)
    if isinstance(message, ClipRequest | ArchivedClip):
        event = known.events.get(message.event_id)
        size = (
            message.bytes if isinstance(message, ArchivedClip) else event.clip.bytes if event and event.clip else 0
        )
        return Item(
            message.vehicle,
            at_ns,
            message.inclusion_probability,
            size,
            True,
            message.kind == Trigger.DISENGAGEMENT,
            known.novel.get(message.event_id, False),
            message.cell,
            message.clip_id,
        )
    return None


def _of_event(event: TriggerEvent, known: Known, probability: float) -> Item:
    return Item(
        event.vehicle,
        event.time_ns,
        probability,
        disengaged=event.kind is Trigger.DISENGAGEMENT,
        novel=known.novel.get(event.event_id, False),
        cell=odd_cell(event.signals, event.region),
        clip_id=event.event_id,
    )


def _archived(item: Item) -> ArchivedClip:
    sha256 = sha256_hex(item.clip_id.encode())
    return ArchivedClip(
        item.clip_id, item.clip_id, item.vehicle, item.time_ns, "", sha256, item.bytes, "", item.cell
    )


def _as_records(emits: Sequence[tuple[int, Emit]]) -> list[Record]:
    """Emits as they would lie in their topics."""
    found = []
    for number, (at_ns, emit) in enumerate(emits):
        if emit.stream in BY_NAME:
            headers, value = encode(emit.message, "fleetwheel/replay")
            key = key_of(BY_NAME[emit.stream], emit.message).encode()
            found.append(Record(emit.stream, 0, number, key, headers, value, at_ns))
    return found


def _order(record: Record) -> tuple[int, str, int, int]:
    return record.time_ns, record.topic, record.partition, record.offset
