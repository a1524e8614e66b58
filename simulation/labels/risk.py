"""Where a policy's driving was about to be stopped."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model.labels import RISK_STEPS
from simulation.arrays import Bools


def risk(engaged: Bools, failed: Bools) -> NDArray[np.int8]:
    """[T, B], from an episode's [T, B]: who was driven by the policy in each step, and whom the safety driver
    stopped in it. 1 where that happened within RISK_STEPS steps, that step included; 0 where the policy drove
    through all of them; -1 where neither is known, as the safety driver drives or the episode ends."""
    steps = len(engaged)
    out = np.full(engaged.shape, -1, np.int8)
    for at in range(steps):
        stopped = failed[at : at + RISK_STEPS].any(0)
        through = engaged[at : at + RISK_STEPS].all(0) & (at + RISK_STEPS <= steps)
        out[at] = np.where(stopped, 1, np.where(through, 0, -1))
    return np.where(engaged, out, np.int8(-1))
