"""The world model: geometry by hand, dreams step by step, training that repeats itself, files, refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model.checkpoint import BadCheckpoint
from model.config import BadConfig, TrainingConfig
from model.dream_scores import copied, dreamt, flowed, latent_errors
from model.dream_training import DreamTraining, initial_world, train_world
from model.dreamer import Dreamer
from model.geometry import eyes, identity, sample, sources
from model.odometry import read_motion, train_odometry
from model.picture_scores import mse
from model.rig import DASHCAM, DELIVERY_ROBOT, THREE_CAMERAS, VAN, Camera, Rig
from model.sequences import CONTEXT, BadSequences, Sequences, check
from model.training import NonFiniteLoss
from model.world_file import load_world, save_world
from model.world_model import WorldConfig, WorldModel, dream, pictures, view, world_from_json
from tests.unit.world_sequences import some_sequences, still_sequences

SMALL = WorldConfig(width=8)
SHORT = DreamTraining(TrainingConfig(steps=4, batch=2, warmup_steps=1), ((0.5, 1), (0.5, 3)))
LEVEL = Rig("level", (Camera("front", 96, 48, 1.2, 1.8, 0.0, 1.5),))


def place_of(camera: Camera, point_m: tuple[float, float, float]) -> np.ndarray:
    """Where a camera shows a point of the vehicle's frame, in half pictures: the pinhole, written out."""
    x, y, z = camera.rotation.T @ (np.array(point_m) - [camera.x_m, camera.y_m, camera.z_m])
    return np.array(
        [-y / x * camera.focal_px / (camera.width_px / 2), -z / x * camera.focal_px / (camera.height_px / 2)]
    )


@pytest.mark.parametrize("rig", [LEVEL, DASHCAM], ids=lambda rig: rig.name)
@pytest.mark.parametrize(("speed", "yaw_rate"), [(10.0, 0.0), (6.0, 0.4), (3.0, -0.6), (0.0, 0.5)])
def test_a_point_is_looked_up_where_it_was(rig: Rig, speed: float, yaw_rate: float) -> None:
    seen = eyes(rig, 1)
    row, column = 38, 60
    pixel = row * 96 + column
    ray = rig.rays(1)[0, pixel].astype(float)
    point = ray[3:] + 9.0 * ray[:3]
    way, angle = 0.1 * speed, 0.1 * yaw_rate
    cos, sin = np.cos(angle), np.sin(angle)
    radius = way / angle if angle else 0.0
    moved = (radius * sin, radius * (1 - cos)) if angle else (way, 0.0)
    before = (cos * point[0] - sin * point[1] + moved[0], sin * point[0] + cos * point[1] + moved[1], point[2])
    nearness = torch.full((1, 1, 1, 48, 96), 1 / 9.0)
    places, outside = sources(seen, nearness, torch.tensor([[speed, yaw_rate]]))
    found = places[0, 0, row, column].numpy()
    assert outside[0, 0, 0, row, column] == 0
    # A chord as long as its arc: 0.1 mm at these turns.
    np.testing.assert_allclose(found, place_of(rig.cameras[0], before), atol=2e-4)


def test_the_flat_road_is_known_from_the_rays() -> None:
    seen = eyes(LEVEL, 1)
    ray = LEVEL.rays(1)[0].reshape(48, 96, 6)
    far = 1 / seen.ground[0, 0, 40, 50].item()
    assert ray[40, 50, 5] + far * ray[40, 50, 2] == pytest.approx(0.0, abs=1e-5)
    assert (seen.ground[0, 0, :23] == 0).all(), "there is no road above the horizon"


@pytest.mark.parametrize("rig", [DASHCAM, THREE_CAMERAS, DELIVERY_ROBOT, VAN], ids=lambda rig: rig.name)
def test_any_rig_is_dreamt_by_one_model_and_nothing_moves_in_a_still_world(rig: Rig) -> None:
    real = still_sequences(rig=rig)
    dreams = dreamt(initial_world(SMALL, 1), rig, real)
    assert dreams.shape == real.images[:, CONTEXT:].shape
    assert np.abs(dreams.astype(int) - real.images[:, CONTEXT:]).max() <= 6, (
        "an untrained model paints a little grey"
    )


