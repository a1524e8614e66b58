"""Samples: checked on entry, balanced by manoeuvre, drawn the same for a seed and a step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from model.config import Balance
from model.data import MANOEUVRES, BadSamples, Mixture, Samples, balanced, concatenate, manoeuvre
from model.data import samples_from_arrays as make
from tests.unit.model_samples import some_samples

TIMES = np.arange(1, 9) * 0.3


def _driving(speed: float, acceleration: float, side: float = 0.0) -> Samples:
    x = np.maximum(speed * TIMES + 0.5 * acceleration * TIMES**2, 0)
    target = np.stack([x, side * TIMES / TIMES[-1]], 1)[None]
    return replace(some_samples(1), speed_mps=np.array([speed], np.float32), target=target.astype(np.float32))


@pytest.mark.parametrize(
    ("speed", "acceleration", "side", "expected"),
    [
        (0.0, 0.0, 0.0, "standing"),
        (0.0, 1.5, 0.0, "launching"),
        (8.0, -2.0, 0.0, "braking"),
        (8.0, 0.0, 3.0, "turning"),
        (8.0, 0.0, -3.0, "turning"),
        (8.0, 0.0, 0.0, "cruising"),
    ],
)
def test_each_manoeuvre_is_told_from_speed_and_target(
    speed: float, acceleration: float, side: float, expected: str
) -> None:
    assert MANOEUVRES[manoeuvre(_driving(speed, acceleration, side))[0]] == expected


def test_standing_frames_are_drawn_by_their_share_however_many_there_are() -> None:
    clips = concatenate([_driving(0, 0)] * 40 + [_driving(8, 0)] * 60)
    drawn = balanced(clips, Balance(standing=0.1, cruising=0.9))
    assert drawn.weight[:40].sum() / drawn.weight.sum() == pytest.approx(0.1, rel=1e-5)


def test_a_rare_manoeuvre_is_not_repeated_beyond_the_largest_gain() -> None:
    clips = concatenate([_driving(8, -2)] + [_driving(8, 0)] * 99)
    drawn = balanced(clips, Balance(braking=0.5, cruising=0.5, largest_gain=4))
    assert drawn.weight[0] == pytest.approx(4.0)


def test_concatenation_keeps_every_frame_and_where_it_came_from() -> None:
    first, second, third = some_samples(3, "a"), some_samples(2, "b"), some_samples(4, "a")
    whole = concatenate([first, second, third])
    assert [whole.sources[i] for i in whole.source] == ["a"] * 3 + ["b"] * 2 + ["a"] * 4
    np.testing.assert_array_equal(whole.images[3:5], second.images)
    np.testing.assert_array_equal(whole.target[5:], third.target)


def test_rigs_are_not_mixed() -> None:
    narrow = replace(some_samples(2), images=np.zeros((2, 1, 48, 96, 3), np.uint8))
    with pytest.raises(BadSamples, match="different rigs"):
        concatenate([some_samples(2), narrow])
    with pytest.raises(BadSamples, match="different rigs"):
        Mixture((some_samples(2), narrow), (0.5, 0.5), 4, seed=0)
    with pytest.raises(BadSamples, match="nothing"):
        concatenate([])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": np.full((4, 8, 2), np.nan)}, "target is not finite in 4 frames.*'clip-7'"),
        ({"speed_mps": np.array([1, 2, np.inf, 3])}, "speed_mps.*frame 2 of 'clip-7'"),
        ({"speed_mps": np.ones(3)}, "speed_mps is float32 .3., but there are 4 images"),
        ({"target": np.ones((4, 7, 2))}, r"target must be \[N, 8, 2\]"),
        ({"images": np.ones((4, 3, 48, 96, 3), np.float32)}, "images must be uint8"),
        ({"command": np.array([0, 1, 2, 9])}, "command 9 is not in 0..3, frame 3"),
    ],
)
def test_bad_arrays_are_named(change: dict[str, np.ndarray], message: str) -> None:
    good = some_samples(4)
    arrays = {
        "images": good.images,
        "speed_mps": good.speed_mps,
        "yaw_rate_radps": good.yaw_rate_radps,
        "command": good.command,
        "target": good.target,
    }
    with pytest.raises(BadSamples, match=message):
        make(**(arrays | change), source="clip-7")  # type: ignore[arg-type]


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    parts = (some_samples(50, "base"), some_samples(20, "clips"))
    one, other = (Mixture(parts, (0.45, 0.55), 32, seed=5) for _ in range(2))
    one.draw(0)
    np.testing.assert_array_equal(one.draw(7).target, other.draw(7).target)
    assert not np.array_equal(one.draw(7).target, one.draw(8).target)


def test_a_batch_holds_each_part_by_its_share() -> None:
    base, clips = some_samples(50), some_samples(20)
    base.target[:] = 1
    clips.target[:] = 2
    batch = Mixture((base, clips), (0.45, 0.55), 40, seed=0).draw(0)
    assert len(batch) == 40
    assert (batch.target[:, 0, 0] == 1).sum() == 18


def test_frames_without_weight_are_never_drawn() -> None:
    part = replace(some_samples(10), weight=np.array([0, 1] * 5, np.float32))
    part.target[:, 0, 0] = np.arange(10)
    mixture = Mixture((part,), (1.0,), 64, seed=0)
    assert set(mixture.draw(3).target[:, 0, 0].astype(int) % 2) == {1}
    with pytest.raises(BadSamples, match="no frame to draw"):
        Mixture((replace(part, weight=np.zeros(10, np.float32)),), (1.0,), 4, seed=0)
