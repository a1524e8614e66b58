"""ONE table: what a vehicle may do that its driver would not, as speed and curvature to go for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.policy import PLAN_POINTS, PLAN_STEP_S
from simulation.arrays import Floats
from simulation.world import World

Steer = Callable[[World], NDArray[np.float32]]
"""The trajectory [B, T, 2] that vehicles follow next."""


class BadManoeuvre(ValueError):
    """A manoeuvre that no table has, or a length that is none: says what there is."""


@dataclass(frozen=True, slots=True)
class Manoeuvre:
    """Held as long as it lasts."""

    curvature_per_m: float = 0.0
    """Positive to the left."""
    accel_mps2: float = 0.0
    towards_mps: float = 40.0
    """No faster than this; or, where it brakes, no slower."""


MANOEUVRES: dict[str, Manoeuvre] = {
    "straight": Manoeuvre(),
    "left": Manoeuvre(0.10, -2.5, 5.0),
    "right": Manoeuvre(-0.10, -2.5, 5.0),
    "swerve-left": Manoeuvre(0.03),
    "swerve-right": Manoeuvre(-0.03),
    "faster": Manoeuvre(0.0, 2.4, 20.0),
    "stop": Manoeuvre(0.0, -4.0, 0.0),
}
EXPERT = "expert"
"""Drives as the expert does: no manoeuvre, for the time before and after one."""


@dataclass(frozen=True, slots=True)
class Part:
    """A manoeuvre, or EXPERT, and how long it lasts."""

    name: str
    seconds: float


def parts(text: str, seconds: float) -> list[Part]:
    """Reads "left", "swerve-left:1,expert:2": names with seconds; those without share what is left of `seconds`.
    Raises BadManoeuvre."""
    words = [word.strip().partition(":") for word in text.split(",")]
    for name, _, _ in words:
        if name not in (*MANOEUVRES, EXPERT):
            raise BadManoeuvre(f"unknown manoeuvre {name!r}; known: {', '.join((*MANOEUVRES, EXPERT))}")
    told = [_seconds(length) if colon else None for _, colon, length in words]
    rest = (seconds - sum(t for t in told if t)) / max(told.count(None), 1)
    if None in told and rest <= 0:
        raise BadManoeuvre(f"{text!r} leaves no time for the others in {seconds:g} s: shorten, or raise --seconds")
    return [Part(name, rest if t is None else t) for (name, _, _), t in zip(words, told, strict=True)]


def steering(plan: Sequence[Part], from_s: float) -> Steer:
    """Follows the parts one after the other from a world's time on; the last one goes on."""
    ends = from_s + np.cumsum([part.seconds for part in plan])

    def steer(world: World) -> NDArray[np.float32]:
        now = min(int(np.searchsorted(ends, world.time_s + 1e-6, side="right")), len(plan) - 1)
        name = plan[now].name
        if name == EXPERT:
            return world.expert().trajectory
        return trajectory(MANOEUVRES[name], world.motion.speed)

    return steer


def trajectory(manoeuvre: Manoeuvre, speed: Floats) -> NDArray[np.float32]:
    """The arc [B, T, 2] that vehicles at `speed` [B] m/s drive."""
    t = PLAN_STEP_S * np.arange(1, PLAN_POINTS + 1)
    accel, goal = manoeuvre.accel_mps2, manoeuvre.towards_mps
    changes = np.maximum(speed - goal, 0.0) if accel < 0 else np.maximum(goal - speed, 0.0)
    lasts = (changes / abs(accel) if accel else np.zeros_like(speed))[:, None]
    way = speed[:, None] * t + accel * (np.minimum(t, lasts) * t - np.minimum(t, lasts) ** 2 / 2)
    bend = manoeuvre.curvature_per_m * way
    across = np.stack([np.sinc(bend / np.pi) * way, np.sin(bend / 2) * np.sinc(bend / 2 / np.pi) * way], -1)
    return across.astype(np.float32)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError as error:
        raise BadManoeuvre(f"{text!r} is not a number of seconds, such as in left:1.5") from error
    if not 0 < seconds < 600:
        raise BadManoeuvre(f"a manoeuvre cannot last {seconds:g} s")
    return seconds
