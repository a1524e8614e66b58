"""Rescoring: when the model changes, so does the space its embeddings lie in. What is known of the old space says
nothing about the new one, and a new space starts empty: at first nothing could be judged, then all would be novel.

So before a new model's events are scored, recorded events whose clips it has embedded are scored by it in the
order in which they were driven: that fills prototypes, reservoirs and levels as if it had always been there. The
verdicts are those that an event would have had then: each is measured against events before it only, and none
against prototypes that have absorbed it. Events of the old version go on being judged in the old space, until no
vehicle sends them and the version that was used longest ago is forgotten.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from streams.contracts.scenarios import Scenario
from streams.novelty import NoveltyStage, NoveltyState


class WrongEmbeddings(ValueError):
    """Embeddings that cannot stand for the recorded events: says which and why."""


@dataclass(frozen=True, slots=True)
class Rescored:
    """The state that knows the new version, and the events as it judges them, in order of time."""

    state: NoveltyState
    scenarios: list[Scenario]


def rescore(
    stage: NoveltyStage,
    state: NoveltyState,
    recorded: Sequence[Scenario],
    embeddings: Mapping[str, bytes],
    version: str,
) -> Rescored:
    """Judge recorded events anew by their embeddings (event id -> bytes) under a new version.

    Events without one are left out, copies count once. Nothing is learned twice: raises WrongEmbeddings where the
    state knows the version already, where embeddings differ in length, or where there is none for any event."""
    if known := [key for key in state.models if key.rpartition("/")[0] == version]:
        raise WrongEmbeddings(f"the state has learned from events of {version!r} already ({known[0]})")
    chosen = {s.event.event_id: s for s in recorded if embeddings.get(s.event.event_id)}
    lengths = sorted({len(embeddings[name]) for name in chosen})
    if len(lengths) != 1:
        told = f"have {lengths} bytes" if lengths else f"name none of the {len(recorded)} recorded events"
        raise WrongEmbeddings(f"the embeddings {told}: one model gives every event one of the same length")
    in_time = sorted(chosen.values(), key=lambda s: (s.event.time_ns, s.event.event_id))
    anew = [_embedded(s, embeddings[s.event.event_id], version) for s in in_time]
    models, scenarios = stage.score(state.models, anew)
    return Rescored(replace(state, models=models), scenarios)


def _embedded(scenario: Scenario, embedding: bytes, version: str) -> Scenario:
    return replace(scenario, event=replace(scenario.event, embedding=embedding, embedding_version=version))
