"""Drawing by lot with known probabilities, without a random number: the lot is a hash."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from streams.contracts.ids import bucket
from streams.value import Candidate


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


def priority(worth: float, salt: str, name: str) -> float:
    """worth / uniform: keeping the largest keeps a sample whose inclusion probability is worth / threshold."""
    return worth / max(bucket(f"hold/{salt}", name), 1e-12)


def draw(candidates: Sequence[Candidate], number: int, salt: str, left: Left | None = None) -> list[Lot]:
    """About `number` of the candidates (its floor or ceiling where caps cut), never more.

    Phase one: of a vehicle with more candidates than it has left, as many as it has left, uniformly. Phase two:
    systematic sampling along the list ordered by environment and region, with probability proportional to density
    and cut so that no environment or region expects more than it has left. On a line, a run of length at most m
    (whole) holds at most m marks, so environments keep their cap exactly; a region spread over several
    environments may exceed its cap by one clip for each of them.
    """
    if number < 1:
        return []
    kept = _thin(candidates, salt, left.vehicles) if left else [Lot(c, 1.0, "") for c in candidates]
    chances = _proportional([lot.candidate.density for lot in kept], number)
    if left:
        chances = _within(kept, chances, number, left)
    order = sorted(range(len(kept)), key=lambda i: _place(kept[i].candidate, salt))
    widths = [int(chances[i] * _ONE) for i in order]
    marks = _systematic(widths, int(bucket("start", salt) * _ONE))
    return [_lot(kept[i], w / _ONE) for i, w, hit in zip(order, widths, marks, strict=True) if hit]


_ONE = 1 << 40
"""Probability 1 in whole numbers, so that sums are exact."""


def _place(candidate: Candidate, salt: str) -> tuple[str, str, float, str]:
    return candidate.environment, candidate.region, bucket(f"order/{salt}", candidate.name), candidate.name


def _lot(lot: Lot, chance: float) -> Lot:
    how = f"drawn by lot with {chance:.4f}{lot.how}"
    return replace(lot, probability=lot.probability * chance, how=how)


def _thin(candidates: Sequence[Candidate], salt: str, left: Mapping[str, int]) -> list[Lot]:
    """At most as many of each vehicle as it has left, by the order of their hashes."""
    of: dict[str, list[Candidate]] = {}
    for c in candidates:
        of.setdefault(c.vehicle, []).append(c)
    kept: list[Lot] = []
    for vehicle, mine in sorted(of.items()):
        some = sorted(mine, key=lambda c: (bucket(f"thin/{salt}", c.name), c.name))[: max(left[vehicle], 0)]
        share = len(some) / len(mine)
        kept += [Lot(c, share, "" if share == 1 else f" after {share:.4f} of its vehicle") for c in some]
    return kept


def _proportional(sizes: Sequence[float], number: int) -> list[float]:
    """Probabilities that add up to `number` and are proportional to size, none above 1."""
    if len(sizes) <= number:
        return [1.0] * len(sizes)
    sizes = [max(size, 1e-6) for size in sizes]
    certain: set[int] = set()
    while True:
        total = sum(size for i, size in enumerate(sizes) if i not in certain)
        scale = (number - len(certain)) / total
        more = {i for i, size in enumerate(sizes) if i not in certain and size * scale >= 1}
        if not more:
            return [1.0 if i in certain else size * scale for i, size in enumerate(sizes)]
        certain |= more


_ENOUGH = 1e-9
_ROUNDS = 16


def _within(lots: Sequence[Lot], chances: list[float], number: int, left: Left) -> list[float]:
    """Probabilities within the caps of environments and regions; what these cut goes to those that have room."""
    for _ in range(_ROUNDS):
        chances, full_environments = _cut(lots, chances, lambda c: c.environment, left.environments)
        chances, full_regions = _cut(lots, chances, lambda c: c.region, left.regions)
        free = {
            i
            for i, lot in enumerate(lots)
            if chances[i] < 1
            and lot.candidate.environment not in full_environments
            and lot.candidate.region not in full_regions
        }
        missing, total = number - sum(chances), sum(chances[i] for i in free)
        if missing < _ENOUGH or total <= 0:
            break
        scale = 1 + missing / total
        chances = [min(1.0, c * scale) if i in free else c for i, c in enumerate(chances)]
    chances, _ = _cut(lots, chances, lambda c: c.environment, left.environments)
    return _cut(lots, chances, lambda c: c.region, left.regions)[0]


def _cut(
    lots: Sequence[Lot], chances: list[float], group: Callable[[Candidate], str], left: Mapping[str, int]
) -> tuple[list[float], set[str]]:
    """Scale a group's probabilities down to what it has left; and the groups that have no more."""
    groups = [group(lot.candidate) for lot in lots]
    sums: dict[str, float] = {}
    for name, chance in zip(groups, chances, strict=True):
        sums[name] = sums.get(name, 0.0) + chance
    scale = {name: min(1.0, max(left[name], 0) / total) if total else 1.0 for name, total in sums.items()}
    full = {name for name, total in sums.items() if total >= left[name] - _ENOUGH}
    return [chance * scale[name] for name, chance in zip(groups, chances, strict=True)], full


def _systematic(widths: Sequence[int], start: int) -> list[bool]:
    """Marks at start, start + 1, ... along the line of cumulated chances; who holds a mark is drawn."""
    hits: list[bool] = []
    position = -start
    for width in widths:
        hits.append(-(-(position + width) // _ONE) > -(-position // _ONE))
        position += width
    return hits
