"""Rough work, written by hand for one job: an event in; tags, novelty against prototypes, a place in the window's
selection out. msgspec and numpy, nothing of Fleetwheel.

It reads and writes the same records as Fleetwheel's stages, and decides with less: no bounds of fields and clocks,
no copies that were changed, one set of prototypes instead of one by cell and partition that learns in blocks at a
calibrated rate, no near-duplicates, known probabilities or caps by environment and region.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from functools import lru_cache

import msgspec
import numpy as np
from numpy.typing import NDArray

Record = tuple[str, bytes, list[tuple[str, str | bytes | None]], bytes]
"""Topic, key, headers, value."""
NEAREST, RESERVOIR, ALPHA = 4, 512, 0.05
WINDOW_EVENTS, CLIPS, PER_VEHICLE = 20_000, 100, 10
TAKEOVER = {"disengagement": 1.0, "hard_brake": 0.5, "shadow_disagreement": 0.3, "campaign": 0.3}
CAUSES = {
    "lateral": "lane_keeping", "collision": "conflict", "stop_sign": "stop_sign", "red_light": "traffic_light",
    "pedestrian": "vulnerable_road_user", "stuck": "stalled",
}  # fmt: skip


class Clip(msgspec.Struct):
    clip_id: str
    start_ns: int
    end_ns: int
    bytes: int


class Scores(msgspec.Struct, frozen=True):
    plan_jump: float = 0.0
    hindsight_miss: float = 0.0
    uncertainty_m: float = 0.0


class Event(msgspec.Struct, tag="fleetwheel.event.v1", tag_field="type"):
    event_id: str
    vehicle: str
    boot: str
    sequence: int
    time_ns: int
    kind: str
    model_version: str
    region: str
    cause: str = ""
    pose: dict[str, float] = {}
    signals: dict[str, float] = {}
    scores: Scores = Scores()
    embedding: bytes = b""
    embedding_version: str = ""
    clip: Clip | None = None
    collection_probability: float = 1.0


class Novelty(msgspec.Struct):
    distance: float
    p_value: float
    novel: bool
    explanation: str


class Scenario(msgspec.Struct, tag="fleetwheel.scenario.v1", tag_field="type"):
    event: Event
    cell: str
    odd: dict[str, str]
    tags: list[str]
    novelty: Novelty


class Request(msgspec.Struct, tag="fleetwheel.clip-request.v1", tag_field="type"):
    clip_id: str
    event_id: str
    vehicle: str
    requested_ns: int
    before_ns: int
    region: str
    cell: str
    kind: str
    cause: str
    priority: int
    reason: str
    event_ns: int


_decode = msgspec.json.Decoder(Event).decode
_encode = msgspec.json.Encoder().encode


class Work:
    """Decides; keeps prototypes, recent distances, ids and the open window in memory."""

    def __init__(self, prototypes: int = 256, dimension: int = 64) -> None:
        self.seen: set[str] = set()
        self.prototypes = np.zeros((prototypes, dimension), np.float32)
        self.weights = np.zeros(prototypes, np.float32)
        self.recent = np.zeros(0, np.float32)
        self.window: list[tuple[float, Event, str]] = []
        self.count = 0

    def batch(self, values: Sequence[bytes]) -> list[Record]:
        """What follows from these records; a record that is no event is passed over."""
        events = [e for e in map(self.event, values) if e is not None and e.event_id not in self.seen]
        self.seen.update(e.event_id for e in events)
        return self.decide(list({e.event_id: e for e in events}.values()))

    def event(self, value: bytes) -> Event | None:
        """The event, if it is one and is what it says it is."""
        try:
            event = _decode(value)
        except msgspec.MsgspecError:
            return None
        return event if event.event_id == event_id(event) else None

    def decide(self, events: Sequence[Event]) -> list[Record]:
        """What follows from events that were not seen before."""
        if not events:
            return []
        out: list[Record] = []
        for event, novelty in zip(events, self.novelty([e.embedding for e in events], events), strict=True):
            cell, odd = odd_of(event)
            out.append(scenario_record(Scenario(event, cell, odd, tags_of(event), novelty)))
            out += self.select(event, cell, novelty)
        return out

    def novelty(self, embeddings: Sequence[bytes], events: Sequence[Event]) -> list[Novelty]:
        """Mean cosine distance to the nearest prototypes, and its place among recent ones."""
        units = np.frombuffer(b"".join(embeddings), np.int8).reshape(len(embeddings), -1).astype(np.float32)
        units /= np.maximum(np.linalg.norm(units, axis=1, keepdims=True), 1e-9)
        cosine = units @ self.prototypes.T
        nearest = np.partition(cosine, -NEAREST, axis=1)[:, -NEAREST:]
        distance = np.maximum(1 - nearest.mean(1), 0)
        ordered = np.sort(self.recent)
        above = len(ordered) - np.searchsorted(ordered, distance)
        p_value = (above + 1) / (len(ordered) + 1)
        self.learn(units, cosine.argmax(1), distance)
        return [
            Novelty(
                d, p, p <= ALPHA, f"distance {d:.3f} to its {NEAREST} nearest, p = {p:.4f} among {len(ordered)}"
            )
            for d, p in zip(distance.tolist(), p_value.tolist(), strict=True)
        ]

    def learn(self, units: NDArray[np.float32], nearest: NDArray[np.intp], distance: NDArray[np.float32]) -> None:
        """Prototypes drift to what is near; the lightest gives way to the farthest event."""
        self.weights *= 0.999
        rows = nearest[:: max(1, len(nearest) // 64)]
        moved = units[:: max(1, len(nearest) // 64)]
        self.prototypes[rows] = 0.98 * self.prototypes[rows] + 0.02 * moved
        np.add.at(self.weights, nearest, np.float32(1))
        self.prototypes[int(self.weights.argmin())] = units[int(distance.argmax())]
        self.recent = np.concatenate([self.recent, distance])[-RESERVOIR:]

    def select(self, event: Event, cell: str, novelty: Novelty) -> list[Record]:
        """The window's requests, when it ends with this event."""
        self.count += 1
        if event.clip is not None:
            self.window.append((value_of(event, novelty) / max(event.clip.bytes, 1), event, cell))
        if self.count % WINDOW_EVENTS:
            return []
        chosen: list[Record] = []
        taken: dict[str, int] = {}
        for value, one, where in sorted(self.window, key=lambda w: -w[0]):
            if len(chosen) < CLIPS and taken.get(one.vehicle, 0) < PER_VEHICLE:
                taken[one.vehicle] = taken.get(one.vehicle, 0) + 1
                chosen.append(request_record(one, where, value))
        self.window = []
        return chosen


