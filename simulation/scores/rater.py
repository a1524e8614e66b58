"""Waymo's rater feedback score (waymo-open-dataset rater_feedback_utils.py): how good raters would find plans, by
those that they rated. A plan within a trust region around a rated one gets its rating; outside, the rating fades,
down to a floor."""

from __future__ import annotations

import numpy as np

from simulation.arrays import Floats

AT_S = (3, 5)
LATERAL_M = np.array([1.0, 1.8])
"""Half widths of the trust region at AT_S, for a fast vehicle."""
LONGITUDINAL = 4.0
"""How much longer than wide it is."""
DECAY = 0.1
FLOOR = 4.0
"""Of 10: what a plan gets at least that is outside of every region."""


def thresholds(speed_mps: Floats) -> tuple[Floats, Floats]:
    """Lateral and longitudinal half widths of the trust region at AT_S, [B, 2] each; half as large below 1.4 m/s
    as above 11 m/s."""
    scale = np.clip(0.5 + 0.5 * (np.asarray(speed_mps) - 1.4) / 9.6, 0.5, 1.0)[:, None]
    return scale * LATERAL_M, scale * LATERAL_M * LONGITUDINAL


def rater_feedback(
    plans: Floats, confidence: Floats, rated: Floats, ratings: Floats, speed_mps: Floats, rate_hz: int = 4
) -> Floats:
    """The score 0..10 of B vehicles, [B]. `plans` [B, M, T, 2] with `confidence` [B, M], `rated` [B, R, T, 2] with
    `ratings` [B, R] 0..10; in the vehicle's frame, the first point 1 / rate_hz s ahead; `speed_mps` [B]. Raises
    ValueError for plans that end before 5 s."""
    if min(plans.shape[2], rated.shape[2]) < AT_S[-1] * rate_hz:
        raise ValueError(f"plans of {plans.shape[2]} points and rated ones of {rated.shape[2]} end before 5 s")
    at = np.array(AT_S) * rate_hz - 1
    along = _directions(rated)[:, :, None, at]
    apart = plans[:, None, :, at] - rated[:, :, None, at]
    lengthwise = np.abs((apart * along).sum(-1))
    sideways = np.abs(apart[..., 1] * along[..., 0] - apart[..., 0] * along[..., 1])
    lateral, longitudinal = thresholds(speed_mps)
    distance = np.maximum(sideways / lateral[:, None, None], lengthwise / longitudinal[:, None, None])
    faded = ratings[:, :, None, None] * DECAY ** np.maximum(distance - 1, 0.0)
    score = faded.max(1).mean(-1)
    trusted = (distance <= 1).all(-1).any(1)
    return np.asarray((np.where(trusted, score, np.maximum(score, FLOOR)) * confidence).sum(-1))


def _directions(path: Floats) -> Floats:
    """Unit vectors of the last step that moved, up to each point of [..., T, 2]; before any, straight ahead."""
    step = np.diff(np.concatenate([np.zeros_like(path[..., :1, :]), path], -2), axis=-2)
    length = np.linalg.norm(step, axis=-1)
    latest = np.maximum.accumulate(np.where(length > 0, np.arange(path.shape[-2]), -1), -1)
    safe = np.maximum(latest, 0)[..., None]
    unit = np.take_along_axis(step / np.where(length > 0, length, 1.0)[..., None], safe, -2)
    return np.where((latest >= 0)[..., None], unit, [1.0, 0.0])
