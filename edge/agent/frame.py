"""A frame: all that a vehicle knows at one instant. Sources make frames, the agent reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streams.contracts.drive import Pose

PLAN_STEP_S = 0.3
"""Time between waypoints; equal to model.policy.PLAN_STEP_S, which a vehicle without the model package lacks."""
KMH = 3.6
"""km/h in 1 m/s: VSS has speeds in km/h."""

Floats = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Frame:
    """One instant on one vehicle. What is not known is None or absent, never zero."""

    time_ns: int
    signals: Mapping[str, float]
    """VSS name (streams.contracts.odd) -> value in VSS's unit."""
    images: NDArray[np.uint8] | None = None
    """[C, H, W, 3], RGB, in the order of `cameras`."""
    cameras: tuple[str, ...] = ()
    command: int = 0
    """Route command of model.policy."""
    engaged: bool = False
    """The policy drives."""
    takeover_cause: str = ""
    """Why the driver took over, on the frame where that happened."""
    model_version: str = ""
    plan_m: Floats | None = None
    """[T, 2], the policy's trajectory in the vehicle frame."""
    scale_m: Floats | None = None
    """[T, 2], its predicted Laplace scale."""
    embedding: Floats | None = None
    """[D]."""
    driver_plan_m: Floats | None = None
    """[T, 2], what the driver (or the expert) did or would do from here."""
    driver_rule: str = ""
    pose: Pose | None = None
    latency_ms: float | None = None
    """Of the inference that made the plan."""
    watts: float | None = None
