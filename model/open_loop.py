"""Open-loop metrics: how far plans are from what should have been driven (METRICS.md, 'Open loop')."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.data import Samples
from model.policy import Observation, Plan, Policy, frames_seen

MISS_M = 2.0
"""A plan misses when its last waypoint is further off than this (Argoverse, CVPR 2019)."""
CALIBRATION_BINS = 10
COVERAGE = 0.9
"""The central interval of the predicted Laplace distribution whose coverage is measured."""


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """Means over frames. Secondary figures: they do not predict closed-loop driving."""

    frames: int
    ade_m: float
    """Mean displacement of the most confident mode."""
    fde_m: float
    """Its displacement at the last waypoint."""
    min_ade_m: float
    """Mean displacement of the closest mode."""
    miss_rate: float
    """Share of frames where no mode ends within MISS_M."""
    mode_calibration_error: float
    """Expected calibration error of the best mode's confidence being the closest mode (10 equal bins)."""
    coverage: float
    """Share of coordinates inside the predicted central 90 % interval of the best mode."""


def open_loop(plan: Plan, target: NDArray[np.float32]) -> OpenLoop:
    """Compares plans for N frames with `target` [N, T, 2]. Raises ValueError when there is no frame."""
    if not len(target):
        raise ValueError("open-loop metrics need at least one frame")
    distance = np.linalg.norm(plan.modes - target[:, None], axis=3)
    each = np.arange(len(target))
    best, ade = plan.confidence.argmax(1), distance.mean(2)
    inside = np.abs(plan.best - target) <= -np.log(1 - COVERAGE) * plan.best_scale_m
    return OpenLoop(
        frames=len(target),
        ade_m=float(ade[each, best].mean()),
        fde_m=float(distance[each, best, -1].mean()),
        min_ade_m=float(ade.min(1).mean()),
        miss_rate=float((distance[:, :, -1].min(1) > MISS_M).mean()),
        mode_calibration_error=calibration_error(plan.confidence.max(1), best == ade.argmin(1)),
        coverage=float(inside.mean()),
    )


def calibration_error(confidence: NDArray[np.floating], right: NDArray[np.bool_]) -> float:
    """Expected calibration error (Guo et al., ICML 2017): mean over equal-width bins, weighted by frames,
    of |share that was right - mean confidence|."""
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gap = np.bincount(bins, right - confidence, CALIBRATION_BINS)
    return float(np.abs(gap).sum() / len(confidence))


def evaluate(policy: Policy, samples: Samples, batch: int = 512) -> OpenLoop:
    """Asks the policy for a plan of every frame and compares. Raises ValueError when there is no frame."""
    starts, frames = range(0, len(samples), batch), frames_seen(policy)
    plans = [policy.plan(observation(samples.with_history(slice(at, at + batch), frames))) for at in starts]
    return open_loop(concatenate_plans(plans), samples.target)


def observation(samples: Samples) -> Observation:
    """What a policy would have sensed at these frames, and before where they have a past
    (Samples.with_history)."""
    frames = 1 if samples.past is None else 1 + samples.past.shape[1]
    now, *earlier = np.split(samples.images, frames, 1)
    past = [
        Observation(images, samples.past[:, age, 0], samples.past[:, age, 1], samples.command)
        for age, images in enumerate(earlier)
        if samples.past is not None
    ]
    return Observation(now, samples.speed_mps, samples.yaw_rate_radps, samples.command, tuple(past))


def concatenate_plans(plans: list[Plan]) -> Plan:
    """The plans of several batches as those of one. Raises ValueError when there is none."""
    if not plans:
        raise ValueError("open-loop metrics need at least one frame")
    names = ("modes", "confidence", "scale_m", "embedding")
    return Plan(*(np.concatenate([getattr(plan, name) for plan in plans]) for name in names))
