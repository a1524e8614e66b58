"""What a clip is worth: a takeover, surprise in hindsight, novelty and uncertainty, per byte. By window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from streams.contracts.drive import Trigger
from streams.contracts.scenarios import Scenario
from streams.prototypes import Units, lengths, unit_vectors

Floats = NDArray[np.float64]

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

    def each(self) -> tuple[float, float, float, float]:
        """In the order of the parts of a candidate."""
        return self.takeover, self.surprise, self.novelty, self.uncertainty

    def total(self) -> float:
        """Raises ValueError where nothing counts."""
        total = sum(self.each())
        if not total > 0:
            raise ValueError("at least one weight must be positive")
        return total

    def alone(self, scenarios: Sequence[Scenario]) -> Floats:
        """[B] values without their ranks among others, never 0."""
        known = self.takeover * _takeovers(scenarios) + self.novelty * (1 - _p_values(scenarios))
        return np.asarray(np.maximum(known / self.total(), 0.01))


class Candidate(Struct, frozen=True, gc=False):
    """A clip that can be asked for."""

    scenario: Scenario
    value: float
    """0..1."""
    density: float
    """Value times mean bytes over own bytes: what decides."""
    name: str
    """The event's id."""
    bytes: int
    """At least 1."""
    vehicle: str
    """Who has it."""
    region: str
    """Where it was driven."""
    environment: str
    """See `environment`."""
    parts: tuple[float, ...] = ()
    """What the value is made of, in the order of Weights; nothing where all are worth the same."""

    def explained(self, weights: Weights) -> str:
        """The value in numbers."""
        if not self.parts:
            return "uniform"
        of = zip(_PARTS, weights.each(), self.parts, strict=True)
        said = " + ".join(f"{weight:g} x {name} {part:.2f}" for name, weight, part in of)
        return f"value {self.value:.3f} = {said}; {self.bytes / 1e3:.0f} kB"


@lru_cache(maxsize=4096)
def environment(cell: str) -> str:
    """A cell without its last part, the speed band: "left/night/clear"."""
    return cell.rpartition("/")[0] or cell


def value_all(scenarios: Sequence[Scenario], weights: Weights, flat: bool = False) -> list[Candidate]:
    """Candidates by density, highest first; ties by id. `flat`: all are worth the same, whatever their size.

    Surprise and uncertainty are ranks within the environment: a new environment is surprising as a whole, and is
    held by its cap; within it and within the others the ranks find what is special.
    """
    known = sorted((s for s in scenarios if s.event.clip is not None), key=lambda s: s.event.event_id)
    if flat:
        return [_candidate(s, 1.0, 1.0, ()) for s in known]
    parts = _parts(known)
    sums = sum((w * part for w, part in zip(weights.each(), parts, strict=True)), np.zeros(len(known)))
    values = np.minimum(1.0, sums / weights.total())
    sizes = np.array([max(1, s.event.clip.bytes) for s in known if s.event.clip], np.float64)
    density = values * (sizes.sum() / max(len(known), 1)) / sizes
    columns = values.tolist(), density.tolist(), zip(*(p.tolist() for p in parts), strict=True)
    found = list(map(_candidate, known, *columns))
    return [found[i] for i in np.argsort(-density, kind="stable").tolist()]


_PARTS = ("takeover", "surprise", "novelty", "uncertainty")


def _candidate(s: Scenario, value: float, density: float, parts: tuple[float, ...]) -> Candidate:
    e = s.event
    assert e.clip is not None
    size = max(1, e.clip.bytes)
    return Candidate(s, value, density, e.event_id, size, e.vehicle, e.region, environment(s.cell), parts)


def _parts(scenarios: Sequence[Scenario]) -> tuple[Floats, Floats, Floats, Floats]:
    """[B] each, in 0..1, in the order of `_PARTS`."""
    members: dict[str, list[int]] = {}
    for i, s in enumerate(scenarios):
        members.setdefault(environment(s.cell), []).append(i)
    rows = [np.array(some) for some in members.values()]
    scores = [s.event.scores for s in scenarios]
    jump = _ranks(np.array([s.plan_jump for s in scores], np.float64), rows)
    miss = _ranks(np.array([s.hindsight_miss for s in scores], np.float64), rows)
    unsure = _ranks(np.array([s.uncertainty_m for s in scores], np.float64), rows)
    return _takeovers(scenarios), (jump + miss) / 2, 1 - _p_values(scenarios), unsure


def _takeovers(scenarios: Sequence[Scenario]) -> Floats:
    """[B] the part of the value that the trigger's kind gives."""
    return np.array([TAKEOVER.get(s.event.kind, 0.0) for s in scenarios], np.float64)


def _p_values(scenarios: Sequence[Scenario]) -> Floats:
    return np.array([s.novelty.p_value for s in scenarios], np.float64)


def _ranks(scores: Floats, rows: Sequence[NDArray[np.intp]]) -> Floats:
    """Rank of each score among its rows, in 0..1, ties sharing their mean; 0.5 for a lone one."""
    ranks = np.zeros(len(scores))
    for members in rows:
        mine = scores[members]
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


def _near_duplicates(units: Units, share: float) -> list[int]:
    """Rows that lie within the limit of an earlier row that stays."""
    vectors = units.astype(np.float32)
    long = lengths(vectors)
    inverse = 1 / long

    def cosines(rows: slice, others: NDArray[np.intp] | slice) -> NDArray[np.float32]:
        """[rows, others] times the length of each row."""
        dots = vectors[rows] @ vectors[others].T
        dots *= inverse[others]
        return np.asarray(dots)

    some = 1 - cosines(_FIRST, _FIRST) / long[_FIRST, None]
    limit = share * _median(some[np.triu_indices(len(some), 1)]) if len(some) > 1 else 0.0
    stays = np.zeros(len(units), bool)
    for start in range(0, len(units), _BLOCK):
        rows = slice(start, start + _BLOCK)
        nearest = cosines(rows, np.flatnonzero(stays[:start])).max(1, initial=-np.inf)
        gone = 1 - nearest / long[rows] <= limit
        within = np.tril(1 - cosines(rows, rows) / long[rows, None] <= limit, -1)
        # Few have an earlier neighbour in their own block: only theirs hangs on who stays.
        for i in np.flatnonzero(within.any(1)):
            gone[i] = gone[i] or within[i, ~gone].any()
        stays[rows] = ~gone
    return [int(i) for i in np.flatnonzero(~stays)]


def _median(values: NDArray[np.float32]) -> float:
    """numpy's own brings in all of its masked arrays at the first call: a third of a second while events wait."""
    middle = [(len(values) - 1) // 2, len(values) // 2]
    return float(np.partition(values, middle)[middle].mean())


_BLOCK = 256
_FIRST = slice(_BLOCK)
