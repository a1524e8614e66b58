"""Traces of the simulated world, checked against the world itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from functools import cache

import numpy as np
import pytest

from simulation.dynamics import FRONT_M, REAR_M
from simulation.encounters import CAST
from simulation.episode import Supervised
from simulation.expert import Obstacles, plan
from simulation.roads import PERIOD_M
from simulation.scenarios import LIGHT_LINE, LINES, STOP_LINE, Scene, scenes
from simulation.scores import carla, nuplan, pdm, rss
from simulation.scores.collisions import collisions
from simulation.scores.recording import RecordedWorld, in_junction, trace_of
from simulation.scores.trace import CYCLIST, PEDESTRIAN, STATIC, STEP_S, VEHICLE, Trace, chosen, pieces, windows
from simulation.traffic import CAR_WIDTH_M, CARS, FAR_M, PEOPLE
from simulation.world import Status, World

MIX = {"base": 3.0, "left_hand": 1.0, "pedestrians": 1.0, "cut_in": 1.0}
PLANS = 100


class Recorded:
    """Twenty seconds of the expert in six scenes, with the world's status at each plan."""

    def __init__(self) -> None:
        self.world = RecordedWorld(scenes(MIX, 6, 11, "fleet"), None, 5)
        self.statuses: list[Status] = [self.world.status()]
        supervised = Supervised(self.world)
        for _ in range(PLANS):
            supervised.step(self.world.expert().trajectory)
            self.statuses.append(self.world.status())
        self.trace: Trace = trace_of(self.world, np.full(6, 250.0))

    def status(self, name: str) -> np.ndarray:
        """[B, plans + 1]."""
        return np.stack([getattr(status, name) for status in self.statuses], 1)


@pytest.fixture(scope="module")
def recorded() -> Recorded:
    return Recorded()


def test_motion_is_the_worlds(recorded: Recorded) -> None:
    trace = recorded.trace
    assert (len(trace), trace.steps) == (6, 2 * PLANS + 1)
    for name in ("x_m", "y_m", "heading_rad", "speed_mps", "accel_mps2", "yaw_rate_radps"):
        np.testing.assert_array_equal(getattr(trace.ego, name)[:, ::2], recorded.status(name))


def test_rates_agree_with_positions(recorded: Recorded) -> None:
    ego, others = recorded.trace.ego, recorded.trace.others
    driven = np.hypot(np.diff(ego.x_m), np.diff(ego.y_m))
    np.testing.assert_allclose(driven, (ego.speed_mps[:, 1:] + ego.speed_mps[:, :-1]) / 2 * STEP_S, atol=2e-3)
    # What others say of their motion is where they are next, on roads that bend.
    same = (others.track[:, 1:] == others.track[:, :-1]) & others.present[:, 1:] & others.present[:, :-1]
    step_x, step_y = np.diff(others.x_m, axis=1), np.diff(others.y_m, axis=1)
    told_x = others.speed_mps * np.cos(others.heading_rad) * STEP_S
    told_y = others.speed_mps * np.sin(others.heading_rad) * STEP_S
    off = np.hypot(step_x - told_x[:, 1:], step_y - told_y[:, 1:])[same]
    # The world itself pushes a lead on that would be touched.
    assert np.quantile(off, 0.99) < 0.12
    assert same.mean() > 0.3


def test_place_is_the_roads(recorded: Recorded) -> None:
    place, world = recorded.trace.place, recorded.world
    half = (FRONT_M - REAR_M) / 2
    sideways = half * np.sin(recorded.status("heading_error_rad"))
    np.testing.assert_allclose(place.d_m[:, ::2], recorded.status("lateral_error_m") + sideways, atol=0.08)
    np.testing.assert_allclose(np.diff(place.s_m[:, ::2]).sum(1), world.travelled_m, rtol=0.03)
    # The expert keeps within its lane.
    assert not place.wrong_way.any()
    assert not place.several_lanes.any()
    assert (place.overhang_m < 0).all()
    margin = world.traffic.lane_m[:, None] / 2 - CAR_WIDTH_M / 2
    np.testing.assert_allclose(np.median(-place.overhang_m, 1), margin[:, 0], atol=0.08)
    np.testing.assert_array_equal(place.limit_mps[:, 0], world.limit)


def test_others_are_the_traffic(recorded: Recorded) -> None:
    others, traffic = recorded.trace.others, recorded.world.traffic
    assert others.present[:, :, :CARS].any()
    people = others.kind == PEDESTRIAN
    assert (people & others.present).any()
    assert (others.length_m[people] < 1).all()
    np.testing.assert_array_equal(others.s_m[:, -1, :CARS], traffic.car_s)
    coming = others.present & (np.abs(others.course_rad) > np.pi / 2) & ~people
    # Oncoming traffic is in the other lane, on the side where it belongs.
    assert coming.any()
    lane = np.broadcast_to(traffic.lane_m[:, None, None], coming.shape)[coming]
    side = np.broadcast_to(traffic.side[:, None, None], coming.shape)[coming]
    np.testing.assert_allclose(others.d_m[coming] * side, lane, atol=1e-9)


