"""What a policy is: observations in, plans out. No torch here: simulation and the vehicle use this too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

PLAN_POINTS = 8
"""Waypoints in a plan (T)."""
PLAN_STEP_S = 0.3
"""Time between waypoints: 8 × 0.3 s = 2.4 s ahead."""
PLAN_PERIOD_S = 0.2
"""A policy is asked for a new plan every 0.2 s; camera frames are taken at the same instants."""

FOLLOW, LEFT, RIGHT, STRAIGHT = 0, 1, 2, 3
"""Route commands."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What B vehicles of one rig sense at one instant."""

    images: NDArray[np.uint8]
    """[B, C, H, W, 3], RGB."""
    speed_mps: NDArray[np.float32]
    """[B]."""
    yaw_rate_radps: NDArray[np.float32]
    """[B], positive to the left."""
    command: NDArray[np.int64]
    """[B], one of FOLLOW, LEFT, RIGHT, STRAIGHT."""


@dataclass(frozen=True, slots=True)
class Plan:
    """M candidate trajectories for each of B vehicles. Vehicle frame at the instant of the observation:
    x forward, y left, metres; waypoint k is where the vehicle is after (k + 1) · PLAN_STEP_S."""

    modes: NDArray[np.float32]
    """[B, M, T, 2]."""
    confidence: NDArray[np.float32]
    """[B, M], sums to 1 over M."""
    scale_m: NDArray[np.float32]
    """[B, M, T, 2], Laplace scale of each coordinate."""
    embedding: NDArray[np.float32]
    """[B, D], for novelty and search."""

    @property
    def best(self) -> NDArray[np.float32]:
        """The most confident trajectory, [B, T, 2]."""
        return np.asarray(self.modes[np.arange(len(self.modes)), self.confidence.argmax(1)])

    @property
    def best_scale_m(self) -> NDArray[np.float32]:
        """The predicted scale of `best`, [B, T, 2]."""
        return np.asarray(self.scale_m[np.arange(len(self.modes)), self.confidence.argmax(1)])


class Policy(Protocol):
    """Plans for a batch. Deterministic, holds no state between calls, may block for the inference; raises
    nothing for finite input."""

    def plan(self, observation: Observation) -> Plan: ...
