"""What a score is made of: terms in 0..1, some of which multiply and some of which are averaged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from simulation.arrays import Bools, Floats
from simulation.scores.trace import Trace

GATE = 0.0
"""Weight of the terms that multiply the whole."""


@dataclass(frozen=True, slots=True)
class Term:
    """One line of a score's table."""

    of: Callable[[Trace], Floats]
    """[B], in 0..1; NaN where it cannot be judged: its weight is then left out, a gate is open."""
    weight: float = GATE


@dataclass(frozen=True, slots=True)
class Scored:
    """A score of B drives with the terms that it is made of, all in 0..1."""

    terms: dict[str, Floats]
    """Each [B]; NaN where a term could not be judged."""
    score: Floats
    """[B]."""


def measured(table: Mapping[str, Term], trace: Trace) -> dict[str, Floats]:
    """Every term of a table, [B] each."""
    return {name: term.of(trace) for name, term in table.items()}


def gates(table: Mapping[str, Term], terms: Mapping[str, Floats]) -> Floats:
    """The product of the terms that multiply, [B]."""
    closed = [np.nan_to_num(terms[name], nan=1.0) for name, term in table.items() if term.weight == GATE]
    return np.asarray(np.prod(closed, 0))


def combined(table: Mapping[str, Term], terms: Mapping[str, Floats]) -> Scored:
    """The product of the gates times the weighted mean of the others. Raises KeyError for a missing term."""
    weighed = {name: term.weight for name, term in table.items() if term.weight != GATE}
    values = np.stack([terms[name] for name in weighed])
    weights = np.array(list(weighed.values()))[:, None] * ~np.isnan(values)
    mean = (weights * np.nan_to_num(values)).sum(0) / np.maximum(weights.sum(0), 1e-9)
    return Scored({name: terms[name] for name in table}, gates(table, terms) * mean)


def share(fine: Bools | np.bool_) -> Floats:
    """1 where so, 0 elsewhere."""
    return np.asarray(fine, np.float64)


def stepped(value: Floats, full: float, half: float) -> Floats:
    """1 below `full`, a half below `half`, else 0."""
    return np.where(value < full, 1.0, np.where(value < half, 0.5, 0.0))


def recent_sum(column: Floats, steps: int) -> Floats:
    """Sums over the last `steps` + 1 entries of [B, T], fewer at the start."""
    total = np.cumsum(column, 1)
    total[:, steps + 1 :] -= total[:, : -steps - 1].copy()
    return total
