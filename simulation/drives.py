"""Drives at 10 Hz for a world model: what was seen, how the vehicle moved in between, what the expert would do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.policy import PLAN_POINTS
from model.rig import Rig
from simulation.arrays import Floats, Images, Ints
from simulation.episode import Perturbation, disturb_start, disturbed
from simulation.manoeuvres import Steer
from simulation.scenarios import Scene
from simulation.world import PHYSICS_S, World

WILD = Perturbation(
    start_lateral_m=0.8,
    start_heading_rad=0.12,
    start_speed=(0.3, 1.25),
    share=0.6,
    block_s=0.9,
    curvature_per_m=0.05,
    speed=(0.3, 1.5),
)
"""Stronger than for imitation: a world model must know what actions do that no driver takes."""


@dataclass(frozen=True, slots=True)
class Drives:
    """N drives of T instants, PHYSICS_S apart."""

    images: Images
    """uint8 [N, T, C, H, W, 3]."""
    actions: NDArray[np.float32]
    """[N, T - 1, 2]: mean speed in m/s and yaw rate in rad/s between the instants."""
    speed_mps: NDArray[np.float32]
    """[N, T], as these: at the instants."""
    yaw_rate_radps: NDArray[np.float32]
    command: Ints
    target: NDArray[np.float32]
    """[N, T, PLAN_POINTS, 2]: the expert's trajectory."""
    lateral_m: Floats
    """[N, T], from where one may be on the road."""
    askew_rad: Floats
    """[N, T], against the road."""

    def __len__(self) -> int:
        return len(self.images)


def empty_drives(count: int, frames: int, rig: Rig) -> Drives:
    """Room for so many, allocated at once."""
    camera = rig.cameras[0]
    return Drives(
        images=np.empty((count, frames, len(rig.cameras), camera.height_px, camera.width_px, 3), np.uint8),
        actions=np.empty((count, frames - 1, 2), np.float32),
        speed_mps=np.empty((count, frames), np.float32),
        yaw_rate_radps=np.empty((count, frames), np.float32),
        command=np.empty((count, frames), np.int64),
        target=np.empty((count, frames, PLAN_POINTS, 2), np.float32),
        lateral_m=np.empty((count, frames)),
        askew_rad=np.empty((count, frames)),
    )


def drive_on(world: World, steer: Steer, out: Drives, first: int = 0) -> None:
    """Drives a world from its present instant and fills its rows of `out` from row `first` on. The last instant is
    seen, not driven on from. Raises RuntimeError for a world without cameras."""
    rows, frames = slice(first, first + len(world)), out.images.shape[1]
    for t in range(frames):
        seen, motion = world.observe(), world.motion
        out.images[rows, t], out.speed_mps[rows, t] = seen.images, seen.speed_mps
        out.yaw_rate_radps[rows, t], out.command[rows, t] = seen.yaw_rate_radps, seen.command
        out.target[rows, t] = world.expert().trajectory
        status = world.status()
        out.lateral_m[rows, t], out.askew_rad[rows, t] = status.lateral_error_m, status.heading_error_rad
        if t < frames - 1:
            metres, heading = world.travelled_m.copy(), motion.heading.copy()
            world.step(steer(world), PHYSICS_S)
            moved = np.stack([world.travelled_m - metres, world.motion.heading - heading], -1)
            out.actions[rows, t] = moved / PHYSICS_S


def record_drives(
    scenes: Sequence[Scene],
    rig: Rig,
    frames: int,
    seed: int,
    *,
    perturb: Perturbation | None = WILD,
    progress: Callable[[int, int], None] | None = None,
    batch: int = 32,
) -> Drives:
    """Every scene driven by the expert, disturbed unless `perturb` is None, from its start."""
    out = empty_drives(len(scenes), frames, rig)
    for first in range(0, len(scenes), batch):
        with World(scenes[first : first + batch], rig, seed) as world:
            if perturb:
                disturb_start(world, perturb)
            drive_on(world, lambda w: disturbed(w, perturb) if perturb else w.expert().trajectory, out, first)
        if progress:
            progress(min(first + batch, len(scenes)), len(scenes))
    return out