def test_rules_broken_are_told_once() -> None:
    world = RecordedWorld(scenes({"base": 1.0}, 16, 4, "fleet"), None, 2)
    flat_out = np.zeros((16, 8, 2), np.float32)
    flat_out[..., 0] = 2.4 * np.arange(1, 9)
    told = np.zeros((2, 16), int)
    for _ in range(100):
        world.step(flat_out)
        told += np.stack([world.ran_red, world.missed_stop])
    events = trace_of(world, np.full(16, 100.0)).events
    assert told.sum() > 5
    np.testing.assert_array_equal([events.ran_red.sum(1), events.missed_stop.sum(1)], told)


def test_who_leaves_the_road_is_found_out() -> None:
    world = RecordedWorld(scenes({"base": 1.0}, 4, 4, "fleet"), None, 2)
    aside = np.zeros((4, 8, 2), np.float32)
    aside[..., 0], aside[..., 1] = 2.0 * np.arange(1, 9), 0.25 * np.arange(1, 9) ** 1.5
    for _ in range(25):
        world.step(aside)
    trace = trace_of(world, np.full(4, 100.0))
    assert (pdm.drivable(trace) == 0).all()
    assert (trace.place.several_lanes.any(1) | trace.place.wrong_way.any(1)).all()
    assert (carla.in_lanes(trace) < 1).all()


def test_the_expert_scores_well_and_whatever_is_scored_is_in_range(recorded: Recorded) -> None:
    trace = recorded.trace
    pieces = windows(trace, pdm.HORIZON_STEPS + 1, 20, history=pdm.HISTORY_STEPS)
    for scored in (
        pdm.pdms(pieces, pieces),
        pdm.epdms(pieces, pieces),
        nuplan.closed_loop(trace, trace),
        carla.routes(trace),
    ):
        for values in (scored.score, *scored.terms.values()):
            assert ((values >= 0) & (values <= 1) | np.isnan(values)).all()
    assert pdm.pdms(pieces, pieces).score.mean() > 0.8
    assert (nuplan.no_collision(trace) == 1).all()
    assert all(((share >= 0) & (share <= 1)).all() for share in rss.shares(trace).values())


def test_a_scene_unfolds_as_without_being_recorded(recorded: Recorded) -> None:
    again = Recorded().trace
    for field in fields(again.ego):
        np.testing.assert_array_equal(getattr(again.ego, field.name), getattr(recorded.trace.ego, field.name))


def test_before_the_first_step_there_is_no_trace() -> None:
    with pytest.raises(ValueError, match="at least 2 steps"):
        trace_of(RecordedWorld(scenes({"base": 1.0}, 1, 4, "fleet"), None), np.ones(1))


def test_only_what_the_policy_drove_is_scored() -> None:
    """A policy that drives straight on is taken over from; pieces in which that happened are left out."""
    world = RecordedWorld(scenes({"base": 1.0}, 4, 4, "fleet"), None, 2)
    supervised, straight = Supervised(world), np.zeros((4, 8, 2), np.float32)
    straight[..., 0] = 2.0 * np.arange(1, 9)
    engaged = [np.ones(4, bool)]
    for _ in range(100):
        engaged += [supervised.step(straight).engaged] * 2
    drove = np.asarray(pieces(np.stack(engaged, 1), 41, 10).all(1))
    own = chosen(windows(trace_of(world, np.full(4, 100.0)), 41, 10), drove)
    assert 0 < len(own) < len(drove)
    # The safety driver let nothing worse happen than leaving the lane by a metre.
    assert (own.place.overhang_m < 0.6).all()
    assert (pdm.no_collision(own) == 1).all()


def among(
    name: str, seconds: float, drive: Callable[[World], np.ndarray], count: int = 6
) -> tuple[RecordedWorld, Trace]:
    """A scenario driven without a safety driver."""
    world = RecordedWorld(scenes({name: 1.0}, count, 21, "fleet"), None)
    for _ in range(round(seconds / 0.2)):
        world.step(drive(world))
    return world, trace_of(world, np.full(count, 200.0))


def as_expert(world: World) -> np.ndarray:
    return world.expert().trajectory


@cache
def carefully(name: str) -> tuple[RecordedWorld, Trace]:
    """Forty seconds of the expert."""
    return among(name, 40.0, as_expert)


