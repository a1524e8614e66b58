"""How well something drove: safe distances, comfort, and the scores that benchmarks made of them.

Disengagement rates and their intervals are in monitoring/disengagements.py; distances between plans in
model/open_loop.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from simulation.arrays import Bools, Floats

NEVER_S = 99.0
"""Time to collision of those who do not close in."""


def time_to_collision(gap_m: ArrayLike, rear_mps: ArrayLike, front_mps: ArrayLike) -> Floats:
    """Seconds until `gap_m` is used up at constant speeds: 0 where it already is, at most NEVER_S."""
    gap, closing = np.asarray(gap_m, float), np.subtract(rear_mps, front_mps).astype(float)
    seconds = np.maximum(gap, 0.0) / np.maximum(closing, 1e-3)
    return np.where(gap <= 0, 0.0, np.minimum(np.where(closing > 0, seconds, NEVER_S), NEVER_S))


@dataclass(frozen=True, slots=True)
class Rss:
    """Parameters of Responsibility-Sensitive Safety, defaults of intel/ad-rss-lib, m/s² and s."""

    response_s: float = 1.0
    """1 s for oneself; 2 s is assumed of others."""
    accel: float = 3.5
    """The rear vehicle's worst acceleration while it has not yet reacted."""
    braking_least: float = 4.0
    """What the rear vehicle will brake with at least."""
    braking_most: float = 8.0
    """What the front vehicle may brake with at most."""


def rss_distance(rear_mps: ArrayLike, front_mps: ArrayLike, rss: Rss = Rss()) -> Floats:
    """Safe longitudinal distance between two vehicles of one direction, m.

    Shalev-Shwartz, Shammah, Shashua, "On a Formal Model of Safe and Scalable Self-driving Cars" (2017),
    definition 1: the gap that still is not used up when the front one brakes hard and the rear one reacts late.
    """
    rear, front = np.asarray(rear_mps, float), np.asarray(front_mps, float)
    reached = rear + rss.response_s * rss.accel
    ridden = rear * rss.response_s + rss.accel * rss.response_s**2 / 2
    left = ridden + reached**2 / (2 * rss.braking_least) - front**2 / (2 * rss.braking_most)
    return np.asarray(np.maximum(left, 0.0))


@dataclass(frozen=True, slots=True)
class Comfort:
    """Bounds of nuPlan and NAVSIM on what passengers find comfortable."""

    accel_mps2: tuple[float, float] = (-4.05, 2.40)
    lateral_accel_mps2: float = 4.89
    jerk_mps3: float = 8.37
    """Of the acceleration vector's magnitude."""
    longitudinal_jerk_mps3: float = 4.13
    yaw_rate_radps: float = 0.95
    yaw_accel_radps2: float = 1.93


COMFORT = Comfort()


def comfortable(
    speed_mps: Floats, accel_mps2: Floats, yaw_rate_radps: Floats, dt_s: float, bounds: Comfort = COMFORT
) -> Bools:
    """Whether each of B drives stayed within every bound, [B]; inputs are [T, B], T >= 2, `dt_s` apart.
    Lateral acceleration is speed times yaw rate. Raises ValueError for fewer than two samples."""
    if len(speed_mps) < 2:
        raise ValueError(f"comfort needs at least 2 samples in time, got {len(speed_mps)}")
    lateral = speed_mps * yaw_rate_radps
    jerk, side_jerk = np.diff(accel_mps2, axis=0) / dt_s, np.diff(lateral, axis=0) / dt_s
    yaw_accel = np.diff(yaw_rate_radps, axis=0) / dt_s
    low, high = bounds.accel_mps2
    return np.asarray(
        ((accel_mps2 >= low) & (accel_mps2 <= high)).all(0)
        & (np.abs(lateral) <= bounds.lateral_accel_mps2).all(0)
        & (np.hypot(jerk, side_jerk) <= bounds.jerk_mps3).all(0)
        & (np.abs(jerk) <= bounds.longitudinal_jerk_mps3).all(0)
        & (np.abs(yaw_rate_radps) <= bounds.yaw_rate_radps).all(0)
        & (np.abs(yaw_accel) <= bounds.yaw_accel_radps2).all(0)
    )


def pdm_score(
    no_collision: ArrayLike, drivable: ArrayLike, ttc: ArrayLike, progress: ArrayLike, comfort: ArrayLike
) -> Floats:
    """NAVSIM's PDM score: NC · DAC · (5·TTC + 5·EP + 2·C) / 12. Each term in 0..1, NC one of 0, ½, 1."""
    weighted = 5 * np.asarray(ttc) + 5 * np.asarray(progress) + 2 * np.asarray(comfort)
    return np.asarray(np.multiply(no_collision, drivable) * weighted / 12, float)


@dataclass(frozen=True, slots=True)
class Epdm:
    """Terms of NAVSIM v2's extended PDM score, each in 0..1."""

    no_collision: float
    drivable: float
    direction: float
    lights: float
    progress: float
    ttc: float
    lane_keeping: float
    history_comfort: float
    extended_comfort: float

    @property
    def score(self) -> float:
        """NC · DAC · DDC · TLC · (5·EP + 5·TTC + 2·LK + 2·HC + 2·EC) / 16."""
        gates = self.no_collision * self.drivable * self.direction * self.lights
        mild = self.lane_keeping + self.history_comfort + self.extended_comfort
        return gates * (5 * self.progress + 5 * self.ttc + 2 * mild) / 16


PENALTY: dict[str, float] = {
    "pedestrian": 0.5,
    "vehicle": 0.6,
    "static": 0.65,
    "red_light": 0.7,
    "stop_sign": 0.8,
    "timeout": 0.7,
    "no_yield_to_emergency": 0.7,
}
"""CARLA leaderboard: what one infraction leaves of a route's score."""


def driving_score(completion: float, infractions: Mapping[str, int]) -> float:
    """CARLA's driving score of one route, 0..1: its completed share times a penalty per infraction. Raises
    KeyError for an infraction that PENALTY does not name."""
    score = completion
    for name, count in infractions.items():
        score *= PENALTY[name] ** count
    return score
