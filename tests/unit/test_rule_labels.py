"""Labels of language: the cause is the one that binds, it is where they say, and without it the rule goes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from model.grammar import CAUSES, NONE, decoded
from model.labels import LOOKS, check_labels
from model.rig import THREE_CAMERAS
from simulation.counterfactuals import CannotTakeAway, instant, without
from simulation.hazards import KEEP_LANE
from simulation.labels import LABELLERS
from simulation.labels.rule import Thing, reasons
from simulation.scenarios import SCENARIOS, condition, drawn, scene_seed, scenes
from simulation.world import World

EXPECTED = {
    "tailgating": "tailgater",
    "oncoming_in_lane": "oncoming",
    "overtaking_cyclist": "cyclist",
    "zebra_crossing": "crosses",
    "emergency_vehicle": "emergency",
    "roadworks": "works",
    "roundabout": "ring",
    "unprotected_turn": "junction",
    "opening_door": "door",
    "red_light": "light",
    "unseen_sign": "stop_sign",
    "pedestrians": "walker",
    "cut_in": "cut_in",
    "rain": "wet",
    "snow": "snow",
    "base": "clear",
}


@pytest.fixture(scope="module")
def driven() -> dict[str, Counter[str]]:
    """Scenario -> how often which cause was told, in a while of driving by the expert; some labels are checked."""
    names = list(EXPECTED)
    world = World([drawn(condition(n), scene_seed("train", 1, i)) for i, n in enumerate(names)], None)
    found: dict[str, Counter[str]] = {name: Counter() for name in names}
    for step in range(300):
        if step % 3 == 0:
            told = reasons(world)
            for row, reason in enumerate(told):
                found[world.scenes[row].condition.name][reason.said.cause] += 1
        if step % 30 == 0:
            _check(world)
        world.step(world.expert().trajectory)
    return found


def _check(world: World) -> None:
    labels = {name: LABELLERS[name](world) for name in ("words", "look")}
    check_labels(labels, len(world))
    for row, reason in enumerate(reasons(world)):
        assert decoded(labels["words"][row]) == reason.said
        cause = CAUSES[reason.said.cause]
        assert cause.placed == (reason.said.place != NONE)
        balls = reason.look[~np.isnan(reason.look[:, 0])]
        assert len(balls) == (0 if not cause.placed else min(len(balls), LOOKS)) and (balls[:, 3] > 0).all()
        assert not cause.placed or len(balls), reason
        assert (reason.said.cause in ("clear", "wet", "snow")) == (world.expert().rule[row] == KEEP_LANE)


@pytest.mark.parametrize("name", EXPECTED)
def test_each_scenario_gives_its_own_cause(name: str, driven: dict[str, Counter[str]]) -> None:
    assert driven[name][EXPECTED[name]] > 0, driven[name]


def _until(name: str, cause: str, seed: int = 1, held: int = 2) -> World:
    world = World([drawn(condition(name), scene_seed("train", seed, 0))], None)
    count = 0
    while count < held:
        assert world.time_s < 120, f"{name} never gave {cause}"
        count = count + 1 if reasons(world)[0].said.cause == cause else 0
        if count < held:
            world.step(world.expert().trajectory)
    return world


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("base", "stop_sign"),
        ("red_light", "light"),
        ("base", "lead"),
        ("pedestrians", "walker"),
        ("cut_in", "cut_in"),
        ("zebra_crossing", "crosses"),
        ("roadworks", "works"),
        ("overtaking_cyclist", "cyclist"),
        ("emergency_vehicle", "emergency"),
        ("tailgating", "tailgater"),
        ("unprotected_turn", "junction"),
        ("rain", "wet"),
    ],
)
def test_without_the_cause_the_expert_would_say_something_else(name: str, cause: str) -> None:
    world = _until(name, cause)
    before = reasons(world)[0]
    state = world.motion.speed.copy(), world.traffic.car_s.copy(), world.expert().trajectory.copy()
    same = instant(world, np.array([0]), None)
    assert reasons(same)[0].said == before.said
    assert np.allclose(same.expert().trajectory, state[2])
    after = reasons(instant(world, np.array([0]), None, [before.things]))[0]
    assert (after.said.cause, after.said.rule) != (before.said.cause, before.said.rule)
    assert np.array_equal(world.motion.speed, state[0]) and np.array_equal(world.traffic.car_s, state[1])
    assert reasons(world)[0].said == before.said, "the world itself is as it was"


def test_an_instant_of_some_vehicles_is_theirs_alone() -> None:
    world = World(scenes({"zebra_crossing": 1, "rain": 1}, 4, 3, "train"), None)
    for _ in range(20):
        world.step(world.expert().trajectory)
    rows = np.array([2, 0])
    part = instant(world, rows, None)
    assert [s.seed for s in part.scenes] == [world.scenes[2].seed, world.scenes[0].seed]
    assert np.allclose(part.expert().trajectory, world.expert().trajectory[rows])
    assert [r.said for r in reasons(part)] == [reasons(world)[row].said for row in rows]


def test_an_instant_looks_as_the_world_does_but_for_what_is_away() -> None:
    name = "base"
    world = _until(name, "stop_sign")
    gone = reasons(world)[0].things
    with World(world.scenes, THREE_CAMERAS) as seen:
        while seen.time_s < world.time_s - 1e-6:
            seen.step(seen.expert().trajectory)
        whole = seen.observe().images
        with instant(seen, np.array([0]), THREE_CAMERAS) as same:
            assert np.array_equal(same.observe().images, whole)
        with instant(seen, np.array([0]), THREE_CAMERAS, [gone]) as bare:
            other = bare.observe().images
    differs = np.abs(other.astype(int) - whole).max((0, 2, 3, 4)) > 40
    assert differs.any() and (other == whole).mean() > 0.95, "the sign and its bar are away, all else is as it was"


@pytest.mark.parametrize(
    ("name", "cause"),
    [("base", "lead"), ("pedestrians", "walker"), ("unprotected_turn", "junction"), ("tailgating", "tailgater")],
)
def test_a_world_can_do_for_a_while_without_what_moves_in_it(name: str, cause: str) -> None:
    world = _until(name, cause)
    before = reasons(world)[0]
    twin = instant(world, np.array([0]), None, [before.things])
    with without(world, [before.things]):
        assert reasons(world)[0].said == reasons(twin)[0].said != before.said
        assert np.array_equal(world.expert().trajectory, twin.expert().trajectory)
    assert reasons(world)[0].said == before.said
    untouched = _until(name, cause)
    for _ in range(10):
        world.step(world.expert().trajectory)
        untouched.step(untouched.expert().trajectory)
    assert np.array_equal(world.motion.x, untouched.motion.x), "it goes on as if nothing had been"


def test_what_is_built_into_a_scene_stays_while_its_world_goes_on() -> None:
    world = _until("base", "stop_sign")
    bare = without(world, [reasons(world)[0].things])
    with pytest.raises(CannotTakeAway, match="a sign cannot be taken out of a world that goes on"), bare:
        pass


def test_a_bend_cannot_be_taken_away() -> None:
    world = World(scenes({"base": 1}, 1, 1, "train"), None)
    with pytest.raises(CannotTakeAway, match="a bend cannot be taken out"):
        instant(world, np.array([0]), None, [[Thing("bend")]])
    assert set(EXPECTED) <= set(SCENARIOS)
