"""When a campaign collects: one boolean in CEL (cel.dev) over what a vehicle knows at one instant.

The language is cut down so that what is accepted costs little whatever it says: at most MAX_EXPRESSION characters,
no loops (CEL's macros are not among FUNCTIONS), no regular expressions, no functions of ours, nesting bounded by
the library. Names and types are checked before anything runs, so an accepted condition cannot fail on a vehicle
but by not knowing a value; then it is undecided, which neither fires nor re-arms.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from cel_expr_python import cel

from streams.contracts.campaigns import MAX_EXPRESSION
from streams.contracts.odd import (
    ACCELERATION,
    LIGHT,
    SPEED,
    STEERING_ANGLE,
    VALUES,
    VISIBILITY,
    YAW_RATE,
    drive_side,
    illumination,
    odd_cell,
    speed_band,
    visibility,
)

Value = float | bool | str

SIGNALS: dict[str, str] = {
    # VSS name -> its unit. A signal that a vehicle does not have is not known there.
    SPEED: "km/h",
    ACCELERATION: "m/s2",
    "Vehicle.Acceleration.Lateral": "m/s2",
    "Vehicle.Acceleration.Vertical": "m/s2",
    YAW_RATE: "deg/s",
    STEERING_ANGLE: "deg",
    "Vehicle.Chassis.Accelerator.PedalPosition": "%",
    "Vehicle.Chassis.Brake.PedalPosition": "%",
    LIGHT: "% of daylight",
    VISIBILITY: "m",
    "Vehicle.Exterior.AirTemperature": "deg C",
    "Vehicle.Exterior.Humidity": "%",
    "Vehicle.Body.Raindetection.Intensity": "%",
    "Vehicle.ADAS.ObstacleDetection.Front.Center.Distance": "m",
    "Vehicle.ADAS.ObstacleDetection.Front.Center.TimeGap": "ms",
    "Vehicle.ADAS.ObstacleDetection.Front.Center.IsWarning": "0 or 1",
    "Vehicle.ADAS.LaneDepartureDetection.IsWarning": "0 or 1",
    "Vehicle.ADAS.EBA.IsEngaged": "0 or 1",
    "Vehicle.ADAS.ABS.IsEngaged": "0 or 1",
    "Vehicle.ADAS.ESC.IsEngaged": "0 or 1",
    "Vehicle.ADAS.TCS.IsEngaged": "0 or 1",
    "Vehicle.CurrentLocation.Latitude": "deg",
    "Vehicle.CurrentLocation.Longitude": "deg",
    "Vehicle.CurrentLocation.Altitude": "m",
}
SCORES: dict[str, str] = {
    "acceleration_mps2": "m/s2, from the signal or else from the speed",
    "disagreement": "rank 0..1 of the last plan's hindsight miss among this vehicle's recent ones",
    "uncertainty": "rank 0..1 of the policy's predicted scale",
    "novelty": "rank 0..1 of the embedding's distance to this vehicle's past",
}
FLAGS: dict[str, str] = {
    "engaged": "the policy drives",
    "takeover": "the driver takes over at this instant",
}
TEXTS: dict[str, str] = {
    "cause": "why the driver takes over, at that instant",
    "region": "where the vehicle drives",
    "model_version": "the policy that drives",
    "cell": "the ODD cell, side/illumination/visibility/speed band",
    **{name: f"{', '.join(known[:-1])} or {known[-1]}" for name, known in VALUES.items()},
}
FUNCTIONS = frozenset({"startsWith", "endsWith", "contains", "size", "double"})
"""Those of CEL that may be called: each linear in a text of bounded length."""

_OPERATORS = frozenset({"in"})
_CALL = re.compile(r"([A-Za-z_]\w*)\s*\(")
_COMPARED = re.compile(
    rf"""\b({"|".join(VALUES)})\s*(?:[=!]=\s*(["'][^"']*["'])|in\s*\[([^]]*)\])|(["'][^"']*["'])\s*[=!]=\s*({"|".join(VALUES)})\b"""
)
_QUOTED = re.compile(r"""["']([^"']*)["']""")
_STRANGE = re.compile(r"[^\x20-\x7e\n\t]|//|`|\[\s*\[|\{")
_STATUS = re.compile(r"(INVALID_ARGUMENT|CANCELLED): |ERROR: <input>:|\s*\[(INVALID_ARGUMENT|CANCELLED)\]")
_WHOLE_NUMBER = re.compile(r"'_[^']+_' applied to '\((?:double, int|int, double)\)'")


class BadExpression(ValueError):
    """This is no condition of a campaign: says why, and where in the text."""


class Expression:
    """A checked condition. Pure: equal values give equal answers."""

    def __init__(self, text: str) -> None:
        """Raises BadExpression."""
        self.text = text
        self._program = _compiled(text)

    def holds(self, values: Mapping[str, Value]) -> bool | None:
        """Whether it holds; None where that hangs on a value that is not among these."""
        found: Any = self._program.eval(data=values).value()
        return found if isinstance(found, bool) else None


def values_of(signals: Mapping[str, float], region: str, known: Mapping[str, Value]) -> dict[str, Value]:
    """What a condition may look at: signals that SIGNALS lists, the ODD of the moment, and what else is `known` by
    name. What is not finite is not known."""
    values: dict[str, Value] = {name: float(signals[name]) for name in SIGNALS.keys() & signals.keys()}
    values |= {
        "region": region,
        "cell": odd_cell(signals, region),
        "drive_side": drive_side(region),
        "illumination": illumination(signals),
        "visibility": visibility(signals),
        "speed_band": speed_band(signals),
    }
    values |= known
    return {n: v for n, v in values.items() if not isinstance(v, float) or math.isfinite(v)}


def check_expression(text: str) -> None:
    """Raises BadExpression for what no vehicle would accept, and for a word that a part of the ODD cell never is.
    A vehicle takes that: it may know fewer words than whoever wrote the campaign."""
    Expression(text)
    for compared in _COMPARED.finditer(text):
        first, right, several, left, last = compared.groups()
        name = first or last
        for value in _QUOTED.findall(right or several or left):
            if value not in VALUES[name]:
                raise BadExpression(
                    f"{name} at character {compared.start() + 1} is never {value!r}: it is {TEXTS[name]}"
                )


def _compiled(text: str) -> cel.Expression:
    _check_text(text)
    try:
        program = _environment().compile(text)
    except RuntimeError as error:
        raise BadExpression(_told(str(error))) from None
    kind = program.return_type().name()
    if kind != "BOOL":
        raise BadExpression(f"it is a {kind.lower()}, not a condition: compare it with something")
    return program


def _check_text(text: str) -> None:
    if not text.strip() or len(text) > MAX_EXPRESSION:
        raise BadExpression(f"{len(text)} characters: a condition has 1 to {MAX_EXPRESSION}")
    if strange := _STRANGE.search(text):
        raise BadExpression(f"{strange.group()!r} at character {strange.start() + 1} has no place in a condition")
    for call in _CALL.finditer(text):
        if call.group(1) not in FUNCTIONS | _OPERATORS:
            allowed = ", ".join(sorted(FUNCTIONS))
            raise BadExpression(f"{call.group(1)}() at character {call.start() + 1} is not one of {allowed}")


def _told(message: str) -> str:
    """The library's message without its status codes, and a hint for what everybody stumbles over."""
    text = re.sub(
        r"(INVALID_ARGUMENT|CANCELLED): |ERROR: <input>:|\s*\[(INVALID_ARGUMENT|CANCELLED)\]", "", message
    )
    hint = "; numbers have a decimal point here: 30.0" if _WHOLE_NUMBER.search(message) else ""
    return " ".join(text.split("\n")[0].split()) + hint


@cache
def _environment() -> cel.Env:
    """Every name a condition may use, with its type."""
    kinds = (
        (SIGNALS, cel.Type.DOUBLE),
        (SCORES, cel.Type.DOUBLE),
        (FLAGS, cel.Type.BOOL),
        (TEXTS, cel.Type.STRING),
    )
    return cel.NewEnv(variables={name: kind for names, kind in kinds for name in names})
