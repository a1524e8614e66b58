"""What vehicles say: trigger events and telemetry. Trees of values, never a cycle: the collector need not look at
them (gc=False), which is half of what decoding them takes."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct

from streams.contracts.clips import MAX_CLIP_BYTES
from streams.contracts.types import (
    Count,
    Embedding,
    Finite,
    Id,
    Name,
    NonNegative,
    Share,
    Signals,
    TimeNs,
)


class Trigger(StrEnum):
    """Why a vehicle speaks."""

    DISENGAGEMENT = "disengagement"
    HARD_BRAKE = "hard_brake"
    SHADOW_DISAGREEMENT = "shadow_disagreement"
    UNCERTAINTY = "uncertainty"
    NOVELTY = "novelty"
    SAMPLE = "sample"
    CAMPAIGN = "campaign"


class Pose(Struct, frozen=True, gc=False):
    """Where: WGS-84 degrees, heading in radians anticlockwise from east."""

    latitude_deg: Annotated[float, Meta(ge=-90, le=90)] = 0.0
    longitude_deg: Annotated[float, Meta(ge=-180, le=180)] = 0.0
    heading_rad: Finite = 0.0


class Scores(Struct, frozen=True, gc=False):
    """What the vehicle thought of its own driving in the clip's window; larger is worse."""

    plan_jump: NonNegative = 0.0
    """Change between consecutive plans, own motion removed, over the predicted scale."""
    hindsight_miss: NonNegative = 0.0
    """Planned against driven path, over the predicted scale."""
    uncertainty_m: NonNegative = 0.0
    """The error that the policy itself expected, m: mean predicted scale of its plan."""


class ClipOffer(Struct, frozen=True, gc=False):
    """A clip that lies in the vehicle's spool and can be asked for."""

    clip_id: Id
    start_ns: TimeNs
    end_ns: TimeNs
    bytes: Annotated[int, Meta(ge=0, le=MAX_CLIP_BYTES)]


class TriggerEvent(Struct, frozen=True, gc=False, tag="fleetwheel.event.v1", tag_field="type"):
    """Something worth telling, with the offer of a clip."""

    event_id: Id
    vehicle: Id
    boot: Id
    sequence: Count
    time_ns: TimeNs
    kind: Trigger
    model_version: Name
    region: Name
    cause: Name = ""
    """Of a disengagement: lateral, collision, stop_sign, red_light, pedestrian, stuck, right_of_way, cyclist,
    emergency, driver. Of a campaign: campaign/ and its id."""
    pose: Pose = Pose()
    signals: Signals = {}
    scores: Scores = Scores()
    embedding: Embedding = b""
    embedding_version: Name = ""
    clip: ClipOffer | None = None
    collection_probability: Share = 1.0
    """The chance with which the vehicle's own sampling kept this event."""


class Exposure(Struct, frozen=True, gc=False):
    """Distance and time driven in one ODD cell since the last report."""

    cell: Name
    engaged_m: NonNegative = 0.0
    engaged_s: NonNegative = 0.0
    manual_m: NonNegative = 0.0
    manual_s: NonNegative = 0.0
    disengagements: Annotated[dict[Name, Count], Meta(max_length=32)] = {}
    """By cause."""


class Telemetry(Struct, frozen=True, gc=False, tag="fleetwheel.telemetry.v1", tag_field="type"):
    """A vehicle's report: what it drove with which model, and how it is. Also its heartbeat."""

    event_id: Id
    vehicle: Id
    boot: Id
    sequence: Count
    time_ns: TimeNs
    model_version: Name
    region: Name
    exposures: Annotated[list[Exposure], Meta(max_length=64)] = []
    latency_ms_p50: NonNegative = 0.0
    latency_ms_p99: NonNegative = 0.0
    watts: NonNegative = 0.0
    watts_source: Name = ""
    """"measured", "modelled" or ""."""
    spool_bytes: Count = 0
    spool_evicted: Count = 0
    release: Name = ""
    """The release that is installed."""
    update_state: Name = "idle"
    """idle, probation, rolled_back."""
    hardware: Name = ""
    """The hardware id: whose releases fit. "" where there is only one."""