def test_looking_up_every_pixel_at_its_own_place_changes_nothing() -> None:
    picture = torch.rand(2, 3, 4, 12, 20)
    places = identity(3, 12, 20).permute(0, 2, 3, 1).expand(2, 3, 12, 20, 2)
    torch.testing.assert_close(sample(picture, places), picture)


def test_what_comes_into_view_is_looked_up_in_the_camera_that_saw_it() -> None:
    seen, turn = eyes(THREE_CAMERAS, 1), 0.2
    far = torch.zeros(1, 3, 1, 48, 96)
    places, outside = sources(seen, far, torch.tensor([[0.0, turn / 0.1]]))
    row, column = 20, 3
    ray = THREE_CAMERAS.rays(1)[1, row * 96 + column, :3].astype(float)
    before = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]) @ ray
    left, front, _ = THREE_CAMERAS.cameras
    assert place_of(front, tuple(1e6 * before))[0] < -1, "the front camera did not see it"
    x, y = place_of(left, tuple(1e6 * before))
    np.testing.assert_allclose(places[0, 1, row, column], [(x - 2) / 3, y], atol=1e-3)
    assert outside[0, 1, 0, row, column] == 0
    assert outside[0, 0, 0, row, 2] == 1, "left of the left camera nobody looked"
    assert -1 < places[0, 0, row, 2, 0] < -0.98, "there its own border is taken"


def test_a_camera_behind_is_not_asked_for_what_is_ahead() -> None:
    _, outside = sources(eyes(DELIVERY_ROBOT, 4), torch.zeros(1, 4, 1, 12, 24), torch.zeros(1, 2))
    assert outside.max() == 0
    front_and_rear = Rig("two", (DELIVERY_ROBOT.cameras[0], DELIVERY_ROBOT.cameras[3]))
    places, outside = sources(eyes(front_and_rear, 4), torch.zeros(1, 2, 1, 12, 24), torch.tensor([[0.0, 3.0]]))
    assert outside[0, 0, 0, :, 0].min() == 1
    assert places[0, 0, ..., 0].max() < 0, "all in the picture of the front camera"


def trained(seed: int = 3, sequences: Sequences | None = None, config: DreamTraining = SHORT) -> WorldModel:
    return train_world(sequences or some_sequences(), DASHCAM, SMALL, config, seed=seed)


def test_a_dream_is_the_same_in_one_go_step_by_step_and_alone() -> None:
    model, real = trained(), some_sequences(3, 8, seed=5)
    whole = dreamt(model, DASHCAM, real)
    dreamer = Dreamer(model, DASHCAM)
    dreamer.begin(real.images[:, :CONTEXT], real.actions[:, 0])
    for k in range(whole.shape[1]):
        np.testing.assert_array_equal(dreamer.step(real.actions[:, k + 1]), whole[:, k])
    alone = dreamt(model, DASHCAM, Sequences(real.images[1:2], real.actions[1:2]))
    assert np.abs(alone[0].astype(int) - whole[1]).max() <= 1
    shorter = dreamt(model, DASHCAM, real.window(0, 5))
    np.testing.assert_array_equal(shorter, whole[:, :3])


def test_a_camera_sees_in_a_dream_what_its_neighbour_saw() -> None:
    real = still_sequences(1, 5)
    colours = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200]], np.uint8)
    images = np.broadcast_to(colours[:, None, None], real.images.shape).copy()
    turning = Sequences(images, np.zeros_like(real.actions) + np.array([0, 3], np.float32))
    model = initial_world(SMALL, 0)
    front = dreamt(model, THREE_CAMERAS, turning)[0, -1, 1]
    assert front[20, 2, 0] > 150, "red comes in from the left"
    assert front[20, -2, 1] > 150, "what was in the middle goes to the right"
    alone = dreamt(model, Rig("front", THREE_CAMERAS.cameras[1:2]), Sequences(images[:, :, 1:2], turning.actions))
    assert alone[0, -1, 0, 20, 2, 0] < 60


