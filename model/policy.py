"""What a policy is: observations in, plans out. No torch here: simulation and the vehicle use this too."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

PLAN_POINTS = 8
"""Waypoints in a plan (T)."""
PLAN_STEP_S = 0.3
"""Time between waypoints: 8 × 0.3 s = 2.4 s ahead."""
PLAN_PERIOD_S = 0.2
"""A policy is asked for a new plan every 0.2 s; camera frames are taken at the same instants."""
_PERIOD_NS = round(PLAN_PERIOD_S * 1e9)

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
    past: tuple[Observation, ...] = ()
    """What was sensed PLAN_PERIOD_S before, twice that before, and so on; these have no past of their own."""

    def take(self, rows: slice | NDArray[np.integer]) -> Observation:
        """Some of the vehicles."""
        return Observation(
            self.images[rows],
            self.speed_mps[rows],
            self.yaw_rate_radps[rows],
            self.command[rows],
            tuple(earlier.take(rows) for earlier in self.past),
        )

    def stacked(self, frames: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """So many instants as networks take them: images [B, frames * C, H, W, 3], newest first, and speed and yaw
        rate before now, [B, frames - 1, 2]. What is not there is black, and NaN."""
        earlier = self.past[: frames - 1]
        lacking = frames - 1 - len(earlier)
        black = [np.zeros_like(self.images)] * lacking
        nothing = np.full((len(self.images), 2), np.nan, np.float32)
        told = [np.stack([e.speed_mps, e.yaw_rate_radps], 1) for e in earlier] + [nothing] * lacking
        every = [self.images, *(e.images for e in earlier), *black]
        images = np.concatenate(every, 1) if frames > 1 else np.ascontiguousarray(self.images)
        return images, np.stack([nothing, *told], 1)[:, 1:].astype(np.float32, copy=False)


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


def frames_seen(policy: Policy) -> int:
    """How many instants a policy wants to see: its attribute `history` where it has one, else the present
    alone."""
    return int(getattr(policy, "history", 1))


def needs_signals(policy: Policy) -> bool:
    """Whether a policy must be told speed and yaw rate: unless it has an attribute `gaps` that says it need not
    be."""
    return not getattr(policy, "gaps", False)


class Memory:
    """The last instants of some vehicles, for policies that see more than the present one: PLAN_PERIOD_S apart, as
    near as frames of any rate come to it."""

    def __init__(self) -> None:
        self._kept: list[tuple[int, Observation]] = []

    def recall(self, now: Observation, time_ns: int, frames: int) -> Observation:
        """`now`, with its past as far as `frames` instants reach and were seen without a hole; remembered for the
        next call, which must be later and of the same vehicles."""
        if frames == 1:
            return now
        past: list[Observation] = []
        while len(past) < frames - 1 and (seen := self._near(time_ns - (len(past) + 1) * _PERIOD_NS)):
            past.append(seen)
        self._kept.append((time_ns, now))
        self._kept = [kept for kept in self._kept if time_ns - kept[0] < frames * _PERIOD_NS]
        return replace(now, past=tuple(past))

    def _near(self, time_ns: int) -> Observation | None:
        away_ns, at = min(((abs(t - time_ns), i) for i, (t, _) in enumerate(self._kept)), default=(_PERIOD_NS, 0))
        return self._kept[at][1] if away_ns < _PERIOD_NS / 4 else None