def straight_on(world: World) -> np.ndarray:
    """Along the middle of the lane at the present speed, at least 5 m/s, whoever is there."""
    free = Obstacles(*np.full((7, len(world)), FAR_M))
    return plan(world.roads, replace(world.driver(), limit=np.maximum(world.driver().v, 5.0)), free).trajectory


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("overtaking_cyclist", CYCLIST),
        ("zebra_crossing", PEDESTRIAN),
        ("emergency_vehicle", VEHICLE),
        ("roadworks", STATIC),
        ("opening_door", VEHICLE),
    ],
)
def test_who_takes_part_is_in_the_trace_as_what_it_is(name: str, kind: int) -> None:
    world, trace = carefully(name)
    assert world.cast is not None
    others, mine = trace.others, slice(CARS + PEOPLE, None)
    there = others.present[..., mine]
    assert (there & (others.kind[..., mine] == kind)).any()
    for column in ("x_m", "y_m", "heading_rad", "speed_mps", "s_m", "d_m", "length_m", "width_m"):
        assert np.isfinite(getattr(others, column)[..., mine][there]).all(), column
    # Where the cast is drawn, there its boxes are; an open door widens one.
    x, y, heading = world.cast.poses()
    last = (slice(None), -1, slice(CARS + PEOPLE, CARS + PEOPLE + CAST))
    shut = world.cast.visible & (world.cast.opened == 0)
    np.testing.assert_allclose(others.x_m[last][shut], x[shut], atol=1e-6)
    np.testing.assert_allclose(others.y_m[last][shut], y[shut], atol=1e-6)
    turned = np.angle(np.exp(1j * (others.heading_rad[last] - heading)))[shut]
    assert (np.abs(turned) < 0.4).all()


def test_whoever_drives_through_a_scenario_hits_what_is_there() -> None:
    hit = {name: collisions(among(name, 40.0, straight_on)[1]) for name in ("roadworks", "overtaking_cyclist")}
    assert (hit["roadworks"].at_fault & (hit["roadworks"].kind == STATIC)).any()
    assert (hit["overtaking_cyclist"].at_fault & (hit["overtaking_cyclist"].kind == CYCLIST)).any()
    careful = collisions(carefully("roadworks")[1])
    assert not careful.at_fault.any()


def test_the_other_lane_is_open_to_who_passes_and_closed_to_others() -> None:
    world, trace = carefully("roadworks")
    far_out = np.abs(trace.place.d_m) > world.traffic.lane_m[:, None] / 2
    assert far_out.any(), "somebody got past"
    assert not trace.place.wrong_way[far_out].all()
    assert not trace.place.wrong_way[~far_out].any()
    aside = np.zeros((6, 8, 2), np.float32)
    aside[..., 0], aside[..., 1] = 2.0 * np.arange(1, 9), 0.25 * np.arange(1, 9) ** 1.5
    side = np.array([scene.region.side for scene in world.scenes], np.float32)
    _, off = among("red_light", 4.0, lambda w: aside * np.stack([np.ones(6, np.float32), side], 1)[:, None])
    assert off.place.wrong_way[:, -1].all()


@pytest.mark.parametrize("name", ["roundabout", "unprotected_turn", "red_light", "base"])
def test_junctions_are_where_roads_meet(name: str) -> None:
    found = scenes({name: 1.0}, 4, 21, "fleet")
    station = np.broadcast_to(np.arange(0.0, PERIOD_M, 0.5), (4, 1920))
    inside = in_junction(found, station)
    np.testing.assert_array_equal(inside, in_junction(found, station + PERIOD_M))
    for row, scene in enumerate(found):
        meets = [i for i in range(LINES) if _roads_meet(scene, i)]
        assert np.count_nonzero(np.diff(inside[row].astype(int)) == 1) == len(meets)
        for slot in meets:
            middle = MIDDLE_M[_layout(scene, slot)]
            assert inside[row, round(2 * (scene.line_s_m[slot] + middle))]
            assert not inside[row, round(2 * (scene.line_s_m[slot] - 15.0))]


MIDDLE_M = {"ring": 20.0, "turn": 8.0, "cross": 5.5, "": 5.5}


def _layout(scene: Scene, slot: int) -> str:
    encounter = scene.encounters[slot]
    return encounter.layout if encounter else ""


def _roads_meet(scene: Scene, slot: int) -> bool:
    if scene.encounters[slot]:
        return _layout(scene, slot) != "straight"
    return scene.line_kind[slot] in (STOP_LINE, LIGHT_LINE)


def test_who_does_not_draw_aside_is_told_of_once_for_each_emergency() -> None:
    _, trace = among("emergency_vehicle", 40.0, straight_on)
    told = trace.events.no_yield.sum(1)
    assert told.max() >= 1 and told.max() <= 3
    _, polite = carefully("emergency_vehicle")
    assert not polite.events.no_yield.any()
    assert (carla.infractions(trace)["no_yield_to_emergency"] == told).all()


def test_a_scenario_that_is_never_finished_is_told_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulation.scores.recording.TIMEOUT_S", 8.0)

    def waits(world: World) -> np.ndarray:
        """Drives up to its scenario and stays there."""
        assert world.cast is not None
        here = world.cast.line_s - world.front_s < 40.0
        return np.where(here[:, None, None], np.float32(0), as_expert(world))

    _, trace = among("roundabout", 40.0, waits)
    assert (trace.events.timeout.sum(1) <= 1).all()
    assert trace.events.timeout.sum() >= 2
    _, quick = among("base", 4.0, as_expert)
    assert not quick.events.timeout.any()
