"""The frame for heads: what they learn from is checked, carried and counted; without them a model is what it
was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from model.config import BadConfig, NetworkConfig, TrainingConfig, network_from_json
from model.data import BadSamples, Mixture, Samples, concatenate, samples_from_arrays
from model.export import OUTPUTS, export
from model.heads import HEADS, each, heads_of, untaught
from model.heads.head import Head, known_mean
from model.labels import LABELS
from model.layers import Scene
from model.losses import imitation_loss, joint_loss
from model.network import Network
from model.recipes import quick
from model.rig import THREE_CAMERAS
from model.training import fine_tune, initial, train
from tests.unit.model_samples import labelled, some_samples

PLAIN = quick().network
ALL = replace(PLAIN, **dict.fromkeys(HEADS, 1))
CONFIG = TrainingConfig(steps=3, batch=16, warmup_steps=1)


def _inputs(samples: Samples, config: NetworkConfig) -> tuple[Tensor, ...]:
    rays = torch.from_numpy(THREE_CAMERAS.rays(config.patch_px))
    ego = (samples.speed_mps, samples.yaw_rate_radps, samples.command)
    return (torch.from_numpy(samples.images), rays, *map(torch.from_numpy, ego))


def _head(net: Network, name: str) -> Head[Any]:
    return dict(each(net.heads))[name]


def _labels(samples: Samples) -> dict[str, Tensor]:
    return {name: torch.from_numpy(label) for name, label in samples.labels.items()}


def test_heads_add_to_the_weights_and_change_none_of_the_others() -> None:
    plain, full = initial(PLAIN, 3), initial(ALL, 3)
    assert {n for n in full.weights if n not in plain.weights} == {
        n for n in full.weights if n.startswith("heads.")
    }
    for name, weight in plain.weights.items():
        assert torch.equal(full.weights[name], weight), name
    bare = full.without_heads()
    assert bare.network == PLAIN
    assert bare.weights.keys() == plain.weights.keys()


def test_the_table_names_fields_and_labels_that_there_are() -> None:
    for name, row in HEADS.items():
        assert getattr(NetworkConfig(), name) == 0
        assert row.weight > 0
        assert set(row.labels) <= set(LABELS)
        assert set(heads_of(replace(PLAIN, **{name: 1}))) == {name}
        assert untaught(replace(PLAIN, **{name: 1}), ()) == [name]
        assert not untaught(replace(PLAIN, **{name: 1}), row.labels)
        with pytest.raises(BadConfig, match=name):
            replace(PLAIN, **{name: -1})


def test_the_configuration_of_a_model_without_heads_reads_as_it_did() -> None:
    """Else a model's bytes, and so its name, would change with a release that adds a head."""
    assert NetworkConfig(width=32).to_json() == (
        '{"heads": 4, "latent_depth": 3, "latents": 6, "modes": 4, "patch_px": 16, "stem_width": 24, '
        '"token_depth": 0, "width": 32}'
    )
    assert network_from_json(ALL.to_json()) == ALL


@pytest.mark.parametrize("name", HEADS)
def test_a_head_gives_a_finite_loss_that_teaches_it(name: str) -> None:
    config = replace(PLAIN, **{name: 1})
    net, samples = Network(config), labelled(some_samples(6))
    view = net.study(*_inputs(samples, config))
    loss = _head(net, name).loss(view.heads[name], _labels(samples))
    assert loss.shape == ()
    assert torch.isfinite(loss)
    grads = torch.autograd.grad(loss, list(_head(net, name).parameters()), allow_unused=True)
    assert all(g is not None and torch.isfinite(g).all() for g in grads)


@pytest.mark.parametrize("name", HEADS)
def test_frames_without_their_label_teach_nothing(name: str) -> None:
    config = replace(PLAIN, **{name: 1})
    net, samples = Network(config), labelled(some_samples(6))
    head, labels = _head(net, name), _labels(samples)
    view = net.study(*_inputs(samples, config))
    gone = {n: torch.full_like(label, LABELS[n].absent) for n, label in labels.items()}
    nothing = head.loss(view.heads[name], gone)
    assert nothing == 0
    for grad in torch.autograd.grad(nothing, list(head.parameters()), allow_unused=True):
        assert grad is None or not grad.any()
    half = {n: torch.cat([label[:3], gone[n][3:]]) for n, label in labels.items()}
    few = net.study(*_inputs(samples.head(3), config))
    alone = head.loss(few.heads[name], {n: label[:3] for n, label in labels.items()})
    torch.testing.assert_close(head.loss(view.heads[name], half), alone, rtol=1e-4, atol=1e-5)


def test_the_joint_loss_adds_each_taught_head_by_its_weight() -> None:
    net, samples = Network(ALL), labelled(some_samples(6))
    view, labels = net.study(*_inputs(samples, ALL)), _labels(samples)
    target = torch.from_numpy(samples.target)
    alone = imitation_loss(view.output, target).total
    assert joint_loss(net, view, target, {}) == alone
    parts = [row.weight * _head(net, name).loss(view.heads[name], labels) for name, row in HEADS.items()]
    torch.testing.assert_close(joint_loss(net, view, target, labels), alone + sum(parts))


def test_training_lowers_the_loss_of_a_head_and_repeats_itself() -> None:
    config = replace(PLAIN, motion=1)
    samples = labelled(some_samples(64))
    samples.labels["motion"][:] = np.nan
    samples.labels["motion"][:, 2] = samples.images[:, 1, -1, 0, 1] / 128.0 - 1.0
    longer = TrainingConfig(steps=60, batch=32, warmup_steps=5)
    one, other = (train(samples, THREE_CAMERAS, config, longer, seed=2) for _ in range(2))
    assert all(torch.equal(one.weights[n], other.weights[n]) for n in one.weights)

    def error(net: Network) -> float:
        with torch.inference_mode():
            found = net.study(*_inputs(samples, config)).heads["motion"][:, 2, 0]
        return float((found - torch.from_numpy(samples.labels["motion"][:, 2])).abs().mean())

    assert error(one.build()) < 0.5 * error(initial(config, 2).build())


