"""Encounters made hard on purpose: a seeded cross-entropy search over their parameters.

Cross-entropy method (Rubinstein, "Optimization of computer simulation models with rare events", EJOR 99, 1997; for
testing vehicles: O'Kelly et al., NeurIPS 2018): draw parameters, keep the worst for the policy, draw nearer to
those. Every parameter stays within what simulation/encounters.py allows, and an instance in which the expert fails
counts nothing: what is found is hard, not impossible.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from msgspec import Struct

from simulation.arrays import Floats, Ints
from simulation.encounters import Encounter, Role
from simulation.scenarios import Scene, drawn
from simulation.suites import Row

ELITE = 0.25
"""Share of the draws that the next are made like."""
SMOOTHING = 0.5
"""Weight of the elite against what was believed before: one drive is mostly luck, so little is believed of few."""
LEAST_SPREAD = 0.05


class Twist(Struct, frozen=True):
    """How an encounter is made: shares 0..1 of each parameter's range."""

    when: float
    """Of every role's `at`: sooner to later, nearer to further."""
    pace: float
    """Of every role's speed."""
    crowd: float
    """A role takes part where its chance is at least 1 less this: 1 brings everyone."""


SIZE = len(Twist.__struct_fields__)


@dataclass(frozen=True, slots=True)
class Belief:
    """Where failures are thought to be: R rows, SIZE parameters."""

    rows: Floats
    """[R], probabilities."""
    mean: Floats
    """[R, SIZE]."""
    spread: Floats
    """[R, SIZE], standard deviations."""


@dataclass(frozen=True, slots=True)
class Draws:
    """N instances."""

    row: Ints
    """[N]."""
    twist: Floats
    """[N, SIZE], 0..1."""


def ignorant(rows: int) -> Belief:
    """Nothing is known: every row alike, every parameter anywhere."""
    return Belief(np.full(rows, 1.0 / rows), np.full((rows, SIZE), 0.5), np.full((rows, SIZE), 0.4))


def drawn_from(belief: Belief, count: int, rng: np.random.Generator) -> Draws:
    """`count` instances."""
    row = rng.choice(len(belief.rows), count, p=belief.rows)
    twist = rng.normal(belief.mean[row], belief.spread[row])
    return Draws(row.astype(np.int64), np.clip(twist, 0.0, 1.0))


def learned(belief: Belief, draws: Draws, harm: Floats) -> Belief:
    """The belief after `draws` did the policy so much harm, [N], 0 for none. Without any harm it stays."""
    count = max(round(ELITE * len(harm)), 1)
    elite = np.argsort(-harm, kind="stable")[:count]
    elite = elite[harm[elite] > 0]
    if not len(elite):
        return belief
    share = np.bincount(draws.row[elite], minlength=len(belief.rows)) / len(elite)
    rows = SMOOTHING * share + (1 - SMOOTHING) * belief.rows
    mean, spread = belief.mean.copy(), belief.spread.copy()
    for row in np.unique(draws.row[elite]):
        mine = draws.twist[elite][draws.row[elite] == row]
        # Few draws say little of a spread: theirs is weighed by how many they are.
        weight = SMOOTHING * len(mine) / (len(mine) + 2.0)
        mean[row] += SMOOTHING * (mine.mean(0) - mean[row])
        spread[row] = np.maximum(spread[row] + weight * (mine.std(0) - spread[row]), LEAST_SPREAD)
    return Belief(rows / rows.sum(), mean, spread)


def scene_of(row: Row, twist: Sequence[float], seed: int) -> Scene:
    """The scene of a row and a seed, its encounters twisted. Raises UnknownName."""
    t = Twist(*(float(share) for share in twist))
    found = drawn(row.condition(), seed)
    return replace(found, encounters=tuple(_twisted(e, t) if e else None for e in found.encounters))


def _twisted(encounter: Encounter, t: Twist) -> Encounter:
    return replace(encounter, roles=tuple(_role(role, t) for role in encounter.roles))


def _role(role: Role, t: Twist) -> Role:
    at, pace = _within(role.at, t.when), _within(role.speed_mps, t.pace)
    return replace(role, at=(at, at), speed_mps=(pace, pace), chance=float(role.chance >= 1 - t.crowd))


def _within(span: tuple[float, float], share: float) -> float:
    return span[0] + (span[1] - span[0]) * share
