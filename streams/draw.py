"""Drawing by lot with known probabilities, without a random number: the lot is a hash."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter, itemgetter

import numpy as np
from numpy.typing import NDArray

from streams.calibration import even, hashes
from streams.contracts.ids import bucket, buckets
from streams.value import Candidate

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Lot:
    """A chosen candidate, and the probability with which the design chooses it."""

    candidate: Candidate
    probability: float
    how: str


@dataclass(frozen=True, slots=True)
class Left:
    """Clips that each vehicle, environment and region may still give."""

    vehicles: dict[str, int]
    environments: dict[str, int]
    regions: dict[str, int]
    surely: dict[str, int] = field(default_factory=dict)
    """Of regions, clips that are not exceeded by a single one, as bytes hang on it. Empty: `regions` will do."""


def priorities(worth: Floats, salt: str, names: Sequence[str]) -> Floats:
    """[B] worth / uniform: keeping the largest keeps a sample whose inclusion probability is worth / threshold
    (Duffield, Lund and Thorup 2007)."""
    (salted,) = hashes([f"hold/{salt}"])
    return np.asarray(worth / even(hashes(names) ^ salted))


def draw(candidates: Sequence[Candidate], number: int, salt: str, left: Left | None = None) -> list[Lot]:
    """About `number` of the candidates (its floor or ceiling where caps cut), never more.

    Phase one: of a vehicle with more candidates than it has left, as many as it has left, uniformly. Phase two:
    systematic sampling along the list ordered by environment and region, with probability proportional to density
    and cut so that no environment or region expects more than it has left. On a line, a run of length at most m
    (whole) holds at most m marks, so environments keep their cap exactly; a region spread over several
    environments may exceed its cap by one clip for each of them but the first. Where it must not, it expects so
    many fewer, or is thinned like a vehicle where that leaves it nothing.
    """
    if number < 1:
        return []
    kept = [Lot(c, 1.0, "") for c in candidates]
    if left:
        kept = _thin(kept, f"thin/{salt}", left.vehicles, attrgetter("vehicle"), "vehicle")
        kept, left = _within_surely(kept, left, salt)
    chances = _proportional(np.array([lot.candidate.density for lot in kept], np.float64), number)
    if left:
        chances = _within(kept, chances, number, left)
    order = _line([lot.candidate for lot in kept], salt)
    widths = [int(chances[i] * _ONE) for i in order]
    marks = _systematic(widths, int(bucket("start", salt) * _ONE))
    return [_lot(kept[i], w / _ONE) for i, w, hit in zip(order, widths, marks, strict=True) if hit]


_ONE = 1 << 40
"""Probability 1 in whole numbers, so that sums are exact."""


def _line(candidates: Sequence[Candidate], salt: str) -> list[int]:
    """Rows by environment, then region, then the hash of their name."""
    places = buckets(f"order/{salt}", (c.name for c in candidates))
    environments = _ranked([c.environment for c in candidates])
    regions = _ranked([c.region for c in candidates])
    rows: list[int] = np.lexsort((places, regions, environments)).tolist()
    return rows


def _ranked(names: Sequence[str]) -> list[int]:
    """Each name's place among all of them."""
    ranks = {name: rank for rank, name in enumerate(sorted(set(names)))}
    return [ranks[name] for name in names]


def _lot(lot: Lot, chance: float) -> Lot:
    how = f"drawn by lot with {chance:.4f}{lot.how}"
    return replace(lot, probability=lot.probability * chance, how=how)


def _thin(
    lots: Sequence[Lot], salt: str, left: Mapping[str, int], of: Callable[[Candidate], str], what: str
) -> list[Lot]:
    """At most as many of each group as it has left, by the order of their hashes; groups that are not named keep
    all."""
    groups = [of(lot.candidate) for lot in lots]
    many = {g for g, number in Counter(groups).items() if number > left.get(g, number)}
    if not many:
        return list(lots)
    kept = [lot for g, lot in zip(groups, lots, strict=True) if g not in many]
    for group in sorted(many):
        mine = [lot for g, lot in zip(groups, lots, strict=True) if g == group]
        kept += _some(mine, max(left[group], 0), salt, what)
    return kept


