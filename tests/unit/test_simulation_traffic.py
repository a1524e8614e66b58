"""Car following, stopping and lights against values worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from simulation.roads import Roads
from simulation.scenarios import BASE, LIGHT_LINE, LINES, NO_LINE, STOP_LINE, scenes
from simulation.traffic import AMBER, FAR_M, GREEN, LIGHT_CYCLE_S, RED, STOP_BRAKING, Lines, idm, stopping


def _lines(count: int = 6) -> Lines:
    return Lines(scenes({BASE: 1}, count, 3, "train"))


def test_idm_by_hand() -> None:
    one = np.ones(1)
    assert idm(10 * one, 10 * one, FAR_M * one, 10 * one)[0] == pytest.approx(0.0, abs=1e-3), "at the wished speed"
    assert idm(0 * one, 10 * one, FAR_M * one, 0 * one)[0] == pytest.approx(1.6), "driving off alone"
    # Standing 3 m behind a standing car: the wished gap is 3 m, so 1.6·(1 - 1) = 0.
    assert idm(0 * one, 10 * one, 3 * one, 0 * one)[0] == pytest.approx(0.0)
    # At 5 m/s behind 5 m/s the wished gap is 3 + 6.5 m; at 19 m that is a quarter: 1.6·(1 - 1/16 - 1/4).
    assert idm(5 * one, 10 * one, 19 * one, 5 * one)[0] == pytest.approx(1.1)


@pytest.mark.parametrize("speed", [3.0, 8.9, 11.2])
def test_stopping_is_smooth_and_ends_at_the_line(speed: float) -> None:
    v, gap, dt, hardest = np.array([speed]), np.array([45.0]), 0.05, 0.0
    for _ in range(round(40 / dt)):
        accel = np.minimum(stopping(v, gap), 0.5 * (speed - v))
        hardest = max(hardest, -float(accel[0]))
        following = np.maximum(v + accel * dt, 0.0)
        gap, v = gap - (v + following) / 2 * dt, following
    assert hardest < STOP_BRAKING + 0.3
    assert float(v[0]) < 0.05
    assert -0.05 < float(gap[0]) < 0.3


def test_stopping_profile_has_no_kink() -> None:
    gap = np.linspace(0.5, 30, 4000)
    calm = np.zeros_like(gap)
    at_rest = stopping(calm, gap)
    slope = np.diff(at_rest) / np.diff(gap)
    assert np.abs(np.diff(at_rest)).max() < 0.03
    assert (slope > -1e-6).all(), "the farther the line, the less braking"


def test_lines_are_numbered_without_end() -> None:
    lines = _lines()
    s = np.full(len(lines.s), -5.0)
    last = np.full(len(s), -(10**6))
    for _ in range(3 * LINES):
        number, position, kind = lines.next(s)
        assert (position > s).all()
        assert (number > last).all()
        np.testing.assert_array_equal(kind, lines.kind_of(number))
        s, last = position + 1e-6, number
    assert (last == 3 * LINES - 1).all()


def test_lights_go_green_amber_red() -> None:
    lines = _lines(1)
    number = np.zeros(1, np.int64)
    seen = [int(lines.colour(number, t)[0]) for t in np.arange(0, LIGHT_CYCLE_S, 0.1)]
    changes = [b for a, b in zip(seen, [*seen[1:], seen[0]], strict=True) if a != b]
    assert sorted(changes) == [GREEN, AMBER, RED]
    order = changes.index(GREEN)
    assert [*changes[order:], *changes[:order]] == [GREEN, AMBER, RED]


def test_who_must_stop() -> None:
    lines = _lines()
    first = {
        kind: np.array([int(np.argmax(row == kind)) for row in lines.kind]) for kind in (STOP_LINE, LIGHT_LINE)
    }
    has = {kind: (lines.kind == kind).any(1) for kind in first}
    count = len(lines.s)
    near, slow, nowhere = np.full(count, 20.0), np.full(count, 5.0), np.full(count, -1)
    at_sign = lines.must_stop(first[STOP_LINE], near, slow, 0.0, nowhere)
    assert at_sign[has[STOP_LINE]].all()
    stood = lines.must_stop(first[STOP_LINE], near, slow, 0.0, first[STOP_LINE])
    assert not stood[has[STOP_LINE]].any(), "who has stood may go"
    for t in (0.0, 5.0, 10.0, 15.0, 20.0):
        at_light = lines.must_stop(first[LIGHT_LINE], near, slow, t, nowhere)
        colour = lines.colour(first[LIGHT_LINE], t)
        np.testing.assert_array_equal(at_light[has[LIGHT_LINE]], colour[has[LIGHT_LINE]] != GREEN)
        late = lines.must_stop(first[LIGHT_LINE], np.full(count, 3.0), np.full(count, 9.0), t, nowhere)
        np.testing.assert_array_equal(late[has[LIGHT_LINE]], colour[has[LIGHT_LINE]] == RED)
    assert (lines.kind != NO_LINE).any()


def test_a_straight_road_has_no_speed_cap_and_a_bend_has() -> None:
    zero = np.zeros((1, 6))
    assert Roads(zero, zero).speed_cap.min() > 50
    bend = zero.copy()
    bend[0, 3] = 0.22
    # Curvature peaks at 0.22·2π·8/960 = 0.01152 1/m: √(1.9 / 0.01152) = 12.84 m/s.
    assert Roads(bend, zero).speed_cap.min() == pytest.approx(12.84, abs=0.02)
