"""ONE table: what may be wrong with a vehicle's cameras, and how its pictures show it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from model.rig import Camera, Rig
from simulation.arrays import Floats, Images, chance

DIRT_RGB = np.array([74, 66, 54], np.float32)
BLOBS = 9


@dataclass(frozen=True, slots=True)
class Fault:
    """A sensor fault; zeros where it does not apply."""

    name: str
    dirt: float = 0.0
    """How much of a picture is dirty, about."""
    lost: bool = False
    """One camera gives black pictures."""
    frozen: bool = False
    """One camera repeats its first picture."""
    shake_rad: float = 0.0
    """How far cameras swing from one picture to the next, standard deviation."""
    askew_rad: float = 0.0
    """How far each camera looks beside where the rig says, at most, in yaw; half of it in pitch."""


SOUND = Fault("")
FAULTS: dict[str, Fault] = {
    fault.name: fault
    for fault in (
        Fault("dirty_camera", dirt=0.35),
        Fault("lost_camera", lost=True),
        Fault("frozen_camera", frozen=True),
        Fault("shaking_camera", shake_rad=0.02),
        Fault("wrong_calibration", askew_rad=0.09),
    )
}


def mounted(camera: Camera, fault: Fault, seed: int, index: int) -> Camera:
    """The camera as it really looks, while the policy is told of the rig's."""
    if not fault.askew_rad:
        return camera
    yaw, pitch = (2 * chance(seed, 500, index, np.arange(2)) - 1) * fault.askew_rad
    return replace(camera, yaw_rad=camera.yaw_rad + float(yaw), pitch_rad=camera.pitch_rad + float(pitch) / 2)


def swing(fault: Fault, seed: int, tick: int, cameras: int) -> Floats:
    """Yaw and pitch by which shaking cameras are turned at an instant, [C, 2], rad. A sum of four even draws is
    near enough to normal."""
    draws = chance(seed, 501, tick, np.arange(cameras * 8)).reshape(cameras, 2, 4)
    return np.asarray((draws.sum(-1) - 2.0) * np.sqrt(3.0) * fault.shake_rad)


class Lenses:
    """What faults do to the pictures of B vehicles after the light has come through."""

    def __init__(self, faults: Sequence[Fault], seeds: Sequence[int], rig: Rig) -> None:
        self._faults = faults
        count = len(rig.cameras)
        self._which = [int(chance(seed, 502) * count) for seed in seeds]
        self._first: dict[int, Images] = {}
        self._dirt = {
            row: np.stack([_dirt(camera, fault.dirt, seed, i) for i, camera in enumerate(rig.cameras)])
            for row, (fault, seed) in enumerate(zip(faults, seeds, strict=True))
            if fault.dirt
        }

    def spoil(self, images: Images) -> Images:
        """Images [B, C, H, W, 3], changed in place; returns them."""
        for row, fault in enumerate(self._faults):
            which = self._which[row]
            if row in self._dirt:
                mask = self._dirt[row]
                images[row] = (images[row] * (1 - mask) + DIRT_RGB * mask).astype(np.uint8)
            if fault.lost:
                images[row, which] = 0
            if fault.frozen:
                images[row, which] = self._first.setdefault(row, images[row, which].copy())
        return images


def _dirt(camera: Camera, share: float, seed: int, index: int) -> NDArray[np.float32]:
    """How opaque the dirt on a lens is, [H, W, 1]: soft blobs that cover about `share` of it."""
    height, width = camera.height_px, camera.width_px
    x, y, size = chance(seed, 503, index, np.arange(3 * BLOBS)).reshape(3, BLOBS, 1, 1)
    down, right = np.mgrid[0:height, 0:width] / float(height)
    radius = (0.5 + size) * np.sqrt(share * width / height / BLOBS / np.pi)
    away = ((right - x * width / height) ** 2 + (down - y) ** 2) / radius**2
    return np.asarray(0.92 * np.clip(1.6 * np.exp(-away).max(0), 0, 1)[..., None], np.float32)
