"""Trigger rules and readings."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edge.agent.readings import Readings, clip_scores
from edge.agent.triggers import RANK, RULES, Reading, Sampling, armed, detect
from streams.contracts.clock import SECOND_NS
from streams.contracts.drive import Trigger
from streams.contracts.odd import ACCELERATION, SPEED, YAW_RATE
from tests.unit.vehicle_frames import frame, plan


def fire(readings: list[Reading], step_s: float = 0.2) -> list[tuple[int, Trigger]]:
    state, out = armed(), []
    for i, reading in enumerate(readings):
        state, fired = detect(state, reading, int(i * step_s * SECOND_NS))
        out += [(i, rule.kind) for rule in fired]
    return out


def braking(*accelerations: float) -> list[tuple[int, Trigger]]:
    return fire([Reading(acceleration_mps2=a) for a in accelerations])


def test_hard_brake_fires_on_the_rising_edge_only() -> None:
    assert braking(0, -3.4, -3.6, -5, -4, 0) == [(2, Trigger.HARD_BRAKE)]


def test_hard_brake_does_not_fire_at_the_threshold() -> None:
    assert braking(0, -3.5, 0) == []


def test_hysteresis_a_flutter_about_the_threshold_is_one_brake() -> None:
    flutter = [-3.6, -3.4] * 40
    assert len(braking(0, *flutter)) == 1


def test_a_second_brake_counts_once_the_interval_is_over() -> None:
    assert braking(-4, 0, -4) == [(0, Trigger.HARD_BRAKE)]
    assert braking(-4, *[0.0] * 24, -4) == [(0, Trigger.HARD_BRAKE), (25, Trigger.HARD_BRAKE)]


def test_unknown_acceleration_neither_fires_nor_rearms() -> None:
    assert braking(-4, *[math.nan] * 40, -4) == [(0, Trigger.HARD_BRAKE)]


def test_each_rule_fires_on_its_own_reading() -> None:
    readings = {
        Trigger.DISENGAGEMENT: Reading(takeover=1.0),
        Trigger.HARD_BRAKE: Reading(acceleration_mps2=-6.0),
        Trigger.SHADOW_DISAGREEMENT: Reading(disagreement=0.999),
        Trigger.UNCERTAINTY: Reading(uncertainty=0.999),
        Trigger.NOVELTY: Reading(novelty=0.999),
        Trigger.SAMPLE: Reading(sampled=1.0),
    }
    assert set(readings) == {rule.kind for rule in RULES}
    for kind, reading in readings.items():
        assert fire([reading]) == [(0, kind)]


def test_every_kind_has_a_rank_and_a_disengagement_the_highest() -> None:
    assert set(RANK) == set(Trigger)
    assert max(RANK, key=lambda kind: RANK[kind]) is Trigger.DISENGAGEMENT
    assert min(RANK, key=lambda kind: RANK[kind]) is Trigger.SAMPLE


def test_nothing_fired_leaves_the_very_state() -> None:
    state = armed()
    assert detect(state, Reading(), 5)[0] is state


def test_takeover_is_the_edge_from_engaged_to_manual() -> None:
    readings = Readings()
    got = [
        readings.read(frame(i, engaged=e), False).takeover for i, e in enumerate([False, True, True, False, False])
    ]
    assert got == [0, 0, 0, 1, 0]


def test_a_new_drive_has_no_takeover_from_the_last_one() -> None:
    readings = Readings()
    readings.read(frame(0), False)
    readings.end_drive()
    assert readings.read(frame(1, engaged=False), False).takeover == 0


def test_acceleration_from_the_signal_or_from_the_speed() -> None:
    readings = Readings()
    assert readings.read(frame(0, signals={ACCELERATION: -4.0}), False).acceleration_mps2 == -4.0
    slowing = Readings()
    got = []
    for i in range(6):
        f = frame(i, signals={SPEED: (20.0 - 5.0 * 0.2 * i) * 3.6})
        del f.signals[ACCELERATION]  # type: ignore[attr-defined]
        got.append(slowing.read(f, False).acceleration_mps2)
    assert math.isnan(got[0])
    assert got[2:] == pytest.approx([-5.0] * 4)


def test_no_motion_signals_means_no_acceleration_and_no_disagreement() -> None:
    readings = Readings()
    for i in range(20):
        f = frame(i)
        f.signals.clear()  # type: ignore[attr-defined]
        reading = readings.read(f, False)
        assert math.isnan(reading.acceleration_mps2) and math.isnan(reading.disagreement)


def test_disagreement_needs_the_plan_to_have_been_driven() -> None:
    readings = Readings()
    got = [readings.read(frame(i), False).disagreement for i in range(13)]
    assert all(map(math.isnan, got[:12]))
    assert not math.isnan(got[12])


def test_a_missed_plan_stands_out_among_followed_ones() -> None:
    readings, ranks = Readings(), []
    for i in range(200):
        stopped = i >= 170
        signals = {SPEED: 0.0 if stopped else 36.0, YAW_RATE: 0.0}
        noise = 0.01 * math.sin(i)
        ranks.append(readings.read(frame(i, signals=signals, plan_m=plan(10 + noise)), False).disagreement)
    assert max(ranks[115:169]) < 1.0
    assert ranks[175] == 1.0


def test_clip_scores_of_a_followed_plan_are_zero() -> None:
    scores = clip_scores([frame(i) for i in range(20)])
    assert scores.plan_jump == pytest.approx(0, abs=1e-4)
    assert scores.hindsight_miss == pytest.approx(0, abs=1e-4)
    assert scores.uncertainty_m == pytest.approx(0.5)


def test_clip_scores_on_a_bend_take_the_own_motion_out() -> None:
    yaw_rate, speed = 0.2, 10.0
    t = np.arange(1, 9) * 0.3
    arc = np.stack([speed / yaw_rate * np.sin(yaw_rate * t), speed / yaw_rate * (1 - np.cos(yaw_rate * t))], -1)
    frames = [frame(i, signals={YAW_RATE: math.degrees(yaw_rate)}, plan_m=arc) for i in range(20)]
    scores = clip_scores(frames)
    assert scores.plan_jump < 0.05
    assert scores.hindsight_miss < 0.01


def test_clip_scores_see_one_plan_that_jumps_and_is_missed() -> None:
    frames = [frame(i, plan_m=plan(lateral_m=4.0 if i == 5 else 0.0)) for i in range(20)]
    scores = clip_scores(frames)
    assert scores.plan_jump > 2
    # 4 m at the end, linear over 8 waypoints: mean of one coordinate 2.25 m, of both 1.125 m, over 0.5 m.
    assert scores.hindsight_miss == pytest.approx(2.25, rel=1e-3)


def test_clip_scores_after_a_gap_do_not_mix_stretches() -> None:
    frames = [frame(i if i < 10 else i + 50) for i in range(20)]
    assert clip_scores(frames).hindsight_miss == pytest.approx(0, abs=1e-4)


def test_clip_scores_without_plans() -> None:
    assert clip_scores([frame(i, plan_m=None, scale_m=None) for i in range(5)]).uncertainty_m == 0


def test_sampling_draws_its_share_and_always_alike() -> None:
    sampling = Sampling(30.0, 0.2)
    drawn = [sampling.drawn("v1", period) for period in range(5000)]
    assert drawn == [sampling.drawn("v1", period) for period in range(5000)]
    assert 0.17 < sum(drawn) / len(drawn) < 0.23
    assert [sampling.drawn("v2", period) for period in range(5000)] != drawn
    assert sampling.period(29_999_999_999) == 0 and sampling.period(30_000_000_000) == 1
