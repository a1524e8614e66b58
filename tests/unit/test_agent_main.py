"""The agent: frames in, events, reports and clips out."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge.agent.frame import Frame
from edge.agent.main import Agent, AgentConfig
from edge.agent.spool import Spool
from edge.agent.triggers import Sampling
from edge.agent.uploader import Link
from registry.clip_frames import read_clip
from streams.contracts.clips import ClipChunk, LostClip
from streams.contracts.codec import Message, decode, encode
from streams.contracts.drive import Telemetry, Trigger, TriggerEvent
from streams.contracts.ids import event_id
from streams.contracts.odd import ACCELERATION, LIGHT, SPEED
from tests.unit.test_agent_spool import request
from tests.unit.vehicle_frames import PERIOD_NS, START_NS, frame, seen


def agent(folder: Path, limit: int = 10**8, **changes: Any) -> Agent:
    config = AgentConfig("v1", "boot1", "gb", **changes)
    return Agent(config, Spool(folder, limit, "none"))


def drive(vehicle: Agent, frames: list[Frame]) -> list[Message]:
    return [message for f in frames for message in vehicle.observe(f)]


def events(messages: list[Message]) -> list[TriggerEvent]:
    return [m for m in messages if isinstance(m, TriggerEvent)]


def reports(messages: list[Message]) -> list[Telemetry]:
    return [m for m in messages if isinstance(m, Telemetry)]


def takeover(count: int = 60, at: int = 30) -> list[Frame]:
    """Engaged up to frame `at`, when the driver takes over."""
    return [seen(i, engaged=i < at, takeover_cause="stop_sign" if i == at else "") for i in range(count)]


def test_a_takeover_becomes_an_event_with_a_clip_around_it(tmp_path: Path) -> None:
    vehicle = agent(tmp_path)
    (event,) = events(drive(vehicle, takeover()))
    assert (event.kind, event.cause, event.model_version) == (Trigger.DISENGAGEMENT, "stop_sign", "m1")
    assert event.time_ns == START_NS + 30 * PERIOD_NS
    assert event.event_id == event_id("v1", "boot1", event.sequence)
    assert len(event.embedding) == 64 and event.signals[SPEED] == 36.0
    assert event.clip is not None and event.clip.clip_id == event.event_id
    assert (event.clip.end_ns - event.clip.start_ns) == 19 * PERIOD_NS
    data = vehicle._spool.read(event.event_id, 0)
    clip = read_clip(data, event.event_id)
    assert len(data) == event.clip.bytes and len(clip.times_ns) == 20
    assert clip.engaged.tolist() == [True] * 10 + [False] * 10
    assert clip.metadata["kind"] == "disengagement" and clip.metadata["vehicle"] == "v1"


def test_every_message_passes_the_codec(tmp_path: Path) -> None:
    vehicle = agent(tmp_path)
    messages = drive(vehicle, takeover(200)) + vehicle.end_drive(START_NS + 200 * PERIOD_NS)
    assert len(messages) >= 5
    for message in messages:
        assert decode(*encode(message), now_ns=START_NS + 201 * PERIOD_NS) == message


def test_a_takeover_without_a_reason_is_the_drivers(tmp_path: Path) -> None:
    frames = [replace(f, takeover_cause="") for f in takeover()]
    messages = drive(agent(tmp_path), frames)
    assert events(messages)[0].cause == "driver"
    assert sum(sum(e.disengagements.values()) for r in reports(messages) for e in r.exposures) == 1


def test_reports_count_distance_time_and_disengagements_by_cell(tmp_path: Path) -> None:
    frames = takeover(101)
    frames[60:] = [replace(f, signals={**f.signals, LIGHT: 5.0}) for f in frames[60:]]
    vehicle = agent(tmp_path)
    exposures = [e for r in reports(drive(vehicle, frames)) for e in r.exposures]
    by_cell: dict[str, list[float]] = {}
    for e in exposures:
        sums = by_cell.setdefault(e.cell, [0.0] * 4)
        for i, value in enumerate((e.engaged_m, e.engaged_s, e.manual_m, e.manual_s)):
            sums[i] += value
    assert by_cell["left/day/clear/urban"] == pytest.approx([60, 6, 60, 6])
    assert by_cell["left/night/clear/urban"] == pytest.approx([0, 0, 80, 8])
    assert [e.disengagements for e in exposures if e.disengagements] == [{"stop_sign": 1}]


def test_reports_come_every_ten_seconds_with_latency_watts_and_spool(tmp_path: Path) -> None:
    got = reports(drive(agent(tmp_path), takeover(152)))
    assert [r.time_ns - START_NS for r in got] == [10_000_000_000, 20_000_000_000, 30_000_000_000]
    assert (got[1].latency_ms_p50, got[1].latency_ms_p99) == (3.0, 6.0)
    assert (got[1].watts, got[1].watts_source) == (20.0, "modelled")
    assert got[0].spool_bytes > 1000 and got[0].update_state == "idle"


def test_nothing_is_counted_over_a_gap_or_without_a_speed(tmp_path: Path) -> None:
    vehicle = agent(tmp_path)
    driven = drive(vehicle, [frame(0), frame(1), frame(100), frame(101)])
    driven += vehicle.end_drive(START_NS + 102 * PERIOD_NS)
    assert sum(e.engaged_s for r in reports(driven) for e in r.exposures) == pytest.approx(0.4)
    blind = [frame(200 + i) for i in range(3)]
    for f in blind:
        f.signals.clear()  # type: ignore[attr-defined]
    drive(vehicle, blind)
    (report,) = reports(vehicle.end_drive(START_NS + 203 * PERIOD_NS))
    assert [(e.cell, e.engaged_m) for e in report.exposures] == [("left/unknown/unknown/unknown", 0.0)]
    assert report.exposures[0].engaged_s == pytest.approx(0.4)


def test_the_end_of_a_drive_closes_what_is_open(tmp_path: Path) -> None:
    vehicle = agent(tmp_path)
    drive(vehicle, takeover(33))
    messages = vehicle.end_drive(START_NS + 33 * PERIOD_NS)
    assert [type(m) for m in messages] == [TriggerEvent, Telemetry]
    assert events(drive(vehicle, [seen(100, engaged=False)])) == []


def test_a_frame_that_is_not_later_is_dropped_and_counted(tmp_path: Path) -> None:
    vehicle = agent(tmp_path)
    drive(vehicle, [frame(5), frame(5), frame(4), frame(6)])
    assert vehicle.dropped_frames == 2


def test_samples_carry_their_probability(tmp_path: Path) -> None:
    vehicle = agent(tmp_path, sampling=Sampling(10.0, 1.0))
    found = events(drive(vehicle, [seen(i) for i in range(180)]))
    assert [e.kind for e in found] == [Trigger.SAMPLE] * len(found) and len(found) == 3
    rare = agent(tmp_path / "b", sampling=Sampling(10.0, 0.3))
    some = events(drive(rare, [frame(i) for i in range(50 * 30)]))
    assert 3 <= len(some) <= 18 and {e.collection_probability for e in some} == {0.3}


def test_hard_brake_from_real_signals(tmp_path: Path) -> None:
    frames = [seen(i, signals={ACCELERATION: -5.0 if 30 <= i < 35 else 0.0}) for i in range(60)]
    assert [e.kind for e in events(drive(agent(tmp_path), frames))] == [Trigger.HARD_BRAKE]


def test_a_request_brings_the_clip_in_chunks_and_frees_the_spool(tmp_path: Path) -> None:
    vehicle = agent(tmp_path)
    messages = drive(vehicle, takeover())
    vehicle.delivered(messages, 0)
    (event,) = events(messages)
    now = START_NS + 60 * PERIOD_NS
    assert vehicle.receive(request(event.event_id), now) == []
    chunks = vehicle.pump(now, 10**7)
    assert {type(c) for c in chunks} == {ClipChunk}
    data = b"".join(c.data for c in chunks if isinstance(c, ClipChunk))
    assert isinstance(chunks[0], ClipChunk) and hashlib.sha256(data).hexdigest() == chunks[0].clip_sha256
    vehicle.delivered(chunks, now)
    assert vehicle.pump(now + 10**12, 10**7) == [] and vehicle._spool.bytes == 0


def test_a_request_for_another_vehicle_is_not_for_us(tmp_path: Path) -> None:
    assert agent(tmp_path).receive(request("c1", vehicle="v2"), 5) == []


def test_a_request_for_what_was_never_here_is_answered(tmp_path: Path) -> None:
    assert agent(tmp_path).receive(request("c1"), 5) == [LostClip("c1", "v1", 5, "this vehicle has no such clip")]


def test_what_was_not_confirmed_is_sent_again_by_this_boot_and_by_the_next(tmp_path: Path) -> None:
    vehicle = agent(tmp_path)
    messages = drive(vehicle, takeover())
    now = START_NS + 60 * PERIOD_NS
    assert vehicle.pump(now, 10**6) == []
    assert vehicle.pump(now + 60 * 10**9, 10**6) == messages
    after_crash = Agent(AgentConfig("v1", "boot2", "gb"), Spool(tmp_path, 10**8, "none"))
    assert after_crash.pump(now, 10**6) == messages
    after_crash.delivered(messages, now)
    assert after_crash.pump(now + 10**12, 10**6) == []


def test_without_a_link_nothing_is_handed_out(tmp_path: Path) -> None:
    vehicle = agent(tmp_path)
    drive(vehicle, takeover())
    assert vehicle.pump(START_NS + 10**12, 10**6, Link.NONE) == []


def test_a_full_spool_still_tells_the_event(tmp_path: Path) -> None:
    vehicle = agent(tmp_path, limit=1000)
    (event,) = events(drive(vehicle, takeover()))
    assert event.clip is None and event.cause == "stop_sign"


def test_equal_frames_give_equal_messages_and_clips(tmp_path: Path) -> None:
    one, two = agent(tmp_path / "a"), agent(tmp_path / "b")
    assert drive(one, takeover()) == drive(two, takeover())
    assert {c.sha256 for c in one._spool.clips.values()} == {c.sha256 for c in two._spool.clips.values()}
