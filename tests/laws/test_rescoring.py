"""Rescoring: a new model's events are judged at once, and not all are novel."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from streams.contracts.codec import Message
from streams.contracts.scenarios import Scenario
from streams.novelty import NoveltyConfig, NoveltyStage, NoveltyState
from streams.rescoring import WrongEmbeddings, rescore
from streams.state import pack
from tests.laws.stage_laws import run
from tests.samples import T0, embedding_of, in_batches, scenario

CONFIG = NoveltyConfig(prototypes=32)
CENTRES = np.linalg.qr(np.random.default_rng(0).normal(size=(24, 24)))[0][:6]
NEW_MODEL = np.random.default_rng(1).normal(size=(24, 16))


def what_happens(seed: int, count: int) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    return CENTRES[rng.integers(6, size=count)] + 0.15 * rng.normal(size=(count, 24))


def as_new(vector: NDArray[np.float64]) -> bytes:
    """How the new model sees it: another space of another size."""
    return embedding_of(np.tanh(2 * vector @ NEW_MODEL))


def driven(seed: int, first: int, count: int, new: bool) -> list[Message]:
    return [
        scenario(
            first + i, embedding=as_new(v) if new else embedding_of(v), embedding_version="m2" if new else "m1"
        )
        for i, v in enumerate(what_happens(seed, count))
    ]


def before() -> tuple[NoveltyState, list[Scenario], dict[str, bytes]]:
    """1,500 events of the old model, and what the new one makes of their clips."""
    messages = driven(2, 0, 1500, new=False)
    state, emits, _ = run(NoveltyStage(CONFIG), in_batches(messages, [300]), T0)
    told = [e.message for e in emits if isinstance(e.message, Scenario)]
    vectors = what_happens(2, 1500)
    return state, told, {s.event.event_id: as_new(v) for s, v in zip(told, vectors, strict=True)}


def alarms(state: NoveltyState, messages: list[Message]) -> float:
    told = [e.message for e in NoveltyStage(CONFIG).step(state, messages, T0).emits]
    return float(np.mean([s.novelty.novel for s in told if isinstance(s, Scenario)]))


def test_after_rescoring_the_new_model_keeps_the_rate_and_finds_what_is_strange() -> None:
    state, told, new = before()
    found = rescore(NoveltyStage(CONFIG), state, told, new, "m2")
    assert alarms(found.state, driven(3, 2000, 500, new=True)) == pytest.approx(0.05, abs=0.03)
    strange: list[Message] = [
        scenario(9000 + i, embedding=embedding_of(-np.ones(16) + 0.1 * np.eye(16)[i]), embedding_version="m2")
        for i in range(5)
    ]
    assert alarms(found.state, strange) == 1.0
    cold = NoveltyStage(CONFIG).step(state, [*driven(3, 2000, 3, new=True), *strange], T0)
    assert not any(e.message.novelty.novel for e in cold.emits if isinstance(e.message, Scenario))


def test_each_event_is_judged_by_the_new_version_as_it_would_have_been_then() -> None:
    state, told, new = before()
    found = rescore(NoveltyStage(CONFIG), state, told[::-1], new, "m2")
    assert [s.event.event_id for s in found.scenarios] == [s.event.event_id for s in told]
    assert {s.event.embedding_version for s in found.scenarios} == {"m2"}
    stage = NoveltyStage(CONFIG)
    fresh, emits, _ = run(stage, [driven(2, 0, 1500, new=True)], T0)
    assert [s.novelty for s in found.scenarios] == [
        e.message.novelty for e in emits if isinstance(e.message, Scenario)
    ]
    (key,) = fresh.models
    assert pack(NoveltyState(fresh.seen, {key: found.state.models[key]})) == pack(fresh)
    assert {"m1/24", "m2/16"} == set(found.state.models)


def test_what_cannot_be_rescored_is_named() -> None:
    state, told, new = before()
    stage = NoveltyStage(CONFIG)
    with pytest.raises(WrongEmbeddings, match="m1"):
        rescore(stage, state, told, new, "m1")
    with pytest.raises(WrongEmbeddings, match="none of the 1500"):
        rescore(stage, state, told, {}, "m2")
    first = told[0].event.event_id
    with pytest.raises(WrongEmbeddings, match="3, 16"):
        rescore(stage, state, told, new | {first: b"\x01\x02\x03"}, "m2")
    few = {first: new[first]}
    assert len(rescore(stage, state, [*told, told[0]], few, "m2").scenarios) == 1
