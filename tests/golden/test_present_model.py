"""The models that measured results rest on train and drive as they did: what is added must not touch them.

Figures instead of digests of bits, as another processor's last digits are its own. `python -m
tests.golden.test_present_model` writes them anew; the demo and `fleet benchmark flywheel` must then be measured
again.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from model.checkpoint import Checkpoint, to_bytes
from model.config import TrainingConfig
from model.open_loop import observation
from model.recipes import RECIPES, recipe
from model.rig import THREE_CAMERAS
from model.torch_policy import TorchPolicy
from model.training import fine_tune, train
from tests.unit.model_samples import some_samples

FIGURES = Path(__file__).parent / "present_model.json"


def trained(name: str) -> Checkpoint:
    """Cloned and taught for a few steps by the recipe of that name."""
    network, samples = recipe(name).network, some_samples(64)
    first = TrainingConfig(steps=3, batch=16, warmup_steps=1, camera_dropout=0.5)
    base = train(samples, THREE_CAMERAS, network, first, seed=7)
    more = TrainingConfig(steps=3, batch=16, warmup_steps=1, replay_share=0.5, slowed_share=0.5)
    return fine_tune(base, samples, some_samples(32, "clip"), THREE_CAMERAS, more, seed=7)


def measured(name: str) -> dict[str, list[float]]:
    """Mean size of every weight, and what is planned for some frames."""
    checkpoint = trained(name)
    sizes = {
        n: [float(w.abs().mean()), float(w.std()) if w.numel() > 1 else 0.0] for n, w in checkpoint.weights.items()
    }
    plan = TorchPolicy(checkpoint, THREE_CAMERAS).plan(observation(some_samples(8, seed=3)))
    planned: dict[str, list[float]] = {
        f: np.abs(getattr(plan, f)).mean(0).ravel().tolist() for f in ("modes", "confidence", "scale_m")
    }
    return {key: np.round(values, 6).tolist() for key, values in (sizes | planned).items()}


def digest(name: str) -> str:
    """Of the weights' bits: the same on one machine as long as nothing of a plain network changes."""
    return hashlib.sha256(to_bytes(trained(name))).hexdigest()


@pytest.mark.parametrize("name", ["demo", "quick"])
def test_present_models_train_and_drive_as_they_did(name: str) -> None:
    known: dict[str, list[float]] = json.loads(FIGURES.read_text())[name]
    found = measured(name)
    assert list(found) == list(known)
    for key, figures in known.items():
        assert found[key] == pytest.approx(figures, rel=2e-3, abs=2e-4), key


if __name__ == "__main__":
    torch.set_num_threads(1)
    FIGURES.write_text(json.dumps({name: measured(name) for name in ("demo", "quick") if name in RECIPES}) + "\n")
    sys.stdout.write("".join(f"{name} {digest(name)}\n" for name in ("demo", "quick")))
