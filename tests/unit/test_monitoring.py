"""The table of metrics, and messages turned into them, seen by a scrape."""

from __future__ import annotations

import urllib.request

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from monitoring import metrics
from monitoring.exporter import OTHER, Exporter, MetricsServer
from streams.contracts.clips import ArchivedClip, ClipRequest, LostClip
from streams.contracts.codec import Message
from streams.contracts.dead_letter import DeadLetter
from streams.contracts.drive import Exposure, Telemetry, Trigger, TriggerEvent
from streams.contracts.ids import event_id
from streams.contracts.jobs import JobFinished, JobRequested, JobStarted, Release
from streams.contracts.releases import Arm, Rollout, RolloutState
from streams.contracts.scenarios import Novelty, Scenario

NOW_NS = 1_700_000_000_000_000_000


def telemetry(sequence: int = 0, vehicle: str = "v1", region: str = "de") -> Telemetry:
    return Telemetry(
        event_id=event_id(vehicle, "b", sequence),
        vehicle=vehicle,
        boot="b",
        sequence=sequence,
        time_ns=NOW_NS,
        model_version="m1",
        region=region,
        exposures=[
            Exposure("de/night", 1500.0, 100.0, 20.0, 5.0, {"lateral": 2}),
            Exposure("de/day", 500.0, 40.0),
        ],
        latency_ms_p50=4.0,
        latency_ms_p99=30.0,
        watts=22.0,
        watts_source="modelled",
        spool_bytes=1000,
    )


def event(sequence: int = 0) -> TriggerEvent:
    return TriggerEvent(
        event_id=event_id("v1", "b", sequence),
        vehicle="v1",
        boot="b",
        sequence=sequence,
        time_ns=NOW_NS,
        kind=Trigger.DISENGAGEMENT,
        model_version="m1",
        region="de",
    )


def value(exporter: Exporter, metric: metrics.Metric, *labels: str, suffix: str = "") -> float | None:
    names = dict(zip(metric.labels, labels, strict=True))
    return exporter.registry.get_sample_value(metric.name + suffix, names)


def test_names_follow_the_conventions() -> None:
    """Prometheus naming: own prefix, base units, _total on counters alone."""
    assert len(metrics.BY_NAME) == len(metrics.METRICS) >= 20
    for metric in metrics.METRICS:
        assert metric.name.startswith("fleetwheel_")
        assert metric.name.endswith("_total") == (metric.kind is metrics.Kind.COUNTER)
        assert bool(metric.buckets) == (metric.kind is metrics.Kind.HISTOGRAM)
        assert list(metric.buckets) == sorted(metric.buckets)
        assert metric.help.endswith(".")
        assert not set(metric.name.split("_")) & {"km", "ms", "hour", "kilometers", "milliseconds"}


def test_no_metric_is_labelled_by_vehicle() -> None:
    forbidden = {"vehicle", "vehicle_id", "vin", "event_id", "clip_id", "fingerprint", "boot"}
    assert not [m.name for m in metrics.METRICS if forbidden & set(m.labels)]


def test_telemetry_becomes_exposure_and_disengagements_once() -> None:
    exporter = Exporter()
    for n in (0, 1, 0):
        exporter.observe(telemetry(n))
    assert value(exporter, metrics.EXPOSURE_METERS, "m1", "de", "de/night", "engaged") == 3000.0
    assert value(exporter, metrics.EXPOSURE_SECONDS, "m1", "de", "de/night", "manual") == 10.0
    assert value(exporter, metrics.DISENGAGEMENTS, "m1", "de", "de/night", "lateral") == 4.0
    assert value(exporter, metrics.REPORTS, "m1", "de", "idle") == 2.0
    assert value(exporter, metrics.DUPLICATES, "fleetwheel.telemetry.v1") == 1.0
    assert value(exporter, metrics.POWER, "m1", "modelled", suffix="_count") == 2.0
    assert value(exporter, metrics.INFERENCE_SECONDS, "m1", "0.99", suffix="_sum") == pytest.approx(0.06)


def test_every_other_message_is_counted() -> None:
    request = JobRequested("a" * 64, "learn", NOW_NS, "m1", "tiny", ["c1"])
    finished = JobFinished("a" * 64, NOW_NS + 90_000_000_000, "pass", gpu_hours=0.5)
    messages: list[Message] = [
        event(),
        Scenario(event(1), "de/night", novelty=Novelty(novel=True)),
        ClipRequest("c1", "e1", "v1", NOW_NS, NOW_NS + 1, "de", "de/night"),
        ArchivedClip("c1", "e1", "v1", NOW_NS, "file://x", "b" * 64, 1234, "de", "de/night"),
        LostClip("c2", "v1", NOW_NS, "evicted"),
        DeadLetter("fleet.events", 0, 7, NOW_NS, "malformed", "x"),
        request,
        JobStarted("a" * 64, NOW_NS, "run"),
        finished,
    ]
    exporter = Exporter()
    for message in messages:
        exporter.observe(message)
    assert value(exporter, metrics.EVENTS, "m1", "de", "disengagement") == 1.0
    assert value(exporter, metrics.SCENARIOS, "de/night", "yes") == 1.0
    assert value(exporter, metrics.CLIPS, "de", "requested") == 1.0
    assert value(exporter, metrics.CLIPS, "de", "stored") == 1.0
    assert value(exporter, metrics.CLIPS, "", "lost") == 1.0
    assert value(exporter, metrics.CLIP_BYTES, "de") == 1234.0
    assert value(exporter, metrics.DEAD_LETTERS, "fleet.events", "malformed") == 1.0
    assert [value(exporter, metrics.JOBS, s) for s in ("requested", "started", "pass")] == [1.0, 1.0, 1.0]
    assert value(exporter, metrics.JOB_SECONDS, "pass", suffix="_sum") == 90.0
    assert value(exporter, metrics.GPU_HOURS, "pass") == 0.5


