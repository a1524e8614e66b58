"""What a replay costs and finds, with intervals: vehicles are resampled, as events of one vehicle hang together
(cluster bootstrap: Davison and Hinkley 1997, chapter 3.8); shares are weighted by the inverse of the probability
with which each item came to be known (Hajek 1971)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that would have been collected."""

    vehicle: str
    time_ns: int
    probability: float
    """With which it came to be among the items."""
    bytes: int = 0
    clip: bool = False
    disengaged: bool = False
    novel: bool = False
    cell: str = ""
    clip_id: str = ""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and its interval; the limits are None where fewer than two vehicles were seen."""

    value: float | None
    low: float | None = None
    high: float | None = None


COSTS = ("events", "clips", "bytes")
YIELDS = ("disengaged", "novel")


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """How intervals are made; the same seed makes the same ones."""

    seed: int = 1
    resamples: int = 2000
    confidence: float = 0.95


def estimates(
    collected: Sequence[Item], seen: Sequence[Item], vehicles: Iterable[str], how: Bootstrap
) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
    """Costs (totals over `collected`) and yields (weighted shares among `seen`). `vehicles`: all that were
    recorded, also those with nothing: they are part of the fleet that is resampled."""
    names = sorted({*vehicles, *(i.vehicle for i in collected), *(i.vehicle for i in seen)})
    costs = _by_vehicle(names, collected, lambda i: (1.0, float(i.clip), float(i.bytes)))
    weights = _by_vehicle(names, seen, _weighted)
    draws = _draws(len(names), how)
    totals = {
        name: _estimate(float(costs[:, k].sum()), draws @ costs[:, k], how, len(names))
        for k, name in enumerate(COSTS)
    }
    shares = {
        name: _share(weights[:, k + 1], weights[:, 0], draws, how, len(names)) for k, name in enumerate(YIELDS)
    }
    return totals, shares


def _weighted(item: Item) -> tuple[float, ...]:
    weight = 1 / max(item.probability, 1e-6)
    return weight, weight * item.disengaged, weight * item.novel


def _by_vehicle(
    names: Sequence[str], items: Sequence[Item], columns: Callable[[Item], tuple[float, ...]]
) -> NDArray[np.float64]:
    """Sums of the columns, a row for each vehicle."""
    rows = {name: number for number, name in enumerate(names)}
    sums = np.zeros((len(names), 3))
    for item in items:
        sums[rows[item.vehicle]] += columns(item)
    return sums


def _draws(vehicles: int, how: Bootstrap) -> NDArray[np.float64]:
    """How often each vehicle is in each resample: [resamples, vehicles]."""
    if vehicles < 2:
        return np.zeros((0, vehicles))
    rng = np.random.default_rng(how.seed)
    return rng.multinomial(vehicles, np.full(vehicles, 1 / vehicles), how.resamples).astype(np.float64)


def _share(
    part: NDArray[np.float64],
    whole: NDArray[np.float64],
    draws: NDArray[np.float64],
    how: Bootstrap,
    vehicles: int,
) -> Estimate:
    """A ratio of sums; resamples without any item say nothing."""
    if whole.sum() <= 0:
        return Estimate(None)
    below = draws @ whole
    drawn = (draws @ part)[below > 0] / below[below > 0]
    return _estimate(float(part.sum() / whole.sum()), drawn, how, vehicles)


def _estimate(value: float, drawn: NDArray[np.float64], how: Bootstrap, vehicles: int) -> Estimate:
    """With the percentile interval."""
    if vehicles < 2 or not len(drawn):
        return Estimate(value)
    tail = (1 - how.confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Estimate(value, float(low), float(high))
