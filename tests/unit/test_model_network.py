"""The network: any rig, any number of cameras; the loss; what open-loop metrics say of known plans."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from model.config import BadConfig, NetworkConfig, network_from_json
from model.losses import imitation_loss
from model.network import Network, Output
from model.open_loop import calibration_error, evaluate, open_loop
from model.policy import Plan
from model.recipes import demo, quick, recipe
from model.rig import THREE_CAMERAS, Camera, Rig
from model.torch_policy import TorchPolicy
from model.training import initial
from tests.unit.model_samples import some_samples

SMALL = quick().network


def _inputs(vehicles: int, rig: Rig, net: Network, seed: int = 0) -> list[torch.Tensor]:
    camera = rig.cameras[0]
    generator = torch.Generator().manual_seed(seed)
    size = (vehicles, len(rig.cameras), camera.height_px, camera.width_px, 3)
    return [
        torch.randint(0, 256, size, dtype=torch.uint8, generator=generator),
        torch.from_numpy(rig.rays(net.config.patch_px)),
        torch.rand(vehicles, generator=generator) * 10,
        torch.randn(vehicles, generator=generator) * 0.1,
        torch.randint(0, 4, (vehicles,), generator=generator),
    ]


@pytest.mark.parametrize("config", [SMALL, demo().network, NetworkConfig(token_depth=1, patch_px=8)])
def test_shapes_and_ranges(config: NetworkConfig) -> None:
    net = Network(config).eval()
    out = net.plan(*_inputs(5, THREE_CAMERAS, net))
    assert out.modes.shape == out.scale_m.shape == (5, config.modes, 8, 2)
    assert out.embedding.shape == (5, config.width)
    torch.testing.assert_close(out.confidence.sum(1), torch.ones(5))
    assert (out.scale_m > 0).all()


def test_the_order_of_cameras_does_not_matter_but_where_they_look_does() -> None:
    net = Network(SMALL).eval()
    images, rays, *ego = _inputs(2, THREE_CAMERAS, net)
    order = [2, 0, 1]
    expected = net.plan(images, rays, *ego).modes
    torch.testing.assert_close(net.plan(images[:, order], rays[order], *ego).modes, expected)
    assert not torch.allclose(net.plan(images[:, order], rays, *ego).modes, expected, atol=1e-4)


@pytest.mark.parametrize("cameras", [1, 2, 7])
def test_any_number_of_cameras_and_any_image_size(cameras: int) -> None:
    rig = Rig("odd", tuple(Camera(f"c{i}", 64, 32, 1.0, 1.5, 0, 1.4, yaw_rad=0.8 * i) for i in range(cameras)))
    net = Network(SMALL).eval()
    assert torch.isfinite(net.plan(*_inputs(3, rig, net)).modes).all()


def test_a_vehicle_is_not_influenced_by_the_others_in_its_batch() -> None:
    net = Network(SMALL).eval()
    images, rays, *ego = _inputs(4, THREE_CAMERAS, net)
    alone = net.plan(images[1:2], rays, *(x[1:2] for x in ego)).modes
    torch.testing.assert_close(net.plan(images, rays, *ego).modes[1:2], alone, atol=1e-4, rtol=1e-4)


def _output(modes: torch.Tensor, logits: list[float], scale: float) -> Output:
    return Output(modes, torch.tensor([logits]), torch.full_like(modes, scale), torch.zeros(1, 4))


def test_the_loss_of_a_perfect_mode_is_the_laplace_density_at_its_peak() -> None:
    target = torch.ones(1, 8, 2)
    losses = imitation_loss(_output(target[:, None], [0.0], 0.5), target)
    assert losses.trajectory.item() == pytest.approx(0.0, abs=1e-6)
    assert losses.mode.item() == losses.alternatives.item() == 0.0


def _three_modes() -> torch.Tensor:
    return torch.stack([torch.full((8, 2), far) for far in (2.0, 4.0, 0.1)])[None]


def test_the_first_mode_learns_every_target_and_of_the_others_the_closest() -> None:
    modes = _three_modes().requires_grad_()
    imitation_loss(_output(modes, [0.0, 0.0, 0.0], 1.0), torch.zeros(1, 8, 2)).total.backward()  # type: ignore[no-untyped-call]
    assert modes.grad is not None
    first, far, near = modes.grad.abs().sum((0, 2, 3))
    assert first > near > 0
    assert far == 0


def test_confidence_is_learnt_for_the_mode_that_is_close() -> None:
    target = torch.zeros(1, 8, 2)
    right = imitation_loss(_output(_three_modes(), [-3.0, -3.0, 3.0], 1.0), target)
    wrong = imitation_loss(_output(_three_modes(), [-3.0, 3.0, -3.0], 1.0), target)
    assert wrong.mode > right.mode + 5


def _plan(offset: float, scale: float = 1.0) -> tuple[Plan, np.ndarray]:
    target = np.zeros((10, 8, 2), np.float32)
    modes = np.stack([target + np.array([offset, 0]), target + np.array([0, 5])], 1).astype(np.float32)
    confidence = np.tile(np.array([0.8, 0.2], np.float32), (10, 1))
    scale_m = np.full_like(modes, scale)
    return Plan(modes, confidence, scale_m, np.zeros((10, 4), np.float32)), target


def test_open_loop_figures_of_plans_that_are_one_metre_off() -> None:
    got = open_loop(*_plan(1.0, scale=0.2))
    assert (got.frames, got.miss_rate) == (10, 0.0)
    assert (got.ade_m, got.fde_m, got.min_ade_m) == pytest.approx((1, 1, 1))
    # One of the two coordinates lies 5 scales off; the confidence of 0.8 was right every time.
    assert (got.coverage, got.mode_calibration_error) == pytest.approx((0.5, 0.2))
    assert open_loop(*_plan(3.0)).miss_rate == 1.0


def test_closest_mode_is_scored_beside_the_most_confident() -> None:
    got = open_loop(*_plan(8.0))
    assert got.ade_m == pytest.approx(8.0)
    assert got.min_ade_m == pytest.approx(5.0)


def test_calibration_error_weighs_bins_by_their_frames() -> None:
    confidence = np.array([0.95, 0.95, 0.55, 0.55])
    right = np.array([True, True, False, False])
    assert calibration_error(confidence, right) == pytest.approx((0.1 + 1.1) / 4)


def test_open_loop_needs_frames() -> None:
    policy = TorchPolicy(initial(SMALL, 0), THREE_CAMERAS)
    with pytest.raises(ValueError, match="at least one frame"):
        evaluate(policy, some_samples(4).head(0))


def test_a_policy_plans_the_same_in_pieces_as_at_once() -> None:
    policy, samples = TorchPolicy(initial(SMALL, 0), THREE_CAMERAS), some_samples(300)
    whole, pieces = evaluate(policy, samples), evaluate(policy, samples, batch=64)
    assert whole.frames == 300
    assert pieces.ade_m == pytest.approx(whole.ade_m, rel=1e-4)


def test_network_configuration_survives_json_and_refuses_what_it_does_not_know() -> None:
    config = replace(SMALL, modes=5)
    assert network_from_json(config.to_json()) == config
    for text in ("{", "[]", '{"depth_of_field": 3}', '{"width": "64"}', '{"width": 65}', '{"patch_px": 10}'):
        with pytest.raises(BadConfig):
            network_from_json(text)


def test_recipes_are_found_by_name() -> None:
    assert recipe("demo") == demo()
    with pytest.raises(BadConfig, match="demo, quick"):
        recipe("huge")
