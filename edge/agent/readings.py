"""From frames to what the trigger rules look at, and to the scores of a clip."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from edge.agent.frame import KMH, PLAN_STEP_S, Floats, Frame
from edge.agent.scores import Novelty, RunningRank, hindsight_misses, plan_jumps, uncertainty_m
from edge.agent.triggers import Reading
from streams.contracts.clock import SECOND_NS
from streams.contracts.drive import Scores
from streams.contracts.odd import ACCELERATION, SPEED, YAW_RATE

MAX_GAP_S = 1.0
"""Over a longer silence nothing is integrated: the frames belong to different stretches."""
BRAKE_WINDOW_S = 0.35
"""Speed is differentiated over at least this; CAN speeds are coarse."""
EXPECTED_MISS = 1.0
"""A hindsight miss up to this is what the policy itself expected (streams.contracts.scores)."""


def speed_mps(frame: Frame) -> float:
    """The frame's speed; NaN where it is not known."""
    return frame.signals.get(SPEED, math.nan) / KMH


def yaw_rate_radps(frame: Frame) -> float:
    """The frame's yaw rate; NaN where it is not known."""
    return math.radians(frame.signals.get(YAW_RATE, math.nan))


class Waypoint(NamedTuple):
    """Where a frame was taken, in the vehicle's own dead reckoning."""

    time_s: float
    x_m: float
    y_m: float
    heading_rad: float
    frame: Frame
    first: bool = False
    """The origin: nothing is known of what came before."""


def reckon(last: Waypoint | None, frame: Frame) -> Waypoint | None:
    """The next waypoint by speed and yaw rate, mid-point rule; None where motion is not known. The first one, and
    the first after a gap, is the origin."""
    if not (math.isfinite(speed_mps(frame)) and math.isfinite(yaw_rate_radps(frame))):
        return None
    time_s = frame.time_ns / SECOND_NS
    if last is None or frame.time_ns - last.frame.time_ns > MAX_GAP_S * SECOND_NS:
        return Waypoint(time_s, 0.0, 0.0, 0.0, frame, first=True)
    dt = (frame.time_ns - last.frame.time_ns) / SECOND_NS
    turn = dt * (yaw_rate_radps(frame) + yaw_rate_radps(last.frame)) / 2
    way = dt * (speed_mps(frame) + speed_mps(last.frame)) / 2
    middle = last.heading_rad + turn / 2
    x, y = last.x_m + way * math.cos(middle), last.y_m + way * math.sin(middle)
    return Waypoint(last.time_s + dt, x, y, last.heading_rad + turn, frame)


def clip_scores(frames: Sequence[Frame]) -> Scores:
    """The worst of each score over a clip's frames; 0 where there is no plan or the motion is not known."""
    scales = [f.scale_m for f in frames if f.scale_m is not None]
    worst = max(map(uncertainty_m, scales), default=0.0)
    track: list[Waypoint] = []
    for frame in frames:
        if frame.plan_m is None or frame.scale_m is None:
            continue
        step = reckon(track[-1] if track else None, frame)
        track = [*(track if step and not step.first else ()), *([step] if step else ())]
    if len(track) < 2:
        return Scores(uncertainty_m=worst)
    arrays = _arrays(track)
    return Scores(float(plan_jumps(*arrays).max()), float(hindsight_misses(*arrays).max()), worst)


class Readings:
    """Follows one drive; `read` is called once per frame, in order of time."""

    def __init__(self) -> None:
        self._track: deque[Waypoint] = deque(maxlen=64)
        self._last: Frame | None = None
        self._speeds: deque[tuple[int, float]] = deque(maxlen=64)
        self._miss, self._scale, self._distance = RunningRank(), RunningRank(), RunningRank()
        self._novelty = Novelty()

    def end_drive(self) -> None:
        """The next frame stands alone; what is usual for this vehicle is kept."""
        self._track.clear()
        self._speeds.clear()
        self._last = None

    def read(self, frame: Frame, sampled: bool) -> Reading:
        """What the rules look at now."""
        takeover = self._last is not None and self._last.engaged and not frame.engaged
        self._last = frame
        self._follow(frame)
        return Reading(
            takeover=float(takeover),
            acceleration_mps2=self._acceleration(frame),
            disagreement=self._disagreement(),
            uncertainty=math.nan if frame.scale_m is None else self._scale.add(uncertainty_m(frame.scale_m)),
            novelty=self._unusual(frame),
            sampled=float(sampled),
        )

    def _follow(self, frame: Frame) -> None:
        step = reckon(self._track[-1] if self._track else None, frame)
        if step is None or step.first:
            self._track.clear()
        if step is not None:
            self._track.append(step)

    def _acceleration(self, frame: Frame) -> float:
        """The signal if there is one, else the speed's slope over the last moments."""
        if ACCELERATION in frame.signals:
            return frame.signals[ACCELERATION]
        speed = speed_mps(frame)
        if not math.isfinite(speed):
            self._speeds.clear()
            return math.nan
        self._speeds.append((frame.time_ns, speed))
        while len(self._speeds) > 2 and frame.time_ns - self._speeds[1][0] >= BRAKE_WINDOW_S * SECOND_NS:
            self._speeds.popleft()
        passed_s = (frame.time_ns - self._speeds[0][0]) / SECOND_NS
        if not BRAKE_WINDOW_S <= passed_s <= MAX_GAP_S:
            return math.nan
        return (speed - self._speeds[0][1]) / passed_s

    def _disagreement(self) -> float:
        """Rank of the hindsight miss of the plan whose last waypoint is due now."""
        if not self._track or (plan := self._track[-1].frame.plan_m) is None:
            return math.nan
        horizon_s = len(plan) * PLAN_STEP_S
        while len(self._track) > 2 and self._track[-1].time_s - self._track[1].time_s >= horizon_s - 1e-6:
            self._track.popleft()
        judged = self._track[0].frame
        if judged.plan_m is None or judged.scale_m is None:
            return math.nan
        if self._track[-1].time_s - self._track[0].time_s < horizon_s - 1e-6:
            return math.nan
        miss = _miss(self._track)
        rank = self._miss.add(miss)
        return rank if miss > EXPECTED_MISS else 0.0

    def _unusual(self, frame: Frame) -> float:
        if frame.embedding is None:
            return math.nan
        return self._distance.add(self._novelty.score(frame.embedding, frame.time_ns))


def _miss(track: Sequence[Waypoint]) -> float:
    """Hindsight miss of the first plan of a track, over the whole of it."""
    first = track[0].frame
    assert first.plan_m is not None and first.scale_m is not None
    poses = np.array([(w.x_m, w.y_m, w.heading_rad) for w in track])
    times = np.array([w.time_s for w in track])
    return float(hindsight_misses(first.plan_m[None], first.scale_m[None], poses, times)[0])


def _arrays(track: Sequence[Waypoint]) -> tuple[Floats, Floats, Floats, Floats]:
    """Plans, scales, poses and times of frames that all have plans."""
    plans = np.stack([w.frame.plan_m for w in track if w.frame.plan_m is not None])
    scales = np.stack([w.frame.scale_m for w in track if w.frame.scale_m is not None])
    poses = np.array([(w.x_m, w.y_m, w.heading_rad) for w in track])
    return plans, scales, poses, np.array([w.time_s for w in track])
