"""Skills of heads: worked by hand, and nothing for a head that knows nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from model import head_scores as scores
from model.head_scores import Skill, head_scores
from model.heads import HEADS
from model.recipes import quick
from model.rig import THREE_CAMERAS
from model.training import initial
from tests.unit.model_samples import labelled, some_samples

CONFIG = replace(quick().network, **dict.fromkeys(HEADS, 1))


def test_errors_are_held_against_those_of_the_median() -> None:
    truth = np.array([1, 3, np.nan, 5, 9], np.float32)
    found = scores._error(np.array([1, 2, 100, 5, 7], np.float32), truth)
    assert found == Skill(4, pytest.approx(0.75), pytest.approx(2.5))  # type: ignore[arg-type]
    assert found.skill == pytest.approx(0.7)
    assert scores._error(np.zeros(2, np.float32), np.full(2, np.nan, np.float32)).cases == 0


def test_probabilities_are_held_against_the_share_of_yes() -> None:
    truth = np.array([1, 0, -1, 0, 0], np.int8)
    found = scores._surprise(np.array([0.5, 0.5, 0.9, 0.5, 0.5]), truth)
    assert found.loss == pytest.approx(np.log(2))
    assert found.constant == pytest.approx(-0.25 * np.log(0.25) - 0.75 * np.log(0.75))
    assert found.cases == 4
    assert found.skill < 0
    assert scores._surprise(np.array([1.0, 0.0, 0.0, 0.0, 0.0]), truth).skill == pytest.approx(1, abs=1e-5)
    for always in (np.ones(3, np.int8), np.zeros(3, np.int8), np.full(3, -1, np.int8)):
        assert scores._surprise(np.full(3, 0.5), always) == Skill(0, 0.0, 0.0)


def test_a_constant_has_no_skill() -> None:
    assert Skill(3, 0.5, 0.5).skill == 0
    assert Skill(3, 0.0, 0.0).skill == 0


def test_every_head_with_labels_is_scored() -> None:
    found = head_scores(initial(CONFIG, 0), labelled(some_samples(150)), THREE_CAMERAS)
    assert {name.split(".")[0] for name in found} == {"occupancy", "tags", "motion", "risk"}
    assert {"motion.speed_mps", "tags.red", "occupancy.person", "risk"} <= set(found)
    assert found["occupancy.road"].cases == 150 * 256
    assert all(np.isfinite([s.loss, s.constant]).all() for s in found.values())
    assert not head_scores(initial(CONFIG, 0), some_samples(5), THREE_CAMERAS)
    with pytest.raises(ValueError, match="at least one frame"):
        head_scores(initial(CONFIG, 0), some_samples(5).head(0), THREE_CAMERAS)
