"""A lane's journal: wherever a worker dies, its rows give back states, positions and what may be untold."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.contracts.clock import SECOND_NS
from streams.contracts.codec import encode
from streams.dedup import Dedup
from streams.engines import journal as journal_module
from streams.engines.journal import CHUNK_BYTES, Journal, read
from streams.engines.lane import Lane
from streams.engines.round import Counts, Outgoing
from streams.novelty import NoveltyConfig, NoveltyStage
from streams.stage import AnyStage
from streams.state import StateUnreadable, pack
from streams.tagging import Tagging
from streams.transport.base import Record
from tests.samples import T0, embedding_of, event

NUMBER = 3
Rows = dict[bytes, bytes]


def stages() -> list[AnyStage]:
    return [Dedup(), Tagging(), NoveltyStage(NoveltyConfig(block=4))]


def lane_of(rows: Rows) -> Lane:
    made = stages()
    return Lane(NUMBER, made, {s.name: Counts() for s in made}, rows)


def records(first: int, count: int) -> list[Record]:
    """Every fifth is no message."""
    found = []
    for i in range(first, first + count):
        headers, value = encode(event(i, embedding=embedding_of([i % 5 + 1, 1, i % 3])))
        found.append(Record("fleet.events", NUMBER, i, b"car-1", headers, b"junk" if i % 5 == 4 else value))
    return found


def states_of(lane: Lane) -> dict[str, Any]:
    return {s.name: pack(lane.states[s.name]) for s in stages()}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that places are taken again and snapshots come within a few steps."""
    monkeypatch.setattr(journal_module, "PLACES", 5)
    monkeypatch.setattr(journal_module, "LIGHT_BYTES", 3_000)


@given(sizes=st.lists(st.integers(0, 6), max_size=30), cut=st.integers(0, 400), seed=st.integers(0, 3))
def test_dying_at_any_row_changes_nothing(sizes: list[int], cut: int, seed: int) -> None:
    """Rows become durable one by one; the worker dies at `cut` and takes up its input again."""
    undisturbed, told = lane_of({}), list[Outgoing]()
    plan, first = [], 0
    for number, size in enumerate(sizes):
        plan.append((records(first, size), T0 + number * SECOND_NS))
        first += size
        told += undisturbed.step(*plan[-1]).outgoing

    rows, heard, written = Rows(), list[Outgoing](), 0
    lane, step = lane_of(rows), 0
    while step < len(plan):
        taken, now_ns = plan[step]
        turn = lane.step([r for r in taken if lane.fresh(r)], now_ns)
        died = False
        for key, value in turn.rows:
            if written == cut:
                died = True
                break
            rows[key] = value
            written += 1
        if died:
            written += 1
            lane = lane_of(dict(rows))
            heard += lane.untold
            assert lane.steps == step
            continue
        step += 1
        heard += turn.outgoing
        if (seed + step) % 4 == 0:
            lane = lane_of(dict(rows))
            heard += lane.untold
    assert states_of(lane) == states_of(undisturbed)
    assert (lane.positions, lane.steps) == (undisturbed.positions, undisturbed.steps)
    assert list(dict.fromkeys(heard)) == list(dict.fromkeys(told))


def test_a_restart_tells_the_last_step_again_byte_for_byte() -> None:
    rows, lane = Rows(), lane_of({})
    turn = lane.step(records(0, 6), T0)
    rows |= dict(turn.rows)
    assert lane_of(rows).untold == turn.outgoing != []
    rows |= dict(lane.snapshot())
    assert lane_of(rows).untold == []


def test_rows_are_bounded() -> None:
    rows, lane = Rows(), lane_of({})
    for i in range(60):
        rows |= dict(lane.step(records(i, 1), T0 + i).rows)
    assert len(rows) <= 5 + 2 + 1
    assert lane_of(rows).steps == 60


def test_heavy_steps_take_few_places() -> None:
    """Else a table would hold hundreds of clips' chunks that no restart needs."""
    rows, journal = Rows(), Journal(0)
    for i in range(30):
        if journal.due:
            rows |= dict(journal.snapshot({"a": b"small"}, {}, T0 + i))
        rows |= dict([journal.step(records(i * 6, 6), T0 + i)])
    assert sum(key.startswith(b"0/step") for key in rows) == 1
    past, _ = read(rows, 0)
    assert [step.number for step in past.steps] == [30]


def test_a_large_state_lies_in_several_rows() -> None:
    journal = Journal(0)
    state = bytes(range(256)) * (CHUNK_BYTES * 5 // 2 // 256)
    rows = dict(journal.snapshot({"big": state}, {("t", 1): 7}, T0))
    assert len(rows) == 4
    past, _ = read(rows, 0)
    assert (past.states, past.positions, past.now_ns) == ({"big": state}, {("t", 1): 7}, T0)


def test_a_snapshot_that_was_not_finished_does_not_count() -> None:
    journal = Journal(0)
    rows = dict(journal.snapshot({"a": b"first"}, {}, T0))
    *chunks, _head = journal.snapshot({"a": b"second"}, {}, T0 + 1)
    past, _ = read(rows | dict(chunks), 0)
    assert past.states == {"a": b"first"}


def test_lanes_do_not_see_each_others_rows() -> None:
    rows = dict(lane_of({}).step(records(0, 3), T0).rows)
    past, _ = read(rows, NUMBER + 1)
    assert past.steps == () and past.number == 0


@pytest.mark.parametrize("damage", ["lost", "cut", "junk"])
def test_damaged_rows_are_named(damage: str) -> None:
    journal = Journal(0)
    rows = dict(journal.snapshot({"a": b"x" * 100}, {}, T0))
    rows |= dict([journal.step([], T0), journal.step([], T0)])
    if damage == "lost":
        del rows[b"0/step/0"]
    elif damage == "cut":
        rows[b"0/snapshot-1/0"] = rows[b"0/snapshot-1/0"][:-1]
    else:
        rows[b"0/head/0"] = b"junk"
    with pytest.raises(StateUnreadable):
        read(rows, 0)
