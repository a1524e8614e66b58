"""A state and what changed give the next state, for every stage: nothing is lost in what is saved."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.archive import Archive
from streams.contracts.clock import SECOND_NS
from streams.contracts.codec import Message
from streams.dedup import Dedup, DedupConfig
from streams.delta import apply, delta
from streams.novelty import NoveltyConfig, NoveltyStage
from streams.rollouts import Rollouts
from streams.selection import Selection, SelectionConfig
from streams.stage import AnyStage
from streams.state import StateUnreadable, pack
from streams.triggers import Triggers, TriggersConfig
from tests.samples import (
    T0,
    archived,
    chunks,
    embedding_of,
    event,
    finished,
    in_batches,
    request,
    rollout,
    scenario,
    telemetry,
)

numbers = st.lists(st.integers(0, 30), max_size=40)
cuts = st.lists(st.integers(0, 6), min_size=1, max_size=5)


def _scenarios(chosen: list[int]) -> list[Message]:
    return [scenario(n, cell=f"cell-{n % 2}", embedding=embedding_of([n + 1, 5, 7 - n])) for n in chosen]


def _clips(chosen: list[int]) -> list[Message]:
    found: list[Message] = []
    for n in chosen:
        found += [request(f"clip-{n}")] if n % 3 else []
        found += chunks(b"x" * (n * 30_000 + 1), f"clip-{n}")[: 1 + n % 2]
    return found


def _learning(chosen: list[int]) -> list[Message]:
    return [
        archived(f"clip-{n}", f"car-{n % 4}") if n % 5 else finished(str(n) * 8, "pass", model_version=f"m{n}")
        for n in chosen
    ]


def _releases(chosen: list[int]) -> list[Message]:
    return [
        telemetry(n, f"car-{n % 4}") if n % 4 else finished(str(n) * 8, release=rollout().release) for n in chosen
    ]


CASES: dict[str, tuple[AnyStage, object]] = {
    "dedup": (Dedup(DedupConfig(20 * SECOND_NS, 16)), lambda ns: [event(n) for n in ns]),
    "novelty": (NoveltyStage(NoveltyConfig(block=4, prototypes=4, reservoir=8, mature=4)), _scenarios),
    "selection": (Selection(SelectionConfig(window_ns=5 * SECOND_NS, candidates=6)), _scenarios),
    "archive": (Archive(lambda sha256: f"file:///{sha256}"), _clips),
    "triggers": (Triggers(TriggersConfig(start_clips=2, start_vehicles=1, debounce_ns=SECOND_NS)), _learning),
    "rollouts": (Rollouts(), _releases),
}


def check(stage: AnyStage, batches: Sequence[Sequence[Message]]) -> None:
    """What was saved, change by change, is what is in memory."""
    state = saved = stage.initial()
    for second, batch in enumerate(batches):
        before = pack(saved)
        following = stage.step(state, batch, T0 + second * SECOND_NS).state
        changed = apply(saved, delta(state, following))
        assert pack(saved) == before, "applying a change wrote to the old state"
        assert pack(changed) == pack(following)
        state, saved = following, changed


@pytest.mark.parametrize("name", CASES)
@given(numbers, cuts)
def test_saved_changes_are_the_state(name: str, chosen: list[int], sizes: list[int]) -> None:
    stage, messages = CASES[name]
    assert callable(messages)
    check(stage, in_batches(messages(chosen), sizes))


def test_a_change_is_small() -> None:
    """One more id costs one id, however many are known."""
    dedup = Dedup()
    many = dedup.step(dedup.initial(), [event(n) for n in range(3000)], T0).state
    more = dedup.step(many, [event(5000)], T0).state
    assert len(pack(many)) > 100_000
    assert len(delta(many, more)) < 200
    assert len(delta(more, more)) < 5


def test_another_change_is_refused() -> None:
    dedup, novelty = Dedup(), NoveltyStage()
    known = dedup.step(dedup.initial(), [event(1)], T0).state
    with pytest.raises(StateUnreadable, match="no change of a NoveltyState"):
        apply(novelty.initial(), delta(dedup.initial(), known))
    with pytest.raises(StateUnreadable):
        apply(known, b"\xc1")
