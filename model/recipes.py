"""A run is a function that returns a complete configuration. The command line picks one by name."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

from model.config import BadConfig, NetworkConfig, Recipe, TrainingConfig


def demo() -> Recipe:
    """The loop of `fleet demo`: minutes on two cores."""
    return Recipe(
        name="demo",
        network=NetworkConfig(stem_width=32),
        base_frames=34_000,
        clone=TrainingConfig(steps=1_900, batch=48, peak_rate=2e-3),
        clips_per_turn=80,
        fine_tune=TrainingConfig(
            steps=600, batch=64, peak_rate=1e-3, warmup_steps=30, replay_share=0.6, slowed_share=0.25
        ),
    )


def quick() -> Recipe:
    """The same loop cut down for tests: it turns, it learns next to nothing."""
    return Recipe(
        name="quick",
        network=NetworkConfig(width=32, heads=2, stem_width=8, latent_depth=1, latents=2, modes=3),
        base_frames=800,
        clone=TrainingConfig(steps=40, batch=32, warmup_steps=5),
        clips_per_turn=12,
        fine_tune=TrainingConfig(
            steps=20, batch=32, peak_rate=1e-3, warmup_steps=5, replay_share=0.45, slowed_share=0.25
        ),
    )


RECIPES: MappingProxyType[str, Callable[[], Recipe]] = MappingProxyType({"demo": demo, "quick": quick})


def recipe(name: str) -> Recipe:
    """The recipe of that name. Raises BadConfig with the names there are."""
    if name not in RECIPES:
        raise BadConfig(f"no recipe {name!r}; there are {', '.join(RECIPES)}")
    return RECIPES[name]()
