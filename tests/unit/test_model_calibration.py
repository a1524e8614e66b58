"""Temperatures: found where they are known, put into weights without changing what is driven or told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from model.calibration import MODES, Cases, calibrated, collect, error, temperature, told
from model.config import TrainingConfig
from model.heads import HEADS
from model.open_loop import evaluate, observation
from model.recipes import quick
from model.rig import THREE_CAMERAS
from model.torch_policy import TorchPolicy
from model.training import initial, train
from tests.unit.model_samples import labelled, some_samples

CONFIG = replace(quick().network, **dict.fromkeys(HEADS, 1))


def _drawn(times: float, count: int = 20_000) -> Cases:
    """Answers that are right as often as their logits divided by `times` say."""
    rng = np.random.default_rng(3)
    honest = rng.normal(0, 1.5, (count, 4))
    right = (honest + rng.gumbel(size=honest.shape)).argmax(1)
    return Cases(honest * times, right)


@pytest.mark.parametrize("times", [0.3, 1.0, 4.0])
def test_the_temperature_of_known_answers_is_found(times: float) -> None:
    cases = _drawn(times)
    found = temperature(cases)
    assert found == pytest.approx(times, rel=0.05)
    assert error(cases, found) < 0.01
    if times != 1.0:
        assert error(cases) > 0.05


def test_confidence_ends_at_the_hottest_where_it_is_wrong_and_cold_where_it_is_right() -> None:
    logits = np.array([[5.0, 0.0]] * 10)
    assert temperature(Cases(logits, np.ones(10, np.int64))) == pytest.approx(20, rel=0.01)
    assert temperature(Cases(logits, np.zeros(10, np.int64))) < 0.2


def test_calibrating_changes_confidences_and_nothing_else() -> None:
    checkpoint, samples = initial(CONFIG, 0), labelled(some_samples(150))
    cooled, temperatures = calibrated(checkpoint, samples, THREE_CAMERAS)
    assert set(temperatures) == {MODES, "occupancy", "tags", "risk"}
    before, after = (TorchPolicy(c, THREE_CAMERAS).plan(observation(samples)) for c in (checkpoint, cooled))
    np.testing.assert_array_equal(before.modes, after.modes)
    np.testing.assert_array_equal(before.scale_m, after.scale_m)
    np.testing.assert_array_equal(before.confidence.argmax(1), after.confidence.argmax(1))
    logits = np.log(before.confidence) / temperatures[MODES]
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(after.confidence, expected, rtol=1e-3)
    _, again = calibrated(cooled, samples, THREE_CAMERAS)
    assert all(t == pytest.approx(1.0, abs=0.02) or temperatures[n] > 19 for n, t in again.items())


def test_calibration_makes_errors_smaller_on_frames_that_it_was_not_fitted_on() -> None:
    samples = some_samples(300)
    checkpoint = train(samples, THREE_CAMERAS, quick().network, TrainingConfig(60, 32, warmup_steps=5), seed=0)
    weights = dict(checkpoint.weights)
    weights["mode.2.weight"] = weights["mode.2.weight"].clone()
    weights["mode.2.weight"][0] *= 30
    loud = replace(checkpoint, weights=weights)
    held_back, unseen = some_samples(300, seed=5), some_samples(300, seed=6)
    cooled, temperatures = calibrated(loud, held_back, THREE_CAMERAS)
    found = told(loud, unseen, THREE_CAMERAS, temperatures)[MODES]
    assert found.cases == 300
    assert found.temperature > 2
    assert found.error_after < 0.6 * found.error_before
    driven = evaluate(TorchPolicy(cooled, THREE_CAMERAS), unseen)
    assert driven.mode_calibration_error == pytest.approx(found.error_after, abs=1e-3)


def test_heads_without_labels_are_left_as_they_are() -> None:
    cooled, temperatures = calibrated(initial(CONFIG, 0), some_samples(20), THREE_CAMERAS)
    assert set(temperatures) == {MODES}
    for name, weight in initial(CONFIG, 0).weights.items():
        assert torch.equal(cooled.weights[name], weight) or name.startswith("mode.2.")
    gone = {n: np.full_like(label, -1) for n, label in labelled(some_samples(20)).labels.items() if n != "motion"}
    assert set(collect(initial(CONFIG, 0).build(), replace(some_samples(20), labels=gone), THREE_CAMERAS)) == {
        MODES
    }


def test_no_frame_is_no_calibration() -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        calibrated(initial(CONFIG, 0), some_samples(4).head(0), THREE_CAMERAS)
