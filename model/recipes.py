"""A run is a function that returns a complete configuration. The command line picks one by name."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

from model.config import BadConfig, Gaps, NetworkConfig, Recipe, TrainingConfig

GAPS = Gaps(camera=0.05, past=0.1, signals=0.1)
"""What breaks, begins or is not told, as often as a fleet's vehicles do."""


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


def tiny() -> Recipe:
    """Under a million parameters: a good hour on one core."""
    return Recipe(
        name="tiny",
        network=NetworkConfig(width=96, heads=4, stem_width=32, token_depth=1, latent_depth=4, latents=8, modes=6),
        base_frames=64_000,
        clone=TrainingConfig(steps=4_000, batch=64, peak_rate=2e-3, warmup_steps=100, camera_dropout=0.1),
        clips_per_turn=120,
        fine_tune=_fine_tune(steps=800, batch=64, peak_rate=1e-3),
    )


def small() -> Recipe:
    """Some ten million: a GPU, or many cores."""
    return Recipe(
        name="small",
        network=_seeing(2, width=256, heads=8, stem_width=64, token_depth=3, latent_depth=6, latents=16, modes=6),
        base_frames=1_000_000,
        clone=TrainingConfig(
            steps=20_000, batch=256, peak_rate=1e-3, warmup_steps=500, gaps=GAPS, parts=8, bf16=True
        ),
        clips_per_turn=2_000,
        fine_tune=_fine_tune(steps=2_000, batch=256, peak_rate=4e-4),
    )


def base() -> Recipe:
    """Some hundred million: the GPUs of one machine."""
    return Recipe(
        name="base",
        network=_seeing(4, width=768, heads=12, stem_width=96, token_depth=4, latent_depth=6, latents=32, modes=6),
        base_frames=20_000_000,
        clone=TrainingConfig(
            steps=100_000,
            batch=1024,
            peak_rate=4e-4,
            warmup_steps=2_000,
            weight_decay=0.05,
            gaps=GAPS,
            parts=16,
            bf16=True,
            compiled=True,
            keep_every=1_000,
        ),
        clips_per_turn=20_000,
        fine_tune=_fine_tune(steps=5_000, batch=1024, peak_rate=1e-4),
    )


def large() -> Recipe:
    """Some thousand million: several machines; activations are recomputed."""
    return Recipe(
        name="large",
        network=_seeing(
            8, width=1792, heads=28, stem_width=128, token_depth=11, latent_depth=14, latents=64, modes=8
        ),
        base_frames=200_000_000,
        clone=TrainingConfig(
            steps=250_000,
            batch=4096,
            peak_rate=2e-4,
            warmup_steps=5_000,
            weight_decay=0.1,
            gaps=GAPS,
            parts=64,
            bf16=True,
            recompute=True,
            compiled=True,
            keep_every=1_000,
        ),
        clips_per_turn=100_000,
        fine_tune=_fine_tune(steps=10_000, batch=2048, peak_rate=5e-5),
    )


def _seeing(history: int, **shape: int) -> NetworkConfig:
    """A network that sees so many instants, does without what is missing, and learns from all labels of the
    simulated world: what is large enough to have use of them."""
    return NetworkConfig(**shape, history=history, gaps=1, occupancy=1, tags=1, motion=1)


def _fine_tune(steps: int, batch: int, peak_rate: float) -> TrainingConfig:
    """Shares of replay and of slowed frames as the demo's turns were tuned with."""
    return TrainingConfig(
        steps=steps,
        batch=batch,
        peak_rate=peak_rate,
        warmup_steps=max(steps // 20, 1),
        replay_share=0.6,
        slowed_share=0.25,
    )


RECIPES: MappingProxyType[str, Callable[[], Recipe]] = MappingProxyType(
    {run.__name__: run for run in (demo, quick, tiny, small, base, large)}
)


def recipe(name: str) -> Recipe:
    """The recipe of that name. Raises BadConfig with the names there are."""
    if name not in RECIPES:
        raise BadConfig(f"no recipe {name!r}; there are {', '.join(RECIPES)}")
    return RECIPES[name]()
