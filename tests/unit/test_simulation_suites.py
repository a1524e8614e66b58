"""The table of suites, and what is drawn from it."""

from __future__ import annotations

import itertools

import pytest

from simulation.encounters import ENCOUNTERS
from simulation.lessons import LESSONS, lessons
from simulation.scenarios import SCENARIOS, UnknownName, shares
from simulation.suites import ENCOUNTERED, MET_AHEAD, SPLITS, SUITES, Row, courses


def test_suites_are_those_of_the_product_and_their_rows_exist() -> None:
    assert list(SUITES) == ["base", "regions", "long-tail", "regressions", "adversarial"]
    for suite in SUITES.values():
        assert suite.rows and all(row.condition().name == row.name for row in suite.rows)
    assert set(ENCOUNTERED) <= set(SCENARIOS)
    # Whatever a cast can do to a vehicle is somewhere in the long tail.
    met = {name for scenario in ENCOUNTERED for name in SCENARIOS[scenario].encounters}
    assert met == set(ENCOUNTERS)


def test_an_adversary_has_a_cast_to_work_with() -> None:
    assert all(SCENARIOS[name].encounters for name in MET_AHEAD)
    assert set(SUITES["adversarial"].rows) == {Row(name) for name in MET_AHEAD}


def test_no_scene_is_for_two_uses() -> None:
    assert len(set(SPLITS.values())) == len(SPLITS)
    drawn = {
        use: {
            scene.seed for suite in SUITES.values() for c in courses(suite, use, 11, 20, 8.0) for scene in c.scenes
        }
        for use in SPLITS
    }
    for first, second in itertools.combinations(SPLITS, 2):
        assert not drawn[first] & drawn[second]
    # Suites do not share scenes either: a road known from one tells nothing in another.
    assert all(len(found) == 20 * len(SUITES) for found in drawn.values())


def test_courses_take_the_rows_in_turn_and_are_the_same_again() -> None:
    suite = SUITES["regions"]
    first, second = courses(suite, "reporting", 3, 6, 10.0, batch=4)
    assert [s.region.name for s in (*first.scenes, *second.scenes)] == ["us", "uk", "de", "jp", "us", "uk"]
    assert (len(first.scenes), len(second.scenes), first.steps) == (4, 2, 50)
    assert first.before.shape == (0, 2, 4)
    again = courses(suite, "reporting", 3, 6, 10.0, batch=4)[0]
    assert [s.seed for s in again.scenes] == [s.seed for s in first.scenes]
    assert {s.seed for s in courses(suite, "reporting", 4, 6, 10.0)[0].scenes}.isdisjoint(
        s.seed for s in first.scenes
    )


def test_a_row_tells_where_it_is_and_refuses_what_there_is_not() -> None:
    row = Row("zebra_crossing", "uk", "rain", "night", "dirty_camera")
    found = row.condition()
    assert row.name == found.name == "zebra_crossing/uk/rain/night/dirty_camera"
    assert (found.regions, found.faults, found.encounters) == (("uk",), ("dirty_camera",), ("zebra",))
    with pytest.raises(UnknownName, match="unknown region 'atlantis'"):
        Row("base", "atlantis").condition()


def test_lessons_hold_everything_in_proportion_with_learning_seeds_only() -> None:
    assert sum(LESSONS.values()) == pytest.approx(1.0)
    assert {row.scenario for row in LESSONS} == {"base", *ENCOUNTERED}
    found = lessons(100, 5)
    names = [scene.condition.name for scene in found]
    assert names.count("base") == 32
    assert all(names.count(name) == 4 for name in ENCOUNTERED)
    assert names[:40].count("base") < 30  # mixed, not sorted
    reported = {
        s.seed for suite in SUITES.values() for c in courses(suite, "reporting", 5, 50, 8.0) for s in c.scenes
    }
    assert reported.isdisjoint(scene.seed for scene in found)


def test_shares_are_whole_and_refuse_what_is_no_mixture() -> None:
    assert shares([0.5, 0.3, 0.2], 10) == [5, 3, 2]
    assert shares([1, 1, 1], 4) == [2, 1, 1]
    for weights in ([0.0, 0.0], [1.0, -0.5]):
        with pytest.raises(ValueError, match="needs weights"):
            shares(weights, 3)