def test_a_head_without_labels_is_refused_before_training() -> None:
    samples, config = some_samples(32), replace(PLAIN, motion=1)
    with pytest.raises(BadSamples, match=r"without labels to learn from: \['motion'\]"):
        train(samples, THREE_CAMERAS, config, CONFIG, seed=0)
    with pytest.raises(BadSamples, match="motion"):
        fine_tune(initial(config, 0), samples, samples, THREE_CAMERAS, CONFIG, seed=0)
    replayed = replace(CONFIG, replay_share=0.5)
    fine_tune(initial(config, 0), labelled(samples), samples, THREE_CAMERAS, replayed, seed=0)


def test_labels_go_with_their_frames() -> None:
    samples = labelled(some_samples(5))
    samples.labels["motion"][:, 0] = np.arange(5)
    np.testing.assert_array_equal(samples.take(np.array([3, 1])).labels["motion"][:, 0], [3, 1])
    whole = concatenate([some_samples(2), samples.head(2)])
    assert np.isnan(whole.labels["motion"][:2]).all()
    np.testing.assert_array_equal(whole.labels["motion"][2:, 0], [0, 1])
    batch = Mixture((some_samples(9), samples), (0.5, 0.5), 8, seed=0).draw(0)
    assert np.isnan(batch.labels["motion"][:4]).all()
    assert np.isfinite(batch.labels["motion"][4:]).all()
    assert not Mixture((some_samples(9),), (1.0,), 8, seed=0).draw(0).labels


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"mood": np.zeros(4, np.float32)}, "unknown label 'mood'; known: .*motion"),
        ({"motion": np.zeros((3, 4), np.float32)}, r"motion is float32 \[3, 4\], must be float32 \[4, 4\]"),
        ({"motion": np.zeros((4, 4))}, "motion is float64"),
        (
            {"motion": np.array([[0, 0, np.inf, 0]] * 4, np.float32)},
            "motion must be finite.*4 are not, first frame 0",
        ),
        ({"risk": np.array([0, 1, 2, -1], np.int8)}, "risk must be 0 to 1, or -1.*1 are not, first frame 2"),
        ({"risk": np.zeros(4)}, "risk is float64 .4., must be int8 .4."),
    ],
)
def test_bad_labels_are_refused_by_name(labels: dict[str, np.ndarray], message: str) -> None:
    good = some_samples(4)
    with pytest.raises(BadSamples, match=message):
        samples_from_arrays(
            good.images,
            speed_mps=good.speed_mps,
            yaw_rate_radps=good.yaw_rate_radps,
            command=good.command,
            target=good.target,
            source="clip",
            labels=MappingProxyType(labels),
        )


def test_heads_are_left_out_of_the_export(tmp_path: Path) -> None:
    export(initial(ALL, 0), THREE_CAMERAS, tmp_path / "model.onnx")
    export(initial(PLAIN, 0), THREE_CAMERAS, tmp_path / "plain.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    assert tuple(o.name for o in session.get_outputs()) == OUTPUTS
    assert (tmp_path / "model.onnx").read_bytes() == (tmp_path / "plain.onnx").read_bytes()


def test_a_mean_over_nothing_is_zero() -> None:
    values = torch.tensor([1.0, 2.0, 5.0])
    assert known_mean(values, torch.tensor([True, True, False])) == 1.5
    assert known_mean(values, torch.zeros(3, dtype=torch.bool)) == 0


def test_the_motion_head_sees_pictures_and_not_signals() -> None:
    net = Network(replace(PLAIN, motion=1)).eval()
    images, rays, speed, yaw_rate, command = _inputs(some_samples(2), PLAIN)
    one = net.study(images, rays, speed, yaw_rate, command).heads["motion"]
    assert torch.equal(net.study(images, rays, speed + 5, yaw_rate + 1, command).heads["motion"], one)
    assert not torch.equal(net.study(255 - images, rays, speed, yaw_rate, command).heads["motion"], one)
    blind = Scene(torch.zeros(2, 4, PLAIN.width), torch.randn(2, 6, PLAIN.width))
    assert torch.equal(*_head(net, "motion")(blind, torch.zeros(2, 2)).chunk(2))


def test_heads_that_are_wanted_are_exported_and_tell_probabilities(tmp_path: Path) -> None:
    checkpoint = initial(ALL, 0)
    export(checkpoint, THREE_CAMERAS, tmp_path / "model.onnx", heads=("risk", "occupancy"))
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    assert {o.name for o in session.get_outputs()} == {*OUTPUTS, "risk", "occupancy"}
    arrays = [a.numpy() for a in _inputs(some_samples(5), ALL)]
    names = ("images", "rays", "speed", "yaw_rate", "command")
    risk, grid = session.run(["risk", "occupancy"], dict(zip(names, arrays, strict=True)))
    assert risk.shape == (5,)
    assert ((risk > 0) & (risk < 1)).all()
    np.testing.assert_allclose(grid.sum(-1), 1, atol=1e-5)
    with pytest.raises(BadConfig, match="no head 'tags' in it"):
        export(initial(replace(PLAIN, risk=1), 0), THREE_CAMERAS, tmp_path / "no.onnx", heads=("tags",))
    assert not (tmp_path / "no.onnx").exists()
