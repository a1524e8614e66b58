"""One of each message, and builders for tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from streams.contracts.campaigns import Campaign, CampaignReport, CampaignState, ReportState
from streams.contracts.clips import CHUNK_BYTES, ArchivedClip, ClipChunk, ClipRequest, LostClip
from streams.contracts.clock import SECOND_NS
from streams.contracts.codec import Message
from streams.contracts.dead_letter import DeadLetter
from streams.contracts.drive import ClipOffer, Exposure, Pose, Scores, Telemetry, Trigger, TriggerEvent
from streams.contracts.ids import event_id, sha256_hex
from streams.contracts.jobs import Evidence, JobFinished, JobRequested, JobStarted, Release
from streams.contracts.releases import Arm, Rollout, RolloutState
from streams.contracts.scenarios import Novelty, Scenario

T0 = 1_790_000_000 * SECOND_NS
"""A September morning in 2026."""
DAYLIGHT: dict[str, float] = {
    "Vehicle.Speed": 36.0,
    "Vehicle.Exterior.LightIntensity": 90.0,
    "Vehicle.Exterior.Visibility": 8000.0,
}


def embedding_of(vector: ArrayLike) -> bytes:
    """A vector's direction, int8."""
    v = np.asarray(vector, float)
    return bytes(np.rint(v / np.linalg.norm(v) * 127).astype(np.int8).tobytes())


def event(sequence: int = 1, vehicle: str = "car-1", **changes: Any) -> TriggerEvent:
    """A trigger event with a clip on offer."""
    name = event_id(vehicle, "boot-1", sequence)
    fields: dict[str, Any] = {
        "event_id": name,
        "vehicle": vehicle,
        "boot": "boot-1",
        "sequence": sequence,
        "time_ns": T0 + sequence * SECOND_NS,
        "kind": Trigger.DISENGAGEMENT,
        "model_version": "m1",
        "region": "us-ca",
        "cause": "lateral",
        "signals": DAYLIGHT,
        "embedding_version": "m1",
        "clip": ClipOffer(name, T0, T0 + 4 * SECOND_NS, 200_000),
    }
    return TriggerEvent(**fields | changes)


def scenario(
    sequence: int = 1, vehicle: str = "car-1", cell: str = "right/day/clear/urban", **changes: Any
) -> Scenario:
    """A tagged event; `changes` are the event's."""
    novelty = changes.pop("novelty", Novelty())
    return Scenario(event(sequence, vehicle, **changes), cell, novelty=novelty)


def telemetry(sequence: int = 1, vehicle: str = "car-1", **changes: Any) -> Telemetry:
    """A report of one kilometre."""
    fields: dict[str, Any] = {
        "event_id": event_id(vehicle, "boot-1", sequence),
        "vehicle": vehicle,
        "boot": "boot-1",
        "sequence": sequence,
        "time_ns": T0 + sequence * SECOND_NS,
        "model_version": "m1",
        "region": "us-ca",
        "exposures": [Exposure("right/day/clear/urban", 1000.0, 100.0)],
    }
    return Telemetry(**fields | changes)


def request(name: str = "clip-1", vehicle: str = "car-1", **changes: Any) -> ClipRequest:
    """A request that is open for an hour."""
    fields: dict[str, Any] = {
        "clip_id": name,
        "event_id": name,
        "vehicle": vehicle,
        "requested_ns": T0,
        "before_ns": T0 + 3600 * SECOND_NS,
        "region": "us-ca",
        "cell": "right/day/clear/urban",
        "kind": "disengagement",
        "cause": "lateral",
        "event_ns": T0 - SECOND_NS,
    }
    return ClipRequest(**fields | changes)


def chunks(data: bytes, name: str = "clip-1", vehicle: str = "car-1", **changes: Any) -> list[ClipChunk]:
    """A clip's chunks, in order."""
    pieces = [data[i : i + CHUNK_BYTES] for i in range(0, len(data), CHUNK_BYTES)]
    fields: dict[str, Any] = {
        "clip_id": name,
        "vehicle": vehicle,
        "time_ns": T0,
        "count": len(pieces),
        "clip_sha256": sha256_hex(data),
        "clip_bytes": len(data),
    }
    return [ClipChunk(**fields | {"index": i, "data": piece} | changes) for i, piece in enumerate(pieces)]


def archived(name: str = "clip-1", vehicle: str = "car-1", cell: str = "left/night/clear/urban") -> ArchivedClip:
    """A stored clip whose content is its name."""
    sha256 = sha256_hex(name.encode())
    return ArchivedClip(name, name, vehicle, T0, f"file:///store/{sha256}", sha256, 1000, "gb", cell)


