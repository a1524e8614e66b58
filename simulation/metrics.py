"""Time to collision along a lane. Scores of whole drives are in simulation/scores, disengagement rates and their
intervals in monitoring/disengagements.py, distances between plans in model/open_loop.py."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from simulation.arrays import Floats

NEVER_S = 99.0
"""Time to collision of those who do not close in."""


def time_to_collision(gap_m: ArrayLike, rear_mps: ArrayLike, front_mps: ArrayLike) -> Floats:
    """Seconds until `gap_m` is used up at constant speeds: 0 where it already is, at most NEVER_S."""
    gap, closing = np.asarray(gap_m, float), np.subtract(rear_mps, front_mps).astype(float)
    seconds = np.maximum(gap, 0.0) / np.maximum(closing, 1e-3)
    return np.where(gap <= 0, 0.0, np.minimum(np.where(closing > 0, seconds, NEVER_S), NEVER_S))
