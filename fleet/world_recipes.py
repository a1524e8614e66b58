"""How a world model is made here: drives recorded from plain and rich worlds, then training on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from fleet.console import Watcher
from model.config import TrainingConfig
from model.dream_training import DreamTraining, train_world
from model.rig import THREE_CAMERAS, Rig
from model.sequences import Sequences
from model.world_file import load_world, save_world
from model.world_model import WorldConfig, WorldModel
from simulation.drives import Drives, record_drives
from simulation.scenarios import CONDITIONS, SCENARIOS, Split, scenes

PLAIN: Mapping[str, float] = {"base": 3.0} | {name: 1.0 for name in CONDITIONS if name != "base"}
RICH: Mapping[str, float] = {
    name: 1.0 for name, row in SCENARIOS.items() if name not in CONDITIONS and not row.faults
}
MIX: Mapping[str, float] = {
    name: weight / sum(mix.values()) for mix in (PLAIN, RICH) for name, weight in mix.items()
}
"""Half of the drives in plain worlds, half in rich ones. Broken cameras show no world to be learnt."""
SEED = 1
"""Of a model that is made because there is none."""


@dataclass(frozen=True, slots=True)
class WorldRecipe:
    """A complete run."""

    drives: int
    frames: int
    """Pictures of each drive."""
    network: WorldConfig
    training: DreamTraining


def default() -> WorldRecipe:
    """Minutes on one core."""
    optimiser = TrainingConfig(steps=450, batch=12, peak_rate=3e-3, warmup_steps=30, weight_decay=0.01)
    return WorldRecipe(144, 24, WorldConfig(), DreamTraining(optimiser))


def quick() -> WorldRecipe:
    """Cut down for tests: it dreams little more than geometry."""
    optimiser = TrainingConfig(steps=12, batch=4, peak_rate=2e-3, warmup_steps=3, weight_decay=0.01)
    return WorldRecipe(12, 14, WorldConfig(width=16), DreamTraining(optimiser, ((0.6, 2), (0.4, 4))))


def recorded(recipe: WorldRecipe, rig: Rig, split: Split, seed: int, watch: Watcher) -> Drives:
    """The recipe's drives of a split, disturbed."""
    drawn = scenes(MIX, recipe.drives, seed, split)
    return record_drives(
        drawn, rig, recipe.frames, seed, progress=lambda done, of: watch(f"drives ({split})", done, of, "")
    )


def sequences(drives: Drives) -> Sequences:
    """What a world model learns from."""
    return Sequences(drives.images, drives.actions)


def trained(recipe: WorldRecipe, drives: Drives, rig: Rig, seed: int, watch: Watcher) -> WorldModel:
    """Raises NonFiniteLoss, BadSequences."""

    def progress(done: int, of: int, error: float) -> None:
        watch("world model", done, of, f"squared error {error:.0f}")

    return train_world(sequences(drives), rig, recipe.network, recipe.training, seed=seed, progress=progress)


def kept(path: Path, recipe: WorldRecipe, watch: Watcher) -> WorldModel:
    """The model of a file; where there is none, one is made and kept there: of three cameras, for any rig. Raises
    BadCheckpoint, OSError."""
    if path.exists():
        return load_world(path)
    watch.say(f"no world model at {path}: training one, once")
    drives = recorded(recipe, THREE_CAMERAS, "train", SEED, watch)
    model = trained(recipe, drives, THREE_CAMERAS, SEED, watch)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_world(model, path)
    return model


def with_drives(recipe: WorldRecipe, drives: int, frames: int) -> WorldRecipe:
    """The recipe, recording so much: for what is held out."""
    return replace(recipe, drives=drives, frames=frames)
