"""Clips on their way: the request down, the chunks up, the archived object; and the clip's MCAP channels."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from streams.contracts.types import Count, Id, Name, Sha256, Share, Text, TimeNs

CHUNK_BYTES = 256 * 1024
"""Payload of a chunk; with base64 and attributes it stays below a broker's 1 MB default."""
MAX_CLIP_BYTES = 256 * 1024 * 1024
"""A larger clip is refused: one vehicle must not fill the archive."""


class ClipRequest(Struct, frozen=True, tag="fleetwheel.clip-request.v1", tag_field="type"):
    """Upload this clip before then. Goes down to a vehicle: ids only, no personal data."""

    clip_id: Id
    event_id: Id
    vehicle: Id
    requested_ns: TimeNs
    before_ns: TimeNs
    region: Name
    cell: Name
    kind: Name = ""
    cause: Name = ""
    priority: Count = 1
    """Higher goes first."""
    inclusion_probability: Share = 1.0
    reason: Text = ""
    event_ns: TimeNs = 0
    """When the event happened."""


class ClipChunk(Struct, frozen=True, tag="fleetwheel.clip-chunk.v1", tag_field="type"):
    """Piece `index` of `count` of a clip's MCAP bytes; all but the last are CHUNK_BYTES long."""

    clip_id: Id
    vehicle: Id
    time_ns: TimeNs
    index: Count
    count: Annotated[int, Meta(ge=1, le=MAX_CLIP_BYTES // CHUNK_BYTES + 1)]
    clip_sha256: Sha256
    clip_bytes: Annotated[int, Meta(ge=1, le=MAX_CLIP_BYTES)]
    data: Annotated[bytes, Meta(max_length=CHUNK_BYTES)]


class ArchivedClip(Struct, frozen=True, tag="fleetwheel.archived-clip.v1", tag_field="type"):
    """A clip that is stored whole, its hash checked."""

    clip_id: Id
    event_id: Id
    vehicle: Id
    time_ns: TimeNs
    uri: Text
    sha256: Sha256
    bytes: Count
    region: Name
    cell: Name
    kind: Name = ""
    cause: Name = ""
    inclusion_probability: Share = 1.0
    reason: Text = ""


class LostClip(Struct, frozen=True, tag="fleetwheel.lost-clip.v1", tag_field="type"):
    """A requested clip that will not come, and why: nothing is dropped in silence."""

    clip_id: Id
    vehicle: Id
    time_ns: TimeNs
    reason: Text


SIGNALS_CHANNEL = "/signals"
PLAN_CHANNEL = "/policy/plan"
DRIVER_CHANNEL = "/driver/plan"
CAMERA_PREFIX = "/camera/"
CLIP_METADATA = "fleetwheel.clip"
"""The MCAP metadata record: clip_id, event_id, vehicle, kind, cause, model_version, region, rig (JSON)."""

_POINTS: dict[str, Any] = {
    "type": "array",
    "items": {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2},
}
_TIME: dict[str, Any] = {
    "type": "object",
    "properties": {"sec": {"type": "integer"}, "nsec": {"type": "integer"}},
}

CLIP_SCHEMAS: dict[str, tuple[str, dict[str, Any]]] = {
    SIGNALS_CHANNEL: (
        "fleetwheel.Signals",
        {
            "type": "object",
            "properties": {
                "signals": {"type": "object", "additionalProperties": {"type": "number"}},
                "command": {"type": "integer"},
                "engaged": {"type": "boolean"},
            },
        },
    ),
    PLAN_CHANNEL: ("fleetwheel.Plan", {"type": "object", "properties": {"points_m": _POINTS}}),
    DRIVER_CHANNEL: (
        "fleetwheel.DriverPlan",
        {"type": "object", "properties": {"points_m": _POINTS, "rule": {"type": "string"}}},
    ),
    CAMERA_PREFIX: (
        "foxglove.CompressedImage",
        {
            "type": "object",
            "properties": {
                "timestamp": _TIME,
                "frame_id": {"type": "string"},
                "data": {"type": "string", "contentEncoding": "base64"},
                "format": {"type": "string"},
            },
        },
    ),
}
"""Channel topic (cameras: prefix + name) -> schema name and JSON schema. Points are in the vehicle frame, m."""
