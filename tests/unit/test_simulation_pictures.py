"""What encounters, weather and faults look like: by colour and place in rendered frames."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from model.rig import RIGS, THREE_CAMERAS, Camera, Rig, enlarged
from simulation.encounters import LOOKS, Look
from simulation.faults import FAULTS, swing
from simulation.scenarios import condition, drawn, scene, scene_seed
from simulation.world import World

WIDE = Rig("wide", (Camera("front", 160, 90, 1.4, 1.8, 0.0, 1.5),))


def _when(name: str, seed: int, until: Callable[[World], bool], region: str = "") -> np.ndarray:
    """What is seen ahead in a drive by the expert as soon as something holds, int [H, W, 3]."""
    with World([drawn(condition(name, region=region), scene_seed("train", seed, 0))], WIDE) as world:
        while not until(world):
            assert world.time_s < 60, "it never came to that"
            world.step(world.expert().trajectory)
        return np.asarray(world.observe().images[0, 0].astype(int))


def _before_line(metres: float) -> Callable[[World], bool]:
    return lambda world: world.cast is not None and 0 < world.cast.line_s[0] - world.front_s[0] < metres


def _reds(picture: np.ndarray) -> int:
    r, g, b = picture[..., 0], picture[..., 1], picture[..., 2]
    return int(((r > 130) & (g < 90) & (b < 100)).sum())


def test_stripes_lie_before_a_zebra_crossing() -> None:
    picture = _when("zebra_crossing", 1, _before_line(4.0))
    row = picture[55:75].mean(-1)
    crossings = (np.diff((row > 150).astype(int), axis=1) == 1).sum(1)
    assert crossings.max() >= 4, "light stripes on dark asphalt"


@pytest.mark.parametrize(("region", "half"), [("us", slice(80, 160)), ("uk", slice(0, 80))])
def test_a_give_way_sign_stands_on_the_side_of_the_lane(region: str, half: slice) -> None:
    picture = _when("roundabout", 2, _before_line(16.0), region)
    assert _reds(picture[:45, half]) >= 5


def test_an_island_lies_in_a_roundabout() -> None:
    ahead = _when("roundabout", 2, _before_line(3.0), "us")[46:60, 60:100]
    assert ((ahead[..., 1] > ahead[..., 0] + 10) & (ahead[..., 1] > ahead[..., 2] + 10)).mean() > 0.15


def test_cones_stand_at_roadworks() -> None:
    def near(world: World) -> bool:
        return world.cast is not None and world.cast.closed[0, 0] - world.front_s[0] < 22.0

    picture = _when("roadworks", 1, near)
    r, g, b = picture[..., 0], picture[..., 1], picture[..., 2]
    assert ((r > 150) & (g > 60) & (g < 150) & (b < 70)).sum() >= 12


@pytest.mark.parametrize(
    ("name", "look"),
    [
        ("overtaking_cyclist", "cyclist"),
        ("zebra_crossing", "person"),
        ("emergency_vehicle", "ambulance"),
        ("roadworks", "van"),
        ("opening_door", "door"),
        ("roundabout", "car"),
    ],
)
def test_who_takes_part_is_drawn(name: str, look: Look) -> None:
    """Without him the picture is another."""
    with World([scene(name, scene_seed("train", 5, 0))], RIGS["van-6"]) as world:
        assert world.cast
        who: list[int] = []
        while not who:
            world.step(world.expert().trajectory)
            near = np.abs(world.cast.s[0] - world.s[0]) < 20
            who = np.flatnonzero(world.cast.visible[0] & near & (world.cast.look[0] == LOOKS.index(look))).tolist()
            assert world.time_s < 90
        there = world.observe().images
        world.cast.behaviour[0, who] = -1
        differs = np.abs(there.astype(int) - world.observe().images).max(-1) > 12
    assert differs.sum() > 15


def _still(name: str) -> np.ndarray:
    chosen = [scene(name, seed) for seed in range(3)]
    with World(chosen, THREE_CAMERAS) as world:
        return world.observe().images.astype(float)


def test_rain_is_grey_snow_is_light_and_dusk_glows() -> None:
    rain, snow, dusk, day = _still("rain"), _still("snow"), _still("dusk"), _still("unseen_sign")
    colour = [(p.max(-1) - p.min(-1)).mean() for p in (day, rain)]
    assert colour[1] < 0.75 * colour[0]
    assert snow[:, :, 30:].mean() > rain[:, :, 30:].mean() + 8
    sky = dusk[:, :, :6].mean((0, 1, 2, 3))
    assert sky[0] > 1.3 * sky[2], "the evening sky is red"
    assert dusk.mean() < 0.8 * day.mean()


def test_weather_does_not_depend_on_the_batch() -> None:
    chosen = [scene("rain", 1), scene("snow", 2), scene("roundabout", 3)]
    with World(chosen, WIDE) as together, World(chosen[1:], WIDE) as pair:
        np.testing.assert_array_equal(together.observe().images[1:], pair.observe().images)


def _through(fault: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two pictures in a row through sound cameras' scene with a fault, and the first without it."""
    sound, faulty = drawn(condition("base"), 11), drawn(condition("base", fault=fault), 11)
    with World([sound], THREE_CAMERAS) as world, World([faulty], THREE_CAMERAS) as other:
        first, clear = other.observe().images[0].astype(int), world.observe().images[0].astype(int)
        other.step(other.expert().trajectory)
        return first, other.observe().images[0].astype(int), clear


def test_faults_show_and_nothing_else_does() -> None:
    lost, _, clear = _through("lost_camera")
    black = (lost == 0).all((1, 2, 3))
    assert black.sum() == 1
    np.testing.assert_array_equal(lost[~black], clear[~black])
    first, second, _ = _through("frozen_camera")
    assert (first == second).all((1, 2, 3)).sum() == 1
    dirty, _, clear = _through("dirty_camera")
    share = (np.abs(dirty - clear).max(-1) > 20).mean()
    assert 0.1 < share < 0.75
    askew, _, clear = _through("wrong_calibration")
    assert (np.abs(askew - clear).mean((1, 2, 3)) > 2).all()


def test_shaking_is_about_as_far_as_told() -> None:
    fault = FAULTS["shaking_camera"]
    swings = np.concatenate([swing(fault, 5, tick, 3) for tick in range(400)])
    np.testing.assert_allclose(swings.std(0), fault.shake_rad, rtol=0.1)
    first, second, clear = _through("shaking_camera")
    assert np.abs(first - clear).mean() > 1
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("name", list(RIGS))
def test_every_rig_sees_the_world(name: str) -> None:
    with World([scene("unprotected_turn", 1), scene("tailgating", 2)], RIGS[name]) as world:
        images = world.observe().images
    assert images.shape[:2] == (2, len(RIGS[name].cameras))
    assert images.std((2, 3, 4)).min() > 12, "no view is empty"


def test_rigs_are_of_their_vehicles() -> None:
    counts = sorted(len(rig.cameras) for rig in RIGS.values())
    assert counts == [1, 3, 4, 6]
    heights = {rig.name: max(camera.z_m for camera in rig.cameras) for rig in RIGS.values()}
    assert heights["robot-4"] < 1.0 < heights["dashcam-1"] < 2.0 < heights["van-6"]
    large = enlarged(RIGS["van-6"], 2)
    assert {(c.width_px, c.height_px) for c in large.cameras} == {(192, 96)}
    assert large.cameras[0].focal_px == pytest.approx(2 * RIGS["van-6"].cameras[0].focal_px)