def test_a_rollout_is_in_one_state() -> None:
    release = Release(3, "m2", "bundle", "c" * 64, 10, "cpu")
    exporter = Exporter()
    for state in (RolloutState.CANARY, RolloutState.HALTED):
        arm = Arm(vehicles=4, silent=1, km=2.5, disengagements=6)
        exporter.observe(Rollout("r1", "cpu", NOW_NS, state, release, None, 0.1, candidate=arm, evidence=25.0))
    states = {s.value: value(exporter, metrics.ROLLOUT_STATE, "cpu", s) for s in RolloutState}
    assert states == {"canary": 0.0, "wave": 0.0, "paused": 0.0, "complete": 0.0, "halted": 1.0}
    assert value(exporter, metrics.ROLLOUT_METERS, "cpu", "candidate") == 2500.0
    assert value(exporter, metrics.ROLLOUT_SILENT, "cpu", "candidate") == 1.0
    assert value(exporter, metrics.ROLLOUT_EVIDENCE, "cpu") == 25.0
    assert value(exporter, metrics.RELEASE_VERSION, "cpu") == 3.0


def test_lag_and_throughput_come_from_offsets() -> None:
    exporter = Exporter()
    exporter.places([("g", "fleet.events", 0, 10, 30), ("h", "fleet.events", 0, 0, 30)])
    assert value(exporter, metrics.CONSUMER_LAG, "g", "fleet.events", "0") == 20.0
    assert value(exporter, metrics.CONSUMER_RECORDS, "g", "fleet.events", "0") == 0.0
    exporter.places([("g", "fleet.events", 0, 25, 40)])
    exporter.places([("g", "fleet.events", 0, 5, 40)])
    exporter.places([("g", "fleet.events", 0, 7, 40)])
    assert value(exporter, metrics.CONSUMER_LAG, "g", "fleet.events", "0") == 33.0
    assert value(exporter, metrics.CONSUMER_RECORDS, "g", "fleet.events", "0") == 17.0
    assert value(exporter, metrics.TOPIC_RECORDS, "fleet.events", "0") == 10.0
    assert value(exporter, metrics.CONSUMER_LAG, "h", "fleet.events", "0") is None, "a group that is gone"


def test_more_groups_than_there_is_room_for_are_counted_and_left_out() -> None:
    exporter = Exporter(max_label_values=2)
    exporter.places([(f"g{n}", "fleet.events", 0, 0, n) for n in range(5)])
    lags = [s for f in exporter.registry.collect() for s in f.samples if s.name == metrics.CONSUMER_LAG.name]
    assert {s.labels["group"] for s in lags} == {"g0", "g1"}
    assert value(exporter, metrics.LABEL_OVERFLOWS, metrics.CONSUMER_LAG.name, "group") == 3.0


def test_labels_are_bounded() -> None:
    exporter = Exporter(max_label_values=3)
    for i in range(10):
        exporter.observe(telemetry(i, region=f"r{i}"))
    regions = {
        s.labels["region"]
        for f in exporter.registry.collect()
        for s in f.samples
        if s.name == metrics.EXPOSURE_METERS.name
    }
    assert regions == {"r0", "r1", "r2", OTHER}
    total = sum(
        s.value for f in exporter.registry.collect() for s in f.samples if s.name == metrics.EXPOSURE_METERS.name
    )
    assert total == 10 * 2020.0  # counted as other, not lost
    assert (value(exporter, metrics.LABEL_OVERFLOWS, metrics.EXPOSURE_METERS.name, "region") or 0) > 0


def test_the_window_of_ids_is_bounded() -> None:
    exporter = Exporter(window=2)
    for n in (0, 1, 2, 0):
        exporter.observe(telemetry(n))
    assert value(exporter, metrics.REPORTS, "m1", "de", "idle") == 4.0


def test_a_scrape_shows_every_metric_of_the_table() -> None:
    exporter = Exporter(CollectorRegistry())
    exporter.observe(telemetry())
    exporter.stage("dedup", 200, 0.002, 1.5)
    with MetricsServer(exporter) as server, urllib.request.urlopen(server.url, timeout=10) as answer:
        families = {f.name: f for f in text_string_to_metric_families(answer.read().decode())}
    assert {m.name.removesuffix("_total") for m in metrics.METRICS} <= set(families)
    (records,) = (s for s in families["fleetwheel_stage_records"].samples if s.name.endswith("_total"))
    assert (records.labels, records.value) == ({"stage": "dedup"}, 200.0)
    (lag,) = families["fleetwheel_stage_lag_seconds"].samples
    assert lag.value == 1.5
    assert "v1" not in str(list(families.values()))  # no vehicle anywhere


def test_a_port_that_is_taken_is_named() -> None:
    with MetricsServer(Exporter()) as first:
        port = int(first.url.rpartition(":")[2].partition("/")[0])
        with pytest.raises(OSError, match=f"127.0.0.1:{port}"):
            MetricsServer(Exporter(), port)
