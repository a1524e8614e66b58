"""Fog, night and sensor noise, laid over rendered pictures by NumPy.

The renderer has no depth output, so surfaces carry where they are in alpha: GROUND is flat, and a pixel's
ray tells how far; other surfaces carry a place code along the road, 4 m wide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.rig import Camera, Rig
from simulation.arrays import Floats, Images
from simulation.falling import Falling
from simulation.meshes import CODES, EMISSIVE, GROUND, SKY
from simulation.roads import PERIOD_M
from simulation.scenarios import Scene

F32 = NDArray[np.float32]
ASIDE_M = 5.0
"""How far beside the line of sight objects stand, on average: keeps near objects from being at 0 m."""
NOISE_TABLE = 1 << 20
"""So many grains of noise, or enough for two large pictures."""
NIGHT_SKY = np.array([9, 11, 20], np.float32)
DUSK, DUSK_SKY = 0.8, np.array([255, 170, 128], np.float32)
"""Where it is less dark than the first, the sky still glows."""
HALF_BEAM_RAD = 0.45
"""Half width of the headlights' cone."""
REACH_M = 14.0
"""Where the headlights' light has halved."""


@dataclass(frozen=True, slots=True)
class Noise:
    """Grains by which bytes are made brighter or darker, never beyond 0..255: in bytes, eight times as fast as in
    numbers that can hold the sums."""

    brighter: Images
    darker: Images
    most: Images
    """That can be made so much brighter."""

    @classmethod
    def of(cls, grains: Floats) -> Noise:
        """Rounded."""
        whole = np.round(grains)
        brighter, darker = np.maximum(whole, 0).astype(np.uint8), np.maximum(-whole, 0).astype(np.uint8)
        return cls(brighter, darker, 255 - brighter)

    def add(self, rgb: Images, start: int, out: Images) -> None:
        """Writes to `out` a picture with grains from `start` on."""
        grains = slice(start, start + rgb.size)
        np.minimum(rgb, self.most[grains].reshape(rgb.shape), out=out)
        out += self.brighter[grains].reshape(rgb.shape)
        np.maximum(out, self.darker[grains].reshape(rgb.shape), out=out)
        out -= self.darker[grains].reshape(rgb.shape)


class Weather:
    """The light and air of B scenes, and the noise of their cameras."""

    def __init__(self, scenes: Sequence[Scene], rig: Rig) -> None:
        self.fog = [scene.fog_per_m for scene in scenes]
        self.darkness = [scene.darkness for scene in scenes]
        self.fog_rgb = [np.float32(195.0 * scene.sunlight) * np.ones(3, np.float32) for scene in scenes]
        self.rain, self.snow = [scene.rain for scene in scenes], [scene.snow for scene in scenes]
        self.seed = [scene.seed for scene in scenes]
        self.falling = Falling(rig.cameras[0].height_px, rig.cameras[0].width_px)
        geometry = [_ground_range(camera) for camera in rig.cameras]
        self.ground_m = np.stack([distance for distance, _ in geometry])
        bearing = np.stack([bearing for _, bearing in geometry])
        self.beam: F32 = np.exp(-((bearing / HALF_BEAM_RAD) ** 2)).astype(np.float32)
        self._grains = max(NOISE_TABLE, 6 * self.ground_m.size)
        noise = np.random.default_rng(11).normal(0.0, 1.0, self._grains)
        self.day_noise, self.night_noise = Noise.of(noise * 2.0), Noise.of(noise * 5.0)

    def apply(self, pictures: Images, codes: Images, s: Floats, time_s: float) -> Images:
        """RGB [B, C, H, W, 3] and its alpha codes [B, C, H, W] -> [B, C, H, W, 3] as a camera would give them."""
        out = np.empty_like(pictures)
        tick = round(time_s * 10)
        for row, (picture, code) in enumerate(zip(pictures, codes, strict=True)):
            rgb, noise = picture, self.day_noise
            if self.fog[row] > 0:
                rgb = self._foggy(rgb, code, row, s[row])
            if self.rain[row] > 0 or self.snow[row] > 0:
                rgb = self._falling(rgb, code, row, s[row], tick)
            if self.darkness[row] > 0:
                rgb, noise = self._dark(rgb, code, row, s[row]), self.night_noise
            start = (self.seed[row] % 65521 + tick * 8191) % (self._grains - rgb.size)
            noise.add(rgb, start, out[row])
        return out

    def _range(self, code: Images, s: float) -> F32:
        """Metres to what each pixel shows; the sky is far."""
        place = (np.arange(256) - 0.5) * PERIOD_M / CODES
        ahead = np.mod(place - s + PERIOD_M / 2, PERIOD_M) - PERIOD_M / 2
        table = np.hypot(ahead, ASIDE_M).astype(np.float32)
        table[SKY] = 1e4
        return np.where(code >= GROUND, self.ground_m, table[code])

    def _foggy(self, rgb: Images, code: Images, row: int, s: float) -> Images:
        """Koschmieder's law: what is seen fades into the fog with distance; lamps reach further."""
        depth = np.float32(self.fog[row]) * self._range(code, s)
        depth = np.where(rgb.max(-1) >= EMISSIVE, depth * np.float32(0.5), depth)
        clear = np.exp(-depth)[..., None]
        return np.asarray(rgb * clear + self.fog_rgb[row] * (1 - clear)).astype(np.uint8)

    def _falling(self, rgb: Images, code: Images, row: int, s: float, tick: int) -> Images:
        away, phase = self._range(code, s), tick + self.seed[row] % 997
        return self.falling.apply(rgb, code, away, self.rain[row], self.snow[row], phase)

    def _dark(self, rgb: Images, code: Images, row: int, s: float) -> Images:
        """A little sky glow, and one's own headlights; lamps shine by themselves."""
        away = self._range(code, s)
        light = np.float32(0.95) * self.beam / (1 + (away / np.float32(REACH_M)) ** 2)
        light = np.float32(1 - self.darkness[row]) + light
        light = np.where(rgb.max(-1) >= EMISSIVE, np.float32(1), np.minimum(light, 1))[..., None]
        sky = NIGHT_SKY if self.darkness[row] > DUSK else DUSK_SKY * np.float32(1 - 0.6 * self.darkness[row])
        lit = np.where((code == SKY)[..., None], sky, rgb * light)
        return np.asarray(lit).astype(np.uint8)


def _ground_range(camera: Camera) -> tuple[F32, F32]:
    """Metres to flat ground and bearing from straight ahead, for each pixel, [H, W]."""
    rays = Rig("one", (camera,)).rays(1)[0].reshape(camera.height_px, camera.width_px, 6)
    down = np.maximum(-rays[..., 2], 1e-3)
    distance = np.hypot(rays[..., 0], rays[..., 1]) * rays[..., 5] / down
    return np.minimum(distance, 1e3).astype(np.float32), np.arctan2(rays[..., 1], rays[..., 0]).astype(np.float32)
