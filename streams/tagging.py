"""Tagging: ODD tags (ISO 34503) and scenario tags of an event, from its signals, kind and cause. Two tables,
applied to a whole batch at once: few combinations of tags occur, so an event's are looked up by one number.

Thresholds: hard braking from RSS's comfortable bound (3.5 m/s²); time gap below 1 s is tailgating (half of the
common two-second rule); lateral acceleration 4.89 m/s² is nuPlan's comfort bound.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from streams.contracts.codec import Message
from streams.contracts.drive import Trigger, TriggerEvent
from streams.contracts.odd import (
    ACCELERATION,
    FOG_BELOW_M,
    LIGHT,
    NIGHT_BELOW,
    SPEED,
    SPEED_BANDS,
    UNKNOWN,
    VISIBILITY,
    YAW_RATE,
    drive_side,
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

_CAUSES = {
    "lateral": 1,
    "collision": 2,
    "stop_sign": 3,
    "red_light": 4,
    "pedestrian": 5,
    "stuck": 6,
    "right_of_way": 7,
    "cyclist": 8,
    "emergency": 9,
}
"""Of a disengagement, by number; 0 for any other."""

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


class Columns:
    """B events by column."""

    def __init__(self, events: Sequence[TriggerEvent]) -> None:
        self.events = events
        self._signals = [e.signals for e in events]
        self._columns: dict[str, Floats] = {}
        self._causes = np.array([_CAUSES.get(e.cause, 0) for e in events])

    def signal(self, name: str) -> Floats:
        """[B] in the signal's unit; NaN where it did not come."""
        if name not in self._columns:
            none = np.nan
            self._columns[name] = np.array([s.get(name, none) for s in self._signals])
        return self._columns[name]

    def on(self, name: str) -> Flags:
        """[B] whether a switch is on."""
        return self.signal(name) > 0.5

    def kind(self, kind: Trigger) -> Flags:
        """[B]."""
        return np.array([e.kind is kind for e in self.events], bool)

    def cause(self, cause: str) -> Flags:
        """[B]."""
        return np.asarray(self._causes == _CAUSES[cause])

    def lateral_mps2(self) -> Floats:
        """[B] yaw rate times speed, m/s²."""
        return np.radians(self.signal(YAW_RATE)) * self.signal(SPEED) / 3.6


ODD: tuple[tuple[str, str, tuple[float, ...], tuple[str, ...]], ...] = (
    # Tag, signal, limits, words: below the first limit the first word, and so on. ISO 34503's order: scenery
    # ("drive_side", by the region alone, stands before these), environmental conditions, dynamic elements.
    ("illumination", LIGHT, (NIGHT_BELOW,), ("night", "day")),
    ("visibility", VISIBILITY, (FOG_BELOW_M,), ("fog", "clear")),
    ("precipitation", RAIN, (5.0, 60.0), ("dry", "rain", "heavy_rain")),
    ("speed_band", SPEED, tuple(limit for limit, _ in SPEED_BANDS[:-1]), tuple(word for _, word in SPEED_BANDS)),
)
_SIDES = ("left", "right", UNKNOWN)
_CELL = ("drive_side", "illumination", "visibility", "speed_band")
"""The tags that exposure is counted by (streams.contracts.odd.odd_cell)."""

