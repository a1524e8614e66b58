"""How a vehicle judges its own plans: pure functions over frames, vectorised. Larger is worse.

Plans are [F, T, 2] in the vehicle frame of their own instant; poses are [F, 3] (x m, y m, heading rad) in one
local frame; times are [F] in seconds, rising.
"""

from __future__ import annotations

import bisect
from collections import deque

import numpy as np
from numpy.typing import NDArray

from edge.agent.frame import PLAN_STEP_S, Floats

MIN_SCALE_M = 0.05
"""A predicted scale below this is taken as this."""
MIN_HINDSIGHT_S = 1.2
"""A plan is judged once this much of it has been driven."""


def uncertainty_m(scale_m: Floats) -> float:
    """Predicted scale of the last waypoint, m; `scale_m` is [T, 2]."""
    return float(np.hypot(scale_m[-1, 0], scale_m[-1, 1]))


def plan_jumps(plans_m: Floats, scales_m: Floats, poses: Floats, times_s: Floats) -> Floats:
    """Change between consecutive plans where both speak of the same instants, own motion removed, over the
    predicted scale and averaged over the waypoints: [F - 1]. 0 where they share no instant."""
    steps = np.arange(1, plans_m.shape[1] + 1) * PLAN_STEP_S
    asked = steps + np.diff(times_s)[:, None]
    shared = asked <= steps[-1] + 1e-9
    before = into_frame(along(plans_m[:-1], asked), poses[:-1], poses[1:])
    gap = np.hypot(*np.moveaxis(before - plans_m[1:], -1, 0)) / _size(scales_m[1:])
    return np.asarray((gap * shared).sum(1) / np.maximum(shared.sum(1), 1))


def hindsight_misses(plans_m: Floats, scales_m: Floats, poses: Floats, times_s: Floats) -> Floats:
    """Distance between where each plan would be and where the vehicle is after up to T steps, over the scale
    predicted for that waypoint: [F]. 0 for plans of which less than MIN_HINDSIGHT_S has been driven. Poses and
    times may go on after the last plan's."""
    of, at_s = poses[: len(plans_m)], times_s[: len(plans_m)]
    known_s = times_s[-1] - at_s
    number = np.minimum((known_s + 1e-9) / PLAN_STEP_S, plans_m.shape[1]).astype(int)
    rows = np.arange(len(plans_m))
    when = at_s + number * PLAN_STEP_S
    driven = np.stack([np.interp(when, times_s, poses[:, axis]) for axis in (0, 1)], -1)
    local = _rotate(driven - of[:, :2], -of[:, 2])
    last = np.maximum(number - 1, 0)
    miss = np.hypot(*(plans_m[rows, last] - local).T) / _size(scales_m[rows, last])
    return np.where(number * PLAN_STEP_S >= MIN_HINDSIGHT_S - 1e-9, miss, 0.0)


def along(plans_m: Floats, asked_s: Floats) -> Floats:
    """Where plans [F, T, 2] are after `asked_s` [F, K] seconds: [F, K, 2]; linear between waypoints, the origin
    at 0 s, and the last waypoint beyond the end."""
    path = np.concatenate([np.zeros_like(plans_m[:, :1]), plans_m], 1)
    place = np.clip(asked_s / PLAN_STEP_S, 0, plans_m.shape[1])
    low = np.minimum(place.astype(int), plans_m.shape[1] - 1)
    rows = np.arange(len(plans_m))[:, None]
    return np.asarray(path[rows, low] + (place - low)[..., None] * (path[rows, low + 1] - path[rows, low]))


def into_frame(points_m: Floats, of: Floats, to: Floats) -> Floats:
    """Points [F, K, 2] in the frames of poses `of` [F, 3], as seen from poses `to` [F, 3]."""
    world = _rotate(points_m, of[:, None, 2]) + of[:, None, :2]
    return _rotate(world - to[:, None, :2], -to[:, None, 2])


def _rotate(points: Floats, angle_rad: Floats) -> Floats:
    cos, sin = np.cos(angle_rad), np.sin(angle_rad)
    x, y = points[..., 0], points[..., 1]
    return np.stack([cos * x - sin * y, sin * x + cos * y], -1)


def _size(scale_m: Floats) -> Floats:
    return np.maximum(np.hypot(scale_m[..., 0], scale_m[..., 1]), MIN_SCALE_M)


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
        """Share of the recent values below this one, 0..1; 0 while warming up. Remembers the value."""
        rank = 0.0
        if len(self._sorted) >= self._warm_up:
            rank = bisect.bisect_left(self._sorted, value) / len(self._sorted)
        self._recent.append(value)
        bisect.insort(self._sorted, value)
        if len(self._recent) > self._keep:
            oldest = self._recent.popleft()
            del self._sorted[bisect.bisect_left(self._sorted, oldest)]
        return rank