def event_id(event: Event) -> str:
    parts = (b"event", event.vehicle.encode(), event.boot.encode(), b"%d" % event.sequence)
    return hashlib.sha256(b"".join(len(p).to_bytes(4, "big") + p for p in parts)).hexdigest()[:32]


def odd_of(event: Event) -> tuple[str, dict[str, str]]:
    s = event.signals
    light, sight = s.get("Vehicle.Exterior.LightIntensity"), s.get("Vehicle.Exterior.Visibility")
    rain, speed = s.get("Vehicle.Body.Raindetection.Intensity"), s.get("Vehicle.Speed")
    side = "left" if event.region[:2] in {"gb", "jp", "au"} else "right"
    lit = "unknown" if light is None else "night" if light < 25 else "day"
    seen = "unknown" if sight is None else "fog" if sight < 1000 else "clear"
    wet = "unknown" if rain is None else "dry" if rain < 5 else "rain" if rain < 60 else "heavy_rain"
    fast = (
        "unknown" if speed is None else "urban" if abs(speed) < 60 else "rural" if abs(speed) < 90 else "highway"
    )
    odd = {
        "drive_side": side, "illumination": lit, "visibility": seen, "precipitation": wet, "speed_band": fast,
    }  # fmt: skip
    return f"{side}/{lit}/{seen}/{fast}", odd


