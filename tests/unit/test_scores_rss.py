"""RSS distances and responses worked by hand, with the parameters of ad-rss-lib: response 1 s (others 2 s), until
then 3.5 m/s², braking 4 at least, 8 at most, 3 where one is in the right; sideways 0.2 and 0.8 m/s², and 0.1 m of
swaying."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from simulation.scores.rss import Rss, following_m, lateral_m, opposing_m, shares, situations, violations
from simulation.scores.trace import Trace
from tests.unit.score_samples import Other, clock, drive, motion, placed, steady


@pytest.mark.parametrize(("kmh", "metres"), [(50, 41.4), (100, 103.6)])
def test_following_a_lead_of_equal_speed(kmh: float, metres: float) -> None:
    assert float(following_m(kmh / 3.6, kmh / 3.6)) == pytest.approx(metres, abs=0.05)


def test_following_by_hand() -> None:
    # 10·1 + 3.5/2 + 13.5²/8 - 10²/16 = 10 + 1.75 + 22.78125 - 6.25
    assert float(following_m(10.0, 10.0)) == pytest.approx(28.28125)
    assert float(following_m(0.0, 30.0)) == 0.0
    # 10·2 + 3.5·4/2 + 17²/8 = 20 + 7 + 36.125
    assert float(following_m(10.0, 0.0, 2.0)) == pytest.approx(63.125)


def test_opposing_by_hand() -> None:
    # The right one: 10 + 1.75 + 13.5²/6 = 42.125; the wrong one: 20 + 7 + 17²/8 = 63.125
    assert float(opposing_m(10.0, 10.0)) == pytest.approx(105.25)
    # Standing at first: 1.75 + 3.5²/6 and 7 + 7²/8
    assert float(opposing_m(0.0, 0.0)) == pytest.approx(1.75 + 12.25 / 6 + 13.125)


@pytest.mark.parametrize(
    ("own", "other", "metres"),
    [
        # Mine: 0.2/2 + 0.2²/1.6 = 0.125; the other's, 2 s: 0.4 + 0.4²/1.6 = 0.5 (ad-rss-lib's own example); 0.1
        (0.0, 0.0, 0.725),
        # 1 m/s towards it: 1 + 0.1 + 1.2²/1.6 = 2.0
        (1.0, 0.0, 2.6),
        # 1 m/s away: -1 + 0.1, and still away at 0.8 m/s: -0.9 + 0.5 + 0.1
        (-1.0, 0.0, 0.0),
        # It goes away with 0.3 m/s: -0.6 + 0.4 + 0.1²/1.6 = -0.19375; 0.125 - 0.19375 + 0.1
        (0.0, -0.3, 0.03125),
    ],
)
def test_sideways_by_hand(own: float, other: float, metres: float) -> None:
    assert float(lateral_m(own, other)) == pytest.approx(metres)


@pytest.mark.parametrize(
    ("others", "lengthwise", "sideways"),
    [
        # 28.28 m behind an equally fast one, from 4 m before me to 2 m before its middle
        (Other(34.2, speed=10.0), True, True),
        (Other(34.4, speed=10.0), False, True),
        # It follows me, 2 s: 20 + 7 + 17²/8 - 10²/16 = 56.875 m behind -1, to 2 m before its middle
        (Other(-59.8, speed=10.0), True, True),
        (Other(-60.0, speed=10.0), False, True),
        # It comes the wrong way: 105.25 m
        (Other(111.2, speed=10.0, heading=np.pi), True, True),
        (Other(111.4, speed=10.0, heading=np.pi), False, True),
        # It has come past me
        (Other(-4.0, 2.8, speed=10.0, heading=np.pi), False, False),
        # 0.725 m beside: 1 + 1 + 0.725
        (Other(1.5, 2.72, speed=10.0), True, True),
        (Other(1.5, -2.73, speed=10.0), True, False),
        (Other(34.2, speed=10.0, present=False), False, False),
    ],
)
def test_situations(others: Other, lengthwise: bool, sideways: bool) -> None:
    found = situations(drive(steady(steps=2), [others]))
    assert bool(found.lengthwise[0, 0, 0]) is lengthwise
    assert bool(found.sideways[0, 0, 0]) is sideways
    assert bool(found.dangerous[0, 0, 0]) is (lengthwise and sideways)


def test_in_the_wrong_lane_it_is_oneself_who_must_brake_harder() -> None:
    # The other is in the right, 2 s: 20 + 7 + 17²/6 = 75.17; mine: 10 + 1.75 + 13.5²/8 = 34.53; in all 109.70 m
    for x, near in ((115.6, True), (115.8, False)):
        trace = placed(drive(steady(steps=2), [Other(x, speed=10.0, heading=np.pi)]), wrong_way=True)
        assert bool(situations(trace).lengthwise[0, 0, 0]) is near


def braked(accel: float, other: Other) -> Trace:
    """From 10 m/s, with this acceleration from the start."""
    t = clock(21)
    way = 10 * t + accel * t**2 / 2
    return drive(motion(way, t * 0, t * 0, 10 + accel * t, accel), [other])


def test_who_follows_too_near_must_brake_after_a_second() -> None:
    # 24 m behind: danger from the start. Without braking in violation from 1.0 s on: 11 of 21 steps.
    near = Other(30.0, speed=10.0)
    found = violations(drive(steady(steps=21), [near]))
    assert found.danger.all()
    assert np.flatnonzero(found.longitudinal[0]).tolist() == list(range(10, 21))
    assert not found.lateral.any()
    # Before one that stands, after a second of braking with 4 m/s²: 16 m are left, 6 + 1.75 + 9.5²/8 = 19 safe.
    stands = Other(30.0)
    assert violations(braked(-4.0, stands)).danger[0, 10]
    assert not violations(braked(-4.0, stands)).longitudinal.any()
    assert violations(braked(-3.9, stands)).longitudinal[0, 10]
    # Speeding up by more than 3.5 m/s² is none at any time.
    assert violations(braked(3.6, near)).longitudinal[0, 0]
    assert not violations(braked(3.5, near)).longitudinal[0, :10].any()


def test_who_is_followed_too_near_need_not_brake() -> None:
    found = violations(drive(steady(steps=21), [Other(-30.0, speed=10.0)]))
    assert found.danger.all()
    assert not found.longitudinal.any()


def test_who_stands_has_responded() -> None:
    assert not violations(drive(steady(0.0, steps=21), [Other(7.0)])).longitudinal.any()


def test_the_right_one_of_two_that_meet_may_brake_less() -> None:
    comes = Other(80.0, speed=10.0, heading=np.pi)
    assert not violations(braked(-3.0, comes)).longitudinal[0, :21].any()
    assert violations(braked(-2.9, comes)).longitudinal[0, 10]
    assert violations(placed(braked(-3.0, comes), wrong_way=True)).longitudinal[0, 10]


def test_who_drifts_towards_one_beside_must_cease() -> None:
    # With 0.5 m/s to the left, beside one that is never left behind; lengthwise unsafe all along, so it is the
    # side that becomes unsafe last. Safe: 0.5 + 0.1 + 0.7²/1.6 + 0.5 + 0.1 = 1.50625 m; 3.85 m less 2 m and 0.5·t
    # are as few from 0.69 s on (0.7 s). In violation a second later, from 1.7 s on.
    t = clock(31)
    course = np.full(31, np.arcsin(0.05))
    drifting = motion(10 * t * np.cos(course), 0.5 * t, course * 0, np.full(31, 10.0))
    trace = drive(drifting, [Other(1.5, 3.85, speed=10.0)])
    # The box is kept straight in the lane, so that only its motion is aslant.
    trace = placed(trace, course_rad=course)
    trace = replace(trace, body=replace(trace.body, front_m=1.5, rear_m=1.5, width_m=2.0 - 0.15))
    found = violations(trace)
    begins = int(np.flatnonzero(found.danger[0])[0])
    assert begins == 7
    assert np.flatnonzero(found.lateral[0])[0] == begins + 10
    assert not found.longitudinal.any()
    # Away from it, there is no violation: it is the other's to cease.
    away = placed(trace, course_rad=-course)
    assert not violations(away).lateral.any()


def test_a_danger_ends_with_the_road_user_that_brought_it() -> None:
    trace = drive(steady(steps=21), [Other(30.0, speed=10.0)])
    track = trace.others.track.copy()
    track[0, 8:] = 1
    found = violations(replace(trace, others=replace(trace.others, track=track)))
    assert np.flatnonzero(found.longitudinal[0]).tolist() == [18, 19, 20]


def test_shares_of_time() -> None:
    found = shares(drive(steady(steps=21), [Other(30.0, speed=10.0)]))
    assert {name: float(value[0]) for name, value in found.items()} == pytest.approx(
        {"rss_danger": 1.0, "rss_longitudinal": 11 / 21, "rss_lateral": 0.0}
    )
    alone = shares(drive(steady(steps=21)))
    assert all(value[0] == 0 for value in alone.values())


def test_other_parameters() -> None:
    # 3 + 0.1575 + 11.05²/8 - 6.25 = 12.17 m; 11 m behind
    swift = Rss(own_response_s=0.3)
    found = violations(drive(steady(steps=21), [Other(17.0, speed=10.0)]), swift)
    assert np.flatnonzero(found.longitudinal[0])[0] == 3
