"""PDM scores worked by hand on a straight road (score_samples.py)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from simulation.scores import pdm
from simulation.scores.terms import Term, combined, recent_sum
from simulation.scores.trace import PEDESTRIAN, STATIC, Ego, apply, joined, windows
from tests.unit.score_samples import Other, drive, event, placed, steady

CLEAN = drive()


def test_a_clean_drive_scores_one() -> None:
    for score in (pdm.pdms(CLEAN, CLEAN), pdm.epdms(CLEAN, CLEAN)):
        assert score.score.tolist() == [1.0]
        assert all(term[0] == 1.0 or np.isnan(term[0]) for term in score.terms.values())


@pytest.mark.parametrize(
    ("others", "score"),
    [
        ([], 1.0),
        ([Other(20.5)], 0.0),
        ([Other(20.5, kind=PEDESTRIAN)], 0.0),
        ([Other(20.5, kind=STATIC)], 0.5),
        ([Other(20.5, kind=STATIC), Other(26.0, kind=STATIC)], 0.5),
        ([Other(20.5, kind=STATIC), Other(20.5)], 0.0),
        ([Other(-6.0, speed=15.0)], 1.0),  # from behind
    ],
)
def test_no_collision(others: list[Other], score: float) -> None:
    assert pdm.no_collision(drive(others=others)).tolist() == [score]


def test_drivable_area() -> None:
    # The right side is at y - 1, the road ends at y = -2.
    assert pdm.drivable(drive(steady(y=-0.99))).tolist() == [1.0]
    assert pdm.drivable(drive(steady(y=-1.01))).tolist() == [0.0]


@pytest.mark.parametrize(
    ("speed", "score"),
    # Eleven steps, as NAVSIM sums them: 1.1 s. 1.8 · 1.1 = 1.98 m; 5.4 · 1.1 = 5.94 m.
    [(1.8, 1.0), (1.83, 0.5), (5.4, 0.5), (5.5, 0.0), (0.0, 1.0)],
)
def test_driving_direction(speed: float, score: float) -> None:
    wrong = drive(steady(speed, y=4.0))
    assert pdm.direction(wrong).tolist() == [score]
    assert pdm.direction(placed(wrong, junction=True)).tolist() == [1.0]
    assert pdm.direction(placed(wrong, wrong_way=False)).tolist() == [1.0]


def test_driving_direction_counts_the_worst_second() -> None:
    # 10 m/s: five steps of 1 m there are half a failure; ten more, later, do not add to them.
    wrong = np.isin(np.arange(41), [3, 4, 5, 6, 7, 30, 31])
    assert pdm.direction(placed(CLEAN, wrong_way=wrong)).tolist() == [0.5]


def test_traffic_lights() -> None:
    assert pdm.lights(CLEAN).tolist() == [1.0]
    assert pdm.lights(event(CLEAN, "ran_red", 7)).tolist() == [0.0]
    assert pdm.lights(event(CLEAN, "missed_stop", 7)).tolist() == [1.0]


@pytest.mark.parametrize(
    ("off", "junction", "score"),
    [
        (range(20), (), 0.0),  # 20 steps are 2 s
        (range(19), (), 1.0),
        ([*range(19), *range(20, 39)], (), 1.0),
        (range(25), range(3, 9), 1.0),  # 19 outside of the junction
        (range(26), range(3, 9), 0.0),  # 20 outside: the junction does not end the stretch
    ],
)
def test_lane_keeping(off: range, junction: range, score: float) -> None:
    step = np.arange(41)
    for side in (0.51, -0.51):
        trace = placed(CLEAN, d_m=np.where(np.isin(step, off), side, 0.5), junction=np.isin(step, junction))
        assert pdm.lane_keeping(trace).tolist() == [score]


def test_comfort_looks_back() -> None:
    before = apply(steady(steps=15), lambda column: column)
    braked = replace(before, accel_mps2=np.full((1, 15), -5.0))
    assert pdm.history_comfort(CLEAN).tolist() == [1.0]
    assert pdm.history_comfort(replace(CLEAN, history=before)).tolist() == [1.0]
    assert pdm.history_comfort(replace(CLEAN, history=braked)).tolist() == [0.0]
    assert pdm.comfort_of_drive(replace(CLEAN, history=braked)).tolist() == [1.0]


def test_extended_comfort_compares_with_the_plan_before() -> None:
    alike = steady(steps=36)
    other = replace(alike, accel_mps2=np.full((1, 36), 0.8))
    assert np.isnan(pdm.extended_comfort(CLEAN)).all()
    assert pdm.extended_comfort(replace(CLEAN, planned_before=alike)).tolist() == [1.0]
    assert pdm.extended_comfort(replace(CLEAN, planned_before=other)).tolist() == [0.0]


@pytest.mark.parametrize(
    ("own", "expert", "progress"),
    [
        (steady(5.0), steady(10.0), 0.5),  # 20 of 40 m
        (steady(12.0), steady(10.0), 1.0),
        (steady(0.0), steady(10.0), 0.0),
        (steady(-1.0), steady(10.0), 0.0),
        (steady(0.0), steady(1.2), 1.0),  # the expert's 4.8 m are not asked for
        (steady(0.0), steady(1.3), 0.0),  # 5.2 m are
        (steady(1.3), steady(0.0), 1.0),
    ],
)
def test_progress_is_relative(own: Ego, expert: Ego, progress: float) -> None:
    assert pdm.pdms(drive(own), drive(expert)).terms["progress"] == pytest.approx(progress)


def test_progress_by_breaking_rules_counts_for_nobody() -> None:
    slow, fast = drive(steady(5.0)), drive(steady(10.0))
    # The expert ran a light: only in EPDMS that is a rule.
    broken = event(fast, "ran_red", 3)
    assert pdm.pdms(slow, broken).terms["progress"].tolist() == [0.5]
    assert pdm.epdms(slow, broken).terms["progress"].tolist() == [1.0]
    # Half a failure is worth half of the metres: 20 m of mine over the larger of 20 m and 40 · ½ m.
    half = drive(steady(10.0), [Other(20.5, kind=STATIC)])
    assert pdm.pdms(slow, half).terms["progress"].tolist() == [1.0]
    assert pdm.pdms(drive(steady(3.0)), half).terms["progress"] == pytest.approx(0.6)


def test_pdms_by_hand() -> None:
    # Half as far, in the oncoming lane, past a red light: PDMS asks for the first only. (5 + 5·½ + 2) / 12
    trace = event(drive(steady(5.0, y=4.0)), "ran_red", 1)
    assert pdm.pdms(trace, CLEAN).score == pytest.approx(9.5 / 12)
    # Into a thing: ½ · (0 + 5 + 2) / 12
    assert pdm.pdms(drive(others=[Other(20.5, kind=STATIC)]), CLEAN).score == pytest.approx(0.5 * 7 / 12)


def test_epdms_by_hand() -> None:
    # 0.6 m off for 4 s, half as far, without a plan before: (5·½ + 5 + 0 + 2) / 14
    off = drive(steady(5.0, y=0.6))
    assert pdm.epdms(off, CLEAN).score == pytest.approx(9.5 / 14)
    # With one: (5·½ + 5 + 0 + 2 + 2) / 16
    planned = replace(off, planned_before=steady(5.0, steps=36))
    assert pdm.epdms(planned, CLEAN).score == pytest.approx(11.5 / 16)
    # In the oncoming lane with 4 m/s: ½ · (5·0.4 + 5 + 0 + 2) / 14
    assert pdm.epdms(drive(steady(4.0, y=4.0)), CLEAN).score == pytest.approx(0.5 * 9 / 14)
    assert pdm.epdms(event(CLEAN, "ran_red", 1), CLEAN).score.tolist() == [0.0]


def test_what_the_expert_failed_too_is_forgiven() -> None:
    ran = event(CLEAN, "ran_red", 1)
    assert pdm.epdms(ran, ran).score.tolist() == [1.0]
    assert pdm.epdms(drive(steady(y=0.6)), drive(steady(y=-0.6))).score.tolist() == [1.0]
    # Half a failure of the expert's forgives nothing.
    half = drive(steady(4.0, y=4.0))
    assert pdm.epdms(half, half).terms["direction"].tolist() == [0.5]
    # PDMS forgives nothing at all.
    off = drive(steady(y=-1.01))
    assert pdm.pdms(off, off).score.tolist() == [0.0]


def test_as_many_drives_as_of_the_expert() -> None:
    with pytest.raises(ValueError, match="2 drives but 1"):
        pdm.pdms(joined([CLEAN, CLEAN]), CLEAN)


def test_terms_that_cannot_be_judged_count_neither_way() -> None:
    table = {
        "gate": Term(lambda t: t.route_m),
        "a": Term(lambda t: t.route_m, 3.0),
        "b": Term(lambda t: t.route_m, 1.0),
    }
    nan = np.nan
    terms = {
        "gate": np.array([1.0, 0.5, nan, 1.0]),
        "a": np.array([1.0, 1.0, 0.0, nan]),
        "b": np.array([0.0, nan, 1.0, nan]),
    }
    np.testing.assert_allclose(combined(table, terms).score, [0.75, 0.5, 0.25, 0.0])
    with pytest.raises(KeyError):
        combined(table, {"gate": terms["gate"]})


def test_sums_over_the_last_steps() -> None:
    np.testing.assert_allclose(recent_sum(np.array([[1.0, 2, 3, 4, 5]]), 1), [[1, 3, 5, 7, 9]])
    np.testing.assert_allclose(recent_sum(np.array([[1.0, 2, 3]]), 9), [[1, 3, 6]])


def test_a_long_drive_in_pieces() -> None:
    long = drive(steady(steps=100), [Other(80.0)])
    pieces = windows(long, 41, 20, history=15)
    assert len(pieces) == 3  # from steps 15, 35 and 55, to 55, 75 and 95
    np.testing.assert_allclose(pieces.ego.x_m[:, 0], [15.0, 35.0, 55.0])
    assert pieces.history is not None
    np.testing.assert_allclose(pieces.history.x_m[1], np.arange(20.0, 35.0))
    # Contact from x + 4 ≥ 78
    assert pdm.no_collision(pieces).tolist() == [1.0, 0.0, 0.0]
