"""A recorded drive as a world: its road, its vehicle, its others, and what driving in it is worth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from model.rig import DASHCAM
from simulation.episode import record_expert
from simulation.log_cast import LogCast
from simulation.logs import BEFORE_M, LONGEST_M, BadLog, Track, log_of
from simulation.replay import RetracedWorld, drive_in, recorded_plan, replayed, retraced
from simulation.scenarios import REPLAY, Scene, condition, scene
from simulation.scores.recording import RecordedWorld, trace_of
from simulation.scores.trace import PEDESTRIAN
from simulation.world import World
from tests.unit.replay_logs import bend, ego, lead, oncoming, small, straight, times, track, walker

STAND = np.zeros((1, 8, 2), np.float32)


@pytest.fixture(scope="module")
def recorded() -> Scene:
    return replayed(small(), condition(REPLAY.name), 3)


def expert(world: World) -> np.ndarray:
    return world.expert().trajectory


def test_the_road_leads_where_the_drive_went(recorded: Scene) -> None:
    world, log = World([recorded], None), recorded.log
    assert log
    assert world.s[0] == pytest.approx(BEFORE_M, abs=1.5)
    assert world.d[0] == pytest.approx(world.lane_d[0], abs=1e-3), "it begins in the middle of its lane"
    trace = retraced(recorded)
    assert np.abs(trace.place.d_m).max() < 0.1, "and stays there"
    assert np.abs(trace.place.course_rad).max() < 0.05
    assert (trace.place.overhang_m < 0).all() and not trace.place.wrong_way.any()
    driven = np.hypot(np.diff(log.x_m), np.diff(log.y_m)).sum()
    assert trace.place.s_m[0, -1] - trace.place.s_m[0, 0] == pytest.approx(driven, rel=0.02)


def test_left_hand_traffic_has_its_road_to_the_right(recorded: Scene) -> None:
    left = replayed(small(), condition(REPLAY.name, "uk"), 3)
    assert left.lane_d_m > 0 > recorded.lane_d_m
    assert np.abs(retraced(left).place.d_m).max() < 0.1


def test_kinematics_are_those_of_the_motion() -> None:
    log = small()
    np.testing.assert_allclose(log.speed_mps, 10.0, atol=0.05)
    np.testing.assert_allclose(log.accel_mps2, 0.0, atol=0.15)
    assert log.curvature_per_m[:40] == pytest.approx(0.0, abs=1e-3)
    np.testing.assert_allclose(log.curvature_per_m[80:-10], 1 / 60.0, rtol=0.02)


def test_standing_keeps_its_heading_and_makes_no_road() -> None:
    t = times(14.0)
    drives = np.clip(t - 3.0, 0.0, None) - np.clip(t - 9.0, 0.0, None)
    log = log_of("x", track("ego", t, bend(drives)), seconds=14.0)
    assert log.heading_rad[0] == pytest.approx(0.0, abs=1e-3)
    assert log.heading_rad[-1] == pytest.approx(log.heading_rad[-30], abs=0.02)
    assert log.speed_mps[0] == pytest.approx(0.0, abs=1e-6)
    scene = replayed(log, condition(REPLAY.name), 1)
    assert np.abs(retraced(scene).place.d_m).max() < 0.1


def test_a_part_of_a_recording_is_chosen() -> None:
    log = log_of("x", ego(), [walker()], from_s=4.0, seconds=6.0)
    assert log.seconds == pytest.approx(6.0)
    assert (log.x_m[0], log.y_m[0]) == (0.0, 0.0)
    whole = log_of("x", ego())
    np.testing.assert_allclose(np.diff(log.x_m), np.diff(whole.x_m[40:101]), atol=1e-9)
    assert log.agents.there[0, :51].all() and not log.agents.there[0, 51:].any(), "it was seen until second 9"


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda t: replace(t, time_s=np.where(t.time_s == 3.0, 1.0, t.time_s)), "time goes from 2.950 to 1.000 s"),
        (lambda t: replace(t, x_m=np.where(t.time_s > 3.0, np.nan, t.x_m)), "x_m at instant 61 is nan"),
        (lambda t: replace(t, y_m=t.y_m + 50.0 * (t.time_s > 3.0)), "jumps at 3.00 s"),
        (lambda t: _without(t, 3.0, 3.9), "a gap of 0.9"),
        (lambda t: _without(t, 4.0, 99.0), "too short: 4.0 s"),
        (lambda t: replace(t, x_m=t.x_m * 0.01, y_m=t.y_m * 0.01), "too short: it drove 1.2 m"),
        (lambda t: replace(t, x_m=t.x_m * 8, y_m=t.y_m * 8), f"one world has {LONGEST_M:.0f}"),
        (lambda t: replace(t, heading_rad=t.heading_rad + np.pi), "backwards"),
        (lambda t: replace(t, heading_rad=t.heading_rad[:-1]), "heading_rad is"),
        (lambda t: replace(t, size_m=(4.0, 0.0)), "above 0"),
    ],
)
def test_what_is_wrong_with_a_log_is_named(spoil: Callable[[Track], Track], expected: str) -> None:
    with pytest.raises(BadLog, match=expected):
        log_of("broken", spoil(ego()))


def _without(track: Track, from_s: float, to_s: float) -> Track:
    keep = (track.time_s <= from_s) | (track.time_s >= to_s)
    columns = {name: getattr(track, name)[keep] for name in ("time_s", "x_m", "y_m", "heading_rad")}
    return replace(track, **columns)


def test_others_with_gaps_are_away_meanwhile() -> None:
    log = log_of("x", ego(), [_without(lead(), 4.0, 6.0)])
    seen = log.agents.there[0]
    assert seen[:41].all() and not seen[41:60].any() and seen[60:].all()


def test_others_who_are_gone_before_are_left_out() -> None:
    assert len(log_of("x", ego(), [_without(lead(), 2.0, 99.0)], from_s=4.0).agents) == 0


def test_a_scene_without_others_has_no_cast() -> None:
    scene = replayed(log_of("x", ego()), condition(REPLAY.name), 1)
    assert World([scene], None).cast is None
    assert drive_in(scene, expert).progress > 0.95


def test_retraced_the_vehicle_is_where_its_log_says(recorded: Scene) -> None:
    judged = drive_in(recorded, recorded_plan)
    world, log = RetracedWorld([recorded]), recorded.log
    assert log
    for plan in range(1, 60):
        world.step(STAND)
        assert (world.motion.x[0], world.motion.y[0]) == (log.x_m[2 * plan], log.y_m[2 * plan])
    assert judged.recorded["pdms"] == pytest.approx(1.0)
    assert judged.recorded["progress"] == 1.0


def test_the_recorded_plan_is_what_was_driven_next(recorded: Scene) -> None:
    world, log = RetracedWorld([recorded]), recorded.log
    assert log
    for _ in range(15):
        world.step(STAND)
    plan = recorded_plan(world)[0]
    cos, sin = np.cos(log.heading_rad[30]), np.sin(log.heading_rad[30])
    x = log.x_m[30] + plan[:, 0] * cos - plan[:, 1] * sin
    y = log.y_m[30] + plan[:, 0] * sin + plan[:, 1] * cos
    np.testing.assert_allclose(np.stack([x, y]), [log.x_m[33:55:3], log.y_m[33:55:3]], atol=1e-5)


def test_with_the_recorded_plan_a_vehicle_drives_as_recorded(recorded: Scene) -> None:
    judged = drive_in(recorded, recorded_plan)
    assert judged.displacement_m.max() < 0.3
    assert judged.progress == pytest.approx(1.0, abs=0.002)
    assert judged.scores["pdms"] > 0.99
    assert not judged.failures


def test_who_stands_falls_behind_and_who_hits_fails(recorded: Scene) -> None:
    stands = drive_in(recorded, lambda _: STAND)
    assert stands.progress < 0.3 and stands.displacement_m[-1] > 80
    assert stands.scores["pdms"] < 0.7
    hurries = drive_in(recorded, lambda w: (recorded_plan(w) * [2.0, 1.0]).astype(np.float32))
    assert hurries.scores["no_collision"] < 1.0
    assert "collision" in [failure.cause for failure in hurries.failures]


def test_who_leaves_the_road_stands_from_then_on(recorded: Scene) -> None:
    leaves = drive_in(recorded, lambda w: (recorded_plan(w) + np.array([0.0, 14.0])).astype(np.float32))
    assert leaves.failures[0].cause == "lateral"
    assert leaves.scores["drivable"] < 1.0 and leaves.progress < 0.6


def test_others_are_in_the_trace_as_the_log_has_them(recorded: Scene) -> None:
    trace, log = retraced(recorded), recorded.log
    assert log
    others, first = trace.others, trace.others.x_m.shape[2] - 5 - len(log.agents)
    mine = slice(first, first + len(log.agents))
    there = log.agents.there.T[: trace.steps]
    np.testing.assert_array_equal(others.present[0, :, mine], there)
    for name in ("x_m", "y_m"):
        np.testing.assert_allclose(
            getattr(others, name)[0, :, mine][there], getattr(log.agents, name).T[: trace.steps][there], atol=0.01
        )
    assert others.kind[0, 0, first + 2] == PEDESTRIAN
    np.testing.assert_allclose(others.speed_mps[0, 20:60, first], 10.0, atol=0.3)


def test_the_expert_keeps_its_distance_from_a_recorded_lead() -> None:
    t = times()
    brakes = np.cumsum(np.maximum(10.0 - 4.0 * np.maximum(t - 4.0, 0.0), 0.0)) * 0.05
    own = track("ego", t, straight(t, 0.0, np.minimum(10.0 * t, 60.0)))
    standing = track("lead", t, straight(t, 30.0, brakes))
    scene = replayed(log_of("x", own, [standing]), condition(REPLAY.name), 1)
    judged = drive_in(scene, expert)
    assert judged.scores["no_collision"] == 1.0
    assert not judged.failures
    assert 1.0 < judged.progress < 1.27, "it comes up to the lead, which stands 76.4 m from its bumper's start"


def test_an_oncoming_car_and_a_walker_are_told_apart(recorded: Scene) -> None:
    cast = World([recorded], None).cast
    assert isinstance(cast, LogCast)
    assert np.cos(cast.turned[0, 1]) < -0.9
    assert cast.bodies().v[0, 1] < -8, "it comes towards us"
    assert cast.on_path[0].tolist() == [False, False, True]
    assert cast.visible[0].tolist() == [True, True, False], "the walker is not yet there"


def test_reactive_others_do_what_they_did_while_nobody_is_in_the_way() -> None:
    log = log_of("x", ego(), [lead(), oncoming(), walker()], reactive=True)
    scene = replayed(log, condition(REPLAY.name), 3)
    world = RetracedWorld([scene])
    for plan in range(1, 50):
        world.step(STAND)
        assert world.cast
        x, y, _ = world.cast.poses()
        np.testing.assert_allclose(x[0], log.agents.x_m[:, 2 * plan], atol=1e-6)
        np.testing.assert_allclose(y[0], log.agents.y_m[:, 2 * plan], atol=1e-6)


def test_reactive_others_brake_for_the_vehicle_and_recorded_ones_do_not() -> None:
    """The vehicle stands where in the log it drove on; a car behind follows it in both."""
    behind = track("behind", times(), straight(times(), -25.0, 10.0 * times()))
    own = track("ego", times(), straight(times(), 0.0, 10.0 * times()))
    found = {}
    for reactive in (False, True):
        scene = replayed(log_of("x", own, [behind], reactive=reactive), condition(REPLAY.name), 1)
        world, gaps = World([scene], None), []
        for _ in range(58):
            world.step(STAND)
            assert world.cast
            gaps.append(world.motion.x[0] - 1.0 - (world.cast.poses()[0][0, 0] + 2.3))
        found[reactive] = np.array(gaps)
    assert found[False].min() < -20, "as recorded it drives through who is in its way"
    assert found[True].min() > 0.4
    assert found[True][-1] < 6.0, "and comes up to it"
    assert np.abs(np.diff(found[True][-5:])).max() < 0.3, "and stands"


def test_who_was_held_up_follows_its_path_later() -> None:
    behind = track("behind", times(), bend(times(), straight_m=60.0) - [[25.0], [0.0], [0.0]])
    scene = replayed(log_of("x", ego(), [behind], reactive=True), condition(REPLAY.name), 1)
    world = World([scene], None)
    assert isinstance(world.cast, LogCast) and scene.log
    for plan in range(55):
        world.step(STAND if plan < 20 else recorded_plan(world) * np.float32(0.5))
        x, y, _ = world.cast.poses()
        away = np.hypot(scene.log.agents.x_m[0] - x[0, 0], scene.log.agents.y_m[0] - y[0, 0])
        assert away.min() < 0.52, "never beside its recorded path"
    assert world.cast.clock[0, 0] < world.time_s - 1.0


def test_a_replay_is_a_scene_for_every_drive(recorded: Scene) -> None:
    """The episode machinery takes it as it takes any other; and in any batch it unfolds alike."""
    other = replayed(log_of("y", ego(8.0), [oncoming()]), condition(REPLAY.name), 4)
    recording = record_expert([recorded, other], DASHCAM, 1.0, 1)
    assert recording.images.shape[0] == 10 and recording.images.std() > 10
    both, alone = World([recorded, other], None), World([recorded], None)
    for _ in range(10):
        both.step(both.expert().trajectory)
        alone.step(alone.expert().trajectory)
    np.testing.assert_allclose(both.motion.x[0], alone.motion.x[0], atol=1e-9)
    with pytest.raises(ValueError, match="cannot share a batch"):
        World([recorded, scene("base", 1)], None)


def test_the_world_goes_on_beyond_the_log(recorded: Scene) -> None:
    world = RecordedWorld([recorded], None)
    for _ in range(75):
        world.step(world.expert().trajectory)
    assert world.cast and not world.cast.visible.any(), "others are gone with their log"
    assert np.isfinite(trace_of(world, np.full(1, 100.0)).ego.x_m).all()


def test_only_logs_can_be_retraced(recorded: Scene) -> None:
    with pytest.raises(ValueError, match="only a scene with a log"):
        RetracedWorld([scene("base", 1)])
    with pytest.raises(ValueError, match="no recorded plan"):
        recorded_plan(World([scene("base", 1)], None))
    with pytest.raises(ValueError, match="replays no log"):
        drive_in(scene("base", 1), expert)


def test_nothing_stands_where_anyone_drove(recorded: Scene) -> None:
    log = recorded.log
    assert log
    world = World([recorded], None)
    side = recorded.roadside
    x, y, _ = world.roads.pose(side.s_m[None], side.d_m[None])
    there = log.agents.there
    away = np.hypot(x[0][:, None] - log.agents.x_m[there], y[0][:, None] - log.agents.y_m[there])
    assert away.min() > 4.0 and len(side.kind) > 50
