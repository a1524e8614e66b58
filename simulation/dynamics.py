"""From a planned trajectory to motion: a tracking controller on a kinematic bicycle, vectorised."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.policy import PLAN_STEP_S
from simulation.arrays import Floats
from simulation.logs import Log

WHEELBASE_M = 2.8
FRONT_M, REAR_M = 3.8, 1.0
"""How far the body reaches ahead of and behind the rear axle."""
MAX_ACCEL, MAX_BRAKING = 2.40, 6.5
"""m/s². Driving off stays within comfort (nuPlan's bound, as in METRICS); braking may be an emergency's."""
MAX_JERK = 12.0
"""m/s³, of the actuators."""
MAX_LATERAL_ACCEL, MAX_YAW_RATE = 4.89, 0.95
"""Comfort bounds of nuPlan, m/s² and rad/s."""
MAX_CURVATURE, MAX_CURVATURE_RATE = 0.19, 0.25
"""1/m and 1/(m·s)."""
CONTROL_POINT = 2
"""The waypoint, 0.9 s ahead, whose distance sets the acceleration."""
LOOKAHEAD_M = 4.0


@dataclass(slots=True)
class Motion:
    """States of B vehicles, each [B]: rear axle in world coordinates."""

    x: Floats
    y: Floats
    heading: Floats
    speed: Floats
    accel: Floats
    curvature: Floats

    def put(self, row: int, log: Log, step: int) -> None:
        """Puts a vehicle where a log has it."""
        self.x[row], self.y[row], self.heading[row] = log.x_m[step], log.y_m[step], log.heading_rad[step]
        self.speed[row], self.accel[row] = log.speed_mps[step], log.accel_mps2[step]
        self.curvature[row] = log.curvature_per_m[step]

    @property
    def yaw_rate(self) -> Floats:
        """rad/s, positive to the left."""
        return self.speed * self.curvature

    @property
    def steering(self) -> Floats:
        """Front wheel angle of the bicycle, rad."""
        return np.arctan(WHEELBASE_M * self.curvature)


def control(trajectory: NDArray[np.float32], speed: Floats, held: Floats) -> tuple[Floats, Floats]:
    """Acceleration and curvature that follow trajectories [B, T, 2]; `held` is the present curvature, kept
    where the plan stands still. Pure pursuit (Coulter, CMU-RI-TR-92-01) for the curvature."""
    path = np.concatenate([np.zeros_like(trajectory[:, :1]), trajectory], 1).astype(float)
    travelled = np.cumsum(np.linalg.norm(np.diff(path, axis=1), axis=-1), 1)
    t = (CONTROL_POINT + 1) * PLAN_STEP_S
    accel = 2 * (travelled[:, CONTROL_POINT] - speed * t) / t**2
    far_enough = travelled >= np.maximum(LOOKAHEAD_M, 0.8 * speed)[:, None]
    aim = np.where(far_enough.any(1), far_enough.argmax(1), trajectory.shape[1] - 1)
    x, y = trajectory[np.arange(len(aim)), aim].astype(float).T
    squared = x**2 + y**2
    curvature = np.where(squared > 0.5, 2 * y / np.maximum(squared, 0.5), held)
    return accel, curvature


def advance(motion: Motion, accel: Floats, curvature: Floats, dt_s: float) -> Floats:
    """Moves `motion` in place by `dt_s` under actuator limits; returns the metres driven, [B]."""
    jerk = MAX_JERK * dt_s
    wanted = np.clip(accel, -MAX_BRAKING, MAX_ACCEL)
    motion.accel = np.clip(wanted, motion.accel - jerk, motion.accel + jerk)
    before = motion.speed
    motion.speed = np.maximum(before + motion.accel * dt_s, 0.0)
    motion.accel = np.where(motion.speed > 0, motion.accel, np.maximum(motion.accel, 0.0))
    mean = (before + motion.speed) / 2
    turn = MAX_CURVATURE_RATE * dt_s
    curvature = np.clip(curvature, motion.curvature - turn, motion.curvature + turn)
    fast = np.maximum(mean, 0.1)
    limit = np.minimum(MAX_CURVATURE, np.minimum(MAX_YAW_RATE / fast, MAX_LATERAL_ACCEL / fast**2))
    motion.curvature = np.clip(curvature, -limit, limit)
    metres = mean * dt_s
    half = motion.heading + motion.curvature * metres / 2
    motion.x = motion.x + metres * np.cos(half)
    motion.y = motion.y + metres * np.sin(half)
    motion.heading = motion.heading + motion.curvature * metres
    return metres
