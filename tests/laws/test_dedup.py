"""Dedup: each event once, and the memory of ids is bounded in time and number."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.contracts.clock import SECOND_NS
from streams.contracts.codec import Message
from streams.dedup import GENERATIONS, RECENT, Dedup, DedupConfig, Seen
from streams.state import StateUnreadable, pack
from tests.laws.stage_laws import check_deterministic, check_dump_and_load, check_replay, run, shuffled
from tests.samples import T0, event, in_batches, telemetry

sequences = st.lists(st.integers(0, 12), max_size=40)
cuts = st.lists(st.integers(0, 6), min_size=1, max_size=5)


def events(numbers: list[int]) -> list[Message]:
    return [event(n) for n in numbers]


@given(sequences, cuts)
def test_each_event_passes_once_in_order(numbers: list[int], sizes: list[int]) -> None:
    _, emits, refused = run(Dedup(), in_batches(events(numbers), sizes), T0)
    assert [e.message for e in emits] == events(list(dict.fromkeys(numbers)))
    assert not refused


@given(sequences, st.integers())
def test_order_does_not_change_the_set(numbers: list[int], salt: int) -> None:
    _, emits, _ = run(Dedup(), [events(numbers)], T0)
    _, others, _ = run(Dedup(), [shuffled(events(numbers), salt)], T0)
    assert sorted(str(e.message) for e in emits) == sorted(str(e.message) for e in others)


@given(sequences, cuts)
def test_laws(numbers: list[int], sizes: list[int]) -> None:
    batches = in_batches(events(numbers), sizes)
    check_deterministic(Dedup(), Dedup(), batches, T0)
    check_dump_and_load(Dedup(), batches, T0)
    check_replay(Dedup(), batches, T0)


@given(st.booleans())
def test_a_changed_copy_is_refused_as_replayed(together: bool) -> None:
    changed = event(1, cause="stuck")
    batches: list[list[Message]] = [[event(1), changed]] if together else [[event(1)], [changed]]
    _, emits, refused = run(Dedup(), batches, T0)
    assert [e.message for e in emits] == [event(1)]
    assert [(r.message, r.reason) for r in refused] == [(changed, "replayed")]


def test_other_messages_are_passed_over() -> None:
    _, emits, refused = run(Dedup(), [[telemetry()]], T0)
    assert not emits and not refused


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 20)), max_size=60))
def test_an_id_is_kept_for_the_window_and_no_more_than_the_limit(steps: list[tuple[int, int]]) -> None:
    """Against a plain dictionary: nothing younger than 7/8 of the window is forgotten while there is room."""
    window = 80 * SECOND_NS
    seen, now = Seen(window, limit=10_000), T0
    last: dict[str, int] = {}
    for seconds, number in steps:
        now += seconds * SECOND_NS
        name, seen = f"id-{number}", seen.remember({}, now)
        known = name in seen
        age = now - last.get(name, -(10**18))
        if age < window * (GENERATIONS - 1) // GENERATIONS:
            assert known
        if age > window + window // GENERATIONS:
            assert not known
        if not known:
            last[name] = now
            seen = seen.remember({name: 0}, now)


@given(st.integers(1, 200), st.integers(8, 64))
def test_memory_is_bounded(count: int, limit: int) -> None:
    seen = Seen(10**18, limit)
    for number in range(count):
        seen = seen.remember({f"id-{number}": number}, T0)
        assert f"id-{number}" in seen and seen.checksum(f"id-{number}") == number
        assert len(seen) <= limit
    assert seen.checksum("never") is None


@settings(max_examples=20)
@given(st.lists(st.integers(0, 3 * RECENT), max_size=6))
def test_how_ids_came_does_not_show_in_what_is_kept(cuts: list[int]) -> None:
    """Nor do parts that are kept change when others are added."""
    names = [f"id-{i}" for i in range(2 * RECENT + 5)]
    whole = Seen(10**18, 10**6).admit(names, T0)[1]
    seen, start = Seen(10**18, 10**6), 0
    for end in [*sorted(cuts), len(names)]:
        before, seen = seen, seen.admit(names[start:end], T0)[1]
        start = max(start, end)
        shared = bool(before.generations) and len(names[:start]) // RECENT == len(before) // RECENT
        assert not shared or seen.generations[0].ids is before.generations[0].ids
    assert pack(seen) == pack(whole) and len(seen) == len(names) and names[0] in seen and names[-1] in seen
    assert seen.fresh(dict.fromkeys([*names, "new"])) == {"new": None}


def test_time_alone_forgets() -> None:
    stage = Dedup(DedupConfig(window_ns=10 * SECOND_NS))
    state = stage.step(stage.initial(), [event(1)], T0).state
    assert len(stage.step(state, [], T0 + 11 * SECOND_NS).state) == 0
    assert stage.step(state, [event(1)], T0 + 5 * SECOND_NS).emits == ()


def test_damaged_state_is_named() -> None:
    with pytest.raises(StateUnreadable, match="Seen"):
        Dedup().load(b"\x00nonsense")


def test_a_state_holds_only_what_can_be_stored() -> None:
    with pytest.raises(NotImplementedError, match="object has no place"):
        pack({"x": object()})
