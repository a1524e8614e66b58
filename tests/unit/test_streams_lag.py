"""Lag and throughput from two looks; what a broker's topics lack against the table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.lag import Place, rows
from streams.topic_changes import OnBroker, changes, unknown
from streams.topics import TOPICS

SETTINGS = {"retention.ms": "1", "cleanup.policy": "delete"}
WANTED = [(topic, SETTINGS) for topic in TOPICS]
AS_IT_SHOULD_BE = {t.name: OnBroker(t.partitions, SETTINGS | {"segment.ms": "7"}) for t in TOPICS}


def test_lag_is_what_is_written_and_not_committed() -> None:
    places = [
        Place("g", "fleet.events", 0, 10, 30),
        Place("g", "fleet.events", 1, 30, 30),
        Place("h", "x", 0, 0, 5),
    ]
    first, second = rows(places)
    assert (first.group, first.topic, first.partitions, first.lag, first.worst) == ("g", "fleet.events", 2, 20, 20)
    assert (second.group, second.lag) == ("h", 5)
    assert first.coming_per_s is first.read_per_s is first.catch_up_s is None


def test_rates_come_from_two_looks() -> None:
    before = [Place("g", "t", 0, 0, 100), Place("g", "t", 1, 0, 100)]
    now = [Place("g", "t", 0, 40, 110), Place("g", "t", 1, 40, 110)]
    (row,) = rows(now, before, seconds=2.0)
    assert (row.coming_per_s, row.read_per_s) == (10.0, 40.0)
    assert row.catch_up_s == pytest.approx(140 / 30)


def test_who_does_not_gain_never_catches_up_and_who_has_no_lag_has() -> None:
    (slow,) = rows([Place("g", "t", 0, 1, 20)], [Place("g", "t", 0, 0, 10)], 1.0)
    assert slow.catch_up_s is None
    (idle,) = rows([Place("g", "t", 0, 10, 10)], [Place("g", "t", 0, 10, 10)], 1.0)
    assert (idle.lag, idle.catch_up_s) == (0, 0.0)


def test_a_partition_or_group_that_is_new_has_no_rate_yet() -> None:
    (row,) = rows([Place("g", "t", 0, 1, 20)], [Place("h", "t", 0, 0, 10)], 1.0)
    assert row.read_per_s is None


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=8))
def test_lag_adds_up_and_is_never_negative(offsets: list[tuple[int, int]]) -> None:
    places = [Place("g", "t", n, committed, end) for n, (committed, end) in enumerate(offsets)]
    (row,) = rows(places, places, 1.0)
    assert row.lag == sum(max(end - committed, 0) for committed, end in offsets)
    assert row.worst <= row.lag
    assert (row.coming_per_s, row.read_per_s) == (0.0, 0.0)


def test_nothing_differs_where_the_broker_is_as_the_table() -> None:
    assert changes(AS_IT_SHOULD_BE, WANTED) == []


def test_everything_is_missing_on_an_empty_broker() -> None:
    assert [c.told() for c in changes({}, WANTED)] == [[f"{t.name}: missing"] for t in TOPICS]


def test_each_difference_is_told() -> None:
    events = TOPICS[0]
    present = AS_IT_SHOULD_BE | {events.name: OnBroker(events.partitions - 1, {"retention.ms": "2"})}
    (change,) = changes(present, WANTED)
    assert change.told() == [
        f"{events.name}: retention.ms is 2, should be 1",
        f"{events.name}: cleanup.policy is unset, should be delete",
        f"{events.name}: has {events.partitions - 1} partitions, should have {events.partitions}",
    ]


def test_partitions_are_never_taken_away() -> None:
    events = TOPICS[0]
    present = AS_IT_SHOULD_BE | {events.name: OnBroker(events.partitions + 1, SETTINGS)}
    (change,) = changes(present, WANTED)
    assert change.too_many == events.partitions + 1
    assert "Kafka takes none away" in change.told()[0]


def test_topics_of_ours_that_nobody_knows_are_named() -> None:
    assert unknown(["fleet.event", "orders", "fleet.events", "learning.job"]) == ["fleet.event", "learning.job"]
