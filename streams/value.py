"""What a clip is worth: a takeover, surprise in hindsight, novelty and uncertainty, per byte."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streams.contracts.drive import Trigger
from streams.contracts.scenarios import Scenario
from streams.novelty import cosine_distances, unit_vectors

TAKEOVER: dict[Trigger, float] = {
    Trigger.DISENGAGEMENT: 1.0,
    Trigger.HARD_BRAKE: 0.5,
    Trigger.SHADOW_DISAGREEMENT: 0.3,
    Trigger.CAMPAIGN: 0.3,
}
"""How much a driver's or a system's reaction says that the policy was wrong; 0 for the others."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Of the parts of a value; each part lies in 0..1. Measured on the prototype: plan jump and hindsight miss,
    as their mean rank, find the clips a policy fails on best (AUROC .88); a pooled embedding measures
    environments and braking."""

    takeover: float = 0.4
    surprise: float = 0.35
    novelty: float = 0.15
    uncertainty: float = 0.1

    def total(self) -> float:
        """Raises ValueError where nothing counts."""
        total = self.takeover + self.surprise + self.novelty + self.uncertainty
        if not total > 0:
            raise ValueError("at least one weight must be positive")
        return total

    def alone(self, scenario: Scenario) -> float:
        """Value without its ranks among others, never 0."""
        known = self.takeover * takeover(scenario) + self.novelty * (1 - scenario.novelty.p_value)
        return max(known / self.total(), 0.01)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A clip that can be asked for."""

    scenario: Scenario
    value: float
    """0..1."""
    density: float
    """Value times mean bytes over own bytes: what decides."""
    explanation: str

    @property
    def name(self) -> str:
        """The event's id."""
        return self.scenario.event.event_id

    @property
    def bytes(self) -> int:
        """At least 1."""
        assert self.scenario.event.clip is not None
        return max(1, self.scenario.event.clip.bytes)

    @property
    def vehicle(self) -> str:
        """Who has it."""
        return self.scenario.event.vehicle

    @property
    def region(self) -> str:
        """Where it was driven."""
        return self.scenario.event.region

    @property
    def environment(self) -> str:
        """See `environment`."""
        return environment(self.scenario.cell)


def environment(cell: str) -> str:
    """A cell without its last part, the speed band: "left/night/clear"."""
    return cell.rpartition("/")[0] or cell


def takeover(scenario: Scenario) -> float:
    """The part of the value that the trigger's kind gives."""
    return TAKEOVER.get(scenario.event.kind, 0.0)


def value_all(scenarios: Sequence[Scenario], weights: Weights, flat: bool = False) -> list[Candidate]:
    """Candidates by density, highest first; ties by id. `flat`: all are worth the same, whatever their size.

    Surprise and uncertainty are ranks within the environment: a new environment is surprising as a whole, and is
    held by its cap; within it and within the others the ranks find what is special.
    """
    known = sorted((s for s in scenarios if s.event.clip is not None), key=lambda s: s.event.event_id)
    if flat:
        return [Candidate(s, 1.0, 1.0, "uniform") for s in known]
    jump = _ranks(known, [s.event.scores.plan_jump for s in known])
    miss = _ranks(known, [s.event.scores.hindsight_miss for s in known])
    unsure = _ranks(known, [s.event.scores.uncertainty_m for s in known])
    mean_bytes = sum(max(1, s.event.clip.bytes) for s in known if s.event.clip) / max(len(known), 1)
    found = [
        _candidate(s, weights, float(jump[i] + miss[i]) / 2, float(unsure[i]), mean_bytes)
        for i, s in enumerate(known)
    ]
    return sorted(found, key=lambda c: (-c.density, c.name))


def _candidate(s: Scenario, w: Weights, surprise: float, unsure: float, mean_bytes: float) -> Candidate:
    parts = (
        ("takeover", w.takeover, takeover(s)),
        ("surprise", w.surprise, surprise),
        ("novelty", w.novelty, 1 - s.novelty.p_value),
        ("uncertainty", w.uncertainty, unsure),
    )
    value = min(1.0, sum(weight * part for _, weight, part in parts) / w.total())
    assert s.event.clip is not None
    size = max(1, s.event.clip.bytes)
    said = " + ".join(f"{weight:g} x {name} {part:.2f}" for name, weight, part in parts)
    return Candidate(s, value, value * mean_bytes / size, f"value {value:.3f} = {said}; {size / 1e3:.0f} kB")


def _ranks(scenarios: Sequence[Scenario], scores: list[float]) -> NDArray[np.float64]:
    """Rank of each score within its environment, in 0..1, ties sharing their mean; 0.5 for a lone one."""
    ranks = np.zeros(len(scores))
    rows: dict[str, list[int]] = {}
    for i, s in enumerate(scenarios):
        rows.setdefault(environment(s.cell), []).append(i)
    for members in rows.values():
        mine = np.array([scores[i] for i in members])
        ordered = np.sort(mine)
        below = np.searchsorted(ordered, mine, side="left")
        up_to = np.searchsorted(ordered, mine, side="right")
        ranks[members] = (below + up_to) / (2 * len(members))
    return ranks


def distinct(candidates: Sequence[Candidate], share: float) -> list[Candidate]:
    """Without near-duplicates, from whichever vehicle: in the order given, one is dropped where an earlier one
    that stays is nearer than `share` of the median distance between candidates. Relative, because embeddings of
    one model may all lie close together."""
    rows: dict[tuple[str, int], list[int]] = {}
    for i, c in enumerate(candidates):
        event = c.scenario.event
        if event.embedding:
            rows.setdefault((event.embedding_version, len(event.embedding)), []).append(i)
    dropped: set[int] = set()
    for members in rows.values():
        units = unit_vectors([candidates[i].scenario.event.embedding for i in members])
        dropped.update(members[i] for i in _near_duplicates(units, share))
    return [c for i, c in enumerate(candidates) if i not in dropped]


_BLOCK = 256


def _near_duplicates(units: NDArray[np.int8], share: float) -> list[int]:
    """Rows that lie within the limit of an earlier row that stays."""
    some = cosine_distances(units[:_BLOCK], units[:_BLOCK])
    limit = share * float(np.median(some[np.triu_indices(len(some), 1)])) if len(some) > 1 else 0.0
    kept: list[int] = []
    dropped: list[int] = []
    for start in range(0, len(units), _BLOCK):
        block = units[start : start + _BLOCK]
        known = cosine_distances(block, units[kept]).min(1) <= limit if kept else np.zeros(len(block), bool)
        within = cosine_distances(block, block) <= limit
        stays = np.zeros(len(block), bool)
        for i in range(len(block)):
            stays[i] = not known[i] and not within[i, stays].any()
        kept += [start + int(i) for i in np.flatnonzero(stays)]
        dropped += [start + int(i) for i in np.flatnonzero(~stays)]
    return dropped
