"""What holds of every replay: recorded others are where the log says, reactive ones never run into who is ahead,
the recorded trajectory is its own yardstick."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from simulation.logs import GRID_S, log_of
from simulation.reactive import HARDEST_MPS2, STANDING_M, next_speed, safe_speed
from simulation.replay import RetracedWorld, judged, recorded_plan, replayed, retraced
from simulation.scenarios import REPLAY, condition
from simulation.traffic import FAR_M
from tests.unit.replay_logs import bend, times, track

DT_S = GRID_S
speeds = st.floats(0.0, 35.0)


@given(
    st.floats(0.0, 30.0),
    speeds,
    speeds,
    st.lists(st.floats(-HARDEST_MPS2, 3.0), min_size=60, max_size=60),
    st.lists(speeds, min_size=61, max_size=61),
)
@example(0.0, 30.0, 30.0, [-HARDEST_MPS2] * 60, [30.0] * 61)
@settings(max_examples=60, deadline=None)
def test_from_a_safe_start_nobody_is_run_into(
    spare_m: float, v: float, front_v: float, front_accel: list[float], recorded: list[float]
) -> None:
    """Whatever the log wants and however the one ahead brakes, as long as brakes allow it."""
    stops = max(v**2 - front_v**2, 0.0) / (2 * HARDEST_MPS2)
    gap, own, front = stops + STANDING_M + spare_m, np.array([v]), front_v
    for accel, (log_v, wish) in zip(front_accel, pairwise(recorded), strict=True):
        told = (np.array([wish]), np.array([log_v]), np.array([gap]), np.array([front]))
        after = next_speed(own, *told, DT_S)
        ahead = max(front + accel * DT_S, 0.0)
        # Who comes to rest within a step has gone as far as braking lets him, not half the step.
        way = front**2 / (2 * -accel) if accel < 0 and ahead == 0.0 else (front + ahead) / 2 * DT_S
        gap += way - float(own[0] + after[0]) / 2 * DT_S
        own, front = after, ahead
        assert gap > 0.0
        assert own[0] >= 0.0


@given(speeds, speeds, speeds)
def test_alone_the_log_is_followed(v: float, recorded: float, gained: float) -> None:
    """Who is as fast as recorded stays so; who is slower gains on it and does not pass it."""
    at, wish = np.array([recorded]), np.array([gained])
    nobody = np.array([FAR_M]), np.array([0.0])
    assert next_speed(at, wish, at, *nobody, DT_S) == pytest.approx(wish)
    slower = np.minimum(np.array([v]), at)
    after = next_speed(slower, wish, at, *nobody, DT_S)
    assert after <= wish + 1e-9
    assert after >= np.minimum(slower, wish) - 1e-9


@given(speeds, st.floats(0.0, 100.0), speeds)
def test_the_safe_speed_is_the_fastest_that_stops_in_time(v: float, gap: float, front_v: float) -> None:
    w = float(safe_speed(np.array([v]), np.array([gap]), np.array([front_v]), DT_S)[0])
    room = gap - STANDING_M + front_v**2 / (2 * HARDEST_MPS2)
    needed = (v + w) / 2 * DT_S + w**2 / (2 * HARDEST_MPS2)
    assert needed == pytest.approx(room, abs=1e-6) or (w == pytest.approx(0.0, abs=1e-9) and needed >= room - 1e-6)


@given(
    st.floats(4.0, 15.0),
    st.floats(40.0, 300.0),
    st.floats(-40.0, 40.0),
    st.floats(-8.0, 8.0),
    st.sampled_from(["car", "cyclist", "person"]),
    st.floats(0.0, 0.04),
)
@settings(max_examples=6, deadline=None)
def test_others_are_where_the_log_says_and_the_log_is_its_own_yardstick(
    speed: float, radius: float, along: float, aside: float, kind: str, shift_s: float
) -> None:
    t = times(8.0)
    own = track("ego", t, bend(t, speed, radius, 20.0))
    late = t + shift_s
    other = track("other", t, bend(late + along / speed, speed, radius, 20.0), kind, aside)  # type: ignore[arg-type]
    log = log_of("law", own, [other], seconds=7.0)
    scene = replayed(log, condition(REPLAY.name), 1)
    world = RetracedWorld([scene])
    plan = recorded_plan(world)[0]
    at = 0.3 * np.arange(1, len(plan) + 1)
    x, y = (np.interp(at, np.arange(len(c)) * GRID_S, c) for c in (log.x_m, log.y_m))
    cos, sin = np.cos(log.heading_rad[0]), np.sin(log.heading_rad[0])
    np.testing.assert_allclose(plan, np.stack([x * cos + y * sin, y * cos - x * sin], -1), atol=1e-4)
    for step in range(1, 30):
        world.step(plan[None])
        assert world.cast
        px, py, heading = (float(c[0, 0]) for c in world.cast.poses())
        now = 2 * step * GRID_S
        want = [np.interp(now, t, c) for c in (other.x_m, other.y_m, np.unwrap(other.heading_rad))]
        assert np.hypot(px + own.x_m[0] - want[0], py + own.y_m[0] - want[1]) < 0.01
        assert np.cos(heading - want[2]) > 0.9999
    drive = retraced(scene)
    found = judged(drive, drive, [])
    assert found.displacement_m.max() == 0.0
    assert found.progress == 1.0
