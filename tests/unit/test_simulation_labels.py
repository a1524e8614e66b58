"""Labels of hand-made worlds: what stands where is in that cell, and in view when it is near."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from model.labels import CELL_M, GRID_CELLS, GRID_FROM_M, LABELS, MOTION, OCCUPANCY, RISK_STEPS, TAGS, check_labels
from model.policy import PLAN_POINTS, PLAN_STEP_S, Observation, Plan
from model.rig import THREE_CAMERAS
from simulation.encounters import ENCOUNTERS
from simulation.episode import Takes, record_expert, record_policy
from simulation.labels import LABELLERS
from simulation.labels.motion import motion
from simulation.labels.occupancy import occupancy
from simulation.labels.risk import risk
from simulation.labels.tags import UNSEEN, tags
from simulation.scenarios import BASE, SCENARIOS, scenes
from simulation.traffic import FAR_M, LEAD
from simulation.world import World


def empty_world(name: str = BASE, count: int = 3) -> World:
    """Nobody but the vehicles themselves."""
    world = World(scenes({name: 1}, count, 5, "train"), None)
    world.traffic.car_s[:], world.traffic.person_s[:] = FAR_M, FAR_M
    return world


def cell(ahead_m: float, left_m: float) -> tuple[int, int]:
    return (int((ahead_m - GRID_FROM_M[0]) // CELL_M[0]), int((left_m - GRID_FROM_M[1]) // CELL_M[1]))


def kinds(world: World, ahead_m: float, left_m: float) -> list[str]:
    return [OCCUPANCY[grid[cell(ahead_m, left_m)]] for grid in occupancy(world)]


def test_the_grid_reaches_as_far_ahead_as_a_plan_and_back_past_the_vehicle() -> None:
    assert GRID_FROM_M[0] + GRID_CELLS[0] * CELL_M[0] > PLAN_POINTS * PLAN_STEP_S * 15
    assert GRID_FROM_M[0] < -4
    assert GRID_FROM_M[1] == -GRID_CELLS[1] * CELL_M[1] / 2


def test_the_road_is_where_its_two_lanes_are() -> None:
    world = empty_world()
    side = np.array([scene.region.side for scene in world.scenes])
    for row, grid in enumerate(occupancy(world)):
        found = set(grid.ravel().tolist())
        assert found == {OCCUPANCY.index("off_road"), OCCUPANCY.index("road")}
        own = 0.0, side[row] * world.traffic.lane_m[row]
        assert grid[cell(own[0], own[1])] == OCCUPANCY.index("road")
        assert grid[cell(0.0, side[row] * 9.0)] == OCCUPANCY.index("off_road")
        assert grid[cell(0.0, -side[row] * 5.0)] == OCCUPANCY.index("off_road")


def test_the_road_bends_with_the_road() -> None:
    world = empty_world(count=6)
    world.s = np.array([80.0, 200.0, 320.0, 440.0, 560.0, 680.0])
    m, ahead = world.motion, 36.0
    m.x, m.y, m.heading = world.roads.pose(world.s, world.lane_d)
    x, y, _ = world.roads.pose((world.s + ahead)[:, None], world.lane_d[:, None])
    dx, dy = x[:, 0] - m.x, y[:, 0] - m.y
    forth, aside = dx * np.cos(m.heading) + dy * np.sin(m.heading), dy * np.cos(m.heading) - dx * np.sin(m.heading)
    assert np.abs(aside).max() > 3.0
    for row, grid in enumerate(occupancy(world)):
        if abs(aside[row]) < 15:
            assert grid[cell(forth[row], aside[row])] == OCCUPANCY.index("road")


def test_cars_and_people_take_up_their_cells() -> None:
    world = empty_world()
    t = world.traffic
    t.car_s[:, 0], t.car_d[:, 0] = world.s + 14.0, world.lane_d
    t.person_s[:, 0], t.person_d[:, 0] = world.s + 6.0, world.lane_d
    assert kinds(world, 6.0, 0.3) == ["person"] * 3
    assert kinds(world, 14.0, 0.3) == ["body"] * 3
    assert kinds(world, 25.0, 0.3) == ["road"] * 3
    bodies = (occupancy(world) == OCCUPANCY.index("body")).sum((1, 2))
    assert (bodies >= 2).all()
    assert (bodies <= 8).all()
    t.car_s[:, 0] = world.s + 200.0
    assert not (occupancy(world) == OCCUPANCY.index("body")).any()


def test_a_person_on_the_bonnet_is_seen_before_the_car() -> None:
    world = empty_world()
    world.traffic.car_s[:, 0], world.traffic.car_d[:, 0] = world.s + 14.0, world.lane_d
    world.traffic.person_s[:, 0], world.traffic.person_d[:, 0] = world.s + 14.0, world.lane_d
    assert kinds(world, 14.0, 0.3) == ["person"] * 3


def _met(name: str, steps: int = 200) -> World:
    """A world in which what happens is near for at least one vehicle."""
    world = World(scenes({name: 1}, 4, 7, "train"), None)
    for _ in range(steps):
        world.step(world.expert().trajectory)
        if world.cast is not None and ((world.cast.line_s - world.front_s) < 15).any():
            break
    return world


def test_a_closed_lane_is_taken_up() -> None:
    world = _met("roadworks")
    assert world.cast is not None
    near = (world.cast.closed[:, 0] - world.s < 40) & (world.cast.closed[:, 1] > world.s)
    assert near.any()
    assert (occupancy(world)[near] == OCCUPANCY.index("body")).sum((1, 2)).min() >= 4


@pytest.mark.parametrize(("scenario", "tag"), [("zebra_crossing", "zebra"), ("roundabout", "roundabout")])
def test_what_happens_is_in_view_when_its_place_is_near(scenario: str, tag: str) -> None:
    world = _met(scenario)
    assert world.cast is not None
    near = np.abs(world.cast.line_s - world.front_s - 10) < 12
    assert near.any()
    found = tags(world)
    assert found[near, TAGS.index(tag)].all()
    far = world.cast.line_s - world.front_s > 80
    others = [TAGS.index(name) for name in ENCOUNTERS if name not in (UNSEEN, tag)]
    assert not found[:, others].any()
    assert not found[far, TAGS.index(tag)].any()


def test_a_cast_on_wheels_is_in_view_when_it_is_near_and_ahead() -> None:
    world = World(scenes({"overtaking_cyclist": 1}, 6, 7, "train"), None)
    seen = np.zeros(6, bool)
    for _ in range(150):
        world.step(world.expert().trajectory)
        assert world.cast is not None
        on = tags(world)[:, TAGS.index("cyclist")].astype(bool)
        ahead = (world.cast.visible & (np.abs(world.cast.s - world.s[:, None]) < 60)).any(1)
        assert not (on & ~ahead).any()
        seen |= on
    assert seen.any()


@pytest.mark.parametrize(
    ("scenario", "tag"), [("rain", "rain"), ("snow", "snow"), ("fog", "fog"), ("night", "night")]
)
def test_weather_and_light_are_in_view_always(scenario: str, tag: str) -> None:
    assert tags(empty_world(scenario))[:, TAGS.index(tag)].all()
    assert not tags(empty_world())[:, TAGS.index(tag)].any()


def test_a_red_light_is_in_view_while_it_is_red() -> None:
    world = World(scenes({"red_light": 1}, 8, 3, "train"), None)
    red, light = TAGS.index("red"), TAGS.index("light")
    seen = []
    for _ in range(150):
        world.step(world.expert().trajectory)
        found = tags(world)
        assert (found[:, red] <= found[:, light]).all()
        seen.append(found[:, (red, light)])
    both = np.array(seen)
    assert both[..., 0].any()
    assert (both[..., 0] < both[..., 1]).any()


def test_the_table_of_tags_covers_what_a_world_tells() -> None:
    world = empty_world()
    assert set(world.status().tags) <= set(TAGS)
    assert set(ENCOUNTERS) - {UNSEEN} <= set(TAGS)
    assert len(set(TAGS)) == len(TAGS)


def test_motion_is_what_the_vehicle_does() -> None:
    world = empty_world()
    world.displace(np.full(3, 0.4), np.full(3, 0.05), np.full(3, 0.5))
    found = dict(zip(MOTION, motion(world).T, strict=True))
    np.testing.assert_allclose(found["speed_mps"], world.motion.speed, rtol=1e-5)
    np.testing.assert_allclose(found["yaw_rate_radps"], world.motion.yaw_rate, rtol=1e-5)
    np.testing.assert_allclose(found["lateral_m"], 0.4, atol=0.02)
    np.testing.assert_allclose(found["heading_rad"], 0.05, atol=0.01)


def test_risk_is_known_where_the_policy_drove_on_or_was_stopped() -> None:
    steps = 3 * RISK_STEPS
    engaged, failed = np.ones((steps, 2), bool), np.zeros((steps, 2), bool)
    stop = RISK_STEPS + 3
    failed[stop, 0] = True
    engaged[stop + 1 : stop + 6, 0] = False
    found = risk(engaged, failed)
    ended = steps - RISK_STEPS + 1
    assert (found[:ended, 1] == 0).all()
    assert (found[ended:, 1] == -1).all()
    assert found[stop + 1 - RISK_STEPS : stop + 1, 0].tolist() == [1] * RISK_STEPS
    assert (found[: stop + 1 - RISK_STEPS, 0] == 0).all()
    assert (found[stop + 1 : stop + 6, 0] == -1).all()
    assert (found[stop + 6 : ended, 0] == 0).all()


def test_risk_is_not_known_where_someone_else_takes_over_without_a_stop() -> None:
    engaged, failed = np.ones((2 * RISK_STEPS, 1), bool), np.zeros((2 * RISK_STEPS, 1), bool)
    engaged[RISK_STEPS:] = False
    assert (risk(engaged, failed)[1:, 0] == -1).all()
    assert risk(engaged, failed)[0, 0] == 0


def test_a_recording_carries_labels_and_says_what_came_before() -> None:
    recorded = record_expert(
        scenes({BASE: 0.5, "zebra_crossing": 0.5}, 4, 4, "train"),
        THREE_CAMERAS,
        1.0,
        0,
        labels=list(LABELLERS),
        batch=3,
    )
    check_labels(recorded.labels, len(recorded.images))
    assert set(recorded.labels) == set(LABELLERS)
    np.testing.assert_array_equal(recorded.labels["motion"][:, 0], recorded.speed_mps)
    first = recorded.before < 0
    assert first.sum() == 4
    assert (recorded.time_s[first] == 0).all()
    earlier = recorded.before[~first]
    np.testing.assert_allclose(recorded.time_s[~first] - recorded.time_s[earlier], 0.2)
    np.testing.assert_array_equal(recorded.vehicle[~first], recorded.vehicle[earlier])
    with pytest.raises(KeyError, match=r"no label .risk. of an instant; known: .*occupancy"):
        record_expert(scenes({BASE: 1}, 1, 4, "train"), THREE_CAMERAS, 1.0, 0, labels=["risk"])


BODY = OCCUPANCY.index("body")


def test_several_takes_of_an_instant_are_recorded_as_the_world_is_at_each() -> None:
    def takes(world: World) -> Iterator[np.ndarray]:
        yield np.array([0, 2])
        if world.time_s > 0.3:
            before = world.state()
            world.traffic.car_s[1, LEAD] = world.s[1] + 15
            world.edited()
            yield np.array([1])
            world.restore(before)

    some = scenes({BASE: 0.5, "zebra_crossing": 0.5}, 3, 4, "train")
    got = record_expert(some, THREE_CAMERAS, 1.0, 0, labels=["occupancy"], takes=Takes(2, takes))
    whole = record_expert(some, THREE_CAMERAS, 1.0, 0, labels=["occupancy"])
    assert got.vehicle.tolist() == [0, 2] * 2 + [0, 2, 1] * 3
    assert got.condition == tuple(some[row].condition.name for row in got.vehicle)
    assert len(got.images) == len(got.labels["occupancy"]) == 13
    assert (got.before == -1).all(), "not of all vehicles: no history"
    at = {(v, round(t, 1)): i for i, (v, t) in enumerate(zip(whole.vehicle, whole.time_s, strict=True))}
    for i, (vehicle, time_s) in enumerate(zip(got.vehicle, got.time_s, strict=True)):
        whole_i = at[vehicle, round(time_s, 1)]
        alike = np.array_equal(got.images[i], whole.images[whole_i])
        assert alike == (vehicle != 1), "a car is before it, and takes leave the world as it was"
        there, then = ((r.labels["occupancy"][n] == BODY).sum() for r, n in ((got, i), (whole, whole_i)))
        assert there > then if vehicle == 1 else there == then


class _Straight:
    """Goes straight on, and remembers how much it saw."""

    history = 3

    def __init__(self) -> None:
        self.pasts: list[int] = []

    def plan(self, observation: Observation) -> Plan:
        self.pasts.append(len(observation.past))
        count = len(observation.images)
        modes = np.zeros((count, 1, PLAN_POINTS, 2), np.float32)
        modes[..., 0] = 8.0 * PLAN_STEP_S * np.arange(1, PLAN_POINTS + 1)
        return Plan(modes, np.ones((count, 1), np.float32), np.ones_like(modes), np.zeros((count, 4), np.float32))


def test_a_policy_is_recorded_with_the_risk_it_runs_and_is_shown_its_past() -> None:
    policy = _Straight()
    recorded = record_policy(policy, scenes({BASE: 1}, 3, 4, "train"), THREE_CAMERAS, 12.0, 0, labels=["motion"])
    assert policy.pasts[:4] == [0, 1, 2, 2]
    assert set(recorded.labels) == {"motion", "risk"}
    check_labels(recorded.labels, len(recorded.images))
    found = recorded.labels["risk"].reshape(60, 3)
    assert {-1, 0, 1} == set(found.ravel().tolist())
    stopped = np.argwhere((found[:-1] == 1) & (found[1:] == -1))
    assert len(stopped) >= 2
    assert recorded.metres > 0


def test_every_label_of_an_instant_is_of_the_table() -> None:
    world = empty_world("town_route")
    for name, labeller in LABELLERS.items():
        check_labels({name: labeller(world)}, len(world))
    assert set(LABELLERS) | {"risk"} <= set(LABELS)
    assert "town_route" in SCENARIOS
