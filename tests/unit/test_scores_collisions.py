"""Contacts, fault and time to collision, worked by hand. The vehicle is 5 m × 2 m, from 1 m behind its rear axle
to 4 m before it; the others are 4 m × 2 m."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from simulation.scores import boxes
from simulation.scores.boxes import Boxes
from simulation.scores.collisions import collisions, contacts
from simulation.scores.time_to_collision import foreseen, times_s
from simulation.scores.trace import CYCLIST, PEDESTRIAN, STATIC, Trace, joined
from tests.unit.score_samples import BODY, Other, drive, placed, steady


def box(x: float, y: float, heading: float = 0.0, length: float = 4.0, width: float = 2.0) -> Boxes:
    return Boxes(*(np.array([float(v)]) for v in (x, y, heading, length / 2, width / 2)))


@pytest.mark.parametrize(
    ("b", "touching"),
    [
        (box(4.0, 0.0), True),  # bumper to bumper: 2 + 2
        (box(4.01, 0.0), False),
        (box(3.9, 2.1), False),  # side by side: 1 + 1
        (box(3.0, 0.0, np.pi / 2), True),  # across: 2 + 1
        (box(3.01, 0.0, np.pi / 2), False),
        # The corner of a square of 2 m turned by 45° reaches sqrt(2): 2 + 1.414
        (box(3.41, 0.0, np.pi / 4, 2.0, 2.0), True),
        (box(3.42, 0.0, np.pi / 4, 2.0, 2.0), False),
        # Apart only across its own side: its nearest corner is (4.5 - sqrt 2, 1.5), a's is (2, 1); along the
        # diagonal (1, 1) / sqrt 2 the centre is at 4.243 and the reach is 3 / sqrt 2 + 1 = 3.121.
        (box(3.0, 3.0, np.pi / 4, 2.0, 2.0), False),
        (box(2.2, 2.2, np.pi / 4, 2.0, 2.0), True),
    ],
)
def test_boxes_touch(b: Boxes, touching: bool) -> None:
    assert bool(boxes.touch(box(0.0, 0.0), b)[0]) is touching
    assert bool(boxes.touch(b, box(0.0, 0.0))[0]) is touching


@pytest.mark.parametrize(
    ("b", "velocity", "seconds"),
    [
        (box(14.0, 0.0), (-5.0, 0.0), 2.0),  # a gap of 10 m
        (box(14.0, 0.0), (5.0, 0.0), np.inf),
        (box(14.0, 0.0), (0.0, 0.0), np.inf),
        (box(3.0, 0.0), (5.0, 0.0), 0.0),  # touching already, and parting
        (box(14.0, 3.0), (-5.0, 0.0), np.inf),  # passes beside
        (box(14.0, 3.0), (-5.0, -0.5), 2.0),  # 1 m aside is gone after 2 s as well: the corners meet
        (box(14.0, 4.0), (-5.0, -1.0), 2.0),  # 2 m aside likewise
        (box(14.0, 5.5), (-5.0, -1.0), 3.5),  # beside at 2 s, in contact when 3.5 m are gone
        (box(14.0, 6.0), (-10.0, -1.0), np.inf),  # past at 1.8 s, before 4 m are gone
        (box(-3.0, 0.0), (-5.0, 0.0), 0.0),
    ],
)
def test_boxes_meet(b: Boxes, velocity: tuple[float, float], seconds: float) -> None:
    vx, vy = (np.array([v]) for v in velocity)
    assert float(boxes.meeting_s(box(0.0, 0.0), b, vx, vy)[0]) == pytest.approx(seconds)


def test_contact_begins_when_the_bumpers_meet() -> None:
    # The front is at 4 + t·10/10, the other's rear at 20.5 - 2: contact from the step where 4 + k ≥ 18.5.
    trace = drive(others=[Other(20.5), Other(20.5, present=False)])
    assert np.flatnonzero(contacts(trace)[0, :, 0])[0] == 15
    assert not contacts(trace)[0, :, 1].any()
    crash = collisions(trace)
    assert (crash.drive.tolist(), crash.step.tolist(), crash.ego_mps.tolist()) == ([0], [15], [10.0])


@pytest.mark.parametrize(
    ("trace", "fault"),
    [
        (drive(others=[Other(20.5)]), True),  # into one that stands
        (drive(others=[Other(20.5, speed=2.0)]), True),  # with the front, into one that moves
        (drive(others=[Other(20.5, kind=STATIC, speed=2.0)]), True),  # a thing never moves by itself
        (drive(steady(0.0), [Other(9.0, speed=-2.0)]), False),  # it stands
        (drive(steady(5.0), [Other(-6.0, speed=15.0)]), False),  # hit from behind: seen at 180°
        # From the side into the middle of its box: 90° left of the rear axle's front, at y = 4 - 1 - 1 - 1
        (drive(steady(5.0), [Other(1.5, 4.0, speed=-5.0, heading=np.pi / 2)]), False),
        (
            placed(drive(steady(5.0), [Other(1.5, 4.0, speed=-5.0, heading=np.pi / 2)]), several_lanes=True),
            True,
        ),
        (placed(drive(steady(5.0), [Other(1.5, 4.0, speed=-5.0, heading=np.pi / 2)]), overhang_m=0.1), True),
        (placed(drive(steady(5.0), [Other(-6.0, speed=15.0)]), several_lanes=True), False),
    ],
)
def test_whose_fault_it_is(trace: Trace, fault: bool) -> None:
    assert collisions(trace).at_fault.tolist() == [fault]


def test_each_road_user_counts_once_and_who_takes_its_place_counts_anew() -> None:
    trace = drive(steady(1.0), [Other(5.0), Other(5.0, kind=PEDESTRIAN)])
    assert len(collisions(trace).drive) == 2
    assert sorted(collisions(trace).kind.tolist()) == [0, 1]
    track = trace.others.track.copy()
    track[0, 30:, 0] = 7
    again = collisions(replace(trace, others=replace(trace.others, track=track)))
    assert again.step.tolist() == [0, 0, 30]


def test_drives_are_kept_apart() -> None:
    both = joined([drive(others=[Other(20.5)]), drive(others=[Other(500.0)]), drive(others=[Other(12.5)])])
    crash = collisions(both)
    assert crash.drive.tolist() == [0, 2]
    assert crash.step.tolist() == [15, 7]
    np.testing.assert_array_equal(foreseen(both), [True, False, True])


@pytest.mark.parametrize(
    ("trace", "least"),
    [
        # 10 m/s behind one at 5 m/s: the gap of 16 - 2 - 4 = 10 m is used up after 2 s, 4 s on it is: at 0 s, 2 s
        (drive(steady(10.0, steps=5), [Other(16.0, speed=5.0)]), (10 - 4 * 0.5) / 5),
        (drive(steady(10.0, steps=5), [Other(16.0, speed=10.0)]), np.inf),
        # From its front at 5 m: 29.5 m, and 31 m, which are beyond the horizon
        (drive(steady(10.0, steps=2), [Other(36.5)]), 2.95),
        (drive(steady(10.0, steps=2), [Other(38.0)]), np.inf),
        (drive(steady(0.001, steps=5), [Other(8.0, speed=-5.0)]), np.inf),  # stands
        (drive(steady(10.0, steps=5), [Other(-10.0, speed=30.0)]), np.inf),  # from behind
        # Crossing from the left at x = 24..26, 26° aside: its nose at y = 12 - 2 comes to y = 1 after 1.8 s, my
        # front to x = 24 after 2.0 s, when its tail is at y = 4: hit then; seen from the last step 0.4 s less.
        (drive(steady(10.0, steps=5), [Other(25.0, 12.0, speed=5.0, heading=-np.pi / 2)]), 2.0 - 0.4),
        # The same one 32° aside is not ahead.
        (drive(steady(10.0, steps=5), [Other(19.0, 12.0, speed=5.0, heading=-np.pi / 2)]), np.inf),
    ],
)
def test_time_to_collision(trace: Trace, least: float) -> None:
    assert float(times_s(trace).min()) == pytest.approx(least)


def test_time_to_collision_is_nothing_at_a_crash_and_leaves_out_whom_it_hit() -> None:
    trace = drive(others=[Other(20.5)])
    seconds = times_s(trace)[0]
    assert seconds[14] == pytest.approx(0.05)  # 0.5 m at 10 m/s
    assert seconds[15] == 0.0
    assert np.isinf(seconds[16:]).all()


def test_those_beside_count_between_lanes_and_in_junctions_only() -> None:
    # Beside at 63° and drifting in with 1 m/s. Turned by 5.7°, it reaches 2 · 0.0995 + 1 · 0.995 = 1.194 m to its
    # side, I reach 1 m: 1.806 m are left of 4 m, and after a second 0.806 s.
    beside = Other(2.0, 4.0, speed=np.hypot(10.0, 1.0), heading=-np.arctan2(1.0, 10.0))
    trace = drive(steady(10.0, steps=11), [beside])
    # Slowly from the left with 1 m/s into a slow one's side: 4 - 2 - 1 m are gone after 1 s, at 57°.
    crept = drive(steady(1.0, steps=25), [Other(2.0, 4.0, speed=1.0, heading=-np.pi / 2)])
    assert np.isinf(times_s(trace)).all()
    assert not foreseen(crept)[0]
    for name in ("several_lanes", "junction"):
        assert times_s(placed(trace, **{name: True})).min() == pytest.approx(0.806, abs=1e-3)
        assert foreseen(placed(crept, **{name: True}))[0]


@pytest.mark.parametrize(
    ("other", "bad"),
    [
        # Rear at 29 - 2: front at 4 + 3.1 (the last start) + 9 = 44.1 at most
        (Other(29.0), True),
        (Other(46.0), True),  # 44 < 44.1
        (Other(46.2), False),  # 44.2
        (Other(16.0, speed=10.0), False),
        (Other(10.6, speed=-1.0), True),
        # Who will hit from behind: seen from where I am now, it is then ahead, says NAVSIM; 3 m at 5 m/s.
        (Other(-6.0, speed=15.0), True),
        # Left out: from the left into my side, at x = 1.5, where I will not be any more when it is there
        (Other(1.5, 4.5, speed=4.0, heading=-np.pi / 2), False),
    ],
)
def test_foreseen_collisions(other: Other, bad: bool) -> None:
    assert bool(foreseen(drive(others=[other]))[0]) is bad


def test_foreseeing_needs_a_future() -> None:
    with pytest.raises(ValueError, match="9 steps are too few"):
        foreseen(drive(steady(steps=9)))
    assert not foreseen(drive(steady(steps=10), [Other(20.0, kind=CYCLIST)]))[0]


def test_fault_is_told_alike_in_every_direction() -> None:
    # Into one ahead, and hit from behind, with the vehicle heading elsewhere than along x.
    for turn in (np.pi / 2, np.pi, -2.0):
        c, s = np.cos(turn), np.sin(turn)
        ahead = Other(12.0 * c, 12.0 * s, speed=2.0, heading=turn)
        behind = Other(-6.0 * c, -6.0 * s, speed=15.0, heading=turn)
        ego = steady(5.0, heading=turn)
        assert collisions(drive(ego, [ahead])).at_fault.tolist() == [True]
        assert collisions(drive(ego, [behind])).at_fault.tolist() == [False]
        edge = boxes.front_edges(BODY, *(np.array([v]) for v in (7.0, 8.0, turn)))
        np.testing.assert_allclose([edge.x_m[0], edge.y_m[0]], [7.0 + 4 * c, 8.0 + 4 * s])
