"""How each vehicle moves, and where in its lane it is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulation.world import World


def motion(world: World) -> NDArray[np.float32]:
    """[B, 4]: model.labels.MOTION. The middle is that of the lane, whether or not one may draw aside here."""
    m = world.motion
    return np.stack([m.speed, m.yaw_rate, world.d - world.lane_d, world.heading_error], 1).astype(np.float32)
