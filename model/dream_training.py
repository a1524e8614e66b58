"""Training a world model: it dreams on from real pictures, and what it dreams is held against what came."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.config import BadConfig, TrainingConfig
from model.rig import Rig
from model.sequences import CONTEXT, BadSequences, Sequences, check
from model.training import NonFiniteLoss, learning_rate
from model.world_model import View, WorldConfig, WorldModel, view

LATENTS_WEIGHT = 0.005
"""Of latents' error (they are of unit size) against that of pixels in 0..1."""
Progress = Callable[[int, int, float], None]
"""Called after each step with (steps done, steps in all, mean squared error of pixels in grey levels)."""


@dataclass(frozen=True, slots=True)
class DreamTraining:
    """One run. Dreams are short at first: what stands where is learnt from one step, what stays from many."""

    optimiser: TrainingConfig
    """`batch` counts sequences, each seen by one camera; `steps` go over all phases."""
    phases: tuple[tuple[float, int], ...] = ((0.45, 2), (0.35, 5), (0.2, 10))
    """(share of the steps, steps dreamt)."""

    def __post_init__(self) -> None:
        if not self.phases or min(h for _, h in self.phases) < 1 or min(s for s, _ in self.phases) <= 0:
            raise BadConfig(f"dream training: phases {self.phases} need shares above 0 and at least one step each")

    def horizon(self, step: int) -> int:
        """Steps dreamt at a step of training."""
        edges = np.cumsum([share for share, _ in self.phases])
        phase = int(np.searchsorted(edges, step / self.optimiser.steps * edges[-1], side="right"))
        return self.phases[min(phase, len(self.phases) - 1)][1]


def train_world(
    sequences: Sequences,
    rig: Rig,
    network: WorldConfig,
    config: DreamTraining,
    *,
    seed: int,
    progress: Progress | None = None,
) -> WorldModel:
    """Deterministic for a seed. Raises BadSequences, BadRig, NonFiniteLoss."""
    check(sequences)
    longest = max(horizon for _, horizon in config.phases)
    if sequences.length < CONTEXT + longest:
        raise BadSequences(
            f"drives of {sequences.length} pictures are too short to dream {longest} steps from {CONTEXT}: record "
            f"at least {CONTEXT + longest}"
        )
    seen = view(rig)
    model = initial_world(network, seed).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), weight_decay=config.optimiser.weight_decay, betas=(0.9, 0.98)
    )
    for step in range(config.optimiser.steps):
        rng = np.random.default_rng([seed, step])
        cameras = [int(rng.integers(len(rig.cameras)))]
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config.optimiser, step)
        batch = sequences.draw(config.optimiser.batch, CONTEXT + config.horizon(step), cameras, rng)
        pixels, latents = dream_errors(model, seen.take(cameras), batch, int(rng.integers(config.horizon(step))))
        optimizer.zero_grad()
        (pixels + LATENTS_WEIGHT * latents).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.optimiser.largest_gradient)
        optimizer.step()
        error = pixels.item()
        if not math.isfinite(error):
            raise NonFiniteLoss(f"loss is {error} after {step + 1} steps: lower peak_rate")
        if progress:
            progress(step + 1, config.optimiser.steps, error * 255**2)
    return model.eval()


def initial_world(network: WorldConfig, seed: int) -> WorldModel:
    """A fresh model: it dreams what moves in an empty flat world."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return WorldModel(network)


def dream_errors(model: WorldModel, seen: View, batch: Sequences, told: int) -> tuple[Tensor, Tensor]:
    """Mean squared error over all steps of pixels in 0..1, and of the latents dreamt at step `told` from those
    that real pictures give: these are held fixed, so that dreams follow sight and not the other way round."""
    images, actions = torch.from_numpy(batch.images), torch.from_numpy(batch.actions)
    state = model.begin(seen, images[:, :CONTEXT], actions[:, 0])
    pixels, latents = [], torch.zeros(())
    for k in range(images.shape[1] - CONTEXT):
        state = model.step(seen, state, actions[:, k + 1])
        real = images[:, k + CONTEXT].movedim(-1, 2).float() / 255
        pixels.append((state.picture - real).square().mean())
        if k == told:
            with torch.no_grad():
                sight = model.encode(seen, images[:, k + 1 : k + 3], actions[:, k + 1])
            latents = (state.latents - sight).square().mean()
    return torch.stack(pixels).mean(), latents
