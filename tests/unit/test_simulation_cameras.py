"""What must be seen is seen: by colour and place in rendered frames, on any rig."""

from __future__ import annotations

import math

import numpy as np
import pytest
from panda3d import core

from model.rig import THREE_CAMERAS, Camera, Rig
from simulation.panda import Canvas
from simulation.scenarios import BASE, LIGHT_LINE, STOP_LINE, Scene, scenes
from simulation.traffic import FAR_M
from simulation.world import World

ONE = Rig("one", (Camera("wide", 128, 64, 1.6, 1.5, 0.0, 1.4),))


def _before_line(condition: str, kind: int, metres: float, darkness: float | None = None) -> np.ndarray:
    """Front camera images, int [N, H, W, 3], standing that far before the first line of a kind."""
    chosen = [s for s in scenes({condition: 1}, 12, 8, "train") if (s.line_kind == kind).any()]
    with World(chosen, THREE_CAMERAS) as world:
        world.s = np.array([s.line_s_m[s.line_kind == kind][0] for s in chosen]) - metres - 3.8
        x, y, heading = world.roads.pose(world.s, world.lane_d)
        world.motion.x, world.motion.y, world.motion.heading = x, y, heading
        world.traffic.car_s[:] = FAR_M
        return world.observe().images[:, 1].astype(int)


def _red(images: np.ndarray) -> np.ndarray:
    r, g, b = images[..., 0], images[..., 1], images[..., 2]
    return (r > 120) & (g < 90) & (b < 100)


@pytest.mark.parametrize("condition", ["base", "left_hand", "triangle"])
def test_stop_signs_show_on_their_side(condition: str) -> None:
    images = _before_line(condition, STOP_LINE, 9.0)
    half = slice(0, 48) if condition == "left_hand" else slice(48, 96)
    count = _red(images)[:, :30, half].sum((1, 2))
    assert (count >= 6).mean() > 0.8, count


def test_stop_signs_are_gone_beyond_the_line() -> None:
    ahead, beyond = _before_line(BASE, STOP_LINE, 9.0), _before_line(BASE, STOP_LINE, -6.0)
    assert _red(beyond).sum() < 0.3 * _red(ahead).sum()


@pytest.mark.parametrize("condition", ["base", "night"])
def test_a_light_is_lit_where_a_waiting_driver_sees_it(condition: str) -> None:
    images = _before_line(condition, LIGHT_LINE, 1.5)
    lamps = (images.max(-1) > 235) & (images.max(-1) - images.min(-1) > 120)
    count = lamps[:, :24].sum((1, 2))
    assert (count >= 4).all(), count


def test_night_is_dark_and_fog_is_grey() -> None:
    def look(condition: str) -> np.ndarray:
        with World(scenes({condition: 1}, 6, 1, "train"), THREE_CAMERAS) as world:
            return world.observe().images.astype(float)

    day, night, fog = look("base"), look("night"), look("fog")
    assert night.mean() < 0.35 * day.mean()
    colourful = [(image.max(-1) - image.min(-1)).mean() for image in (day, fog)]
    assert colourful[1] < 0.4 * colourful[0]
    contrast = fog[:, 1].std((0, 2, 3)) / day[:, 1].std((0, 2, 3))
    assert contrast[20:30].mean() < 0.75 * contrast[40:].mean(), "fog takes what is far, not what is near"


def test_headlights_light_the_road_ahead_and_not_the_roadside() -> None:
    with World(scenes({"night": 1}, 6, 1, "train"), THREE_CAMERAS) as world:
        images = world.observe().images.astype(float)
    assert images[:, 1, 38:46, 36:60].mean() > 2 * images[:, 0, 38:46, :40].mean()


def test_any_rig_is_rendered() -> None:
    chosen = scenes({BASE: 1}, 5, 1, "train")
    with World(chosen, ONE) as world:
        images = world.observe().images
    assert images.shape == (5, 1, 64, 128, 3)
    assert images.std((1, 2, 3, 4)).min() > 15, "no view is empty"


def test_a_camera_turned_left_shows_the_left() -> None:
    """The overlap of two cameras of one place shows the same things, shifted by their angle."""
    turn = math.atan(1 / 3)
    ahead = Camera("ahead", 96, 48, 1.2, 1.0, 0.0, 1.5)
    left = Camera("left", 96, 48, 1.2, 1.0, 0.0, 1.5, yaw_rad=turn)
    with World(scenes({BASE: 1}, 4, 1, "train"), Rig("pair", (ahead, left))) as world:
        images = world.observe().images.astype(float)
    pixels = round(turn * ahead.focal_px)
    same = np.abs(images[:, 0, :, 20:40] - images[:, 1, :, 20 + pixels : 40 + pixels]).mean()
    mirrored = np.abs(images[:, 0, :, 60:80] - images[:, 1, :, 60 - pixels : 80 - pixels]).mean()
    assert same < mirrored


def test_closed_buffers_are_not_drawn_and_serve_again() -> None:
    chosen: list[Scene] = scenes({BASE: 1}, 1, 1, "train")
    engine = core.GraphicsEngine.get_global_ptr()
    first = World(chosen, ONE)
    image = first.observe().images
    first.close()
    first.close()
    buffers = [engine.get_window(i) for i in range(engine.get_num_windows())]
    assert not any(buffer.is_active() for buffer in buffers)
    with pytest.raises(RuntimeError, match="closed"):
        first.observe()
    with World(chosen, ONE) as second:
        assert engine.get_num_windows() == len(buffers)
        np.testing.assert_array_equal(second.observe().images, image)


def test_too_many_views_are_refused_with_advice() -> None:
    with pytest.raises(ValueError, match="fewer vehicles"):
        Canvas(100_000, 96, 48)


def test_only_those_that_are_named_see_anything() -> None:
    with World(scenes({BASE: 1}, 3, 4, "train"), THREE_CAMERAS, 0) as world:
        whole, some, again = (world.observe(rows).images for rows in (None, np.array([1]), None))
    np.testing.assert_array_equal(some[1], whole[1])
    assert whole[[0, 2]].mean() > 40, "a day"
    assert some[[0, 2]].mean() < 10, "nothing but the sensors' noise"
    np.testing.assert_array_equal(again, whole)