def release(version: int = 2, model: str = "", hardware: str = "sim") -> Release:
    """A signed bundle."""
    model = model or f"m{version}"
    return Release(version, model, f"bundles/{model}.zip", sha256_hex(model.encode()), 1_000_000, hardware)


def finished(fingerprint: str = "a" * 64, verdict: str = "pass", **changes: Any) -> JobFinished:
    """A job's end."""
    return JobFinished(fingerprint=fingerprint, time_ns=T0, verdict=verdict, **changes)


def rollout(state: RolloutState = RolloutState.WAVE, **changes: Any) -> Rollout:
    """A rollout in its first wave."""
    fields: dict[str, Any] = {
        "rollout_id": "r2-abc",
        "cohort": "sim",
        "time_ns": T0,
        "state": state,
        "release": release(2),
        "previous": release(1),
        "share": 0.2,
        "control_share": 0.2,
        "candidate": Arm(10, 1, 100.0, 4.0, 3, 1),
        "control": Arm(10, 0, 110.0, 4.2, 4, 0),
        "evidence": 0.8,
        "reason": "wave 1",
    }
    return Rollout(**fields | changes)


def campaign(name: str = "night-fog", state: CampaignState = CampaignState.ACTIVE, **changes: Any) -> Campaign:
    """A campaign that an operator approved, for a week."""
    fields: dict[str, Any] = {
        "campaign_id": name,
        "time_ns": T0,
        "revision": 1,
        "state": state,
        "expression": "cell == 'left/night/fog/urban' && Vehicle.Speed > 5.0",
        "start_ns": T0,
        "expires_ns": T0 + 7 * 24 * 3600 * SECOND_NS,
        "origin": "ada",
        "approved_by": "" if state is CampaignState.WAITING else "ada",
    }
    return Campaign(**fields | changes)


SAMPLES: dict[str, Message] = {
    "event": event(
        pose=Pose(52.2, 0.12, 1.5),
        scores=Scores(1.2, 2.5, 0.8),
        embedding=embedding_of([1, 2, -2, 0]),
        collection_probability=0.5,
    ),
    "telemetry": telemetry(
        2,
        exposures=[Exposure("right/day/clear/urban", 950.0, 95.0, 50.0, 5.0, {"lateral": 1, "stuck": 2})],
        latency_ms_p50=5.1,
        latency_ms_p99=9.9,
        watts=21.5,
        watts_source="modelled",
        spool_bytes=1_000_000,
        spool_evicted=2,
        release="2",
        update_state="probation",
        hardware="sim",
    ),
    "clip-request": request(priority=820, inclusion_probability=0.25, reason="window 7, 1 of 9 by value"),
    "clip-chunk": chunks(b"MCAP bytes of a clip")[0],
    "archived-clip": archived(),
    "lost-clip": LostClip("clip-2", "car-1", T0, "evicted: the disk was full"),
    "scenario": Scenario(
        event(kind=Trigger.HARD_BRAKE, cause=""),
        "right/day/clear/urban",
        {"illumination": "day", "drive_side": "right"},
        ["hard_brake"],
        Novelty(0.31, 0.004, True, "distance 0.310 to its 4 nearest in all cells"),
    ),
    "job-requested": JobRequested(
        "b" * 64, "fine-tune", T0, "m1", "tiny", ["clip-1", "clip-2"], {"left/night/clear/urban": Evidence(2, 2)},
        "left/night/clear/urban: 2 clips of 2 vehicles", 1.5,
    ),
    "job-started": JobStarted("b" * 64, T0, "run-1", "worker-1"),
    "job-finished": finished(
        "b" * 64, run_id="run-1", model_version="m2", reasons=["no worse"], release=release()
    ),
    "rollout": rollout(),
    "campaign": campaign(
        sampling_probability=0.25, priority=3, cell="left/night/fog/urban", reason="coverage debt 0.31"
    ),
    "campaign-report": CampaignReport(
        "night-fog", "car-1", T0, ReportState.EXHAUSTED, "50000000 bytes of the day are used up", 40, 9, 49_000_000
    ),
    "dead-letter": DeadLetter(
        "fleet.events", 3, 17, T0, "malformed", "not JSON", b"car-1", b"\x00\xff",
        [("ce_type", b"fleetwheel.event.v1")],
    ),
}  # fmt: skip


def in_batches(messages: Sequence[Message], cuts: Sequence[int]) -> list[list[Message]]:
    """The messages in consecutive batches; sizes cycle through `cuts`, 0 being an empty batch."""
    batches: list[list[Message]] = []
    rest, number = list(messages), 0
    sizes = list(cuts) if any(cuts) else [1]
    while rest:
        size = sizes[number % len(sizes)]
        batches.append(rest[:size])
        rest, number = rest[size:], number + 1
    return batches
