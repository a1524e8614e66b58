"""Messages into Prometheus metrics, each message counted once, each label bounded."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import singledispatchmethod
from types import TracebackType
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, start_http_server

from monitoring import metrics as m
from streams.contracts.clips import ArchivedClip, ClipRequest, LostClip
from streams.contracts.codec import Message, message_id, type_of
from streams.contracts.dead_letter import DeadLetter
from streams.contracts.drive import Exposure, Telemetry, TriggerEvent
from streams.contracts.jobs import JobFinished, JobRequested, JobStarted
from streams.contracts.releases import Rollout, RolloutState
from streams.contracts.scenarios import Scenario

Value = TypeVar("Value")
Instrument = Counter | Gauge | Histogram
Place = tuple[str, str, int, int, int]
"""Group, topic, partition, offset at which the group goes on, offset of the next record to come."""

OTHER = "other"
MAX_LABEL_VALUES = 200
"""Distinct values of one label of one metric; what comes later is counted as "other"."""
WINDOW_MESSAGES = 200_000
"""A re-send within this many messages is recognised."""

_TYPES: dict[m.Kind, Callable[[m.Metric, CollectorRegistry], Instrument]] = {
    m.Kind.COUNTER: lambda d, r: Counter(d.name, d.help, d.labels, registry=r),
    m.Kind.GAUGE: lambda d, r: Gauge(d.name, d.help, d.labels, registry=r),
    m.Kind.HISTOGRAM: lambda d, r: Histogram(d.name, d.help, d.labels, registry=r, buckets=d.buckets),
}


class Exporter:
    """Turns messages into metrics. `observe` neither blocks nor raises for a message that passed the codec; a
    message whose id was seen within the window changes nothing but the count of duplicates. Not thread-safe."""

    def __init__(
        self,
        registry: CollectorRegistry | None = None,
        window: int = WINDOW_MESSAGES,
        max_label_values: int = MAX_LABEL_VALUES,
    ) -> None:
        self.registry = registry or CollectorRegistry()
        self._instruments = {d.name: _TYPES[d.kind](d, self.registry) for d in m.METRICS}
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._window = window
        self._max_values = max_label_values
        self._values: dict[tuple[str, str], set[str]] = {}
        self._requested_ns: OrderedDict[str, int] = OrderedDict()
        self._lagging: set[tuple[str, ...]] = set()
        self._offsets: dict[tuple[str, ...], int] = {}

    def observe(self, message: Message) -> None:
        """Count a message."""
        if self._repeated(message):
            self._add(m.DUPLICATES, type_of(message))
            return
        self._take(message)

    def stage(self, stage: str, records: int, seconds: float, lag_s: float) -> None:
        """A stage has taken a batch of `records` in `seconds`; the newest is `lag_s` old."""
        self._add(m.STAGE_RECORDS, stage, by=records)
        self._sample(m.STAGE_SECONDS, stage, value=seconds)
        self._set(m.STAGE_LAG, stage, value=lag_s)

    def places(self, places: Iterable[Place]) -> None:
        """Where groups stand, all of them at once; the gauges of groups that are gone go too. Groups beyond the
        bound on label values are left out and counted as overflows."""
        seen: set[tuple[str, ...]] = set()
        for group, topic, partition, committed, end in places:
            name = self._bounded(m.CONSUMER_LAG, "group", group)
            if name == OTHER:
                continue
            at = (name, topic, str(partition))
            seen.add(at)
            self._set(m.CONSUMER_LAG, *at, value=max(end - committed, 0))
            self._offset(m.CONSUMER_RECORDS, at, committed)
            self._offset(m.TOPIC_RECORDS, at[1:], end)
        for gone in self._lagging - seen:
            self._instruments[m.CONSUMER_LAG.name].remove(*gone)
        self._lagging = seen

    def text(self) -> str:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry).decode()

    @singledispatchmethod
    def _take(self, message: object) -> None:
        """Messages without a metric of their own (clip chunks) pass."""

    @_take.register
    def _(self, message: Telemetry) -> None:
        model, region = message.model_version, message.region
        for exposure in message.exposures:
            self._exposure(model, region, exposure)
        self._add(m.REPORTS, model, region, message.update_state)
        self._sample(m.SPOOL_BYTES, region, value=message.spool_bytes)
        for quantile, ms in (("0.5", message.latency_ms_p50), ("0.99", message.latency_ms_p99)):
            if ms > 0:
                self._sample(m.INFERENCE_SECONDS, model, quantile, value=ms / 1e3)
        if message.watts > 0:
            self._sample(m.POWER, model, message.watts_source, value=message.watts)

    def _exposure(self, model: str, region: str, e: Exposure) -> None:
        for mode, meters, seconds in (("engaged", e.engaged_m, e.engaged_s), ("manual", e.manual_m, e.manual_s)):
            self._add(m.EXPOSURE_METERS, model, region, e.cell, mode, by=meters)
            self._add(m.EXPOSURE_SECONDS, model, region, e.cell, mode, by=seconds)
        for cause, count in e.disengagements.items():
            self._add(m.DISENGAGEMENTS, model, region, e.cell, cause, by=count)

    @_take.register
    def _(self, message: TriggerEvent) -> None:
        self._add(m.EVENTS, message.model_version, message.region, message.kind)

    @_take.register
    def _(self, message: Scenario) -> None:
        # Both series from a cell's first event on: a share of nothing is 0, not absent.
        for label, novel in (("yes", True), ("no", False)):
            self._add(m.SCENARIOS, message.cell, label, by=message.novelty.novel is novel)

    @_take.register
    def _(self, message: ClipRequest) -> None:
        self._add(m.CLIPS, message.region, "requested")

    @_take.register
    def _(self, message: ArchivedClip) -> None:
        self._add(m.CLIPS, message.region, "stored")
        self._add(m.CLIP_BYTES, message.region, by=message.bytes)

    @_take.register
    def _(self, message: LostClip) -> None:
        self._add(m.CLIPS, "", "lost")

    @_take.register
    def _(self, message: DeadLetter) -> None:
        self._add(m.DEAD_LETTERS, message.topic, message.reason)

    @_take.register
    def _(self, message: JobRequested) -> None:
        self._add(m.JOBS, "requested")
        _remember(self._requested_ns, message.fingerprint, message.time_ns, 10_000)

    @_take.register
    def _(self, message: JobStarted) -> None:
        self._add(m.JOBS, "started")

    @_take.register
    def _(self, message: JobFinished) -> None:
        self._add(m.JOBS, message.verdict)
        self._add(m.GPU_HOURS, message.verdict, by=message.gpu_hours)
        asked_ns = self._requested_ns.get(message.fingerprint)
        if asked_ns is not None and message.time_ns >= asked_ns:
            self._sample(m.JOB_SECONDS, message.verdict, value=(message.time_ns - asked_ns) / 1e9)

    @_take.register
    def _(self, message: Rollout) -> None:
        cohort = message.cohort
        for state in RolloutState:
            self._set(m.ROLLOUT_STATE, cohort, state, value=float(state == message.state))
        self._set(m.ROLLOUT_SHARE, cohort, value=message.share)
        self._set(m.ROLLOUT_EVIDENCE, cohort, value=message.evidence)
        self._set(m.RELEASE_VERSION, cohort, value=message.release.version)
        for name, arm in (("candidate", message.candidate), ("control", message.control)):
            self._set(m.ROLLOUT_METERS, cohort, name, value=arm.km * 1e3)
            self._set(m.ROLLOUT_EVENTS, cohort, name, value=arm.disengagements)
            self._set(m.ROLLOUT_SILENT, cohort, name, value=arm.silent)

    def _offset(self, metric: m.Metric, at: tuple[str, ...], offset: int) -> None:
        """Count by how much an offset has moved on; a group that was sent back has done nothing new."""
        before = self._offsets.get((metric.name, *at), offset)
        self._add(metric, *at, by=max(offset - before, 0))
        self._offsets[metric.name, *at] = offset

    def _repeated(self, message: Message) -> bool:
        name = message_id(message)
        if name in self._seen:
            return True
        _remember(self._seen, name, None, self._window)
        return False

    def _child(self, metric: m.Metric, labels: tuple[str, ...]) -> Instrument:
        instrument = self._instruments[metric.name]
        if not metric.labels:
            return instrument
        bounded = [self._bounded(metric, *pair) for pair in zip(metric.labels, labels, strict=True)]
        return instrument.labels(*bounded)

    def _bounded(self, metric: m.Metric, label: str, value: str) -> str:
        values = self._values.setdefault((metric.name, label), set())
        if value in values or len(values) < self._max_values:
            values.add(value)
            return value
        self._instruments[m.LABEL_OVERFLOWS.name].labels(metric.name, label).inc()  # type: ignore[union-attr]
        return OTHER

    def _add(self, metric: m.Metric, *labels: str, by: float = 1.0) -> None:
        child = self._child(metric, labels)
        assert isinstance(child, Counter)
        child.inc(by)

    def _set(self, metric: m.Metric, *labels: str, value: float) -> None:
        child = self._child(metric, labels)
        assert isinstance(child, Gauge)
        child.set(value)

    def _sample(self, metric: m.Metric, *labels: str, value: float) -> None:
        child = self._child(metric, labels)
        assert isinstance(child, Histogram)
        child.observe(value)


class MetricsServer:
    """An HTTP endpoint for a Prometheus server to scrape; a context manager."""

    def __init__(self, exporter: Exporter, port: int = 0, address: str = "127.0.0.1") -> None:
        """Listen; port 0 takes a free one. Raises OSError that names the port where it is taken."""
        try:
            self._server, self._thread = start_http_server(port, address, exporter.registry)
        except OSError as error:
            raise OSError(f"no metrics can be served at {address}:{port}: {error.strerror}") from error
        self.url = f"http://{address}:{self._server.server_port}/metrics"

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> MetricsServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()


def _remember(window: OrderedDict[str, Value], key: str, value: Value, size: int) -> None:
    window[key] = value
    if len(window) > size:
        window.popitem(last=False)
