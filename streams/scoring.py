"""Models of what is usual: what they say of events, and what they learn from them.

A model holds a bounded set of prototypes and a bounded reservoir of the distances of recent events. An event's
distance is the mean cosine distance to its k nearest predecessors, prototypes standing for as many as they weigh
(prototypes.py); its p-value is its place among the recent distances, held to the false-alarm rate under drift
(calibration.py).

A model learns in blocks and scores the events of a block against the blocks before, so the result does not depend
on how an engine cuts the stream into batches. A block ends when it is full or when unlikely many of it were novel:
a new kind of event is known after a few.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Hashable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import NamedTuple, TypeVar

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from streams.calibration import Hashes, conformal, even, hashes, levelled, next_level, unlikely_many
from streams.contracts.scenarios import Scenario
from streams.prototypes import Floats, Index, Near, Table, Units, absorb, nearest, part_of, unit_vectors
from streams.stage import at_least

Bools = NDArray[np.bool_]
Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True, slots=True)
class NoveltyConfig:
    """Sizes are bounds: memory is at most versions x (cells + 1) x (prototypes + longest block) x dimension bytes,
    and 4 bytes for each place of a reservoir."""

    false_alarm_rate: float = 0.05
    nearest: int = 4
    """k of the k-NN distance."""
    prototypes: int = 256
    reservoir: int = 512
    block: int = 32
    """Events after which a young model learns; an older one after an eighth of what it has seen, at most
    `longest_block`."""
    longest_block: int = 256
    mature: int = 64
    """Distances a cell's reservoir must hold before the cell judges by itself; until then all cells do."""
    adaption: float = 0.005
    """Step of the level for each event (gamma of Gibbs and Candes); 0 trusts the reservoir alone."""
    lowest: float = -1.0
    """Least level, in false-alarm rates: how much of a burst of alarms is made up for by silence after it."""
    remembered: float = 6400.0
    """Events of a cell after which a prototype has faded to 1/e of its weight."""
    cells: int = 128
    versions: int = 4
    seen_ids: int = 100_000

    def __post_init__(self) -> None:
        at_least(self, 1, "nearest", "prototypes", "reservoir", "block", "longest_block", "mature")
        at_least(self, 1, "cells", "versions", "seen_ids")


Packed = NDArray[np.uint8]
_TAIL = 16


class Model(msgspec.Struct, frozen=True):
    """What is known about one cell under one embedding version. Arrays are never written to."""

    prototypes: Units
    """[P, D]."""
    weights: Floats
    """[P] faded numbers of events."""
    radius: float
    """Cosine distance within which an event belongs to a prototype."""
    level: float
    """Raw p-value at or below which an event is novel."""
    distances: Floats
    """[R] recent distances by slot; NaN where none."""
    pending: Packed
    """[n, D + 16] the block that is being filled."""
    pending_judged: int = 0
    """Of the block, those on which its verdict held."""
    pending_novel: int = 0
    events: int = 0
    """Number of events learned from."""
    used_ns: int = 0
    """Time of the newest event."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Events of one dimension, as columns."""

    units: Units
    hashes: Hashes
    ties: NDArray[np.float64]
    times_ns: NDArray[np.int64]

    @classmethod
    def of(cls, scenarios: Sequence[Scenario]) -> Rows:
        """Of scenarios with an embedding."""
        named = hashes([s.event.event_id for s in scenarios])
        times_ns = np.array([s.event.time_ns for s in scenarios], np.int64)
        return cls(unit_vectors([s.event.embedding for s in scenarios]), named, even(named), times_ns)

    def __len__(self) -> int:
        return len(self.hashes)

    def take(self, rows: Index) -> Rows:
        """Some of them."""
        return Rows(self.units[rows], self.hashes[rows], self.ties[rows], self.times_ns[rows])


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What models say, as columns: one row an event."""

    distances: Floats
    """NaN where too little is known."""
    p_values: NDArray[np.float64]
    known: NDArray[np.int64]
    """Distances in the reservoir then."""
    hold: Bools
    """Whether the model is mature enough to say so."""

    @classmethod
    def none(cls, count: int) -> Verdicts:
        """Nothing is known."""
        nan, zero = np.full(count, np.nan, np.float32), np.zeros(count, np.int64)
        return cls(nan, np.ones(count), zero, np.zeros(count, bool))

    def take(self, rows: Index) -> Verdicts:
        """Some of them."""
        return Verdicts(self.distances[rows], self.p_values[rows], self.known[rows], self.hold[rows])

    def put(self, rows: Index, other: Verdicts) -> None:
        """Overwrite rows by another's verdicts."""
        self.distances[rows], self.p_values[rows] = other.distances, other.p_values
        self.known[rows], self.hold[rows] = other.known, other.hold