def test_training_repeats_itself_and_depends_on_the_seed() -> None:
    one, same, other = trained(), trained(), trained(seed=4)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not torch.equal(one.eye.weight, other.eye.weight)


def test_training_learns_what_geometry_does_not_say() -> None:
    config = DreamTraining(TrainingConfig(steps=60, batch=4, warmup_steps=5, peak_rate=5e-3), ((1.0, 3),))
    real, fresh = some_sequences(8, 6), some_sequences(4, 6, seed=11)
    before = dreamt(initial_world(SMALL, 3), DASHCAM, fresh)
    after = dreamt(trained(sequences=real, config=config), DASHCAM, fresh)
    truth = fresh.images[:, CONTEXT:]
    assert mse(after, truth).mean() < 0.8 * mse(before, truth).mean()


def test_latents_are_of_unit_size_and_their_errors_are_zero_where_nothing_moves() -> None:
    model, real = initial_world(SMALL, 0), still_sequences(2, 5, DASHCAM)
    states = dream(model, view(DASHCAM), torch.from_numpy(real.images[:, :2]), torch.from_numpy(real.actions))
    assert len(states) == 3
    size = states[-1].latents.square().mean(2)
    torch.testing.assert_close(size, torch.ones_like(size), atol=1e-2, rtol=0)
    assert pictures(states).dtype == torch.uint8
    _, kept = latent_errors(model, DASHCAM, real)
    assert kept.max() < 1e-9


