"""Frames seen as by a slower vehicle: what a policy does not see enough of is a slow vehicle on a free road.

A policy learns from its driver that who is slow stays slow, the more so the more of its clips brake, and creeps to
a stand on an empty road (the inertia problem: Codevilla et al., ICCV 2019, section 5). An image does not show how
fast its vehicle is, so a free frame may be shown again with a lower speed, and with the plan of a driver who pulls
away from there along the same way.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from model.data import Samples, mean_acceleration_mps2, way_m
from model.policy import PLAN_POINTS, PLAN_STEP_S

LEAST_MPS = 2.0
"""What is slower already is not slowed down."""
LARGEST_FACTOR = 0.8
LEAST_FRAMES = 20
"""Free frames in a speed band, below which nothing is said about it."""
TIMES_S = (PLAN_STEP_S * np.arange(1, PLAN_POINTS + 1)).astype(np.float32)


@dataclass(frozen=True, slots=True)
class PullAway:
    """The driver's mean acceleration over a plan on a free road."""

    speed_mps: NDArray[np.float64]
    """[K], rising; empty where nothing is known."""
    acceleration_mps2: NDArray[np.float64]
    """[K]."""

    def at(self, speed_mps: NDArray[np.floating]) -> NDArray[np.float64]:
        """[N], for speeds [N]; as in the nearest known band beyond the outermost ones."""
        return np.asarray(np.interp(speed_mps, self.speed_mps, self.acceleration_mps2))


def pull_away(samples: Samples) -> PullAway:
    """What a driver does on a free road, from his own samples: the median by bands of 1 m/s."""
    acceleration = mean_acceleration_mps2(samples)
    # Standing still is not pulling away, though its plan does not brake either.
    rows = np.flatnonzero(_is_free(samples) & (acceleration > 0))
    band = samples.speed_mps[rows].astype(np.int64)
    known = [b for b in range(int(band.max(initial=-1)) + 1) if (band == b).sum() >= LEAST_FRAMES]
    medians = [float(np.median(acceleration[rows[band == b]])) for b in known]
    return PullAway(np.array(known, np.float64) + 0.5, np.array(medians))


def slowed(samples: Samples, share: float, driver: PullAway, rng: np.random.Generator) -> Samples:
    """The samples with about `share` of their free frames slowed down by a factor in 0..LARGEST_FACTOR. A slower
    vehicle never gets further than the faster one would have got. Frames with a past show how fast
    they are, and stay as they are."""
    if not len(driver.speed_mps) or samples.past is not None:
        return samples
    drawn = (rng.random(len(samples)) < share) & _is_free(samples) & (samples.speed_mps > LEAST_MPS)
    rows = np.flatnonzero(drawn)
    factor = rng.uniform(0, LARGEST_FACTOR, len(samples)).astype(np.float32)[rows]
    speed, yaw_rate, target = samples.speed_mps.copy(), samples.yaw_rate_radps.copy(), samples.target.copy()
    speed[rows] *= factor
    yaw_rate[rows] *= factor
    wanted = speed[rows, None] * TIMES_S + driver.at(speed[rows])[:, None] * TIMES_S**2 / 2
    for row, distance_m, far_m in zip(rows, wanted, way_m(samples)[rows], strict=True):
        target[row] = _along(samples.target[row], far_m, np.minimum(distance_m, far_m))
    return replace(samples, speed_mps=speed, yaw_rate_radps=yaw_rate, target=target)


def _is_free(samples: Samples) -> NDArray[np.bool_]:
    """[N], whether the driver does not slow down over the plan."""
    return mean_acceleration_mps2(samples) >= 0


def _along(
    waypoints: NDArray[np.float32], way_m: NDArray[np.floating], distance_m: NDArray[np.floating]
) -> NDArray[np.float32]:
    """The points [T, 2] of a way that lie these distances [T] along it."""
    at = np.concatenate([[0.0], way_m])
    points = np.concatenate([np.zeros((1, 2), np.float32), waypoints])
    return np.stack([np.interp(distance_m, at, points[:, axis]) for axis in (0, 1)], 1).astype(np.float32)