@dataclass(frozen=True, slots=True)
class _Answered:
    """Rows, and what came of them."""

    rows: Rows
    near: Near
    verdicts: Verdicts

    def packed(self) -> Packed:
        """[B, D + 16] bytes: the unit, then hash, distance (NaN where too little is known), nearest prototype and
        the distance to it, 4 bytes each. Growing one array takes a fifth of the time of growing five."""
        columns = self.rows.hashes, self.verdicts.distances, self.near.who, self.near.gaps
        tail = np.stack([column.view(np.uint32) for column in columns], 1)
        return np.concatenate([self.rows.units.view(np.uint8), tail.view(np.uint8)], 1)


class _Block(NamedTuple):
    """A block, as columns."""

    units: Units
    hashes: Hashes
    near: Near


def _unpacked(packed: Packed) -> _Block:
    hashed, *floats = np.ascontiguousarray(packed[:, -_TAIL:]).view(np.uint32).T
    distances, who, gaps = floats
    near = Near(distances.view(np.float32), who.view(np.int32), gaps.view(np.float32))
    return _Block(packed[:, :-_TAIL].view(np.int8), hashed, near)


@dataclass(frozen=True, slots=True)
class Asked:
    """One model's rows, in order; its verdict holds from `mature` distances in its reservoir on."""

    rows: Index
    mature: int


