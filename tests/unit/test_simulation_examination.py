"""Examinations: drives from states, what the safety driver counts, and past disengagements driven again."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from model.policy import PLAN_POINTS
from simulation.examination import Driver, Reference, beginning, examine, expert, refer, watched
from simulation.regressions import (
    LEAD_S,
    BadRegressions,
    Regression,
    joined,
    load,
    of_each_cause,
    regression,
    replay,
    to_bytes,
)
from simulation.scenarios import drawn
from simulation.scores.recording import RecordedWorld
from simulation.suites import SUITES, Course, Row, courses
from simulation.world import World


@pytest.fixture(scope="module")
def base() -> Course:
    return courses(SUITES["base"], "tuning", 5, 4, 12.0)[0]


def hasty() -> Driver:
    """As the expert, but further than it would: it runs over lines and into leads."""
    return lambda: lambda world: (world.expert().trajectory * 1.6 + np.float32(0.4)).astype(np.float32)


def standing() -> Driver:
    return lambda: lambda world: np.zeros((len(world), PLAN_POINTS, 2), np.float32)


def off_the_road() -> Driver:
    plan = np.stack([2.0 * np.arange(1, 9), 0.4 * np.arange(1, 9) ** 1.5], 1).astype(np.float32)
    return lambda: lambda world: np.broadcast_to(plan, (len(world), PLAN_POINTS, 2))


def equal(first: World, second: World) -> None:
    for world in (first, second):
        assert world.time_s > 0
    for name in ("s", "d", "travelled_m", "stopped_at"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    for field in fields(first.motion):
        np.testing.assert_array_equal(getattr(first.motion, field.name), getattr(second.motion, field.name))
    np.testing.assert_array_equal(first.traffic.car_s, second.traffic.car_s)
    np.testing.assert_array_equal(first.traffic.person_d, second.traffic.person_d)
    if first.cast and second.cast:
        np.testing.assert_array_equal(first.cast.s, second.cast.s)
        np.testing.assert_array_equal(first.cast.opened, second.cast.opened)


@pytest.mark.parametrize("name", ["pedestrians", "roadworks", "roundabout"])
def test_a_world_goes_on_from_a_state_as_it_did(name: str) -> None:
    world = World([drawn(Row(name).condition(), seed) for seed in (5, 6)], None)
    for _ in range(30):
        world.step(expert(world))
    state = world.state()
    other = World(world.scenes, None)
    other.restore(state)
    equal(world, other)
    for _ in range(30):
        world.step(expert(world))
        other.step(expert(other))
    equal(world, other)
    # A state is a copy: what came after it did not change it.
    again = World(world.scenes, None)
    again.restore(state)
    assert again.time_s == pytest.approx(6.0)
    assert not np.array_equal(again.s, world.s)


def test_a_state_is_refused_by_other_scenes(base: Course) -> None:
    with pytest.raises(ValueError, match="other scenes"):
        World(base.scenes[:2], None).restore(World(base.scenes, None).state())
    twins = [drawn(scene.condition, scene.seed) for scene in base.scenes]
    with pytest.raises(ValueError, match="other scenes"):
        World(twins, None).restore(World(base.scenes, None).state())


@pytest.fixture(scope="module")
def reference(base: Course) -> Reference:
    return refer(base)


def test_an_expert_examined_gets_what_the_expert_got(reference: Reference) -> None:
    marks = examine(lambda: expert, reference).marks
    for name, values in reference.marks.scores.items():
        np.testing.assert_allclose(marks.scores[name], values, atol=1e-9, err_msg=name)
    assert marks.causes == reference.marks.causes
    np.testing.assert_array_equal(marks.km, reference.marks.km)
    assert {"pdms", "epdms", "driving_score", "nuplan", "rss_danger"} <= set(marks.scores)
    assert (marks.scores["pdms"] > 0.7).all() and marks.hours == pytest.approx(12.0 / 3600)


def test_who_stands_makes_no_progress_and_is_stuck(reference: Reference) -> None:
    marks = examine(standing(), reference).marks
    assert marks.scores["driving_score"].max() < 0.5
    assert marks.scores["pdms"].mean() < reference.marks.scores["pdms"].mean() - 0.1
    assert sum(c["stuck"] for c in marks.causes) > 0
    # Standing harms nobody by itself.
    assert marks.scores["rss_longitudinal"].mean() <= reference.marks.scores["rss_longitudinal"].mean() + 0.05


def test_who_leaves_the_road_stands_there(reference: Reference) -> None:
    marks = examine(off_the_road(), reference).marks
    assert (marks.scores["pdms"] < 0.3).all()
    assert (marks.scores["nuplan"] == 0).all()
    assert all(c["lateral"] for c in marks.causes)
    assert (marks.km < reference.marks.km).all()


def test_without_the_whole_there_is_no_route_score(reference: Reference) -> None:
    assert set(examine(standing(), reference, whole=False).marks.scores) == {"pdms", "epdms"}


def test_a_course_too_short_for_a_window_has_no_pdms(base: Course) -> None:
    short = Course(base.scenes, 3.0, base.before)
    assert np.isnan(refer(short).marks.scores["pdms"]).all()


def test_a_disengagement_is_driven_again_as_it_was(base: Course) -> None:
    _, failures = watched(base, hasty()())
    failure = next(f for f in failures if f.event.time_s > LEAD_S + 1)
    scene = base.scenes[failure.event.vehicle]
    past = regression(Row("base"), scene.seed, failure.event.cause, failure.event.time_s, failure.commands)
    again = replay(past)
    assert again.scenes[0].seed == scene.seed and len(again.before) == round((past.time_s - LEAD_S) / 0.2)
    # Who drives on from there as it was driven then fails of the same cause at the same time.
    rest = iter(failure.commands[len(again.before) :])
    world = World(again.scenes, None)
    world.restore(beginning(again))
    for command in rest:
        world.obey(command[:, None])
    assert world.time_s == pytest.approx(past.time_s)
    _, events = watched(again, hasty()())
    assert any(e.event.cause == past.cause and e.event.time_s == past.time_s for e in events)


def test_regressions_are_kept_as_data(tmp_path: Path) -> None:
    found = [Regression(Row("base", "uk"), 1 << 60, "stop_sign", 7.4, [(0.1 + 0.2, -1e-3)])]
    (tmp_path / "past.json").write_bytes(to_bytes(found))
    assert load(tmp_path / "past.json") == found
    for content, complaint in ((b"{", "cannot be read"), (b'{"format":"x","regressions":[]}', "format 'x'")):
        (tmp_path / "bad.json").write_bytes(content)
        with pytest.raises(BadRegressions, match=complaint):
            load(tmp_path / "bad.json")
    with pytest.raises(BadRegressions, match=r"absent\.json"):
        load(tmp_path / "absent.json")


def test_an_early_disengagement_is_driven_from_the_beginning() -> None:
    past = regression(Row("base"), 3, "lateral", 2.0, np.zeros((10, 2)))
    assert past.commands == [] and replay(past).before.shape == (0, 2, 1)


def test_causes_take_turns() -> None:
    causes = ["stuck", "stuck", "stuck", "collision", "lateral", "lateral"]
    found = [Regression(Row("base"), i, cause, 9.0, []) for i, cause in enumerate(causes)]
    assert [r.scene_seed for r in of_each_cause(found, 4)] == [3, 4, 0, 5]
    assert len(of_each_cause(found, 99)) == 6 and of_each_cause([], 3) == []


def test_a_recorded_world_lets_its_lead_be_touched(base: Course) -> None:
    """The world of the loop pushes leads on; in one that is scored, who drives into a lead has done so."""
    flat_out = np.zeros((4, PLAN_POINTS, 2), np.float32)
    flat_out[..., 0] = 5.0 * np.arange(1, 9)
    nearest = {}
    for kind in (World, RecordedWorld):
        world, gaps = kind(base.scenes, None), []
        for _ in range(75):
            world.step(flat_out)
            gaps.append(np.abs(world.traffic.car_s[:, 0] - world.s).min())
        nearest[kind] = min(gaps)
    assert nearest[World] >= 6.6 - 1e-9
    assert nearest[RecordedWorld] < 4.0


def test_the_same_scene_and_cause_is_one_lesson() -> None:
    first = Regression(Row("base"), 1, "stuck", 5.0, [])
    later, other = (Regression(Row("base"), 1, cause, 6.0, []) for cause in ("stuck", "lateral"))
    assert joined([first], [later, other, later]) == [first, other]
