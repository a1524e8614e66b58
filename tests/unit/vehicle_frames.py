"""Frames to test the vehicle with."""

from __future__ import annotations

from typing import Any

import numpy as np

from edge.agent.frame import PLAN_STEP_S, Frame
from streams.contracts.odd import ACCELERATION, LIGHT, SPEED, VISIBILITY, YAW_RATE

START_NS = 1_790_000_000_000_000_000
PERIOD_NS = 200_000_000
CAMERAS = ("left", "front", "right")


def plan(speed_mps: float = 10.0, lateral_m: float = 0.0) -> np.ndarray[Any, np.dtype[np.float32]]:
    """[8, 2]: straight on at constant speed, `lateral_m` to the left at the end."""
    steps = np.arange(1, 9)
    return np.stack([steps * PLAN_STEP_S * speed_mps, steps / 8 * lateral_m], -1).astype(np.float32)


def frame(number: int, **changes: Any) -> Frame:
    """Frame `number` of a vehicle that drives straight at 10 m/s, engaged, by day; `signals` are merged."""
    signals = {SPEED: 36.0, YAW_RATE: 0.0, ACCELERATION: 0.0, LIGHT: 90.0, VISIBILITY: 9000.0}
    signals |= changes.pop("signals", {})
    fields: dict[str, Any] = {
        "time_ns": START_NS + number * PERIOD_NS,
        "signals": signals,
        "engaged": True,
        "model_version": "m1",
        "plan_m": plan(),
        "scale_m": np.full((8, 2), 0.5, np.float32),
    }
    return Frame(**(fields | changes))


def pictures(number: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """[3, 48, 96, 3]: a smooth picture that differs from frame to frame."""
    rows, columns = np.mgrid[0:48, 0:96]
    base = np.stack([rows * 4 + number, columns * 2, rows + columns], -1) % 256
    return np.stack([(base + 20 * camera) % 256 for camera in range(3)]).astype(np.uint8)


def seen(number: int, **changes: Any) -> Frame:
    """A frame with images and everything else a clip can hold."""
    rng = np.random.default_rng(number)
    return frame(
        number,
        images=pictures(number),
        cameras=CAMERAS,
        embedding=rng.normal(size=64).astype(np.float32),
        driver_plan_m=plan(lateral_m=0.5),
        driver_rule="stop at sign",
        latency_ms=float(number % 7),
        watts=20.0,
        **changes,
    )