SCENARIOS: tuple[tuple[str, Callable[[Columns], Flags]], ...] = (
    ("takeover", lambda c: c.kind(Trigger.DISENGAGEMENT)),
    ("lane_keeping", lambda c: c.cause("lateral")),
    ("conflict", lambda c: c.cause("collision")),
    ("stop_sign", lambda c: c.cause("stop_sign")),
    ("traffic_light", lambda c: c.cause("red_light")),
    ("vulnerable_road_user", lambda c: c.cause("pedestrian") | c.cause("cyclist")),
    ("right_of_way", lambda c: c.cause("right_of_way")),
    ("emergency_vehicle", lambda c: c.cause("emergency")),
    ("stalled", lambda c: c.cause("stuck")),
    ("hard_brake", lambda c: c.signal(ACCELERATION) <= HARD_BRAKE_MPS2),
    ("emergency_brake", lambda c: c.on(EMERGENCY_BRAKE)),
    ("slippery", lambda c: c.on(ABS_ENGAGED) | c.on(STABILITY_ENGAGED)),
    ("sharp_turn", lambda c: np.abs(c.lateral_mps2()) >= LATERAL_MPS2),
    ("tailgating", lambda c: (c.signal(TIME_GAP) > 0) & (c.signal(TIME_GAP) < TAILGATING_MS)),
    ("obstacle_ahead", lambda c: c.on(OBSTACLE_WARNING)),
    ("lane_departure", lambda c: c.on(LANE_DEPARTURE)),
    ("standing", lambda c: np.abs(c.signal(SPEED)) < STANDING_KMH),
    ("unlit", lambda c: c.signal(LIGHT) < NIGHT_BELOW),
)


class Tagging:
    """events.fresh -> events.tagged. Without state."""

    name = "tagging"

    def initial(self) -> None:
        """There is none."""

    def step(self, state: None, batch: Sequence[Message], now_ns: int) -> Outcome[None]:
        """A scenario for each event."""
        return self.step_all([state], [batch], now_ns)[0]

    def step_all(
        self, states: Sequence[None], batches: Sequence[Sequence[Message]], now_ns: int
    ) -> list[Outcome[None]]:
        """`step` in several lanes: all events are one table."""
        events = [[e for e in batch if isinstance(e, TriggerEvent)] for batch in batches]
        tagged = iter(tag_all([e for some in events for e in some]))
        return [
            Outcome(None, tuple([Emit("events.tagged", s) for s in islice(tagged, len(some))])) for some in events
        ]

    def tag(self, event: TriggerEvent) -> Scenario:
        """The event with its cell and tags; novelty is not known yet."""
        return tag_all([event])[0]

    def load(self, data: bytes) -> None:
        """Nothing to load."""


def tag_all(events: Sequence[TriggerEvent]) -> list[Scenario]:
    """`Tagging.tag` for many. Events of the same tags share them: nobody writes to a message."""
    tagged: list[Scenario] = []
    for begin in range(0, len(events), _PIECE):
        some = events[begin : begin + _PIECE]
        found = [_tags(code) for code in _codes(Columns(some)).tolist()]
        tagged += [Scenario(e, cell, odd, tags) for e, (cell, odd, tags) in zip(some, found, strict=True)]
    return tagged


_PIECE = 1024
"""Events whose columns are made while the processor still has them at hand."""


def _codes(columns: Columns) -> NDArray[np.int64]:
    """[B] one number for all tags: digits of ODD tags, then a bit for each scenario tag."""
    code = np.array([_side(e.region) for e in columns.events], np.int64)
    for _, signal, limits, words in ODD:
        values = columns.signal(signal)
        # Speed is negative in reverse; what is not finite comes from a broken sensor.
        place = np.searchsorted(limits, np.abs(values) if signal == SPEED else values, side="right")
        code = code * (len(words) + 1) + np.where(np.isfinite(values), place, len(words))
    for _, applies in SCENARIOS:
        code = code * 2 + applies(columns)
    return code


@lru_cache(maxsize=4096)
def _side(region: str) -> int:
    return _SIDES.index(drive_side(region))


@lru_cache(maxsize=65_536)
def _tags(code: int) -> tuple[str, dict[str, str], list[str]]:
    """Cell, ODD tags and scenario tags of a number."""
    tags: list[str] = []
    for tag, _ in reversed(SCENARIOS):
        code, on = divmod(code, 2)
        if on:
            tags.insert(0, tag)
    words: dict[str, str] = {}
    for name, _, _, known in reversed(ODD):
        code, digit = divmod(code, len(known) + 1)
        words[name] = (*known, UNKNOWN)[digit]
    odd = {"drive_side": _SIDES[code], **dict(reversed(words.items()))}
    return "/".join(odd[name] for name in _CELL), odd, tags
