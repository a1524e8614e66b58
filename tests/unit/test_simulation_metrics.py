"""Time to collision along a lane, worked by hand."""

from __future__ import annotations

import numpy as np

from simulation.metrics import NEVER_S, time_to_collision


def test_time_to_collision() -> None:
    seconds = time_to_collision([10.0, 10.0, 10.0, -1.0], [7.0, 5.0, 5.0, 0.0], [2.0, 5.0, 9.0, 9.0])
    np.testing.assert_allclose(seconds, [2.0, NEVER_S, NEVER_S, 0.0])
