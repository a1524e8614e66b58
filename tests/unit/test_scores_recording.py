"""Traces of the simulated world, checked against the world itself."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from simulation.dynamics import FRONT_M, REAR_M
from simulation.episode import Supervised
from simulation.scenarios import scenes
from simulation.scores import carla, nuplan, pdm, rss
from simulation.scores.recording import RecordedWorld, trace_of
from simulation.scores.trace import PEDESTRIAN, STEP_S, Trace, chosen, pieces, windows
from simulation.traffic import CAR_WIDTH_M, CARS
from simulation.world import Status

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
