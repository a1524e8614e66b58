"""How a vehicle judges its own plans, over consecutive frames. Larger is worse; each score is defined in
streams.contracts.scores, here it is applied to a track of frames.

Plans are [F, T, 2] in the vehicle frame of their own instant; poses are [F, 3] (x m, y m, heading rad) in one
local frame; times are [F] in seconds, rising.
"""

from __future__ import annotations

import bisect
import math
from collections import deque

import numpy as np
from numpy.typing import NDArray

from edge.agent.frame import PLAN_STEP_S, Floats
from streams.contracts import scores

MIN_HINDSIGHT_STEPS = 4
"""A plan is judged once this many of its waypoints have been driven: 1.2 s."""


def uncertainty_m(scale_m: Floats) -> float:
    """The error that the policy itself expects, m; `scale_m` is [T, 2]."""
    return float(scores.uncertainty(scale_m[None])[0])


def plan_jumps(plans_m: Floats, scales_m: Floats, poses: Floats, times_s: Floats) -> Floats:
    """Change between consecutive plans, own motion removed, over the later one's predicted scale: [F - 1]. 0 for
    plans so far apart that they share no instant."""
    jumps = np.zeros(len(plans_m) - 1)
    periods_s = np.diff(times_s).round(3)
    moved = scores.path_from_poses(poses[1:, None], poses[:-1])[:, 0]
    motion = np.concatenate([moved, np.diff(poses[:, 2:], axis=0)], 1)
    for period_s in np.unique(periods_s[periods_s <= (plans_m.shape[1] - 1) * PLAN_STEP_S]):
        rows = np.flatnonzero(periods_s == period_s)
        jumps[rows] = scores.plan_jump(
            plans_m[rows], motion[rows], plans_m[rows + 1], PLAN_STEP_S, float(period_s)
        )
    return jumps / scores.uncertainty(scales_m[1:])


def hindsight_misses(plans_m: Floats, scales_m: Floats, poses: Floats, times_s: Floats) -> Floats:
    """How wrong each plan turned out over as many of its waypoints as have been driven, in units of the error it
    expected: [F]; 0 for plans with fewer than MIN_HINDSIGHT_STEPS. Poses and times may go on after the plans'."""
    misses = np.zeros(len(plans_m))
    known_s = times_s[-1] - times_s[: len(plans_m)]
    steps = np.minimum((known_s + 1e-6) / PLAN_STEP_S, plans_m.shape[1]).astype(int)
    for count in np.unique(steps[steps >= MIN_HINDSIGHT_STEPS]):
        rows = np.flatnonzero(steps == count)
        when = times_s[rows, None] + np.arange(1, count + 1) * PLAN_STEP_S
        driven = np.stack([np.interp(when, times_s, poses[:, axis]) for axis in (0, 1)], -1)
        local = scores.path_from_poses(driven, poses[rows])
        misses[rows] = scores.hindsight_miss(plans_m[rows, :count], scales_m[rows, :count], local)
    return misses


def quantise(embedding: Floats) -> bytes:
    """The unit vector of an embedding, int8 per component, scaled by 127: D bytes. b"" if it has no direction."""
    norm = float(np.linalg.norm(embedding))
    if not np.isfinite(norm) or norm == 0.0:
        return b""
    return bytes(np.rint(embedding * (127.0 / norm)).astype(np.int8).tobytes())


class Novelty:
    """Cosine distance to the nearest of this vehicle's own recent past; one embedding per period is kept."""

    def __init__(self, keep: int = 128, period_ns: int = 2_000_000_000, nearest: int = 4) -> None:
        self._keep, self._period_ns, self._nearest = keep, period_ns, nearest
        self._memory: NDArray[np.float32] | None = None
        self._count, self._last_ns = 0, 0

    def score(self, embedding: Floats, time_ns: int) -> float:
        """Mean cosine distance to the nearest few, 0..2; 0 while there are fewer. Remembers the embedding."""
        unit = np.asarray(embedding, np.float32) / max(float(np.linalg.norm(embedding)), 1e-9)
        if self._memory is None or self._memory.shape[1] != len(unit):
            self._memory, self._count = np.zeros((self._keep, len(unit)), np.float32), 0
        known = self._memory[: min(self._count, self._keep)]
        score = 0.0
        if len(known) >= self._nearest:
            near = np.partition(1.0 - known @ unit, self._nearest - 1)[: self._nearest]
            score = max(float(near.mean()), 0.0)
        if self._count == 0 or time_ns - self._last_ns >= self._period_ns:
            self._memory[self._count % self._keep] = unit
            self._count, self._last_ns = self._count + 1, time_ns
        return score


class RunningRank:
    """Where a value stands among the recent ones: a threshold on it is a rate, whatever the model's units."""

    def __init__(self, keep: int = 600, warm_up: int = 100) -> None:
        self._keep, self._warm_up = keep, warm_up
        self._recent: deque[float] = deque()
        self._sorted: list[float] = []

    def add(self, value: float) -> float:
        """Share of the recent values below this one, 0..1; 0 while warming up. Remembers the value; NaN is not
        comparable, so it ranks as NaN and is forgotten."""
        if math.isnan(value):
            return value
        rank = 0.0
        if len(self._sorted) >= self._warm_up:
            rank = bisect.bisect_left(self._sorted, value) / len(self._sorted)
        self._recent.append(value)
        bisect.insort(self._sorted, value)
        if len(self._recent) > self._keep:
            oldest = self._recent.popleft()
            del self._sorted[bisect.bisect_left(self._sorted, oldest)]
        return rank
