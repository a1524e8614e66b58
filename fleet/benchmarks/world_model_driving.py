"""One policy from one instant, in the simulation and in a dream: do the two drives stay together?"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fleet.console import Watcher
from fleet.world_recipes import MIX
from model.config import NetworkConfig, TrainingConfig
from model.data import Samples, samples_from_arrays
from model.dreamer import Dreamer
from model.policy import PLAN_PERIOD_S
from model.rig import THREE_CAMERAS
from model.sequences import STEP_S
from model.torch_policy import TorchPolicy
from model.training import Hooks, train
from model.world_model import WorldModel
from simulation.arrays import Floats, Images
from simulation.drives import Drives
from simulation.episode import Perturbation, disturb_start
from simulation.imagined import Dream, driven, imagine
from simulation.scenarios import scenes
from simulation.world import World

T = TypeVar("T", bound=np.generic)
Apart = dict[str, dict[str, dict[str, float]]]
PLANS = (5, 15)
"""After one and three seconds."""
BEFORE_S = 2.0
"""The expert drives so long first; then the vehicle is put beside its way: the policy must look, and steer."""
ASIDE = Perturbation(start_lateral_m=0.8, start_heading_rad=0.10, start_speed=(0.7, 1.1))


@dataclass(frozen=True, slots=True)
class EpisodeRecipe:
    """The policy and where it drives."""

    worlds: int = 32
    train_steps: int = 300
    network: NetworkConfig = field(default_factory=lambda: NetworkConfig(stem_width=16, width=48))


def episodes(model: WorldModel, drives: Drives, seed: int, recipe: EpisodeRecipe, watch: Watcher) -> Apart:
    """What the policy sees -> after how long -> how far the drive is from the simulated one, means over worlds."""
    policy = _policy(drives, seed, recipe, watch)
    with World(scenes(MIX, recipe.worlds, seed + 1000, "heldout"), THREE_CAMERAS, seed) as world:
        while world.time_s < BEFORE_S - 1e-6:
            world.step(world.expert().trajectory)
        disturb_start(world, ASIDE)
        pair, action = _context(world)
        now, start = world.observe(), world.motion
        dreamer = Dreamer(model, THREE_CAMERAS)
        dreamer.begin(pair, action)
        seen: dict[str, Dream] = {"world model": dreamer, "last picture": _Frozen(pair[:, 1])}
        places = {name: imagine(policy, dream, now, start, PLANS[-1]).place_m for name, dream in seen.items()}
        real = driven(policy, world, PLANS[-1]).place_m
    return {
        name: {f"{n * PLAN_PERIOD_S:g} s": _apart(place[:, n - 1], real[:, n - 1]) for n in PLANS}
        for name, place in places.items()
    }


@dataclass(frozen=True, slots=True)
class _Frozen:
    """A dream in which nothing moves."""

    images: Images

    def step(self, action: NDArray[np.floating]) -> Images:
        """See `Dream`."""
        return self.images


def _apart(place: Floats, real: Floats) -> dict[str, float]:
    off = place - real
    return {
        "apart_m": float(np.hypot(*off.T).mean()),
        "aside_m": float(np.abs(off[:, 1]).mean()),
        "driven_m": float(np.hypot(*real.T).mean()),
        "steered_m": float(np.abs(real[:, 1]).mean()),
    }


def _context(world: World) -> tuple[Images, Floats]:
    """Two pictures, the second of the present instant, and the motion between them; drives on by a step."""
    before, metres, heading = world.observe().images, world.travelled_m.copy(), world.motion.heading.copy()
    world.step(world.expert().trajectory, STEP_S)
    moved = np.stack([world.travelled_m - metres, world.motion.heading - heading], -1) / STEP_S
    return np.stack([before, world.observe().images], 1), moved


def _policy(drives: Drives, seed: int, recipe: EpisodeRecipe, watch: Watcher) -> TorchPolicy:
    config = TrainingConfig(steps=recipe.train_steps, batch=48, peak_rate=2e-3, warmup_steps=10, threads=1)
    hooks = Hooks(progress=lambda done, of, loss: watch("policy", done, of, f"loss {loss:.2f}"))
    checkpoint = train(_samples(drives), THREE_CAMERAS, recipe.network, config, seed=seed, hooks=hooks)
    return TorchPolicy(checkpoint, THREE_CAMERAS)


def _samples(drives: Drives) -> Samples:
    """Every second instant, as far apart as a policy plans."""

    return samples_from_arrays(
        _flat(drives.images),
        speed_mps=_flat(drives.speed_mps),
        yaw_rate_radps=_flat(drives.yaw_rate_radps),
        command=_flat(drives.command),
        target=_flat(drives.target),
        source="drives",
    )


def _flat(array: NDArray[T]) -> NDArray[T]:
    kept = array[:, :: round(PLAN_PERIOD_S / STEP_S)]
    return kept.reshape(-1, *array.shape[2:])