def _some(lots: Sequence[Lot], room: int, salt: str, what: str) -> list[Lot]:
    """So many of them, uniformly."""
    names = [lot.candidate.name for lot in lots]
    ordered = sorted(zip(buckets(salt, names), names, lots, strict=True), key=itemgetter(0, 1))
    share = room / len(lots)
    how = f" after {share:.4f} of its {what}"
    return [replace(t, probability=t.probability * share, how=t.how + how) for *_, t in ordered[:room]]


def _within_surely(lots: list[Lot], left: Left, salt: str) -> tuple[list[Lot], Left]:
    """Lots and caps with which no region can exceed what it surely may."""
    if not left.surely:
        return lots, left
    environments: dict[str, set[str]] = {}
    for lot in lots:
        environments.setdefault(lot.candidate.region, set()).add(lot.candidate.environment)
    expected = {r: most - len(environments.get(r, ())) + 1 for r, most in left.surely.items()}
    few = {r: most for r, most in left.surely.items() if expected[r] < 1}
    lots = _thin(lots, f"thin-region/{salt}", few, attrgetter("region"), "region")
    capped = {r: min(n, expected[r]) if r in expected and r not in few else n for r, n in left.regions.items()}
    return lots, replace(left, regions=capped)


def _proportional(sizes: Floats, number: int) -> Floats:
    """Probabilities that add up to `number` and are proportional to size, none above 1."""
    if len(sizes) <= number:
        return np.ones(len(sizes))
    sizes = np.maximum(sizes, 1e-6)
    certain = np.zeros(len(sizes), bool)
    while True:
        chances = sizes * ((number - certain.sum()) / math.fsum(sizes[~certain]))
        more = ~certain & (chances >= 1)
        if not more.any():
            return np.where(certain, 1.0, chances)
        certain |= more


_ENOUGH = 1e-9
_ROUNDS = 16


@dataclass(frozen=True, slots=True)
class _Groups:
    """Which group each of N lots is in, and what each group has left."""

    of: NDArray[np.intp]
    left: Floats

    @classmethod
    def by(cls, names: Sequence[str], left: Mapping[str, int]) -> _Groups:
        numbers = {name: i for i, name in enumerate(dict.fromkeys(names))}
        room = np.array([max(left[name], 0) for name in numbers], np.float64)
        return cls(np.array([numbers[name] for name in names], np.intp), room)

    def cut(self, chances: Floats) -> tuple[Floats, NDArray[np.bool_]]:
        """Each group's probabilities scaled down to what it has left; and which lots' groups have no more."""
        sums = np.bincount(self.of, chances, len(self.left))
        scale = np.minimum(1.0, self.left / np.where(sums > 0, sums, 1))
        return chances * np.where(sums > 0, scale, 1.0)[self.of], (sums >= self.left - _ENOUGH)[self.of]


def _within(lots: Sequence[Lot], chances: Floats, number: int, left: Left) -> Floats:
    """Probabilities within the caps of environments and regions; what these cut goes to those that have room."""
    environments = _Groups.by([lot.candidate.environment for lot in lots], left.environments)
    regions = _Groups.by([lot.candidate.region for lot in lots], left.regions)
    for _ in range(_ROUNDS):
        chances, full_environments = environments.cut(chances)
        chances, full_regions = regions.cut(chances)
        free = (chances < 1) & ~full_environments & ~full_regions
        missing, total = number - math.fsum(chances), math.fsum(chances[free])
        if missing < _ENOUGH or total <= 0:
            break
        chances = np.where(free, np.minimum(1.0, chances * (1 + missing / total)), chances)
    return regions.cut(environments.cut(chances)[0])[0]


def _systematic(widths: Sequence[int], start: int) -> list[bool]:
    """Marks at start, start + 1, ... along the line of cumulated chances; who holds a mark is drawn."""
    hits: list[bool] = []
    position = -start
    for width in widths:
        hits.append(-(-(position + width) // _ONE) > -(-position // _ONE))
        position += width
    return hits
