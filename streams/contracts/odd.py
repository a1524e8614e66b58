"""The ODD cell of a moment, from signals and region alone: the vehicle counts exposure by it, the cloud events."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

SPEED = "Vehicle.Speed"
"""km/h."""
YAW_RATE = "Vehicle.AngularVelocity.Yaw"
"""deg/s, positive to the left."""
ACCELERATION = "Vehicle.Acceleration.Longitudinal"
"""m/s²."""
STEERING_ANGLE = "Vehicle.Chassis.SteeringWheel.Angle"
"""deg, positive to the left."""
LIGHT = "Vehicle.Exterior.LightIntensity"
"""% of full daylight (VSS: 0 no light, 100 fully lit)."""
VISIBILITY = "Vehicle.Exterior.Visibility"
"""m, meteorological optical range. An overlay: VSS has no signal for it."""

NIGHT_BELOW = 25.0
"""% of LIGHT. A value in lux falls on the same side: lit streets are below 25 lux, dusk and day far above."""
FOG_BELOW_M = 1000.0
"""Fog is a visibility below 1,000 m (WMO-No. 8, 9.1; ISO 34503, environmental conditions: particulates)."""
SPEED_BANDS: tuple[tuple[float, str], ...] = ((60.0, "urban"), (90.0, "rural"), (float("inf"), "highway"))
"""Below this many km/h -> band."""
UNKNOWN = "unknown"
VALUES: dict[str, tuple[str, ...]] = {
    "drive_side": ("left", "right", UNKNOWN),
    "illumination": ("day", "night", UNKNOWN),
    "visibility": ("clear", "fog", UNKNOWN),
    "speed_band": (*(band for _, band in SPEED_BANDS), UNKNOWN),
}
"""What each part of a cell can be."""

_LEFT_CODES = (
    "ag au bb bd bm bn bs bt bw cy dm fj gb gd gg gy hk id ie im in je jm jp ke ki kn ky lc lk ls mo ms mt mu mv "
    "mw my mz na np nr nz pg pk sb sc sg sr sz tc th tl to tt tv tz ug vc vg vi ws za zm zw"
)
KEEPS_LEFT = frozenset(_LEFT_CODES.split())
"""ISO 3166-1 codes of where traffic keeps left."""
_PARTS = re.compile(r"[^a-z0-9]+")


def drive_side(region: str) -> str:
    """The side that traffic keeps to: "left", "right" or "unknown". A region is an ISO 3166 code, perhaps with a
    subdivision ("gb", "us-ca"), or says its side ("left_mph")."""
    parts = _PARTS.split(region.lower())
    if "left" in parts or parts[0] in KEEPS_LEFT:
        return "left"
    return "right" if "right" in parts or re.fullmatch("[a-z]{2}", parts[0]) else UNKNOWN


def illumination(signals: Mapping[str, float]) -> str:
    """ "day", "night" or "unknown"."""
    light = _known(signals, LIGHT)
    if light is None:
        return UNKNOWN
    return "night" if light < NIGHT_BELOW else "day"


def visibility(signals: Mapping[str, float]) -> str:
    """ "clear", "fog" or "unknown"."""
    range_m = _known(signals, VISIBILITY)
    if range_m is None:
        return UNKNOWN
    return "fog" if range_m < FOG_BELOW_M else "clear"


def speed_band(signals: Mapping[str, float]) -> str:
    """ "urban", "rural", "highway" or "unknown"."""
    speed_kmh = _known(signals, SPEED)
    if speed_kmh is None:
        return UNKNOWN
    return next(name for limit, name in SPEED_BANDS if abs(speed_kmh) < limit)


def odd_cell(signals: Mapping[str, float], region: str) -> str:
    """Side/illumination/visibility/speed band, such as "left/night/clear/urban"."""
    return f"{drive_side(region)}/{illumination(signals)}/{visibility(signals)}/{speed_band(signals)}"


def _known(signals: Mapping[str, float], name: str) -> float | None:
    """A signal's value; None where there is none, or a broken sensor's NaN."""
    value = signals.get(name)
    return value if value is not None and math.isfinite(value) else None
