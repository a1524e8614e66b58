"""Drives at 10 Hz, what is put in their way, what vehicles are told to do, and policies that drive in dreams."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from model.policy import FOLLOW, PLAN_POINTS, PLAN_STEP_S, Observation, Plan
from model.rig import DASHCAM
from simulation.arrays import Images
from simulation.drives import drive_on, empty_drives, record_drives
from simulation.dynamics import Motion
from simulation.edits import EDITS, edited, shows
from simulation.encounters import ENCOUNTERS
from simulation.imagined import driven, imagine
from simulation.manoeuvres import EXPERT, BadManoeuvre, Part, parts, steering
from simulation.scenarios import UnknownName, scene, scenes
from simulation.world import PHYSICS_S, World

SCENES = scenes({"base": 1.0, "zebra_crossing": 1.0}, 4, 3, "train")


def test_a_step_may_be_as_short_as_the_physics() -> None:
    one, two = World(SCENES, None), World(SCENES, None)
    plan = one.expert().trajectory
    one.step(plan)
    two.step(plan, PHYSICS_S)
    assert two.time_s == PHYSICS_S
    assert (two.travelled_m < one.travelled_m).all()


def test_actions_lead_from_each_picture_to_the_next() -> None:
    drives = record_drives(SCENES, DASHCAM, 6, seed=2)
    assert drives.images.shape == (4, 6, 1, 48, 96, 3)
    assert drives.target.shape == (4, 6, PLAN_POINTS, 2)
    mean_speed = (drives.speed_mps[:, 1:] + drives.speed_mps[:, :-1]) / 2
    np.testing.assert_allclose(drives.actions[..., 0], mean_speed, atol=1e-3)
    np.testing.assert_allclose(drives.actions[..., 1], drives.yaw_rate_radps[:, 1:], atol=0.05)
    assert np.abs(drives.images[:, 1:].astype(int) - drives.images[:, :-1]).mean() > 1


def test_drives_repeat_themselves_in_any_batch() -> None:
    told = []
    one = record_drives(SCENES, DASHCAM, 4, 2)
    two = record_drives(SCENES, DASHCAM, 4, 2, batch=3, progress=lambda done, of: told.append((done, of)))
    np.testing.assert_array_equal(one.images, two.images)
    np.testing.assert_array_equal(one.actions, two.actions)
    assert told == [(3, 4), (4, 4)]
    tame = record_drives(SCENES, DASHCAM, 4, 2, perturb=None)
    assert not np.array_equal(tame.actions, one.actions)
    np.testing.assert_allclose(tame.lateral_m[:, 0], 0, atol=0.05)


def test_a_manoeuvre_is_driven_and_the_expert_knows_the_way_back() -> None:
    out = empty_drives(len(SCENES), 21, DASHCAM)
    with World(SCENES, DASHCAM) as world:
        drive_on(world, steering([Part(EXPERT, 0.5), Part("swerve-left", 1.5)], 0.0), out)
    quiet, swerve = out.actions[:, :4, 1], out.actions[:, 10:, 1]
    moving = out.speed_mps[:, 0] > 4
    assert (swerve[moving].mean(1) > quiet[moving].mean(1) + 0.05).all()
    assert (out.target[moving, -1, -1, 1] < 0).all(), "back to the right"


def test_the_last_manoeuvre_goes_on() -> None:
    world = World(SCENES, None)
    steer = steering([Part("stop", 0.3)], 0.0)
    for _ in range(60):
        world.step(steer(world), PHYSICS_S)
    assert (world.motion.speed < 0.5).all()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("fly", "swerve-left"),
        ("left:x", "number of seconds"),
        ("left:-1", "cannot last"),
        ("left:3,stop", "no time"),
    ],
)
def test_words_that_are_no_manoeuvres_are_named(text: str, told: str) -> None:
    with pytest.raises(BadManoeuvre, match=told):
        parts(text, 3.0)


def test_an_edit_changes_one_place_and_nothing_else() -> None:
    before = scene("base", 5)
    after = edited(before, "oncoming", 200.0)
    assert [e.name for e in after.encounters if e] == ["drifter"]
    assert 200.0 in after.line_s_m
    assert (np.diff(after.line_s_m) > 0).all()
    assert (after.line_s_m != before.line_s_m).sum() == 1
    np.testing.assert_array_equal(after.roadside.s_m, before.roadside.s_m)
    with pytest.raises(UnknownName, match="oncoming"):
        edited(before, "dragon", 200.0)


@pytest.mark.parametrize("at_m", [1.0, 500.0, 959.0, 1234.0])
def test_places_stay_in_order_wherever_an_edit_is(at_m: float) -> None:
    after = edited(scene("town_route", 5), "door", at_m)
    assert (np.diff(after.line_s_m) > 0).all()
    assert not after.turn_rad[[e is not None and e.name == "door" for e in after.encounters]].any()


def test_edits_are_on_straight_road() -> None:
    assert all(ENCOUNTERS[edit.encounter].layout == "straight" for edit in EDITS.values())


def test_an_oncoming_car_comes_into_the_lane() -> None:
    base = scene("base", 5)
    start = World([base], None)
    world = World([edited(base, "oncoming", float(start.front_s[0]) + 90.0)], None)
    nearest = 9.0
    for _ in range(80):
        world.step(world.expert().trajectory)
        if world.cast and world.cast.visible[0, 0] and world.cast.s[0, 0] > world.front_s[0]:
            nearest = min(nearest, abs(float(world.cast.d[0, 0] - world.lane_d[0])))
    assert nearest < 0.5


class Bright:
    """A policy that turns by how bright its picture is: what it sees decides where it goes."""

    def plan(self, observation: Observation) -> Plan:
        count = len(observation.images)
        bend = (observation.images.reshape(count, -1).mean(1, dtype=np.float64) - 120) / 2000
        way = observation.speed_mps[:, None] * PLAN_STEP_S * np.arange(1, PLAN_POINTS + 1)
        modes = np.stack([way, bend[:, None] * way**2 / 2], -1)[:, None].astype(np.float32)
        one = np.ones((count, 1), np.float32)
        return Plan(modes, one, np.ones_like(modes), one)


class Replayed:
    """The perfect dream: what the simulation showed; pictures between two plans are seen by nobody."""

    def __init__(self, images: Images) -> None:
        self.images, self.actions = images, list[NDArray[np.floating]]()

    def step(self, action: NDArray[np.floating]) -> Images:
        self.actions.append(action)
        return np.asarray(self.images[(len(self.actions) - 1) // 2])


def test_a_policy_in_a_perfect_dream_drives_as_in_the_simulation() -> None:
    with World(SCENES, DASHCAM) as world:
        first, motion = world.observe(), _copy(world.motion)
        real = driven(Bright(), world, 5)
    dream = Replayed(real.images)
    dreamt = imagine(Bright(), dream, first, motion, 5)
    np.testing.assert_allclose(dreamt.place_m, real.place_m, atol=1e-9)
    np.testing.assert_array_equal(dreamt.images, real.images)
    assert len(dream.actions) == 10
    assert np.hypot(*real.place_m[:, -1].T).min() > 0.5
    assert (first.command == FOLLOW).any()


class Remembering(Bright):
    """Wants three instants, and notes how many it was shown."""

    history = 3

    def __init__(self) -> None:
        self.shown = list[int]()

    def plan(self, observation: Observation) -> Plan:
        self.shown.append(1 + len(observation.past))
        return super().plan(observation)


def test_a_policy_that_remembers_is_shown_its_past_in_a_dream_too() -> None:
    with World(SCENES, DASHCAM) as world:
        first, motion = world.observe(), _copy(world.motion)
        one, two = Remembering(), Remembering()
        real = driven(one, world, 4)
    imagine(two, Replayed(real.images), first, motion, 4)
    assert one.shown == two.shown == [1, 2, 3, 3]


def test_what_is_dreamt_decides_where_the_policy_goes() -> None:
    with World(SCENES, DASHCAM) as world:
        first, motion = world.observe(), _copy(world.motion)
    dark, light = (
        imagine(Bright(), Replayed(np.full((5, *first.images.shape), grey, np.uint8)), first, motion, 5).place_m
        for grey in (20, 230)
    )
    assert (light[:, -1, 1] > dark[:, -1, 1] + 0.01).all()


def _copy(m: Motion) -> Motion:
    return Motion(m.x.copy(), m.y.copy(), m.heading.copy(), m.speed.copy(), m.accel.copy(), m.curvature.copy())


def test_an_edit_shows_once_it_is_near() -> None:
    with World([scene("base", 5)], None) as world:
        assert not shows(world, "oncoming")
        place_m = float(world.front_s[0]) + 90.0
    world = World([edited(scene("base", 5), "oncoming", place_m)], None)
    seen = []
    for _ in range(120):
        world.step(world.expert().trajectory)
        seen.append(shows(world, "oncoming"))
    assert not seen[0]
    assert any(seen)
    assert not seen[-1], "it has gone by"
