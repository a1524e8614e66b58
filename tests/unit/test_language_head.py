"""The language head: it cannot say what the table has not, it learns what it is shown, and it looks where told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from model.checkpoint import BadCheckpoint, Checkpoint, from_bytes, to_bytes
from model.config import NetworkConfig, TrainingConfig
from model.data import Samples
from model.explainer import CannotExplain, Explainer
from model.grammar import NONE, SLOTS, Explanation, decoded, encoded
from model.heads.language import Language, OtherWords, looked_at
from model.labels import LOOKS
from model.layers import Scene
from model.policy import Observation
from model.rig import THREE_CAMERAS, VAN
from model.rules import RULES
from model.training import initial, train
from tests.unit.model_samples import some_samples

CONFIG = NetworkConfig(width=32, heads=2, stem_width=8, latent_depth=1, latents=2, modes=3, language=1)
STOP = Explanation("slow", "stop_sign", "ahead", "20 m", "171", "must", NONE)
CLEAR = Explanation("hold", "clear", NONE, NONE, "160", "should", NONE)


def scene(count: int, config: NetworkConfig = CONFIG, scale: float = 1.0) -> Scene:
    rays = torch.from_numpy(THREE_CAMERAS.rays(config.patch_px))
    tokens = scale * torch.randn(count, rays.shape[0] * rays.shape[1], config.width)
    return Scene(tokens, scale * torch.randn(count, 6, config.width), rays=rays)


def labelled(count: int, seed: int = 0) -> Samples:
    """Half of the frames show a bright square in the right camera, which they say is a stop sign."""
    samples = some_samples(count, seed=seed)
    stop = np.arange(count) % 2 == 0
    samples.images[stop, 2, 16:32, 32:48] = 255
    words = np.where(stop[:, None], encoded(STOP), encoded(CLEAR)).astype(np.int64)
    look = np.full((count, LOOKS, 4), np.nan, np.float32)
    rays = THREE_CAMERAS.rays(16)[2, 6 + 2]
    look[stop, 0] = [*(rays[3:] + 20 * rays[:3]), 0.8]
    return replace(samples, labels={"words": words, "look": look})


def observation(samples: Samples) -> Observation:
    return Observation(samples.images, samples.speed_mps, samples.yaw_rate_radps, samples.command)


@pytest.mark.parametrize("seed", range(4))
def test_whatever_its_weights_it_says_whole_sentences_of_known_rules(seed: int) -> None:
    torch.manual_seed(seed)
    head = Language(CONFIG)
    with torch.no_grad():
        for weight in head.parameters():
            weight.mul_(5.0)
    said = head.say(head(scene(64, scale=10.0), torch.zeros(64, 2)))
    for ids in said.words.numpy():
        assert decoded(ids).number in RULES
    assert said.look.shape == (64, 54)
    assert torch.allclose(said.look.sum(1), torch.ones(64), atol=1e-4)
    assert ((said.probability >= 0) & (said.probability <= said.cause + 1e-6)).all()


def test_it_learns_what_it_is_shown_and_looks_at_it() -> None:
    config = TrainingConfig(steps=120, batch=32, peak_rate=4e-3, warmup_steps=5, threads=1)
    trained = train(labelled(400), THREE_CAMERAS, CONFIG, config, seed=1)
    fresh = labelled(60, seed=9)
    found = Explainer(trained, THREE_CAMERAS).explain(observation(fresh))
    right = [said == (STOP if i % 2 == 0 else CLEAR) for i, said in enumerate(found.said)]
    assert np.mean(right) > 0.95
    assert found.look.shape == (60, 3, 3, 6)
    shares = found.look[::2].reshape(30, -1)
    assert np.mean(shares.argmax(1) == 2 * 18 + 6 + 2) > 0.9, "the patch with the square"
    assert found.probability.min() > 0.5


def test_frames_without_labels_teach_nothing() -> None:
    torch.manual_seed(0)
    head = Language(CONFIG)
    heard = head(scene(4), torch.zeros(4, 2))
    words = torch.full((4, len(SLOTS)), -1)
    none = head.loss(heard, {"words": words, "look": torch.full((4, LOOKS, 4), torch.nan)})
    assert float(none.detach()) == 0.0
    words[1] = torch.tensor(encoded(STOP))
    one = head.loss(heard, {"words": words, "look": torch.full((4, LOOKS, 4), torch.nan)})
    alone = head.loss(
        head(Scene(heard.tokens[1:2], heard.latents[1:2], rays=scene(1).rays), torch.zeros(1, 2)),
        {"words": words[1:2], "look": torch.full((1, LOOKS, 4), torch.nan)},
    )
    assert float(one.detach()) == pytest.approx(float(alone.detach()), rel=1e-4)


def test_what_is_said_teaches_the_trunk_too() -> None:
    net = Checkpoint(CONFIG, initial(CONFIG, 0).weights).build().train()
    samples = labelled(4)
    view = net.study(
        torch.from_numpy(samples.images),
        torch.from_numpy(THREE_CAMERAS.rays(16)),
        torch.from_numpy(samples.speed_mps),
        torch.from_numpy(samples.yaw_rate_radps),
        torch.from_numpy(samples.command),
    )
    labels = {name: torch.from_numpy(label) for name, label in samples.labels.items()}
    head = net.heads["language"]
    assert isinstance(head, Language)
    torch.autograd.backward(head.loss(view.heads["language"], labels))
    assert float(net.eye.weight.grad.abs().sum()) > 0  # type: ignore[union-attr]
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


def test_balls_are_found_in_the_cameras_that_see_them() -> None:
    rays = torch.from_numpy(VAN.rays(16)).flatten(0, 1)
    balls = torch.full((4, LOOKS, 4), torch.nan)
    balls[0, 0] = torch.tensor([30.0, 0.0, 2.0, 0.8])
    balls[1, 0] = torch.tensor([-12.0, 0.0, 1.0, 1.0])
    balls[2, 0] = torch.tensor([0.0, 0.0, 60.0, 1.0])
    share, shown = looked_at(rays, balls)
    assert shown.tolist() == [True, True, False, False], "nobody looks up, and nothing is nowhere"
    by_camera = share.view(4, len(VAN.cameras), -1).sum(2)
    assert by_camera[0].argmax() == 1 and by_camera[0, 1] > 0.99
    assert by_camera[1].argmax() == 4
    assert torch.allclose(share.sum(1), shown.float())
    front = share[0].view(6, 3, 6)[1]
    assert front.argmax() in (6 + 2, 6 + 3, 2, 3), "in the middle of the picture, about the horizon"


def test_a_model_of_other_words_is_refused() -> None:
    checkpoint = initial(CONFIG, 0)
    weights = checkpoint.weights | {"heads.language.digest": torch.zeros(8, dtype=torch.uint8)}
    other = Explainer(from_bytes(to_bytes(replace(checkpoint, weights=weights))), THREE_CAMERAS)
    with pytest.raises(OtherWords, match="train it again"):
        other.explain(observation(labelled(2)))
    shorter = {k: v[:-1] if k == "heads.language.word.weight" else v for k, v in checkpoint.weights.items()}
    with pytest.raises(BadCheckpoint, match="do not fit"):
        Explainer(replace(checkpoint, weights=shorter), THREE_CAMERAS)


def test_a_model_that_has_not_learnt_to_speak_says_so() -> None:
    with pytest.raises(CannotExplain, match="no language head"):
        Explainer(initial(replace(CONFIG, language=0), 0), THREE_CAMERAS)
