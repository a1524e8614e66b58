"""The worlds that measured results rest on stay as they are: what is added must not touch them.

Figures instead of digests of bits, as another processor's last digits are its own; a draw more or less shows in
them at once. `python -m tests.golden.test_present_worlds` writes them anew; the demo and `fleet benchmark
flywheel` must then be measured again.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from model.rig import THREE_CAMERAS
from simulation.episode import Supervised, record_expert
from simulation.scenarios import CONDITIONS, scenes
from simulation.world import World

FIGURES = Path(__file__).parent / "present_worlds.json"
TRUTHS = ("x_m", "y_m", "speed_mps", "accel_mps2", "ttc_s", "person_ttc_s", "lateral_error_m")
Figures = dict[str, list[float]]


def states(condition: str) -> Figures:
    """Of half a minute under the expert, who hurries in part so that the safety driver is needed too: each truth's
    mean size by vehicle, how often each rule and tag held, and who was stopped for what."""
    found: dict[str, list[float]] = {}
    for seed, haste in ((3, 1.0), (4, 1.15)):
        world = World(scenes({condition: 1}, 6, seed, "train"), None, seed)
        supervised, sums, taken = Supervised(world), Counter[str](), Counter[str]()
        sizes = {name: np.zeros(6) for name in TRUTHS}
        for _ in range(150):
            expert = world.expert()
            outcome = supervised.step((expert.trajectory * haste).astype(np.float32))
            status = world.status()
            taken.update(e.cause for e in outcome.disengagements)
            sums.update({name: int(np.sum(on)) for name, on in status.tags.items()})
            sums["rules"] += int(np.sum(expert.rule))
            sizes = {name: size + np.abs(getattr(status, name)) for name, size in sizes.items()}
        found |= {f"{name}, {seed}": (size / 150).round(6).tolist() for name, size in sizes.items()}
        found |= {f"{name}, {seed}": [float(n)] for name, n in sorted((sums + taken).items())}
    return found


def frames(condition: str) -> Figures:
    """Of what is recorded to learn from: pictures by camera and colour, and the expert's answers."""
    recording = record_expert(scenes({condition: 1}, 2, 5, "train"), THREE_CAMERAS, 2.0, 5)
    pixels = recording.images.astype(np.float64)
    return {
        "pixels": pixels.mean((0, 2, 3)).ravel().round(4).tolist(),
        "contrast": pixels.std((0, 2, 3)).ravel().round(4).tolist(),
        "target": np.abs(recording.target).mean(0).ravel().round(5).tolist(),
    }


def measured(condition: str) -> Figures:
    return states(condition) | frames(condition)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_present_worlds_unfold_and_look_as_they_did(condition: str) -> None:
    known: Figures = json.loads(FIGURES.read_text())[condition]
    found = measured(condition)
    assert found.keys() == known.keys()
    for name, figures in known.items():
        assert found[name] == pytest.approx(figures, rel=1e-4, abs=1e-4), name


def test_the_first_loop_knows_these_conditions_and_no_others() -> None:
    assert list(json.loads(FIGURES.read_text())) == list(CONDITIONS)


if __name__ == "__main__":
    FIGURES.write_text(json.dumps({name: measured(name) for name in CONDITIONS}) + "\n")
    sys.stdout.write(f"{len(CONDITIONS)} conditions in {FIGURES}\n")