def test_a_texture_that_slides_is_flowed_on_and_a_still_one_stays() -> None:
    rng = np.random.default_rng(3)
    coarse = torch.from_numpy(rng.random((1, 3, 12, 32))).float()
    wide = torch.nn.functional.interpolate(coarse, (48, 256), mode="bicubic", align_corners=False).clamp(0, 1)
    scene = (wide[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    slides = np.stack([scene[:, 60 + 2 * t : 156 + 2 * t] for t in range(6)])[None, :, None]
    real = Sequences(slides, np.zeros((1, 5, 2), np.float32))
    again, flow = copied(real), flowed(real)
    inner = (slice(None), slice(None), slice(None), slice(4, -4), slice(12, -16))
    for k in range(4):
        error, lazy = (mse(x[inner][:, k], real.images[:, CONTEXT:][inner][:, k])[0] for x in (flow, again))
        assert error < 0.2 * lazy
    still = still_sequences(1, 4, DASHCAM)
    assert np.abs(flowed(still).astype(int) - still.images[:, CONTEXT:]).max() <= 1


def flat_world(drives: int, seed: int) -> Sequences:
    """Pictures of a speckled flat road under random motion: what an untrained model dreams."""
    rng = np.random.default_rng(seed)
    speckled = some_sequences(drives, 4, LEVEL, seed)
    images = rng.integers(0, 255, (drives, 1, 1, 24, 48, 3), np.uint8).repeat(2, 3).repeat(2, 4).repeat(4, 1)
    real = Sequences(images, speckled.actions)
    return Sequences(
        np.concatenate([images[:, 1:2], dreamt(initial_world(SMALL, 0), LEVEL, real)], 1), real.actions[:, 1:]
    )


def test_motion_is_read_from_what_shows_it() -> None:
    net = train_odometry(flat_world(40, 1), LEVEL, 80, seed=1)
    fresh = flat_world(12, 2)
    read = read_motion(net, fresh.images)
    assert read.shape == fresh.actions.shape
    for column in (0, 1):
        assert np.corrcoef(read[:, 0, column], fresh.actions[:, 0, column])[0, 1] > 0.8
    again = train_odometry(flat_world(40, 1), LEVEL, 80, seed=1)
    np.testing.assert_array_equal(read, read_motion(again, fresh.images))
    with pytest.raises(BadSequences, match="two pictures"):
        read_motion(net, fresh.images[:, :1])


def test_a_world_model_survives_its_file(tmp_path: Path) -> None:
    model, path = trained(), tmp_path / "world.safetensors"
    save_world(model, path)
    again = load_world(path)
    assert again.config == model.config
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert [p.name for p in tmp_path.iterdir()] == ["world.safetensors"]


def test_files_that_are_none_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "world.safetensors"
    with pytest.raises(BadCheckpoint, match=r"world\.safetensors"):
        load_world(path)
    model = initial_world(SMALL, 0)
    save_world(model, path)
    whole = path.read_bytes()
    for damage in (whole[: len(whole) // 2], b"", whole.replace(b"fleetwheel.world/1", b"fleetwheel.world/9")):
        path.write_bytes(damage)
        with pytest.raises(BadCheckpoint, match="not a world model"):
            load_world(path)
    with torch.no_grad():
        model.eye.weight[0, 0, 0, 0] = torch.nan
    save_world(model, path)
    with pytest.raises(BadCheckpoint, match=r"eye\.weight"):
        load_world(path)


def test_sequences_that_do_not_fit_are_refused() -> None:
    good = some_sequences()
    check(good)
    with pytest.raises(BadSequences, match="uint8"):
        check(Sequences(good.images.astype(np.float32), good.actions))
    with pytest.raises(BadSequences, match="at least one"):
        check(good.window(0, 2))
    with pytest.raises(BadSequences, match=r"\[4, 5, 2\]"):
        check(Sequences(good.images, good.actions[:, 1:]))
    for value in (np.nan, 120.0):
        bad = good.actions.copy()
        bad[1, 2, 0] = value
        with pytest.raises(BadSequences, match=r"at \[1, 2\]"):
            check(Sequences(good.images, bad))
    with pytest.raises(BadSequences, match="too short"):
        trained(sequences=good.window(0, 4))


def test_a_dream_says_what_it_needs() -> None:
    real, dreamer = some_sequences(), Dreamer(initial_world(SMALL, 0), DASHCAM)
    for early in (lambda: dreamer.step(real.actions[:, 0]), lambda: dreamer.latents):
        with pytest.raises(BadSequences, match="begin first"):
            early()
    with pytest.raises(BadSequences, match="dashcam-1"):
        dreamer.begin(real.images[:, :1], real.actions[:, 0])
    with pytest.raises(BadSequences, match=r"is \[4, 2\]"):
        dreamer.begin(real.images[:, :2], real.actions[0])
    dreamer.begin(real.images[:, :2], real.actions[:, 0])
    assert dreamer.latents.shape == (4, 1, 8, 12, 24)
    with pytest.raises(BadSequences, match="not a speed"):
        dreamer.step(np.full((4, 2), np.inf))


def test_configurations_that_make_no_model_are_refused() -> None:
    assert world_from_json(SMALL.to_json()) == SMALL
    for text in ("{", '{"width": 8, "colour": 1}', "[1]", '{"width": 0}'):
        with pytest.raises(BadConfig, match="world model"):
            world_from_json(text)
    with pytest.raises(BadConfig, match="phases"):
        replace(SHORT, phases=())


def test_horizons_follow_the_phases() -> None:
    config = DreamTraining(TrainingConfig(steps=10, batch=2), ((0.5, 1), (0.3, 4), (0.2, 9)))
    assert [config.horizon(step) for step in range(10)] == [1] * 5 + [4] * 3 + [9] * 2


def test_a_loss_that_is_not_finite_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.tensor(torch.nan, requires_grad=True), torch.zeros(())

    monkeypatch.setattr("model.dream_training.dream_errors", broken)
    with pytest.raises(NonFiniteLoss, match="after 1 steps"):
        trained()
