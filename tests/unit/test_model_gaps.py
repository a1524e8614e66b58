"""History and gaps: what is seen of the past, what is dropped in training, and what a network without them
refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from edge.compile import compile_model, feeds, history, patch_px
from edge.runtimes.onnx import BadModel, OnnxPolicy
from model.config import BadConfig, Gaps, TrainingConfig
from model.data import BadSamples, Mixture, Samples, concatenate, samples_from_arrays
from model.export import export, inputs_of
from model.gaps import with_gaps
from model.open_loop import evaluate, observation
from model.policy import Memory, Observation, frames_seen, needs_signals
from model.recipes import quick
from model.rig import DASHCAM, THREE_CAMERAS
from model.torch_policy import TorchPolicy
from model.training import fine_tune, initial, train
from tests.unit.model_samples import some_samples

PLAIN = quick().network
LONG = replace(PLAIN, width=16, history=3, gaps=1)
CONFIG = TrainingConfig(steps=2, batch=8, warmup_steps=1)


def in_time(count: int = 6, source: str = "drive") -> Samples:
    """One drive, frame by frame; the blue of the first camera, and the speed, count the frames."""
    samples = some_samples(count, source)
    samples.images[:, 0, :, :, 2] = 100 + np.arange(count)[:, None, None]
    samples.speed_mps[:] = np.arange(count)
    return replace(samples, before=np.arange(count) - 1)


def blues(images: np.ndarray) -> list[list[int]]:
    """Of the first camera at each age."""
    return [row[::3, 0, 0, 2].tolist() for row in images]


def test_frames_are_seen_with_what_came_before_them() -> None:
    seen = in_time().with_history(np.array([4, 1, 0]), 3)
    assert seen.images.shape == (3, 9, 48, 96, 3)
    assert blues(seen.images) == [[104, 103, 102], [101, 100, 0], [100, 0, 0]]
    assert seen.past is not None
    np.testing.assert_array_equal(seen.past[..., 0], [[3, 2], [0, np.nan], [np.nan, np.nan]])
    assert not seen.images[2, 3:].any()


def test_frames_of_several_instants_stay_what_they_are() -> None:
    seen = in_time().with_history(slice(None), 3)
    again = seen.with_history(np.array([4]), 3)
    assert blues(again.images) == [[104, 103, 102]]
    with pytest.raises(BadSamples, match="3 instants cannot be seen with 2"):
        seen.with_history(slice(None), 2)
    with pytest.raises(BadSamples, match="different rigs"):
        concatenate([seen, in_time()])
    assert concatenate([seen, seen]).past is not None


def test_what_came_before_is_found_again_among_some_of_the_frames() -> None:
    some = in_time().take(np.array([5, 4, 2]))
    assert some.before is not None
    assert some.before.tolist() == [1, -1, -1]
    whole = concatenate([some_samples(2), in_time(3), in_time(2)])
    assert whole.before is not None
    assert whole.before.tolist() == [-1, -1, -1, 2, 3, -1, 5]
    assert concatenate([some_samples(2)]).before is None


@pytest.mark.parametrize(
    ("before", "message"),
    [
        ([0, 0, 1], "before 0 is no other frame, frame 0"),
        ([-1, 0, 3], "before 3"),
        ([-1, 0], "before is int64 .2."),
    ],
)
def test_bad_references_to_earlier_frames_are_refused(before: list[int], message: str) -> None:
    good = some_samples(3)
    arrays = {n: getattr(good, n) for n in ("speed_mps", "yaw_rate_radps", "command", "target")}
    with pytest.raises(BadSamples, match=message):
        samples_from_arrays(good.images, **arrays, source="clip", before=np.array(before))


def test_batches_hold_the_past_of_each_part() -> None:
    batch = Mixture((in_time(), some_samples(8)), (0.5, 0.5), 8, seed=0, history=3).draw(1)
    assert batch.images.shape[:2] == (8, 9)
    assert batch.past is not None
    assert np.isnan(batch.past[4:]).all()
    assert not batch.images[4:, 3:].any()
    for row in range(4):
        blue = batch.images[row, ::3, 0, 0, 2].astype(int)
        assert blue[1] in (blue[0] - 1, 0)


def test_a_memory_gives_each_instant_its_past() -> None:
    samples, memory = in_time(), Memory()
    instants = [observation(samples.take(slice(i, i + 1))) for i in range(6)]
    recalled = [memory.recall(now, round(i * 2e8), 3) for i, now in enumerate(instants)]
    assert [len(now.past) for now in recalled] == [0, 1, 2, 2, 2, 2]
    images, past = recalled[4].stacked(3)
    expected = observation(samples.with_history(np.array([4]), 3)).stacked(3)
    np.testing.assert_array_equal(images, expected[0])
    np.testing.assert_array_equal(past, expected[1])
    assert Memory().recall(instants[0], 0, 1) is instants[0]


def test_a_memory_finds_instants_among_frames_of_any_rate_and_leaves_holes_out() -> None:
    samples, memory = in_time(40), Memory()
    for i in range(40):
        now = observation(samples.take(slice(i, i + 1)))
        recalled = memory.recall(now, round(i * 5e7) if i < 39 else 10**10, 3)
        if i == 38:
            assert [seen.speed_mps[0] for seen in recalled.past] == [34, 30]
    assert recalled.past == ()


def test_observations_of_some_vehicles_keep_their_past() -> None:
    seen = observation(in_time().with_history(slice(None), 3)).take(np.array([3, 0]))
    assert [earlier.speed_mps[0] for earlier in seen.past] == [2, 1]
    images, past = seen.stacked(2)
    assert images.shape[:2] == (2, 6)
    assert past.shape == (2, 1, 2)
    assert seen.stacked(1)[0].shape[:2] == (2, 3)
    assert seen.stacked(1)[1].shape == (2, 0, 2)


def test_gaps_are_drawn_for_each_sample_by_its_probability() -> None:
    batch = replace(some_samples(400), before=np.arange(400) - 1).with_history(slice(None), 3)
    images = np.maximum(batch.images, 1)
    given = with_gaps(replace(batch, images=images), Gaps(0.3, 0.4, 0.2), 3, np.random.default_rng(0))
    black = (given.images.max((2, 3, 4)) == 0).reshape(400, 3, 3)
    never = black.all((1, 2))
    assert not never.any()
    present = black[:, 0]
    assert not present.all(1).any()
    assert 0.2 < present.mean() < 0.35
    forgotten = black.all(2)
    assert 0.3 < forgotten[:, 2].mean() < 0.5
    assert (forgotten[:, 1] <= forgotten[:, 2]).all()
    mute = np.isnan(given.speed_mps)
    assert 0.12 < mute.mean() < 0.28
    assert (np.isnan(given.yaw_rate_radps) == mute).all()
    assert given.past is not None
    assert np.isnan(given.past[mute]).all()
    assert np.isnan(given.past[forgotten[:, 1:]]).all()
    np.testing.assert_array_equal(given.target, batch.target)
    assert with_gaps(batch, Gaps(), 3, np.random.default_rng(0)) is batch


def test_training_with_history_and_gaps_learns_repeats_and_resumes() -> None:
    samples = in_time(64)
    config = replace(CONFIG, gaps=Gaps(0.2, 0.3, 0.3), camera_dropout=0.5)
    one, other = (train(samples, THREE_CAMERAS, LONG, config, seed=1) for _ in range(2))
    assert all(torch.equal(one.weights[n], other.weights[n]) for n in one.weights)
    tuned = fine_tune(one, samples, some_samples(20), THREE_CAMERAS, replace(config, replay_share=0.5), seed=1)
    assert all(torch.isfinite(w).all() for w in tuned.weights.values())


def test_speed_is_learnt_from_how_pictures_change() -> None:
    """Each target goes as far as the picture changed since the last one; the signals are never told."""
    pace = np.random.default_rng(0).uniform(2, 12, 100)
    samples = some_samples(200)
    samples = replace(samples, images=samples.images[:, :1].copy())
    samples.images[:] = 20
    samples.images[1::2, :] += (10 * pace).astype(np.uint8)[:, None, None, None, None]
    samples.target[1::2, :, 0] = pace[:, None] * 0.3 * np.arange(1, 9)
    samples.target[..., 1] = 0
    samples.speed_mps[:] = samples.yaw_rate_radps[:] = np.nan
    before = np.where(np.arange(200) % 2, np.arange(200) - 1, -1)
    frames = replace(samples, before=before, weight=(np.arange(200) % 2).astype(np.float32))
    config = TrainingConfig(steps=100, batch=24, warmup_steps=10)
    checkpoint = train(frames, DASHCAM, replace(PLAIN, history=2, gaps=1), config, seed=0)
    policy, odd = TorchPolicy(checkpoint, DASHCAM), np.arange(1, 200, 2)
    plan = policy.plan(observation(frames.with_history(odd, 2)))
    error = np.abs(plan.best[:, -1, 0] - samples.target[odd, -1, 0]).mean()
    constant = np.abs(samples.target[odd, -1, 0] - np.median(samples.target[odd, -1, 0])).mean()
    assert error < 0.4 * constant


def test_what_a_network_has_nothing_for_is_refused() -> None:
    silent = some_samples(8)
    silent.speed_mps[2] = np.nan
    with pytest.raises(BadSamples, match="1 frames without speed"):
        train(silent, THREE_CAMERAS, PLAIN, CONFIG, seed=0)
    with pytest.raises(BadConfig, match="gaps 1"):
        train(some_samples(8), THREE_CAMERAS, PLAIN, replace(CONFIG, gaps=Gaps(camera=0.1)), seed=0)
    with pytest.raises(BadConfig, match="history 2 needs gaps"):
        replace(PLAIN, history=2)
    with pytest.raises(BadConfig, match=r"camera 1\.5 is not in 0\.\.1"):
        Gaps(camera=1.5)


@pytest.mark.parametrize("change", [{"history": 0}, {"gaps": 2}, {"exits": -1}])
def test_bad_network_configurations_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadConfig, match=next(iter(change))):
        replace(PLAIN, **change)


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("long") / "model.onnx"
    assert export(initial(LONG, 0), THREE_CAMERAS, path) < 1e-4
    return path


def test_the_exported_graph_sees_the_past_as_torch_does(graph: Path) -> None:
    policy, torch_policy = OnnxPolicy(graph, THREE_CAMERAS), TorchPolicy(initial(LONG, 0), THREE_CAMERAS)
    assert frames_seen(policy) == frames_seen(torch_policy) == 3
    assert not needs_signals(policy)
    samples = in_time(20)
    samples.speed_mps[3] = np.nan
    seen = observation(samples.with_history(slice(None), 3))
    np.testing.assert_allclose(policy.plan(seen).modes, torch_policy.plan(seen).modes, atol=1e-4)
    alone = replace(seen, past=())
    assert not np.allclose(policy.plan(alone).modes, policy.plan(seen).modes, atol=1e-3)
    assert evaluate(policy, samples).ade_m == pytest.approx(evaluate(torch_policy, samples).ade_m, rel=1e-4)


def test_a_graph_that_contradicts_itself_about_the_past_is_refused(graph: Path) -> None:
    model = onnx.load(str(graph))
    for prop in model.metadata_props:
        if prop.key == "history":
            prop.value = "1"
    with pytest.raises(BadModel, match="history is '1'"):
        OnnxPolicy(model.SerializeToString(), THREE_CAMERAS)


def test_only_a_network_with_a_history_is_asked_for_the_past() -> None:
    assert inputs_of(initial(PLAIN, 0).build()) == ("images", "rays", "speed", "yaw_rate", "command")
    assert inputs_of(initial(LONG, 0).build())[-1] == "past"
    plain = TorchPolicy(initial(PLAIN, 0), THREE_CAMERAS)
    assert frames_seen(plain) == 1
    assert needs_signals(plain)


class _NoAttributes:
    def plan(self, observation: Observation) -> Any:
        raise NotImplementedError


def test_a_policy_that_says_nothing_sees_one_instant_and_needs_signals() -> None:
    assert frames_seen(_NoAttributes()) == 1
    assert needs_signals(_NoAttributes())


def test_a_graph_with_a_past_is_compiled_like_any_other(graph: Path, tmp_path: Path) -> None:
    seen = observation(in_time(16).with_history(slice(None), 3))
    instants = history(graph)
    assert instants == 3
    given = feeds(seen, THREE_CAMERAS, patch_px(graph), instants)
    assert given[5]["past"].shape == (1, 2, 2)
    compiled = compile_model(graph, given, tmp_path / "small.onnx", runs=2, bound_m=10.0, ways=("int8-weights",))
    assert set(compiled.candidates) == {"fp32", "int8-weights"}
    policy = OnnxPolicy(tmp_path / "small.onnx", THREE_CAMERAS)
    assert policy.history == 3
    assert policy.gaps
    np.testing.assert_allclose(
        policy.plan(seen).modes, OnnxPolicy(graph, THREE_CAMERAS).plan(seen).modes, atol=0.3
    )
