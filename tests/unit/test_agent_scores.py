"""Scores over tracks, ranks, novelty, embeddings."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edge.agent import frame as frames
from edge.agent.scores import Novelty, RunningRank, hindsight_misses, plan_jumps, quantise
from model import policy
from tests.unit.vehicle_frames import plan


def track(count: int, speed: float = 10.0) -> tuple[np.ndarray, ...]:
    times = np.arange(count) * 0.2
    poses = np.stack([times * speed, np.zeros(count), np.zeros(count)], -1)
    return np.stack([plan(speed)] * count), np.full((count, 8, 2), 0.5), poses, times


def test_the_vehicle_counts_waypoints_as_the_model_does() -> None:
    assert frames.PLAN_STEP_S == policy.PLAN_STEP_S


def test_steady_plans_do_not_jump_even_when_frames_come_unevenly() -> None:
    plans, scales, poses, times = track(6)
    times = np.array([0.0, 0.2, 0.41, 0.6, 1.5, 1.7])
    poses[:, 0] = times * 10
    assert plan_jumps(plans, scales, poses, times) == pytest.approx(np.zeros(5), abs=1e-5)


def test_a_jump_is_in_units_of_the_predicted_scale() -> None:
    plans, scales, poses, times = track(2)
    plans[1, :, 1] += 1.0
    assert plan_jumps(plans, scales, poses, times) == pytest.approx([1.0 / 0.5])


def test_plans_that_share_no_instant_do_not_jump() -> None:
    plans, scales, poses, _ = track(2)
    plans[1] += 100
    assert plan_jumps(plans, scales, poses, np.array([0.0, 2.4])) == pytest.approx([0.0])


def test_hindsight_waits_for_half_of_the_plan() -> None:
    plans, scales, poses, times = track(13)
    plans[:, :, 1] += 1.0
    misses = hindsight_misses(plans, scales, poses, times)
    assert (misses[:7] > 0.9).all()
    assert (misses[7:] == 0).all()


def test_hindsight_of_the_first_plan_alone() -> None:
    plans, scales, poses, times = track(13)
    poses[:, 0] /= 2
    miss = hindsight_misses(plans[:1], scales[:1], poses, times)
    # Half the way: error along x is 1.5 m per waypoint, mean 6.75 m; over both coordinates 3.375 m, over 0.5 m.
    assert miss == pytest.approx([6.75])


def test_quantised_embedding_keeps_its_direction() -> None:
    vector = np.random.default_rng(0).normal(size=192)
    stored = np.frombuffer(quantise(vector), np.int8).astype(float)
    cosine = stored @ vector / np.linalg.norm(stored) / np.linalg.norm(vector)
    assert len(stored) == 192 and cosine > 0.99


@pytest.mark.parametrize("vector", [np.zeros(8), np.full(8, np.nan), np.full(8, np.inf)])
def test_an_embedding_without_direction_is_left_out(vector: np.ndarray) -> None:
    assert quantise(vector) == b""


def test_rank_is_the_share_of_recent_values_below() -> None:
    rank = RunningRank(keep=100, warm_up=10)
    assert [rank.add(i) for i in range(10)] == [0.0] * 10
    assert rank.add(4.5) == 0.5
    assert rank.add(1000) == 1.0
    assert rank.add(-1) == 0.0


def test_rank_forgets_what_is_old_and_never_takes_nan() -> None:
    rank = RunningRank(keep=20, warm_up=10)
    for i in range(50):
        rank.add(1000.0 + i)
    for _ in range(20):
        rank.add(1.0)
    assert rank.add(2.0) == 1.0
    assert math.isnan(rank.add(math.nan))
    assert rank.add(2.5) == 1.0


def test_novelty_is_small_for_the_usual_and_large_for_another_direction() -> None:
    novelty = Novelty(keep=16, period_ns=1)
    usual, other = np.eye(8)[0], np.eye(8)[1]
    for i in range(20):
        last = novelty.score(usual + 0.01 * np.eye(8)[i % 8], i)
    assert last < 0.01
    assert novelty.score(other, 99) == pytest.approx(1.0, abs=0.05)


def test_novelty_starts_anew_when_the_model_changes_its_embedding() -> None:
    novelty = Novelty(period_ns=1)
    for i in range(10):
        novelty.score(np.ones(8), i)
    assert novelty.score(np.ones(16), 11) == 0.0
