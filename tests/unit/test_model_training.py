"""Training learns, repeats itself for a seed, resumes to the same weights, and refuses nonsense."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.checkpoint import BadCheckpoint, Checkpoint, from_bytes, load, save, to_bytes
from model.config import BadConfig, TrainingConfig
from model.data import Samples
from model.gradients import descending, parted
from model.losses import imitation_loss
from model.open_loop import evaluate
from model.recipes import quick
from model.rig import THREE_CAMERAS
from model.torch_policy import TorchPolicy
from model.training import (
    CannotResume,
    Hooks,
    NonFiniteLoss,
    fine_tune,
    initial,
    learning_rate,
    seen_cameras,
    train,
)
from tests.unit.model_samples import some_samples

NETWORK = quick().network
CONFIG = TrainingConfig(steps=12, batch=16, warmup_steps=2, camera_dropout=0.3)


@pytest.fixture(scope="module")
def samples() -> Samples:
    return some_samples(200)


@pytest.fixture(scope="module")
def cloned(samples: Samples) -> Checkpoint:
    return train(samples, THREE_CAMERAS, NETWORK, CONFIG, seed=1)


def _same(one: Checkpoint, other: Checkpoint) -> bool:
    return to_bytes(one) == to_bytes(other)


def test_cloning_learns_what_the_images_say(samples: Samples) -> None:
    config = TrainingConfig(steps=120, batch=64, warmup_steps=10)
    before = evaluate(TorchPolicy(initial(NETWORK, 0), THREE_CAMERAS), samples).ade_m
    checkpoint = train(samples, THREE_CAMERAS, NETWORK, config, seed=0)
    unseen = some_samples(100, seed=9)
    assert evaluate(TorchPolicy(checkpoint, THREE_CAMERAS), unseen).ade_m < 0.6 * before


def test_the_same_seed_gives_the_same_weights(samples: Samples, cloned: Checkpoint) -> None:
    assert _same(train(samples, THREE_CAMERAS, NETWORK, CONFIG, seed=1), cloned)
    assert not _same(train(samples, THREE_CAMERAS, NETWORK, CONFIG, seed=2), cloned)


def test_the_number_of_threads_changes_nothing(samples: Samples, cloned: Checkpoint) -> None:
    for threads in (1, 5):
        assert _same(train(samples, THREE_CAMERAS, NETWORK, replace(CONFIG, threads=threads), seed=1), cloned)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_parts_add_up_to_the_batch(count: int) -> None:
    batch = some_samples(count)
    net = initial(NETWORK, 0).build()
    rays = torch.from_numpy(THREE_CAMERAS.rays(NETWORK.patch_px))

    def loss(part: Samples) -> torch.Tensor:
        arrays = (part.speed_mps, part.yaw_rate_radps, part.command)
        output = net(torch.from_numpy(part.images), rays, *map(torch.from_numpy, arrays))
        return imitation_loss(output, torch.from_numpy(part.target)).total

    parameters = list(net.parameters())
    whole = torch.autograd.grad(loss(batch), parameters)
    with descending(2) as descend:
        assert descend(loss, parted(batch, 2), parameters) == pytest.approx(float(loss(batch).detach()), rel=1e-5)
    for parameter, gradient in zip(parameters, whole, strict=True):
        assert parameter.grad is not None
        assert parameter.grad.stride() == parameter.stride()
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-6)


def test_training_leaves_the_random_state_and_threads_of_others_alone(samples: Samples) -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    train(samples, THREE_CAMERAS, NETWORK, replace(CONFIG, steps=1), seed=1)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("through_disk", [False, True])
def test_a_killed_run_resumes_to_the_same_weights(
    samples: Samples, cloned: Checkpoint, tmp_path: Path, through_disk: bool
) -> None:
    kept: list[Checkpoint] = []
    hooks = Hooks(keep=kept.append, keep_every=5)
    assert _same(train(samples, THREE_CAMERAS, NETWORK, CONFIG, seed=1, hooks=hooks), cloned)
    assert [checkpoint.step for checkpoint in kept] == [5, 10]
    resume = kept[0]
    if through_disk:
        save(resume, tmp_path / "at-5.safetensors")
        resume = load(tmp_path / "at-5.safetensors")
    assert _same(train(samples, THREE_CAMERAS, NETWORK, CONFIG, seed=1, hooks=Hooks(resume=resume)), cloned)


def test_a_checkpoint_of_another_run_is_not_resumed(samples: Samples, cloned: Checkpoint) -> None:
    for resume in (replace(cloned, step=5), replace(cloned, step=99)):
        with pytest.raises(CannotResume):
            train(samples, THREE_CAMERAS, NETWORK, CONFIG, seed=1, hooks=Hooks(resume=resume))


def test_fine_tuning_learns_the_clips_and_resumes(samples: Samples, cloned: Checkpoint) -> None:
    clips = some_samples(40, "clip", seed=3)
    clips.target[..., 1] += 3
    config = TrainingConfig(steps=60, batch=32, warmup_steps=3, replay_share=0.3)
    kept: list[Checkpoint] = []
    hooks = Hooks(keep=kept.append, keep_every=40)
    tuned = fine_tune(cloned, samples, clips, THREE_CAMERAS, config, seed=4, hooks=hooks)
    before, after = (evaluate(TorchPolicy(c, THREE_CAMERAS), clips).ade_m for c in (cloned, tuned))
    assert after < 0.7 * before
    resumed = fine_tune(cloned, samples, clips, THREE_CAMERAS, config, seed=4, hooks=Hooks(resume=kept[0]))
    assert _same(resumed, tuned)


def test_progress_is_told_after_every_step(samples: Samples) -> None:
    seen: list[tuple[int, int, float]] = []
    hooks = Hooks(progress=lambda *at: seen.append(at))
    train(samples, THREE_CAMERAS, NETWORK, replace(CONFIG, steps=3), seed=1, hooks=hooks)
    assert [(done, steps) for done, steps, _ in seen] == [(1, 3), (2, 3), (3, 3)]
    assert all(np.isfinite(loss) for *_, loss in seen)


def test_a_loss_that_is_not_finite_stops_the_run(samples: Samples) -> None:
    wild = replace(samples, target=np.full_like(samples.target, 3e38))
    with pytest.raises(NonFiniteLoss, match="after 1 of 12 steps: lower peak_rate"):
        train(wild, THREE_CAMERAS, NETWORK, CONFIG, seed=1)


def test_learning_rate_warms_up_and_decays_to_nothing() -> None:
    config = TrainingConfig(steps=100, warmup_steps=9, peak_rate=1.0)
    assert learning_rate(config, 0) == pytest.approx(0.1)
    assert learning_rate(config, 9) == 1.0
    assert learning_rate(config, 99) < 0.001


def test_one_camera_is_lost_by_its_probability_and_never_the_last() -> None:
    rngs = [np.random.default_rng(i) for i in range(400)]
    counts = [len(seen_cameras(3, 0.25, rng)) for rng in rngs]
    assert set(counts) == {2, 3}
    assert 60 < counts.count(2) < 140
    assert seen_cameras(1, 1.0, rngs[0]) == [0]


@pytest.mark.parametrize("change", [{"steps": 0}, {"replay_share": 1.2}, {"warmup_steps": -1}, {"peak_rate": 0}])
def test_bad_training_configurations_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadConfig, match=next(iter(change))):
        replace(CONFIG, **change)


def test_a_checkpoint_is_named_by_its_content(cloned: Checkpoint, tmp_path: Path) -> None:
    digest = save(cloned, tmp_path / "a")
    assert save(load(tmp_path / "a", digest), tmp_path / "b") == digest
    with pytest.raises(BadCheckpoint, match="expected 00"):
        load(tmp_path / "a", "00")


def _damaged(content: bytes) -> Iterator[bytes]:
    yield b""
    yield content[: len(content) // 2]
    yield content[:-1]
    yield b"\xff" * 64
    yield content.replace(b"fleetwheel.checkpoint/1", b"fleetwheel.checkpoint/9")
    yield content.replace(b"patch_px", b"patch_pz")


def test_damaged_checkpoints_are_refused_by_name(cloned: Checkpoint, tmp_path: Path) -> None:
    for content in _damaged(to_bytes(cloned)):
        (tmp_path / "m.safetensors").write_bytes(content)
        with pytest.raises(BadCheckpoint, match=r"checkpoint .*m[.]safetensors"):
            load(tmp_path / "m.safetensors")
    with pytest.raises(BadCheckpoint, match="cannot be read"):
        load(tmp_path / "absent")


def test_weights_that_are_not_finite_or_do_not_fit_are_refused(cloned: Checkpoint) -> None:
    broken = cloned.weights | {"latents": torch.full_like(cloned.weights["latents"], torch.nan)}
    with pytest.raises(BadCheckpoint, match="latents"):
        from_bytes(to_bytes(replace(cloned, weights=broken)))
    with pytest.raises(BadCheckpoint, match="do not fit"):
        replace(cloned, network=replace(NETWORK, modes=5)).build()
