"""Rain and snow: how they change the light on a scene, and what falls before the lens."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulation.arrays import Images
from simulation.meshes import GROUND

F32 = NDArray[np.float32]
MASKS = 6
"""Patterns of what falls; each picture takes one, shifted."""
RAIN_HAZE_PER_M, SNOW_HAZE_PER_M = 0.010, 0.022
"""Extinction at full strength."""
SKY_RGB = np.array([150, 156, 164], np.float32)
FLAKE_RGB = np.array([238, 240, 244], np.float32)


class Falling:
    """Patterns of streaks and flakes for pictures of one size."""

    def __init__(self, height_px: int, width_px: int) -> None:
        rng = np.random.default_rng(13)
        shape, side = (MASKS, height_px, width_px), max(1, round(height_px / 90))
        self._streaks = _blurred(rng.uniform(0, 1, shape) > 0.996, round(height_px / 9) + 2, 1)
        self._flakes = _blurred(rng.uniform(0, 1, shape) > 1 - 0.012 / side**2, side, side)

    def apply(self, rgb: Images, code: Images, away_m: F32, rain: float, snow: float, tick: int) -> Images:
        """RGB [C, H, W, 3] in the weather; `code` its alpha and `away_m` [C, H, W] how far each pixel is."""
        haze = np.float32(RAIN_HAZE_PER_M * rain + SNOW_HAZE_PER_M * snow)
        clear = np.exp(-haze * np.minimum(away_m, 400))[..., None]
        out = rgb * clear * np.float32(1 - 0.22 * rain) + SKY_RGB * np.float32(1 - 0.15 * rain) * (1 - clear)
        if rain:
            # Wet ground mirrors the sky, the more the flatter one looks at it.
            glance = np.clip(away_m / 30, 0.1, 1)[..., None] * (code >= GROUND)[..., None]
            out = out + (SKY_RGB - out) * glance * np.float32(0.42 * rain)
        mask = np.roll(self._streaks if rain else self._flakes, (7 * tick) % 31, 1)
        fall = np.stack([mask[(tick + camera) % MASKS] for camera in range(len(rgb))])[..., None]
        strength = np.float32(0.3 * rain + 0.7 * snow)
        return np.asarray(out + (FLAKE_RGB - out) * fall * strength).astype(np.uint8)


def _blurred(seeds: NDArray[np.bool_], high: int, wide: int) -> F32:
    """Every seed grown into a box."""
    out = np.zeros(seeds.shape, np.float32)
    for down in range(high):
        for right in range(wide):
            out = np.maximum(out, np.roll(seeds, (down, right), (1, 2)))
    return out
