"""Small hand-made recordings for replays."""

from __future__ import annotations

import numpy as np

from simulation.encounters import Look
from simulation.logs import Log, Track, log_of

DT_S = 0.05
Array = np.ndarray


def bend(time_s: Array, speed_mps: float = 10.0, radius_m: float = 60.0, straight_m: float = 60.0) -> Array:
    """x, y and heading [3, N]: straight on, then an arc to the left."""
    way = speed_mps * time_s
    turned = np.maximum(way - straight_m, 0.0) / radius_m
    x = np.minimum(way, straight_m) + radius_m * np.sin(turned)
    return np.stack([x, radius_m * (1 - np.cos(turned)), turned])


def times(seconds: float = 12.0, from_s: float = 0.0) -> Array:
    return from_s + np.arange(0.0, seconds + 1e-9, DT_S)


def track(name: str, time_s: Array, pose: Array, kind: Look = "car", offset_m: float = 0.0) -> Track:
    """A road user on those poses [3, N], or so far to the left of them."""
    x, y, heading = pose
    return Track(name, kind, time_s, x - offset_m * np.sin(heading), y + offset_m * np.cos(heading), heading)


def straight(time_s: Array, start_m: float, way_m: Array, d_m: float = 0.0) -> Array:
    """Poses along x, so far on after so much way."""
    return np.stack([start_m + way_m, np.full(len(time_s), d_m), np.zeros(len(time_s))])


def ego(seconds: float = 12.0) -> Track:
    return track("ego", times(seconds), bend(times(seconds)))


def lead(gap_m: float = 25.0, seconds: float = 12.0) -> Track:
    """Drives ahead on the vehicle's own path, as fast."""
    return track("lead", times(seconds), bend(times(seconds) + gap_m / 10.0))


def oncoming(seconds: float = 12.0) -> Track:
    """Comes the other way on the lane to the left."""
    x, y, heading = bend(np.maximum(14.0 - times(seconds), 0.0))
    t = track("oncoming", times(seconds), np.stack([x, y, heading]), offset_m=3.6)
    return Track(t.name, t.kind, t.time_s, t.x_m, t.y_m, t.heading_rad + np.pi)


def walker(seconds: float = 6.0) -> Track:
    """Crosses the road far ahead, and is seen for a part of the drive only."""
    t = times(seconds, 3.0)
    return Track("walker", "person", t, np.full(len(t), 52.0), -6.0 + 1.4 * (t - 3.0), np.full(len(t), np.pi / 2))


def small(reactive: bool = False, seconds: float = 12.0) -> Log:
    return log_of("small", ego(seconds), [lead(), oncoming(), walker()], seconds=seconds, reactive=reactive)
