"""How surprising a moment was to the policy that drove it: three scores a vehicle can afford to compute.

Pure functions over B vehicles, one float each. Paths are [B, T, 2] in metres, x forward and y left in the
vehicle frame of the instant the plan was made; waypoint k is (k + 1) · step_s ahead."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


def plan_jump(previous: Floats, motion: Floats, current: Floats, step_s: float, period_s: float) -> Floats:
    """Mean distance in m between a plan and the one made `period_s` before, at the instants both cover, after
    the vehicle's own `motion` [B, 3] in between (x, y in m, yaw in rad, in the frame of the previous plan) is
    taken out: [B]. A steady policy in a world it knows scores near 0.

    Raises ValueError when the plans are too short to overlap."""
    later = _at_times(previous, step_s, step_s * np.arange(1, current.shape[1] + 1) + period_s)
    shared = later.shape[1]
    if not shared:
        raise ValueError(f"plans of {current.shape[1]} x {step_s} s do not overlap after {period_s} s")
    distance = np.linalg.norm(_seen_from(motion, later) - current[:, :shared], axis=2)
    return np.asarray(distance.mean(1))


def hindsight_miss(planned: Floats, scale_m: Floats, driven: Floats) -> Floats:
    """How wrong a plan turned out, in units of the error it expected: mean over waypoints and coordinates of
    |planned - driven| / scale: [B]. `driven` is where the vehicle really went, whoever drove it; under the
    predicted Laplace distribution the expectation is 1."""
    return np.asarray((np.abs(planned - driven) / scale_m).mean((1, 2)))


def uncertainty(scale_m: Floats) -> Floats:
    """The error in m that the policy itself expects: mean Laplace scale of its plan, [B]."""
    return np.asarray(scale_m.mean((1, 2)))


def path_from_poses(poses: Floats, origin: Floats) -> Floats:
    """Poses [B, T, 3] (x, y in m, yaw in rad) as positions [B, T, 2] seen from `origin` [B, 3]."""
    return _seen_from(origin, poses[..., :2])


def _seen_from(pose: Floats, points: Floats) -> Floats:
    """Points [B, T, 2] in the frame of `pose` [B, 3]."""
    cos, sin = np.cos(pose[:, 2, None]), np.sin(pose[:, 2, None])
    x, y = np.moveaxis(points - pose[:, None, :2], -1, 0)
    return np.stack([x * cos + y * sin, y * cos - x * sin], -1)


def _at_times(path: Floats, step_s: float, times_s: NDArray[np.floating]) -> Floats:
    """The path at the given times, interpolated; times after its end are left out. It starts at the origin."""
    whole = np.concatenate([np.zeros_like(path[:, :1]), path], 1)
    at = times_s[times_s <= step_s * path.shape[1] + 1e-9] / step_s
    before = np.minimum(at.astype(int), path.shape[1] - 1)
    share = (at - before)[None, :, None]
    return np.asarray(whole[:, before] * (1 - share) + whole[:, before + 1] * share)
