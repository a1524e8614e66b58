"""What passengers feel: bounds of nuPlan and NAVSIM, on motion smoothed as theirs is (pdm_comfort_metrics.py):
Savitzky-Golay filters of 0.8 s for accelerations, 1.5 s for jerks and 0.5 s for yaw, at 10 Hz. As there, the first
window is even, so accelerations are those of 0.05 s later but for the first and last 0.4 s.

Two differences from NAVSIM: accelerations are those of the rear axle, and the lateral one is speed times yaw rate
(NAVSIM's bicycle leaves it 0). Jerk is, as there, the rate of the acceleration vector's magnitude.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from scipy.signal import savgol_filter

from simulation.arrays import Bools, Floats
from simulation.scores.trace import STEP_S, Ego

ACCEL_WINDOW, JERK_WINDOW, YAW_WINDOW = 8, 15, 5
"""Steps."""
LEAST_STEPS = 4
"""A cubic is fitted to yaw."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Closed ranges of nuPlan and NAVSIM (metrics_description.md): what lies on a bound is comfortable."""

    accel_mps2: tuple[float, float] = (-4.05, 2.40)
    lateral_accel_mps2: tuple[float, float] = (-4.89, 4.89)
    jerk_mps3: tuple[float, float] = (-8.37, 8.37)
    longitudinal_jerk_mps3: tuple[float, float] = (-4.13, 4.13)
    yaw_rate_radps: tuple[float, float] = (-0.95, 0.95)
    yaw_accel_radps2: tuple[float, float] = (-1.93, 1.93)


BOUNDS = Bounds()


@dataclass(frozen=True, slots=True)
class Felt:
    """Smoothed motion, each [B, T]."""

    accel_mps2: Floats
    lateral_accel_mps2: Floats
    jerk_mps3: Floats
    longitudinal_jerk_mps3: Floats
    yaw_rate_radps: Floats
    yaw_accel_radps2: Floats


def felt(ego: Ego) -> Felt:
    """What passengers feel. Raises ValueError for fewer than LEAST_STEPS steps."""
    steps = ego.x_m.shape[1]
    if steps < LEAST_STEPS:
        raise ValueError(f"comfort needs at least {LEAST_STEPS} steps, got {steps}")
    accel = _smooth(ego.accel_mps2, ACCEL_WINDOW)
    heading = np.unwrap(ego.heading_rad, axis=1)
    return Felt(
        accel_mps2=accel,
        lateral_accel_mps2=_smooth(ego.lateral_accel_mps2, ACCEL_WINDOW),
        jerk_mps3=_smooth(_magnitude(ego), JERK_WINDOW, rate=1),
        longitudinal_jerk_mps3=_smooth(accel, JERK_WINDOW, rate=1),
        yaw_rate_radps=_smooth(heading, YAW_WINDOW, rate=1),
        yaw_accel_radps2=_smooth(heading, YAW_WINDOW, rate=2, order=3),
    )


def comfortable(ego: Ego, bounds: Bounds = BOUNDS) -> Bools:
    """Whether each drive stayed within every bound, [B]. Raises ValueError as `felt` does."""
    motion, fine = felt(ego), np.ones(len(ego.x_m), bool)
    for field in fields(Bounds):
        low, high = getattr(bounds, field.name)
        column = np.round(getattr(motion, field.name), 8)
        fine &= ((column >= low) & (column <= high)).all(1)
    return fine


def after(history: Ego | None, ego: Ego) -> Ego:
    """The motion with what went before it."""
    if history is None:
        return ego
    names = [field.name for field in fields(Ego)]
    return Ego(*(np.concatenate([getattr(history, name), getattr(ego, name)], 1) for name in names))


@dataclass(frozen=True, slots=True)
class Steadiness:
    """How far plans of consecutive frames may differ, root mean squares (NAVSIM's extended comfort)."""

    accel_mps2: float = 0.7
    jerk_mps3: float = 0.5
    yaw_rate_radps: float = 0.1
    yaw_accel_radps2: float = 0.1


STEADINESS = Steadiness()


def steady(now: Ego, before: Ego, bounds: Steadiness = STEADINESS) -> Bools:
    """Whether two motions planned for the same steps feel alike, [B]. Raises ValueError as `felt` does."""
    first, second = _features(now), _features(before)
    limits = (bounds.accel_mps2, bounds.jerk_mps3, bounds.yaw_rate_radps, bounds.yaw_accel_radps2)
    far = [np.sqrt(((a - b) ** 2).mean(1)) > limit for a, b, limit in zip(first, second, limits, strict=True)]
    return np.asarray(~np.logical_or.reduce(far))


def _features(ego: Ego) -> tuple[Floats, Floats, Floats, Floats]:
    motion, heading = felt(ego), np.unwrap(ego.heading_rad, axis=1)
    yaw_accel = _smooth(heading, YAW_WINDOW, rate=2)
    return _magnitude(ego), motion.jerk_mps3, motion.yaw_rate_radps, yaw_accel


def _magnitude(ego: Ego) -> Floats:
    return _smooth(np.hypot(ego.accel_mps2, ego.lateral_accel_mps2), ACCEL_WINDOW)


def _smooth(column: Floats, window: int, rate: int = 0, order: int = 2) -> Floats:
    """A Savitzky-Golay fit of [B, T], or its derivative over time of order `rate`."""
    width = min(window, column.shape[1])
    return np.asarray(savgol_filter(column, width, order, deriv=rate, delta=STEP_S, axis=1))
