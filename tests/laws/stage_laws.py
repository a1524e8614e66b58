"""Laws that every stage keeps, as functions that a stage's tests call with their own messages."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from streams.contracts.codec import Message
from streams.contracts.ids import digest
from streams.stage import AnyStage, Emit, Outcome, Refused, step_all
from streams.state import pack
from tests.samples import in_batches


def run(
    stage: AnyStage, batches: Sequence[Sequence[Message]], start_ns: int, period_ns: int = 1_000_000_000
) -> tuple[Any, list[Emit], list[Refused]]:
    """State, emits and refusals after these batches, one a period."""
    state, emits, refused = stage.initial(), list[Emit](), list[Refused]()
    for number, batch in enumerate(batches):
        before = pack(state)
        outcome: Outcome[Any] = stage.step(state, batch, start_ns + number * period_ns)
        assert pack(state) == before, "a step changed the state it was given"
        state = outcome.state
        emits += outcome.emits
        refused += outcome.refused
    return state, emits, refused


def check_deterministic(
    stage: AnyStage, again: AnyStage, batches: Sequence[Sequence[Message]], now_ns: int
) -> None:
    """Equal arguments give equal results, in another instance too."""
    first, second = run(stage, batches, now_ns), run(again, batches, now_ns)
    assert pack(first[0]) == pack(second[0])
    assert first[1:] == second[1:]


def check_dump_and_load(stage: AnyStage, batches: Sequence[Sequence[Message]], now_ns: int) -> None:
    """Restarting between any two batches changes nothing."""
    state, restarted = stage.initial(), stage.initial()
    for number, batch in enumerate(batches):
        at = now_ns + number * 1_000_000_000
        outcome, other = stage.step(state, batch, at), stage.step(restarted, batch, at)
        assert (outcome.emits, outcome.refused, outcome.contents) == (other.emits, other.refused, other.contents)
        data = pack(outcome.state)
        assert pack(stage.load(data)) == data == pack(other.state)
        state, restarted = outcome.state, stage.load(pack(other.state))


def check_replay(stage: AnyStage, batches: Sequence[Sequence[Message]], now_ns: int) -> None:
    """A message that comes again says nothing new and changes nothing."""
    state, _, _ = run(stage, batches, now_ns)
    at = now_ns + len(batches) * 1_000_000_000
    settled = stage.step(state, [], at).state
    for batch in batches:
        outcome = stage.step(settled, batch, at)
        assert outcome.emits == ()
        assert pack(outcome.state) == pack(settled)


def check_any_batches(
    stage: AnyStage, messages: Sequence[Message], cuts: Sequence[int], now_ns: int
) -> tuple[list[Emit], list[Emit]]:
    """However the stream is cut into batches at one instant, the same comes out."""
    if not messages:
        return [], []
    whole = run(stage, [messages], now_ns, period_ns=0)
    parts = run(stage, in_batches(messages, cuts), now_ns, period_ns=0)
    assert whole[1:] == parts[1:]
    assert pack(whole[0]) == pack(parts[0])
    return whole[1], parts[1]


def shuffled(messages: Sequence[Message], salt: int) -> list[Message]:
    """Another order, given by the salt."""
    order = sorted(range(len(messages)), key=lambda i: digest("shuffle", str(salt), str(i)))
    return [messages[i] for i in order]


def check_lanes(stage: AnyStage, lanes: Sequence[Sequence[Sequence[Message]]], now_ns: int) -> None:
    """Lanes that step together are as lanes that step alone. `lanes`: batches of each; then nothing comes."""
    together, alone = [stage.initial() for _ in lanes], [stage.initial() for _ in lanes]
    for number, batches in enumerate(zip_longest(*lanes, fillvalue=())):
        at = now_ns + number * 1_000_000_000
        outcomes = step_all(stage, together, batches, at)
        others = [stage.step(state, batch, at) for state, batch in zip(alone, batches, strict=True)]
        for outcome, other in zip(outcomes, others, strict=True):
            assert (outcome.emits, outcome.refused, outcome.contents) == (
                other.emits,
                other.refused,
                other.contents,
            )
            assert pack(outcome.state) == pack(other.state)
        together, alone = [o.state for o in outcomes], [o.state for o in others]
