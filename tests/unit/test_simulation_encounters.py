"""Encounters: the expert masters each, who does not look fails for its reason, and nobody depends on the batch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import pytest

from model.policy import FOLLOW, LEFT, RIGHT, STRAIGHT
from simulation.cast import Ego
from simulation.encounters import ENCOUNTERS, GIVE_WAY_LINE, Behaviour
from simulation.episode import Supervised
from simulation.expert import RULES, plan
from simulation.hazards import GIVE_WAY, Swerve
from simulation.layouts import path, ring_pieces, shape, trace
from simulation.priority import STRICT_S
from simulation.roads import PERIOD_M
from simulation.scenarios import BASE, CONDITIONS, SCENARIOS, condition, drawn, scene, scene_seed, scenes
from simulation.traffic import AMBER, GREEN, RED, RED_AMBER, Lines
from simulation.world import World

MET = [name for name, row in SCENARIOS.items() if row.encounters]
REASONS = {
    "oncoming_in_lane": "collision",
    "overtaking_cyclist": "collision",
    "zebra_crossing": "pedestrian",
    "emergency_vehicle": "emergency",
    "roadworks": "collision",
    "roundabout": "right_of_way",
    "unprotected_turn": "right_of_way",
    "opening_door": "collision",
}
"""What the safety driver says of who is blind to the scenario."""
FOLLOWED = {
    "tailgating": "leave room when tailgated",
    "oncoming_in_lane": "keep clear of oncoming",
    "overtaking_cyclist": "pass with room",
    "zebra_crossing": "give way at crossing",
    "emergency_vehicle": "let emergency vehicle pass",
    "roadworks": "wait to pass",
    "roundabout": "give way at junction",
    "unprotected_turn": "give way at junction",
    "opening_door": "pass with room",
    "red_light": "stop at light",
    "town_route": "give way at junction",
}


def test_the_scenarios_of_the_product_exist() -> None:
    named = {
        "cut_in", "tailgating", "oncoming_in_lane", "overtaking_cyclist", "zebra_crossing", "emergency_vehicle",
        "roadworks", "roundabout", "unprotected_turn", "opening_door", "red_light", "unseen_sign",
    }  # fmt: skip
    assert named <= set(SCENARIOS)
    assert list(SCENARIOS)[: len(CONDITIONS)] == list(CONDITIONS)
    assert {encounter for row in SCENARIOS.values() for encounter in row.encounters} == set(ENCOUNTERS)


@dataclass
class Driven:
    """What came of driving one scenario."""

    rules: set[str] = field(default_factory=set)
    causes: Counter[str] = field(default_factory=Counter)
    metres: float = 0.0


def _driven(names: Sequence[str], seed: int, steps: int, *, blind: bool) -> dict[str, Driven]:
    """Eight vehicles in each scenario, all in one world, driven by the expert or by one who is blind to casts."""
    world = World([scene(name, scene_seed("train", seed, i)) for name in names for i in range(8)], None)
    supervised, out = Supervised(world), {name: Driven() for name in names}
    for _ in range(steps):
        expert = world.expert()
        looks = None if not blind else replace(world.obstacles(), hazards=None)
        plans = expert if looks is None else plan(world.roads, world.driver(), looks)
        for row, number in enumerate(expert.rule):
            out[names[row // 8]].rules.add(RULES[number])
        for event in supervised.step(plans.trajectory).disengagements:
            out[names[event.vehicle // 8]].causes[event.cause] += 1
    for row, metres in enumerate(world.travelled_m):
        out[names[row // 8]].metres += float(metres)
    return out


@pytest.fixture(scope="module")
def mastered() -> dict[str, Driven]:
    return _driven(MET, 5, 150, blind=False)


@pytest.fixture(scope="module")
def unseen() -> dict[str, Driven]:
    return _driven(list(REASONS), 17, 150, blind=True)


@pytest.mark.parametrize("name", MET)
def test_the_expert_masters_every_encounter_by_its_rule(name: str, mastered: dict[str, Driven]) -> None:
    assert mastered[name].causes == {}
    assert FOLLOWED[name] in mastered[name].rules
    assert mastered[name].metres > 8 * 100


@pytest.mark.parametrize("name", list(REASONS))
def test_who_does_not_look_fails_for_the_scenarios_reason(name: str, unseen: dict[str, Driven]) -> None:
    assert unseen[name].causes[REASONS[name]] >= 2, unseen[name].causes


def test_a_tight_pass_of_a_cyclist_is_the_cyclists_reason() -> None:
    world = World(scenes({"overtaking_cyclist": 1}, 8, 17, "train"), None)
    assert world.cast
    assert world.priority
    ride = world.cast.plays(Behaviour.RIDE)
    while not ride.any():
        world.step(world.expert().trajectory)
        ride = world.cast.plays(Behaviour.RIDE)
    row, column = np.argwhere(ride)[0]
    cyclist = world.cast.d[row, column]
    ego = Ego(
        world.cast.s[:, column] - 1.4, np.full(len(world), cyclist + 1.9 * world.cast.side[row]), world.d * 0
    )
    assert world.priority.too_close(ego)[row], "1.9 m apart in the middle leaves 0.6 m"
    wide = replace(ego, d=np.full(len(world), cyclist + 2.9 * world.cast.side[row]))
    assert not world.priority.too_close(wide)[row]


def test_encounters_unfold_alike_in_any_batch_and_leave_others_alone() -> None:
    names = ["roundabout", "base", "zebra_crossing", "rain"]
    mixed = [scene(name, scene_seed("train", 3, i)) for i, name in enumerate(names)]
    together, alone = World(mixed, None), [World([each], None) for each in mixed]
    for _ in range(40):
        together.step(together.expert().trajectory)
        for world in alone:
            world.step(world.expert().trajectory)
    for row, world in enumerate(alone):
        assert world.status().x_m[0] == together.status().x_m[row], names[row]
        assert world.status().ttc_s[0] == together.status().ttc_s[row], names[row]
    assert alone[1].cast is None, "nobody takes part in plain worlds"


def test_vehicles_do_not_begin_amid_an_encounter() -> None:
    world = World([scene(name, seed) for name in MET for seed in range(6)], None)
    supervised = Supervised(world)
    assert not supervised.step(world.expert().trajectory).disengagements
    assert world.cast
    assert (world.cast.line_s - world.front_s > 15.0).all()


def test_navigation_speaks_before_junctions_and_falls_silent_after() -> None:
    world = World(scenes({"unprotected_turn": 1}, 6, 2, "train"), None)
    assert world.cast
    said: set[int] = set()
    for _ in range(130):
        commands = world.cast.commands(world.ego())
        gap = world.cast.line_s - world.front_s
        assert (commands[gap > 55] == FOLLOW).all()
        said |= set(commands.tolist())
        world.step(world.expert().trajectory)
    assert said == {FOLLOW, LEFT, RIGHT}
    straight = World(scenes({"red_light": 1}, 6, 2, "train"), None)
    assert straight.cast
    for _ in range(60):
        straight.step(straight.expert().trajectory)
        said |= set(straight.cast.commands(straight.ego()).tolist())
    assert STRAIGHT in said


def test_routes_turn_and_come_back_to_their_direction() -> None:
    for name in ("unprotected_turn", "roundabout", "town_route"):
        for seed in range(12):
            chosen = scene(name, seed)
            heading = np.cumsum(chosen.turn_rad)
            assert abs(heading[-1]) < 1e-9
            assert np.ptp(np.append(heading, 0.0)) < math.pi / 2 + 1e-9
            assert abs(chosen.bends[:, 2].sum()) < 1e-9 if len(chosen.bends) else True
    assert all((scene("unprotected_turn", seed).turn_rad != 0).all() for seed in range(5))


def test_a_quarter_turn_ends_where_a_circle_would() -> None:
    line = trace((0.0, 0.0, 0.0), ((10.0, 0.0), (9.0 * math.pi / 2, math.pi / 2), (200.0, 0.0)))
    np.testing.assert_allclose(line[60, 0], 10 + 9, atol=0.1)
    assert line[60, 2] == pytest.approx(math.pi / 2)
    assert line[60, 1] == pytest.approx(9 + 60 - 10 - 9 * math.pi / 2, abs=0.1)


@pytest.mark.parametrize("turn", [0.0, math.pi / 2, -math.pi / 2])
def test_a_roundabout_leads_out_on_the_axis_of_its_arm(turn: float) -> None:
    here = shape("ring", turn, 3.5)
    assert here
    pieces = ((3.5 + here.from_m + 20, 0.0), *ring_pieces(turn, 3.5), (300.0, 0.0))
    line = trace((-23.5, 0.0, 0.0), pieces)
    assert line[-1, 2] == pytest.approx(turn)
    end = line[120, :2] - [here.middle_m, 0.0]
    aside = -end[0] * math.sin(turn) + end[1] * math.cos(turn)
    assert aside == pytest.approx(0.0, abs=0.2), "the exit points away from the middle"
    assert len(here.arms_rad) == 2


def test_paths_that_a_layout_has_not_are_refused() -> None:
    with pytest.raises(ValueError, match="no path 'ahead' on a straight road"):
        path("ahead", "straight", 3.5)


def test_a_swerve_by_hand() -> None:
    one = np.ones(1)
    swerve = Swerve(100 * one, 120 * one, 0 * one, -2 * one, 10 * one)
    shift, slope = swerve.at(np.array([[80.0, 90.0, 95.0, 100.0, 120.0, 125.0, 130.0]]), 0.0)
    np.testing.assert_allclose(shift[0], [0, 0, -1, -2, -2, -1, 0])
    np.testing.assert_allclose(slope[0, [2, 5]], [-0.3, 0.3])
    moving = Swerve(100 * one, 120 * one, 4 * one, -2 * one, 10 * one)
    np.testing.assert_allclose(moving.at(np.array([[120.0]]), 5.0)[0], -2.0)


def test_a_red_light_of_the_uk_warns_before_green() -> None:
    chosen = drawn(condition("base", region="uk"), 3)
    lines = Lines([chosen])
    number = np.zeros(1, np.int64)
    seen = [int(lines.colour(number, t)[0]) for t in np.arange(0, 2 * chosen.phases.cycle_s, 0.1)]
    after = {a: b for a, b in pairwise(seen) if a != b}
    assert after == {GREEN: AMBER, AMBER: RED, RED: RED_AMBER, RED_AMBER: GREEN}
    red_for, red_left = lines.red_s(number, 0.0)
    assert red_for[0] + red_left[0] == pytest.approx(chosen.phases.red_s + chosen.phases.red_amber_s)


def test_places_are_numbered_without_end() -> None:
    world = World([scene("overtaking_cyclist", 4), scene(BASE, 4), scene("roundabout", 4)], None)
    assert world.cast
    places = world.cast.places
    last = np.full(3, -(10**9))
    for s in np.arange(0.0, 3 * PERIOD_M, 40.0):
        number, line_s = places.current(np.full(3, s))
        assert (number >= last).all()
        assert np.isinf(line_s[1])
        assert (line_s[[0, 2]] + places.tail_m[[0, 2]] >= s).all()
        last = number
    kinds = world.lines.kind_of(places.line(number))
    assert kinds[2] == GIVE_WAY_LINE


def test_nobody_is_waited_for_who_is_not_there() -> None:
    world = World(scenes({"roundabout": 1}, 6, 9, "train"), None)
    assert world.cast
    assert world.priority
    world.cast.behaviour[:] = -1
    assert not world.priority.conflict(world.ego(), STRICT_S).any()
    hazards = world.priority.hazards(world.ego(), world.limit)
    assert (np.stack([hazards.give_way_gap, hazards.body_gap, hazards.oncoming_gap]) > 1e5).all()
    assert all(np.isinf(a).all() for a in hazards.accelerations(world.motion.speed, world.limit, 0.0, world.d * 0))


def test_wet_roads_double_the_headway() -> None:
    world = World([scene("rain", 1), scene("tailgating", 1)], None)
    assert world.priority
    headway = world.priority.hazards(world.ego(), world.limit).headway_s
    np.testing.assert_allclose(headway, [2.6, 1.3])


def test_wrong_names_say_what_exists() -> None:
    for wrong, message in (
        ({"name": "zebra"}, "known: base.*zebra_crossing"),
        ({"name": "base", "region": "mars"}, "region 'mars'; known: right_mph"),
        ({"name": "base", "weather": "hail"}, "known: clear, rain, fog, snow"),
        ({"name": "base", "time_of_day": "noon"}, "known: day, dusk, night"),
        ({"name": "base", "fault": "none"}, "camera fault 'none'; known: dirty_camera"),
    ):
        with pytest.raises(ValueError, match=message):
            condition(**wrong)


def test_a_scenario_goes_elsewhere_and_into_other_weather() -> None:
    row = condition("roadworks", region="uk", weather="fog", time_of_day="dusk", fault="lost_camera")
    chosen = drawn(row, 7)
    assert chosen.region.name == "uk"
    assert chosen.fog_per_m > 0
    assert 0.4 < chosen.darkness < 0.8
    assert chosen.fault.lost
    assert condition("rain", weather="clear").rain == (0.0, 0.0)


def test_rules_and_their_numbers_agree() -> None:
    assert RULES[GIVE_WAY] == "give way at junction"
    assert len(RULES) == 15
