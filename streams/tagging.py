"""Tagging: ODD tags (ISO 34503) and scenario tags of an event, from its signals, kind and cause. Two tables.

Thresholds: hard braking from RSS's comfortable bound (3.5 m/s²); time gap below 1 s is tailgating (half of the
common two-second rule); lateral acceleration 4.89 m/s² is nuPlan's comfort bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from streams.contracts.codec import Message
from streams.contracts.drive import Trigger, TriggerEvent
from streams.contracts.odd import (
    ACCELERATION,
    SPEED,
    UNKNOWN,
    YAW_RATE,
    drive_side,
    illumination,
    odd_cell,
    speed_band,
    visibility,
)
from streams.contracts.scenarios import Scenario
from streams.stage import Emit, Outcome

RAIN = "Vehicle.Body.Raindetection.Intensity"
"""%, 0 dry, 100 the heaviest rain (VSS)."""
TIME_GAP = "Vehicle.ADAS.ObstacleDetection.Front.Center.TimeGap"
"""ms to the obstacle ahead at the present speed (VSS)."""
OBSTACLE_WARNING = "Vehicle.ADAS.ObstacleDetection.Front.Center.IsWarning"
EMERGENCY_BRAKE = "Vehicle.ADAS.EBA.IsEngaged"
ABS_ENGAGED = "Vehicle.ADAS.ABS.IsEngaged"
STABILITY_ENGAGED = "Vehicle.ADAS.ESC.IsEngaged"
LANE_DEPARTURE = "Vehicle.ADAS.LaneDepartureDetection.IsWarning"

HARD_BRAKE_MPS2 = -3.5
LATERAL_MPS2 = 4.89
TAILGATING_MS = 1000.0
STANDING_KMH = 1.0


def precipitation(signals: dict[str, float]) -> str:
    """ "dry", "rain", "heavy_rain" or "unknown" (ISO 34503, environmental conditions: rainfall)."""
    intensity = signals.get(RAIN)
    if intensity is None:
        return UNKNOWN
    return "dry" if intensity < 5 else "rain" if intensity < 60 else "heavy_rain"


def lateral_mps2(signals: dict[str, float]) -> float:
    """Yaw rate times speed, m/s²; 0 where one is not known."""
    return math.radians(signals.get(YAW_RATE, 0.0)) * signals.get(SPEED, 0.0) / 3.6


def _on(signal: str) -> Callable[[TriggerEvent], bool]:
    return lambda e: e.signals.get(signal, 0.0) > 0.5


def _cause(cause: str) -> Callable[[TriggerEvent], bool]:
    return lambda e: e.cause == cause


ODD: tuple[tuple[str, Callable[[TriggerEvent], str]], ...] = (
    # Scenery, environmental conditions, dynamic elements: the order of ISO 34503.
    ("drive_side", lambda e: drive_side(e.region)),
    ("illumination", lambda e: illumination(e.signals)),
    ("visibility", lambda e: visibility(e.signals)),
    ("precipitation", lambda e: precipitation(e.signals)),
    ("speed_band", lambda e: speed_band(e.signals)),
)

SCENARIOS: tuple[tuple[str, Callable[[TriggerEvent], bool]], ...] = (
    ("takeover", lambda e: e.kind is Trigger.DISENGAGEMENT),
    ("lane_keeping", _cause("lateral")),
    ("conflict", _cause("collision")),
    ("stop_sign", _cause("stop_sign")),
    ("traffic_light", _cause("red_light")),
    ("vulnerable_road_user", _cause("pedestrian")),
    ("stalled", _cause("stuck")),
    ("hard_brake", lambda e: e.signals.get(ACCELERATION, 0.0) <= HARD_BRAKE_MPS2),
    ("emergency_brake", _on(EMERGENCY_BRAKE)),
    ("slippery", lambda e: _on(ABS_ENGAGED)(e) or _on(STABILITY_ENGAGED)(e)),
    ("sharp_turn", lambda e: abs(lateral_mps2(e.signals)) >= LATERAL_MPS2),
    ("tailgating", lambda e: 0.0 < e.signals.get(TIME_GAP, 0.0) < TAILGATING_MS),
    ("obstacle_ahead", _on(OBSTACLE_WARNING)),
    ("lane_departure", _on(LANE_DEPARTURE)),
    ("standing", lambda e: abs(e.signals.get(SPEED, math.inf)) < STANDING_KMH),
    ("unlit", lambda e: illumination(e.signals) == "night"),
)


@dataclass(frozen=True, slots=True)
class TaggingConfig:
    """The tables that are applied."""

    odd: tuple[tuple[str, Callable[[TriggerEvent], str]], ...] = ODD
    scenarios: tuple[tuple[str, Callable[[TriggerEvent], bool]], ...] = SCENARIOS


class Tagging:
    """events.fresh -> events.tagged. Without state."""

    name = "tagging"

    def __init__(self, config: TaggingConfig | None = None) -> None:
        self.config = config or TaggingConfig()

    def initial(self) -> None:
        """There is none."""

    def step(self, state: None, batch: Sequence[Message], now_ns: int) -> Outcome[None]:
        """A scenario for each event."""
        events = [e for e in batch if isinstance(e, TriggerEvent)]
        return Outcome(state, tuple(Emit("events.tagged", self.tag(e)) for e in events))

    def tag(self, event: TriggerEvent) -> Scenario:
        """The event with its cell and tags; novelty is not known yet."""
        odd = {name: value(event) for name, value in self.config.odd}
        tags = [tag for tag, applies in self.config.scenarios if applies(event)]
        return Scenario(event, odd_cell(event.signals, event.region), odd, tags)

    def dump(self, state: None) -> bytes:
        """Empty."""
        return b""

    def load(self, data: bytes) -> None:
        """Nothing to load."""