def tags_of(event: Event) -> list[str]:
    s = event.signals
    tags = ["takeover"] if event.kind == "disengagement" else []
    if event.cause in CAUSES:
        tags.append(CAUSES[event.cause])
    if s.get("Vehicle.Acceleration.Longitudinal", 0.0) <= -3.5:
        tags.append("hard_brake")
    if s.get("Vehicle.ADAS.EBA.IsEngaged", 0.0) > 0.5:
        tags.append("emergency_brake")
    if s.get("Vehicle.ADAS.ABS.IsEngaged", 0.0) > 0.5 or s.get("Vehicle.ADAS.ESC.IsEngaged", 0.0) > 0.5:
        tags.append("slippery")
    speed = s.get("Vehicle.Speed")
    if speed is not None and abs(speed * s.get("Vehicle.AngularVelocity.Yaw", 0.0)) >= 4.89 * 3.6 * 57.2958:
        tags.append("sharp_turn")
    if 0 < s.get("Vehicle.ADAS.ObstacleDetection.Front.Center.TimeGap", 0.0) < 1000:
        tags.append("tailgating")
    if s.get("Vehicle.ADAS.ObstacleDetection.Front.Center.IsWarning", 0.0) > 0.5:
        tags.append("obstacle_ahead")
    if s.get("Vehicle.ADAS.LaneDepartureDetection.IsWarning", 0.0) > 0.5:
        tags.append("lane_departure")
    if speed is not None and abs(speed) < 1:
        tags.append("standing")
    if s.get("Vehicle.Exterior.LightIntensity", 100.0) < 25:
        tags.append("unlit")
    return tags


def value_of(event: Event, novelty: Novelty) -> float:
    surprise = (event.scores.plan_jump + event.scores.hindsight_miss) / 2
    known = 0.4 * TAKEOVER.get(event.kind, 0.0) + 0.15 * (1 - novelty.p_value)
    return known + 0.35 * min(surprise, 1.0) + 0.1 * min(event.scores.uncertainty_m, 1.0)


def scenario_record(scenario: Scenario) -> Record:
    value = _encode(scenario)
    headers = cloud_event("fleetwheel.scenario.v1", value, scenario.event.time_ns)
    return "fleet.scenarios", scenario.cell.encode(), headers, value


def request_record(event: Event, cell: str, value: float) -> Record:
    assert event.clip is not None
    request = Request(
        event.clip.clip_id, event.event_id, event.vehicle, event.time_ns, event.time_ns + 6 * 3600 * 10**9,
        event.region, cell, event.kind, event.cause, round(1000 * value), f"value {value:.6f}", event.time_ns,
    )  # fmt: skip
    data = _encode(request)
    headers = cloud_event("fleetwheel.clip-request.v1", data, event.time_ns)
    return "fleet.clip-requests", event.vehicle.encode(), headers, data


def cloud_event(kind: str, value: bytes, time_ns: int) -> list[tuple[str, str | bytes | None]]:
    """CloudEvents' binary mode, as every reader of these topics expects it."""
    name = kind.encode()
    content = len(name).to_bytes(4, "big") + name + len(value).to_bytes(4, "big") + value
    seconds, rest = divmod(time_ns, 1_000_000_000)
    stamp = b"%b.%09dZ" % (to_the_second(seconds), rest)
    return [
        ("ce_specversion", b"1.0"),
        ("ce_type", name),
        ("ce_source", b"peer"),
        ("ce_id", hashlib.sha256(content).hexdigest()[:32].encode()),
        ("ce_time", stamp),
        ("content-type", b"application/json"),
    ]


@lru_cache(maxsize=4096)
def to_the_second(seconds: int) -> bytes:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)).encode()
