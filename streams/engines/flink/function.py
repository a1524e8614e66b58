"""A group's stages as a Flink function, keyed by lane. Thin: it carries batches and states.

Time is event time: a lane's is the newest of its records' times and of the watermark, which follows the clock
where nothing comes (java/LiveWatermarks.java). A timer a tick lets it pass on an empty batch.

State: a lane lives in memory. Just before a checkpoint's barrier comes a batch with a mark, on which the lane
writes what changed into Flink's keyed state.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from importlib import import_module

import msgspec
from pyflink.common import Types
from pyflink.datastream import KeyedProcessFunction, RuntimeContext
from pyflink.datastream.state import ListState, ListStateDescriptor, ValueState, ValueStateDescriptor

from registry.store import Store
from streams.engines.flink.config import FlinkConfig, Group
from streams.engines.flink.frames import Batch, Frame, read_batch, read_told, write_outgoing
from streams.engines.flink.handed import HANDED
from streams.engines.flink.lane import FromLane, Lane
from streams.engines.round import Counts, Round
from streams.engines.seldom_collected import seldom_collected
from streams.stage import AnyStage
from streams.topology import topics_read

MAX_WATERMARK = (1 << 63) - 1
"""Flink's word for the end of a bounded input."""
# Flink pickles what it is handed as bytes; its primitive arrays break checkpoints in thread mode.
BLOB = Types.PICKLED_BYTE_ARRAY()


class LaneFunction(KeyedProcessFunction):  # type: ignore[misc]
    """A group's stages, keyed by lane."""

    def __init__(self, group: Group, config: FlinkConfig, followed: bool) -> None:
        """`followed`: another group takes what this one tells."""
        self._group, self._config, self._followed = group, msgspec.json.encode(config), followed

    def open(self, runtime_context: RuntimeContext) -> None:
        """In the task: make the stages and find their saved states."""
        config = self._settings = msgspec.json.decode(self._config, type=FlinkConfig)
        self._store = Store(config.store)
        module, _, function = config.make.partition(":")
        self._stages: list[AnyStage] = getattr(import_module(module), function)(self._group.stages, self._store)
        self._counts = {s.name: Counts() for s in self._stages}
        self._meters = _Meters(runtime_context, self._counts)
        self._base: ValueState = runtime_context.get_state(ValueStateDescriptor("base", BLOB))
        self._changes: ListState = runtime_context.get_list_state(ListStateDescriptor("changes", BLOB))
        self._lanes: dict[int, Lane] = {}
        self._taken = frozenset(topics_read(self._group.stages))
        self._ends = ExitStack()
        self._ends.enter_context(seldom_collected())

    def close(self) -> None:
        """The task ends; in thread mode its interpreter goes on."""
        self._ends.close()
        HANDED.clear()

    def process_element(self, value: bytes, ctx: KeyedProcessFunction.Context) -> Iterator[bytes]:
        """A batch, or the mark."""
        batch = read_told(value) if self._group.after else read_batch(value)
        if batch.mark:
            self._save(ctx)
            return
        handed: FromLane | None = None
        frames: Sequence[Frame] = ()
        if isinstance(batch, Batch):
            frames = batch.frames
        elif found := HANDED.take(batch.token):
            handed = FromLane(found, self._taken)
        else:
            frames = batch.frames(self._taken)
        yield from self._step(ctx, frames, handed)

    def _step(
        self, ctx: KeyedProcessFunction.Context, frames: Sequence[Frame], handed: FromLane | None
    ) -> Iterator[bytes]:
        lane, timers = self._lane(ctx), ctx.timer_service()
        now_ns = max((f.time_ms * 1_000_000 for f in frames), default=handed.round.now_ns if handed else 0)
        if self._settings.time == "live":
            now_ns = max(now_ns, lane.now_ns, _ns(timers.current_watermark()))
            timers.register_event_time_timer(self._next_tick(now_ns))
        yield from self._tell(lane.step(frames, now_ns, self._store.put, handed))

    def on_timer(self, timestamp: int, ctx: KeyedProcessFunction.OnTimerContext) -> Iterator[bytes]:
        """Time passes."""
        timers = ctx.timer_service()
        watermark = timers.current_watermark()
        if watermark == MAX_WATERMARK:
            return
        lane, now_ns = self._lane(ctx), _ns(watermark)
        if self._group.scope == "partition" and lane.quiet_ns(now_ns) >= self._settings.expire_ms * 1_000_000:
            self._forget(ctx)
            return
        timers.register_event_time_timer(self._next_tick(now_ns))
        yield from self._tell(lane.step((), now_ns, self._store.put))

    def _tell(self, done: Round) -> Iterator[bytes]:
        if out := done.outgoing():
            yield write_outgoing(out, done.now_ns, HANDED.give(done) if self._followed else b"")
        self._meters.tell()

    def _lane(self, ctx: KeyedProcessFunction.Context) -> Lane:
        key = _key(ctx)
        if key not in self._lanes:
            lane = Lane(self._stages, self._counts)
            lane.restore(self._base.value(), list(self._changes.get() or ()))
            self._lanes[key] = lane
        return self._lanes[key]

    def _save(self, ctx: KeyedProcessFunction.Context) -> None:
        lane = self._lanes.get(_key(ctx))
        saved = lane.save() if lane else None
        if saved is None:
            return
        if saved.base is not None:
            self._base.update(saved.base)
            self._changes.clear()
        if saved.change is not None:
            self._changes.add(saved.change)

    def _forget(self, ctx: KeyedProcessFunction.Context) -> None:
        self._lanes.pop(_key(ctx), None)
        self._base.clear()
        self._changes.clear()

    def _next_tick(self, now_ns: int) -> int:
        """The next whole tick, ms: batches of one tick share a timer."""
        tick = self._settings.tick_ms
        return (now_ns // 1_000_000 // tick + 1) * tick


class _Meters:
    """What the stages counted, as Flink's counters."""

    def __init__(self, context: RuntimeContext, counts: dict[str, Counts]) -> None:
        group = context.get_metrics_group()
        self._told = {
            (stage, field): [group.add_group("stage", stage).counter(field), 0]
            for stage in counts
            for field in ("taken", "emitted", "refused")
        }
        self._counts = counts

    def tell(self) -> None:
        for (stage, field), told in self._told.items():
            now = getattr(self._counts[stage], field)
            if now != told[1]:
                told[0].inc(now - told[1])
                told[1] = now


def _key(ctx: KeyedProcessFunction.Context) -> int:
    key = ctx.get_current_key()
    return int(key if isinstance(key, int) else key[0])


def _ns(watermark_ms: int) -> int:
    """0 before the first watermark, and at the end of a bounded input, which is no instant."""
    return 0 if watermark_ms < 0 or watermark_ms == MAX_WATERMARK else watermark_ms * 1_000_000