class Scoring:
    """Asks models and lets them learn."""

    def __init__(self, config: NoveltyConfig) -> None:
        self.config = config
        # Asked three times for each model of each batch.
        self._ends = lru_cache(maxsize=65_536)(self._block_ends)

    def ask(self, models: MutableMapping[Name, Model], asked: Mapping[Name, Asked], rows: Rows) -> Verdicts:
        """What each model says of its rows, [B]; none is asked of two. `models` become those that learned from
        them; who is not there yet begins empty. All at once, each up to the end of its block: asking one alone
        takes longer than its answer."""
        verdicts = Verdicts.none(len(rows))
        empty = self._empty(rows.units.shape[1])
        left = {name: a.rows for name, a in asked.items()}
        while left:
            some = [models.get(name, empty) for name in left]
            room = [self._ends(m.events)[0] - len(m.pending) for m in some]
            now = [of_it[:size] for of_it, size in zip(left.values(), room, strict=True)]
            parts, index = slices(map(len, now)), np.concatenate(now)
            here = rows.take(index)
            near = nearest(here.units, [(m.prototypes, m.weights) for m in some], parts, self.config.nearest)
            said = self._judge(some, [asked[name].mature for name in left], parts, here, near)
            verdicts.put(index, said)
            taken = self._taken(some, parts, _Answered(here, near, said))
            models.update({name: self._learned(model) for name, (model, _) in zip(left, taken, strict=True)})
            # Those behind the end of a block are asked again.
            rest = {name: of_it[size:] for (name, of_it), (_, size) in zip(left.items(), taken, strict=True)}
            left = {name: of_it for name, of_it in rest.items() if len(of_it)}
        return verdicts

    def _judge(
        self, models: Sequence[Model], mature: Sequence[int], parts: Sequence[slice], rows: Rows, near: Near
    ) -> Verdicts:
        """The rows of each part against what its model has learned."""
        raw, known = conformal(near.distances, [_recent.of(m.distances) for m in models], parts, rows.ties)
        enough = [_mass.of(m.weights) >= self.config.nearest for m in models]
        each = part_of(parts)
        able = np.array(enough)[each]
        p_values = levelled(raw, np.array([m.level for m in models])[each], self.config.false_alarm_rate)
        distances = np.where(able, near.distances, np.float32(np.nan))
        return Verdicts(distances, np.where(able, p_values, 1.0), known, able & (known >= np.array(mature)[each]))

    def _block_ends(self, events: int) -> tuple[int, int]:
        """After how many events a model that has learned from so many learns again, and after how many novel ones
        at once."""
        block = max(self.config.block, min(events // 8, self.config.longest_block))
        return block, unlikely_many(self.config.false_alarm_rate, block)

    def _taken(
        self, models: Sequence[Model], parts: Sequence[slice], answered: _Answered
    ) -> list[tuple[Model, int]]:
        """Each model with the rows of its part in its block, and how many they are: all, or those until unlikely
        many were novel, as that ends the block."""
        packed, times_ns = answered.packed(), answered.rows.times_ns
        judged, novel = _sums(answered.verdicts.hold), _sums(self._novel(answered.verdicts))
        taken: list[tuple[Model, int]] = []
        for model, part in zip(models, parts, strict=True):
            begin, end = part.start, part.stop
            most = self._ends(model.events)[1] - model.pending_novel + novel[begin]
            if novel[end] >= most:
                end = bisect_left(novel, most, begin, end + 1)
            held = replace(
                model,
                pending=np.concatenate([model.pending, packed[begin:end]]),
                pending_judged=model.pending_judged + judged[end] - judged[begin],
                pending_novel=model.pending_novel + novel[end] - novel[begin],
                used_ns=max(model.used_ns, *times_ns[begin:end].tolist()),
            )
            taken.append((held, end - begin))
        return taken

    def _novel(self, verdicts: Verdicts) -> Bools:
        return np.asarray(verdicts.hold & (verdicts.p_values <= self.config.false_alarm_rate))

    def _learned(self, model: Model) -> Model:
        """A block that has ended goes into prototypes, reservoir and level; the order within it is forgotten."""
        block_size, most_novel = self._ends(model.events)
        if len(model.pending) < block_size and model.pending_novel < most_novel:
            return model
        block = _unpacked(model.pending)
        prototypes, weights, radius = self._absorbed(model, block)
        return replace(
            self._empty(block.units.shape[1]),
            prototypes=prototypes,
            weights=weights,
            radius=radius,
            level=self._next_level(model),
            distances=self._remembered(model, block),
            events=model.events + len(model.pending),
            used_ns=model.used_ns,
        )

    def _absorbed(self, model: Model, block: _Block) -> tuple[Units, Floats, float]:
        size = len(block.units)
        weights = model.weights * np.float32(math.exp(-size / self.config.remembered))
        radius = model.radius * math.exp(-size / BREATH)
        return absorb(model.prototypes, weights, radius, block.units, block.near, self.config.prototypes)

    def _remembered(self, model: Model, block: _Block) -> Floats:
        """The reservoir with the block's distances; of two for one slot, the one with the larger hash stays."""
        distances = model.distances.copy()
        order = np.argsort(block.hashes, kind="stable")
        order = order[~np.isnan(block.near.distances[order])]
        # A young model's distances still fall: it forgets them by keeping few.
        kept = min(max(self.config.mature, model.events // YOUNG), len(distances))
        distances[block.hashes[order] % kept] = block.near.distances[order]
        return distances

    def _next_level(self, model: Model) -> float:
        c = self.config
        judged, novel = model.pending_judged, model.pending_novel
        return next_level(model.level, c.false_alarm_rate, judged, novel, c.adaption, c.lowest)

    def _empty(self, dimension: int) -> Model:
        none, reservoir = np.zeros(0, np.float32), np.full(self.config.reservoir, np.nan, np.float32)
        units, pending = np.zeros((0, dimension), np.int8), np.zeros((0, dimension + _TAIL), np.uint8)
        return Model(units, none, 0.0, self.config.false_alarm_rate, reservoir, pending)


YOUNG = 4
"""A reservoir holds at most one distance for so many events that its model has seen."""
BREATH = 1600.0
"""Events after which the radius, if it lost nothing, has shrunk to 1/e."""


def _sorted(distances: Floats) -> Floats:
    return np.sort(distances[~np.isnan(distances)])


_recent = Table(_sorted)
_mass = Table(np.sum)


def slices(sizes: Iterable[int]) -> list[slice]:
    """Rows that follow one another."""
    ends = list(accumulate(sizes))
    return [slice(begin, end) for begin, end in pairwise([0, *ends])]


def _sums(flags: Bools) -> list[int]:
    """[B + 1] how many are set before each row, and in all."""
    return [0, *np.cumsum(flags).tolist()]
