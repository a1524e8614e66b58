"""Traces refuse what does not fit together, and are cut and joined."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from simulation.scores.trace import Body, Trace, apply, chosen, joined, pieces, windows
from tests.unit.score_samples import Other, drive, steady

CLEAN = drive(others=[Other(20.0), Other(30.0, present=False)])


def with_others(name: str, value: float, place: int) -> Trace:
    column = getattr(CLEAN.others, name).copy()
    column[0, 3, place] = value
    return replace(CLEAN, others=replace(CLEAN.others, **{name: column}))


def test_the_absent_may_be_anything() -> None:
    assert len(with_others("x_m", np.nan, 1)) == 1
    with pytest.raises(ValueError, match=r"others\.x_m has values that are not finite"):
        with_others("x_m", np.nan, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ego": replace(CLEAN.ego, x_m=np.zeros(41))}, r"ego\.x_m is \(41,\)"),
        ({"ego": apply(CLEAN.ego, lambda c: c[:, :1])}, "at least 2 steps"),
        ({"ego": replace(CLEAN.ego, y_m=np.zeros((1, 40)))}, r"ego\.y_m is \(1, 40\), must be \(1, 41\)"),
        ({"ego": replace(CLEAN.ego, speed_mps=np.full((1, 41), np.inf))}, r"ego\.speed_mps has values"),
        ({"place": apply(CLEAN.place, lambda c: c[:, :9])}, r"place\.s_m is \(1, 9\)"),
        ({"events": apply(CLEAN.events, lambda c: c[:, :9])}, r"events\.ran_red is \(1, 9\)"),
        ({"others": apply(CLEAN.others, lambda c: c[:, :9])}, r"others\.present is \(1, 9, 2\)"),
        ({"others": replace(CLEAN.others, d_m=np.zeros((1, 41, 1)))}, r"others\.d_m is \(1, 41, 1\)"),
        ({"history": apply(steady(), lambda c: c.repeat(2, 0))}, r"history\.x_m is \(2, 41\), must be \(1, 41\)"),
        ({"planned_before": replace(steady(), y_m=np.full((1, 41), np.nan))}, r"planned_before\.y_m has values"),
        ({"route_m": np.ones(2)}, "for each of 1 drives"),
        ({"route_m": np.zeros(1)}, "length above 0"),
    ],
)
def test_columns_that_do_not_fit(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CLEAN, **change)


def test_joined_drives() -> None:
    history = replace(CLEAN, history=steady(steps=5), planned_before=steady(steps=30))
    both = joined([history, history])
    assert len(both) == 2
    assert both.history is not None and both.history.x_m.shape == (2, 5)
    assert both.planned_before is not None and both.planned_before.x_m.shape == (2, 30)
    assert both.others.x_m.shape == (2, 41, 2)
    mixed = joined([history, CLEAN])
    assert (mixed.history, mixed.planned_before) == (None, None)
    with pytest.raises(ValueError, match="no trace"):
        joined([])
    with pytest.raises(ValueError, match="different bodies"):
        joined([CLEAN, replace(CLEAN, body=Body())])


def test_pieces_follow_each_other_drive_by_drive() -> None:
    both = joined([CLEAN, drive(steady(5.0), [Other(20.0), Other(30.0)], route=7.0)])
    pieces = windows(both, 11, 15)
    assert (len(pieces), pieces.steps, pieces.history) == (6, 11, None)
    np.testing.assert_allclose(pieces.ego.x_m[:, 0], [0.0, 15.0, 30.0, 0.0, 7.5, 15.0])
    np.testing.assert_array_equal(pieces.route_m, [40.0] * 3 + [7.0] * 3)
    np.testing.assert_allclose(pieces.others.x_m[4, :, 1], 30.0)
    with pytest.raises(ValueError, match="no piece of 42 steps after 0 fits into 41"):
        windows(both, 42, 1)
    with pytest.raises(ValueError, match="after 31"):
        windows(both, 11, 1, history=31)


def test_pieces_with_what_went_before() -> None:
    found = windows(CLEAN, 11, 15, history=5)
    assert found.history is not None
    np.testing.assert_allclose(found.ego.x_m[:, 0], [5.0, 20.0])
    np.testing.assert_allclose(found.history.x_m, [np.arange(5.0), np.arange(15.0, 20.0)])
    np.testing.assert_array_equal(pieces(CLEAN.ego.x_m, 11, 15, 5), found.ego.x_m)


def test_some_of_the_drives() -> None:
    whole = replace(CLEAN, history=steady(steps=5), planned_before=steady(3.0, steps=30))
    two = joined([whole, replace(whole, route_m=np.array([7.0]))])
    for rows in (np.array([False, True]), np.array([1])):
        one = chosen(two, rows)
        assert (len(one), one.route_m.tolist(), one.body) == (1, [7.0], whole.body)
        assert one.history is not None and one.history.x_m.shape == (1, 5)
        assert one.planned_before is not None and one.planned_before.x_m.shape == (1, 30)
    assert chosen(CLEAN, np.array([0])).history is None
    assert len(chosen(two, np.array([False, False]))) == 0
    with pytest.raises(IndexError):
        chosen(two, np.array([2]))
