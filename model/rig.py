"""A rig: the set of cameras of a vehicle, and the ray each image patch looks along."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray


class BadRig(ValueError):
    """A rig that cannot be used: names the camera and the value."""


@dataclass(frozen=True, slots=True)
class Camera:
    """A pinhole camera. Vehicle frame: x forward, y left, z up, metres and radians, origin on the road below
    the rear axle. Positive yaw turns left, positive pitch looks up. Square pixels, principal point centred."""

    name: str
    width_px: int
    height_px: int
    horizontal_fov_rad: float
    x_m: float
    y_m: float
    z_m: float
    yaw_rad: float = 0.0
    pitch_rad: float = 0.0

    def __post_init__(self) -> None:
        if self.width_px < 1 or self.height_px < 1:
            raise BadRig(f"camera {self.name!r}: size {self.width_px}x{self.height_px} px must be positive")
        if not 0.05 < self.horizontal_fov_rad < 3.1:
            raise BadRig(f"camera {self.name!r}: field of view {self.horizontal_fov_rad} rad not in 0.05..3.1")
        pose = (self.x_m, self.y_m, self.z_m, self.yaw_rad, self.pitch_rad)
        if not np.isfinite(pose).all():
            raise BadRig(f"camera {self.name!r}: pose {pose} is not finite")

    @property
    def focal_px(self) -> float:
        """Focal length in pixels."""
        return self.width_px / 2 / float(np.tan(self.horizontal_fov_rad / 2))

    @property
    def rotation(self) -> NDArray[np.float64]:
        """From the camera's axes (x along its view, y left, z up) to the vehicle's, [3, 3]."""
        return _rotation(self.yaw_rad, self.pitch_rad)


@dataclass(frozen=True, slots=True)
class Rig:
    """The cameras of a vehicle, in the order in which images are given; all of one size."""

    name: str
    cameras: tuple[Camera, ...]

    def __post_init__(self) -> None:
        if not self.cameras:
            raise BadRig(f"rig {self.name!r} has no camera")
        if len({(c.width_px, c.height_px) for c in self.cameras}) > 1:
            raise BadRig(f"rig {self.name!r}: cameras differ in image size; resize them to one")

    def rays(self, patch_px: int) -> NDArray[np.float32]:
        """Where each patch looks from and to: float32 [C, P, 6], unit direction (3) and origin in m (3) in
        the vehicle frame, P patches row by row. Raises BadRig where patches do not tile the image."""
        return np.stack([_camera_rays(c, patch_px) for c in self.cameras])


def _camera_rays(camera: Camera, patch_px: int) -> NDArray[np.float32]:
    if camera.width_px % patch_px or camera.height_px % patch_px:
        raise BadRig(
            f"camera {camera.name!r}: {patch_px} px patches do not tile {camera.width_px}x{camera.height_px} px"
        )
    u = np.arange(camera.width_px // patch_px) * patch_px + patch_px / 2 - camera.width_px / 2
    v = np.arange(camera.height_px // patch_px) * patch_px + patch_px / 2 - camera.height_px / 2
    right, down = np.meshgrid(u / camera.focal_px, v / camera.focal_px)
    local = np.stack([np.ones_like(right), -right, -down], -1).reshape(-1, 3)
    direction = local @ camera.rotation.T
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    origin = np.broadcast_to([camera.x_m, camera.y_m, camera.z_m], direction.shape)
    return np.concatenate([direction, origin], 1).astype(np.float32)


def _rotation(yaw_rad: float, pitch_rad: float) -> NDArray[np.float64]:
    cy, sy, cp, sp = np.cos(yaw_rad), np.sin(yaw_rad), np.cos(pitch_rad), np.sin(pitch_rad)
    yaw = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    pitch = np.array([[cp, 0, -sp], [0, 1, 0], [sp, 0, cp]])
    return np.asarray(yaw @ pitch)


def rig_from_dict(data: dict[str, Any]) -> Rig:
    """A rig from its JSON form {"name", "cameras": [{Camera fields}]}. Raises BadRig naming the field."""
    try:
        return Rig(data["name"], tuple(Camera(**c) for c in data["cameras"]))
    except (KeyError, TypeError) as error:
        raise BadRig(f"rig description is not usable: {error}") from error


THREE_CAMERAS = Rig(
    "three-96x48",
    (
        Camera("left", 96, 48, 1.20, 1.6, 0.3, 1.5, yaw_rad=0.96),
        Camera("front", 96, 48, 1.20, 1.8, 0.0, 1.5),
        Camera("right", 96, 48, 1.20, 1.6, -0.3, 1.5, yaw_rad=-0.96),
    ),
)
"""The rig of the simulated fleet: 165 degrees across, three small images."""

DASHCAM = Rig("dashcam-1", (Camera("front", 96, 48, 2.0, 1.9, 0.0, 1.3, pitch_rad=-0.04),))
"""One wide camera behind a car's windscreen."""
DELIVERY_ROBOT = Rig(
    "robot-4",
    (
        Camera("front", 96, 48, 1.5, 0.5, 0.0, 0.6),
        Camera("left", 96, 48, 1.9, 0.0, 0.25, 0.6, yaw_rad=1.571),
        Camera("right", 96, 48, 1.9, 0.0, -0.25, 0.6, yaw_rad=-1.571),
        Camera("rear", 96, 48, 1.5, -0.4, 0.0, 0.6, yaw_rad=3.142),
    ),
)
"""Knee-high cameras all round a small delivery robot."""
VAN = Rig(
    "van-6",
    (
        Camera("front_left", 96, 48, 1.22, 2.3, 0.8, 2.2, yaw_rad=0.96, pitch_rad=-0.1),
        Camera("front", 96, 48, 1.22, 2.5, 0.0, 2.2, pitch_rad=-0.08),
        Camera("front_right", 96, 48, 1.22, 2.3, -0.8, 2.2, yaw_rad=-0.96, pitch_rad=-0.1),
        Camera("rear_left", 96, 48, 1.22, -1.0, 0.9, 2.2, yaw_rad=1.92, pitch_rad=-0.1),
        Camera("rear", 96, 48, 1.92, -1.6, 0.0, 2.2, yaw_rad=3.142, pitch_rad=-0.15),
        Camera("rear_right", 96, 48, 1.22, -1.0, -0.9, 2.2, yaw_rad=-1.92, pitch_rad=-0.1),
    ),
)
"""Six cameras under the roof of a van, 2.2 m high, looking all round."""
ALL_ROUND = Rig("three-and-rear", (*THREE_CAMERAS.cameras, *(c for c in VAN.cameras if c.name == "rear")))
"""The fleet's cameras and one that looks back, for who comes from behind: what explanations are learnt with."""
RIGS: dict[str, Rig] = {rig.name: rig for rig in (DASHCAM, THREE_CAMERAS, DELIVERY_ROBOT, VAN)}
"""Every rig that is simulated."""


def rig_named(name: str) -> Rig:
    """One of RIGS. Raises BadRig."""
    if name not in RIGS:
        raise BadRig(f"unknown rig {name!r}; known: {', '.join(RIGS)}")
    return RIGS[name]


def enlarged(rig: Rig, factor: int) -> Rig:
    """The same cameras with so many times the pixels each way: for people to look at."""
    cameras = (replace(c, width_px=c.width_px * factor, height_px=c.height_px * factor) for c in rig.cameras)
    return Rig(rig.name, tuple(cameras))
