"""Early exits: a shallower network is cut out of a deeper one and drives as the deeper one's exit did."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from edge.runtimes.onnx import OnnxPolicy
from model.config import BadConfig, TrainingConfig
from model.export import export
from model.losses import EXITS_WEIGHT, imitation_loss, joint_loss
from model.network import Network, View
from model.open_loop import evaluate, observation
from model.recipes import quick
from model.rig import THREE_CAMERAS
from model.torch_policy import TorchPolicy
from model.training import initial, train
from tests.unit.model_samples import some_samples

CONFIG = replace(quick().network, latent_depth=3, exits=1)


def _study(net: Network, count: int = 4) -> View:
    samples = some_samples(count)
    rays = torch.from_numpy(THREE_CAMERAS.rays(CONFIG.patch_px))
    ego = (samples.speed_mps, samples.yaw_rate_radps, samples.command)
    speed, yaw_rate, command = (torch.from_numpy(a) for a in ego)
    return net.study(torch.from_numpy(samples.images), rays, speed, yaw_rate, command)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_shallower_network_is_an_exit_of_the_deeper_one(depth: int) -> None:
    checkpoint = initial(CONFIG, 0)
    output, exits, _ = _study(checkpoint.build())
    cut = checkpoint.shallower(depth)
    assert cut.network.latent_depth == depth
    found = _study(cut.build()).output
    for one, other in zip(found, (*exits, output)[depth - 1], strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("depth", [0, 4, -1])
def test_there_is_no_exit_where_none_was_taught(depth: int) -> None:
    with pytest.raises(BadConfig, match=rf"no exit after {depth} blocks; .*\[1, 2, 3\]"):
        initial(CONFIG, 0).shallower(depth)
    with pytest.raises(BadConfig, match=r"after \[\]"):
        initial(replace(CONFIG, exits=0), 0).shallower(2)


def test_every_exit_counts() -> None:
    net, target = initial(CONFIG, 0).build(), torch.from_numpy(some_samples(4).target)
    view = _study(net)
    early = [imitation_loss(out, target).total for out in view.exits]
    expected = imitation_loss(view.output, target).total + EXITS_WEIGHT * sum(early) / 2
    torch.testing.assert_close(joint_loss(net, view, target, {}), expected)


def test_a_taught_exit_drives_nearly_as_well_and_is_exported_with_fewer_blocks(tmp_path: Path) -> None:
    samples = some_samples(200)
    config = TrainingConfig(steps=120, batch=64, warmup_steps=10)
    checkpoint = train(samples, THREE_CAMERAS, CONFIG, config, seed=0)
    untaught = evaluate(TorchPolicy(initial(CONFIG, 0).shallower(1), THREE_CAMERAS), samples).ade_m
    assert evaluate(TorchPolicy(checkpoint.shallower(1), THREE_CAMERAS), samples).ade_m < 0.6 * untaught
    export(checkpoint, THREE_CAMERAS, tmp_path / "whole.onnx")
    export(checkpoint, THREE_CAMERAS, tmp_path / "short.onnx", depth=1)
    sizes = [(tmp_path / name).stat().st_size for name in ("short.onnx", "whole.onnx")]
    assert sizes[0] < 0.75 * sizes[1]
    seen = observation(samples.head(5))
    plan = OnnxPolicy(tmp_path / "short.onnx", THREE_CAMERAS).plan(seen)
    expected = TorchPolicy(checkpoint.shallower(1), THREE_CAMERAS).plan(seen)
    assert abs(plan.modes - expected.modes).max() < 1e-3
