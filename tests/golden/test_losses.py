"""The first steps of the recipe `tiny`: their losses and gradient norms stay what they are.

A change that is meant is written down by `python -m tests.golden.test_losses`; review the diff. The idea is
torchtitan's (tests/assets/losses)."""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model.data import Samples
from model.gradients import parted
from model.long_run import Course, Step, Watch, train_long
from model.recipes import tiny
from model.rig import THREE_CAMERAS
from tests.unit.model_samples import some_samples

FIGURES = Path(__file__).parent / "losses.json"
STEPS, BATCH = 6, 8
TOLERANCE = 1e-5
"""Relative. The same steps without vector instructions, with AVX2 and with AVX-512 (ATEN_CPU_CAPABILITY) differ by
1.5e-7: another order of addition. A hundred times that is still far below what any change of the training
makes."""


def measured() -> dict[str, list[float]]:
    """Of a few small batches, by the recipe's own training."""
    config = replace(tiny().clone, steps=STEPS, batch=BATCH, warmup_steps=2, threads=1)
    course = Course(tiny().network, config, THREE_CAMERAS, "golden", seed=1)
    samples = some_samples(STEPS * BATCH, seed=7)

    def draw(number: int) -> list[Samples]:
        return parted(samples.take(slice(number * BATCH, (number + 1) * BATCH)), config.parts)

    steps: list[Step] = []
    with tempfile.TemporaryDirectory() as folder:
        train_long(course, draw, Path(folder), watch=Watch(step=steps.append))
    return {"loss": [s.loss for s in steps], "gradient": [s.gradient for s in steps]}


@pytest.mark.parametrize("of", ["loss", "gradient"])
def test_the_first_losses_are_what_they_were(of: str, found: dict[str, list[float]]) -> None:
    np.testing.assert_allclose(found[of], json.loads(FIGURES.read_text())[of], rtol=TOLERANCE)


@pytest.fixture(scope="module")
def found() -> dict[str, list[float]]:
    """Measured once."""
    return measured()


def main() -> None:
    """Write the figures anew."""
    FIGURES.write_text(json.dumps(measured(), indent=1) + "\n")
    sys.stdout.write(f"losses of {STEPS} steps in {FIGURES}\n")


if __name__ == "__main__":
    main()
