"""How a recorded road user drives on when the world is not as it was: along its path, braking for who is in front.

As nuPlan's reactive agents: others keep their recorded path and never go faster than they did there; they slow
down by the Intelligent Driver Model, and where that would be too late by the last speed that is still safe.
"""

from __future__ import annotations

import numpy as np

from simulation.arrays import Floats
from simulation.traffic import FAR_M, idm

HARDEST_MPS2 = 7.0
"""Braking that is possible, and that others are taken to be able to do."""
PICK_UP_MPS2 = 1.6
"""With which lost speed is regained."""
STANDING_M = 0.5
"""Least gap between those who stand."""


def next_speed(v: Floats, wish: Floats, recorded: Floats, gap: Floats, front_v: Floats, dt_s: float) -> Floats:
    """Speed after `dt_s` of who drives `v` and follows one at `front_v` behind a gap (m, FAR_M for nobody), and
    drove `recorded` here and `wish` at the next instant of its log. All broadcast."""
    gain = np.maximum((wish - recorded) / dt_s, PICK_UP_MPS2)
    free = np.minimum((wish - v) / dt_s, gain)
    following = np.where(gap < FAR_M / 2, idm(v, np.full_like(v, FAR_M), gap, front_v), np.inf)
    eased = v + np.minimum(free, following) * dt_s
    return np.asarray(np.clip(eased, 0.0, np.maximum(safe_speed(v, gap, front_v, dt_s), 0.0)))


def safe_speed(v: Floats, gap: Floats, front_v: Floats, dt_s: float) -> Floats:
    """The fastest speed after `dt_s` from which one still stops behind one that brakes with HARDEST_MPS2 from now
    on: (v + w) / 2 · dt + w² / 2b = gap - STANDING_M + front_v² / 2b, solved for w (Krauss, "Microscopic modeling
    of traffic flow", 1998, eq. 3.2, with this reaction time). Below 0 where there is none."""
    b = HARDEST_MPS2
    room = gap - STANDING_M + np.maximum(front_v, 0.0) ** 2 / (2 * b) - v * dt_s / 2
    return np.asarray(b * (np.sqrt(dt_s**2 / 4 + 2 * np.maximum(room, 0.0) / b) - dt_s / 2))
