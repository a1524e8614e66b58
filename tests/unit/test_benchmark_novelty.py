"""The novelty benchmark: its contenders do what they say, its bars can be missed."""

from __future__ import annotations

import numpy as np
import pytest

from fleet.benchmarks.novelty import COUNTS, DRIFTS, LEVELS, assess, contest
from fleet.benchmarks.novelty_data import COMMON, Fads, Mixture, mixture, with_fads
from fleet.benchmarks.novelty_picks import by_windows, k_center, within
from fleet.benchmarks.novelty_sharing import ALONE, APART, ARMS, EVERYTHING, POOLED, sharing

SMALL = Mixture(events=3000, planted=4, each=10)


def slow_k_center(units: np.ndarray, sizes: np.ndarray, share: float) -> list[int]:
    """By the book: one point at a time."""
    points = units.astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    chosen, gaps = [0], 1 - points @ points[0]
    while True:
        best = int(gaps.argmax())
        if sizes[[*chosen, best]].sum() > share * sizes.sum():
            return chosen
        chosen.append(best)
        gaps = np.minimum(gaps, 1 - points @ points[best])
        gaps[best] = 0


def test_greedy_k_center_in_batches_is_greedy_k_center() -> None:
    stream = mixture(3, SMALL)
    fast = np.flatnonzero(k_center(stream.embeddings, stream.bytes, 0.05))
    assert fast.tolist() == sorted(slow_k_center(stream.embeddings, stream.bytes, 0.05))


def test_budgets_hold_in_every_window_and_the_largest_scores_are_taken() -> None:
    rng = np.random.default_rng(0)
    scores, sizes = rng.random(1000), rng.integers(1, 9, 1000)
    chosen = by_windows(scores, sizes, 0.1, 300)
    for start in range(0, 1000, 300):
        rows = slice(start, start + 300)
        assert sizes[rows][chosen[rows]].sum() <= 0.1 * sizes[rows].sum()
        assert scores[rows][chosen[rows]].min() >= np.sort(scores[rows])[-chosen[rows].sum()]
    assert within([2, 0, 1], np.array([5, 5, 5]), 10).tolist() == [True, False, True]


def test_a_stream_is_what_was_asked_for() -> None:
    stream = mixture(3, SMALL)
    assert np.array_equal(stream.embeddings, mixture(3, SMALL).embeddings)
    assert [(stream.kinds == k).sum() for k in range(4)] == [10] * 4 and (stream.kinds == COMMON).sum() == 2960
    lengths = np.linalg.norm(stream.embeddings.astype(float), axis=1)
    assert np.abs(lengths - 127).max() < 5
    assert not np.array_equal(stream.embeddings, mixture(4, SMALL).embeddings)


def test_a_contest_finds_planted_events_within_the_budget() -> None:
    row = contest(mixture(3, SMALL), 3)
    assert row["planted"] == 40 and row["events"] == 3000
    assert row["recall"]["novelty"] > 2 * row["recall"]["uniform"]
    assert all(share <= 0.05 for share in row["byte_share"].values())
    assert 0 < row["memory_bytes"]["novelty"] < row["state_bytes"]


def test_fads_are_common_events_made_alike() -> None:
    stream, fads = with_fads(mixture(3, SMALL), 3, Fads(2, 60))
    assert (np.bincount(fads[fads >= 0]) > 50).all() and (stream.kinds[fads >= 0] == COMMON).all()
    units = stream.embeddings / np.linalg.norm(stream.embeddings.astype(float), axis=1, keepdims=True)
    for fad in range(2):
        rows = fads == fad
        assert (units[rows] @ units[rows].T).min() > 0.7 > (units[rows] @ units[~rows].T).mean() + 0.3
        assert len({c for c, there in zip(stream.cells, rows, strict=True) if there}) == 1


def test_what_is_pooled_is_uploaded_less_often_than_what_is_judged_apart() -> None:
    stream, fads = with_fads(mixture(3, Mixture(events=12_000, planted=6, each=10)), 3, Fads(4, 200))
    rows = sharing(stream, fads, 3, 0.05, 2000)
    assert set(rows) == set(ARMS) and all(0 < r["recall"] <= 1 for r in rows.values())
    assert rows[EVERYTHING]["of_a_fad"] < rows[POOLED]["of_a_fad"] < rows[APART]["of_a_fad"]
    assert rows[ALONE]["of_a_fad"] < rows[APART]["of_a_fad"]
    assert rows[POOLED]["recall"] > rows[APART]["recall"]


def row(recall: float = 0.8, memory: float = 0.009, alarm: float = 1.0) -> dict[str, object]:
    data = {
        "events": 1000,
        "recall": {"novelty": recall, "k-center": 0.8, "uncertainty": 0.1, "uniform": 0.05},
        "kinds_found": dict.fromkeys(("novelty", "k-center", "uncertainty", "uniform"), 1.0),
        "memory_bytes": {"novelty": 10, "k-center": 1000},
        "memory_share": memory,
        "memory_growth": {"1000": {"novelty": 10, "k-center": 1000}},
        "state_bytes": 20,
    }
    alarms = {drift: {f"{a:g}": a * (alarm if drift == "abrupt" else 1) for a in LEVELS} for drift in DRIFTS}
    shared = {arm: {"recall": 0.8, "of_a_fad": 9.0, "bytes_on_fads": 0.1} for arm in ARMS}
    speeds = {str(n): 1e5 for n in COUNTS}
    return {"mixture": data, "worlds": data, "sharing": shared, "false_alarms": alarms, "speed": speeds}


@pytest.mark.parametrize(
    ("changes", "missed"),
    [
        ({}, set()),
        ({"recall": 0.7}, {"recall-mixture", "recall-worlds"}),
        ({"memory": 0.02}, {"memory"}),
        ({"alarm": 0.7}, {"false-alarms"}),
        ({"alarm": 1.3}, {"false-alarms"}),
    ],
)
def test_each_bar_can_be_missed(changes: dict[str, float], missed: set[str]) -> None:
    found = assess({"1": row(**changes), "2": row(**changes)}, "f" * 64)
    assert {b.id for b in found.bars if not b.holds} == missed
    assert "abrupt" in found.table and "k-center" in found.table
