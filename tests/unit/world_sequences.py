"""Small sequences for the world model's tests."""

from __future__ import annotations

import numpy as np

from model.rig import DASHCAM, THREE_CAMERAS, Rig
from model.sequences import Sequences


def some_sequences(drives: int = 4, length: int = 6, rig: Rig = DASHCAM, seed: int = 0) -> Sequences:
    """Smooth random pictures that brighten with the speed; no geometry in them."""
    rng = np.random.default_rng(seed)
    actions = np.stack(
        [rng.uniform(0, 12, (drives, length - 1)), rng.uniform(-0.2, 0.2, (drives, length - 1))], -1
    )
    camera, count = rig.cameras[0], len(rig.cameras)
    coarse = rng.integers(40, 180, (drives, 1, count, camera.height_px // 8, camera.width_px // 8, 3))
    fine = coarse.repeat(8, 3).repeat(8, 4).repeat(length, 1).astype(float)
    fine[:, 1:] += 4 * actions[..., 0, None, None, None, None].cumsum(1).clip(0, 15)
    return Sequences(fine.clip(0, 255).astype(np.uint8), actions.astype(np.float32))


def still_sequences(drives: int = 2, length: int = 6, rig: Rig = THREE_CAMERAS) -> Sequences:
    """Nothing moves, nor does the vehicle."""
    one = some_sequences(drives, length, rig, seed=7)
    return Sequences(one.images[:, :1].repeat(length, 1), np.zeros_like(one.actions))
