"""Novelty: how unlike the fleet's recent past an event is, as a p-value, so that the threshold is the false-alarm
rate.

For each cell, and for all cells together, a model holds a bounded set of prototypes and a bounded reservoir of
the distances of recent events. An event's distance is the mean cosine distance to its k nearest predecessors,
prototypes standing for as many as they weigh (prototypes.py); its p-value is its place among the recent
distances, held to the false-alarm rate under drift (calibration.py).
A cell judges by itself once it is mature; until then the model of all cells does.

A model learns in blocks and scores the events of a block against the blocks before, so the result does not depend
on how an engine cuts the stream into batches. A block ends when it is full or when unlikely many of it were novel:
a new kind of event is known after a few.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import NamedTuple

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from streams.calibration import Hashes, conformal, even, hashes, levelled, next_level, unlikely_many
from streams.contracts.clock import SECOND_NS
from streams.contracts.codec import Message
from streams.contracts.scenarios import Novelty, Scenario
from streams.dedup import Seen
from streams.prototypes import Floats, Near, Table, Units, absorb, cosine_distances, nearest, unit_vectors
from streams.stage import Emit, Outcome, at_least
from streams.state import pack, unpack

__all__ = [
    "EVERYWHERE",
    "Model",
    "Models",
    "NoveltyConfig",
    "NoveltyStage",
    "NoveltyState",
    "cosine_distances",
    "model_key",
    "unit_vectors",
]

Bools = NDArray[np.bool_]
Index = NDArray[np.intp]
EVERYWHERE = ""
"""The "cell" of the model over all cells."""


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


Models = dict[str, dict[str, Model]]
"""By "version/dimension", then by cell."""


class NoveltyState(msgspec.Struct, frozen=True):
    """What a partition knows, and the ids of what it has learned from."""

    seen: Seen
    models: Models = {}


@dataclass(frozen=True, slots=True)
class _Rows:
    """Events of one embedding version, as columns."""

    units: Units
    hashes: Hashes
    ties: NDArray[np.float64]
    times_ns: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.hashes)

    def take(self, rows: Index | slice) -> _Rows:
        return _Rows(self.units[rows], self.hashes[rows], self.ties[rows], self.times_ns[rows])


@dataclass(frozen=True, slots=True)
class _Verdicts:
    """What one model says, as columns: one row an event."""

    distances: Floats
    """NaN where too little is known."""
    p_values: NDArray[np.float64]
    known: NDArray[np.int64]
    """Distances in the reservoir then."""
    hold: Bools
    """Whether the model is mature enough to say so."""

    def take(self, rows: Index | slice) -> _Verdicts:
        return _Verdicts(self.distances[rows], self.p_values[rows], self.known[rows], self.hold[rows])

    def put(self, rows: Index | slice, other: _Verdicts) -> None:
        """Overwrite rows by another's verdicts."""
        self.distances[rows], self.p_values[rows] = other.distances, other.p_values
        self.known[rows], self.hold[rows] = other.known, other.hold


@dataclass(frozen=True, slots=True)
class _Answered:
    """Rows, and what came of them."""

    rows: _Rows
    near: Near
    verdicts: _Verdicts

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
    hashes, *floats = np.ascontiguousarray(packed[:, -_TAIL:]).view(np.uint32).T
    distances, who, gaps = floats
    near = Near(distances.view(np.float32), who.view(np.int32), gaps.view(np.float32))
    return _Block(packed[:, :-_TAIL].view(np.int8), hashes, near)


class NoveltyStage:
    """events.tagged -> fleet.scenarios: each scenario with its novelty score and the reason for it."""

    name = "novelty"

    def __init__(self, config: NoveltyConfig | None = None) -> None:
        self.config = config or NoveltyConfig()

    def initial(self) -> NoveltyState:
        """Nothing known: every p-value is 1."""
        return NoveltyState(Seen(24 * 3600 * SECOND_NS, self.config.seen_ids))

    def step(self, state: NoveltyState, batch: Sequence[Message], now_ns: int) -> Outcome[NoveltyState]:
        """Score the scenarios that were not seen before; they leave in the order they came."""
        scenarios = [s for s in batch if isinstance(s, Scenario)]
        fresh, seen = state.seen.admit([s.event.event_id for s in scenarios], now_ns)
        models, scored = self.score(state.models, [scenarios[row] for row in fresh])
        return Outcome(NoveltyState(seen, models), tuple([Emit("fleet.scenarios", s) for s in scored]))

    def score(self, models: Models, scenarios: Sequence[Scenario]) -> tuple[Models, list[Scenario]]:
        """Scenarios of different ids, in order, with what models say of each; and the models that learned from
        them."""
        told: list[Novelty] = [_UNKNOWN] * len(scenarios)
        left = [row for row, s in enumerate(scenarios) if s.event.embedding]
        while left:
            models = self._room_for(models, model_key(scenarios[left[0]]))
            groups, left = self._stretch(models, scenarios, left)
            for key, rows in groups.items():
                models[key], novelties = self._score_group(models.get(key, {}), [scenarios[r] for r in rows])
                for row, novelty in zip(rows, novelties, strict=True):
                    told[row] = novelty
        return models, [replace(s, novelty=n) for s, n in zip(scenarios, told, strict=True)]

    def dump(self, state: NoveltyState) -> bytes:
        """MessagePack."""
        return pack(state)

    def load(self, data: bytes) -> NoveltyState:
        """Raises StateUnreadable."""
        state = unpack(data, NoveltyState)
        return replace(state, seen=replace(state.seen, limit=self.config.seen_ids))

    def _room_for(self, models: Models, key: str) -> Models:
        """Without the embedding version that was used longest ago, where a new one finds no room."""
        if key in models or len(models) < self.config.versions:
            return dict(models)
        oldest = min(models, key=lambda k: (max((m.used_ns for m in models[k].values()), default=0), k))
        return {k: m for k, m in models.items() if k != oldest}

    def _stretch(
        self, models: Models, scenarios: Sequence[Scenario], rows: list[int]
    ) -> tuple[dict[str, list[int]], list[int]]:
        """Rows by model, up to one that another version must be forgotten for: which one hangs on those before it.
        And the rows from there on."""
        first = model_key(scenarios[rows[0]])
        if len({(scenarios[r].event.embedding_version, len(scenarios[r].event.embedding)) for r in rows}) == 1:
            return {first: rows}, []
        known, groups = {*models, first}, dict[str, list[int]]()
        for number, row in enumerate(rows):
            key = model_key(scenarios[row])
            if key not in known and len(known) >= self.config.versions:
                return groups, rows[number:]
            known.add(key)
            groups.setdefault(key, []).append(row)
        return groups, []

    def _score_group(
        self, cells: dict[str, Model], group: list[Scenario]
    ) -> tuple[dict[str, Model], list[Novelty]]:
        """Scenarios of one embedding version, in order."""
        cells, rows, verdicts = dict(cells), _rows(group), _nothing(len(group))
        here: dict[str, Index] = {}
        known = cells.keys() - {EVERYWHERE}
        for cell, some in _rows_by_cell(group).items():
            if cell in known or len(known) < self.config.cells:
                known.add(cell)
                here[cell] = some
        self._pass(cells, here, rows, verdicts, self.config.mature)
        mature = verdicts.hold.copy()
        # Shown everything, also what its own cell judges: a share of it alone would make small cells look usual.
        overall = _nothing(len(group))
        self._pass(cells, {EVERYWHERE: np.arange(len(group))}, rows, overall, 1)
        asked = np.flatnonzero(~mature)
        verdicts.put(asked, overall.take(asked))
        return cells, self._tell(group, verdicts, mature)

    def _pass(
        self, cells: dict[str, Model], left: dict[str, Index], rows: _Rows, verdicts: _Verdicts, mature: int
    ) -> None:
        """Score each cell's rows against its model; a model learns when its block ends. From `mature` distances
        in its reservoir on its verdicts hold, and its level follows them. All cells at once, each up to the end of
        its block: asking one alone takes longer than its answer. Writes to `cells` and `verdicts`."""
        while left:
            models = [cells.get(cell) or self._empty(rows.units.shape[1]) for cell in left]
            room = [self._block(m) - len(m.pending) for m in models]
            asked = [some[:size] for some, size in zip(left.values(), room, strict=True)]
            parts, index = _parts(map(len, asked)), np.concatenate(asked)
            here = rows.take(index)
            near = nearest(here.units, [(m.prototypes, m.weights) for m in models], parts, self.config.nearest)
            said = self._judge(models, parts, here, near, mature)
            taken = self._taken(models, parts, _Answered(here, near, said))
            # Those behind the end of a block are asked again.
            verdicts.put(index, said)
            cells |= {cell: self._learned(model) for cell, (model, _) in zip(left, taken, strict=True)}
            rest = {cell: some[size:] for (cell, some), (_, size) in zip(left.items(), taken, strict=True)}
            left = {cell: some for cell, some in rest.items() if len(some)}

    def _judge(
        self, models: Sequence[Model], parts: Sequence[slice], rows: _Rows, near: Near, mature: int
    ) -> _Verdicts:
        """The rows of each part against what its model has learned."""
        sizes = [part.stop - part.start for part in parts]
        raw, known = conformal(near.distances, [_recent.of(m.distances) for m in models], parts, rows.ties)
        able = np.repeat([m.weights.sum() >= self.config.nearest for m in models], sizes)
        p_values = levelled(raw, np.repeat([m.level for m in models], sizes), self.config.false_alarm_rate)
        distances = np.where(able, near.distances, np.float32(np.nan))
        return _Verdicts(distances, np.where(able, p_values, 1.0), known, able & (known >= mature))

    def _block(self, model: Model) -> int:
        """Events after which the model learns."""
        return max(self.config.block, min(model.events // 8, self.config.longest_block))

    def _most_novel(self, model: Model) -> int:
        """Novel events after which it learns at once."""
        return unlikely_many(self.config.false_alarm_rate, self._block(model))

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
            most = self._most_novel(model) - model.pending_novel + novel[begin]
            if novel[end] >= most:
                end = begin + int(novel[begin : end + 1].searchsorted(most))
            held = replace(
                model,
                pending=np.concatenate([model.pending, packed[begin:end]]),
                pending_judged=model.pending_judged + int(judged[end] - judged[begin]),
                pending_novel=model.pending_novel + int(novel[end] - novel[begin]),
                used_ns=max(model.used_ns, int(times_ns[begin:end].max())),
            )
            taken.append((held, end - begin))
        return taken

    def _novel(self, verdicts: _Verdicts) -> Bools:
        return np.asarray(verdicts.hold & (verdicts.p_values <= self.config.false_alarm_rate))

    def _learned(self, model: Model) -> Model:
        """A block that has ended goes into prototypes, reservoir and level; the order within it is forgotten."""
        if len(model.pending) < self._block(model) and model.pending_novel < self._most_novel(model):
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

    def _tell(self, group: list[Scenario], v: _Verdicts, mature: Bools) -> list[Novelty]:
        """A verdict and its reason for each event: a mature cell's own, before that the whole fleet's."""
        k, alpha = self.config.nearest, self.config.false_alarm_rate
        young = Novelty(explanation=f"fewer than {k} events are known yet")
        rest = f" recent; novel at or below {alpha:g}"
        distances = np.nan_to_num(v.distances)
        columns = (
            distances.tolist(),
            np.rint(distances * 1000).astype(np.intp).tolist(),
            v.p_values.tolist(),
            np.rint(v.p_values * 10_000).astype(np.intp).tolist(),
            (v.p_values <= alpha).tolist(),
            v.known.tolist(),
            (mature.astype(np.intp) - np.isnan(v.distances)).tolist(),
            group,
        )
        told: list[Novelty] = []
        for distance, d, p_value, p, novel, known, local, s in zip(*columns, strict=True):
            if local < 0:
                told.append(young)
                continue
            where = f"cell {s.cell}" if local else "all cells"
            why = f"distance {_TO_3[d]} to its {k} nearest in {where}, p = {_TO_4[p]} among {known}{rest}"
            told.append(Novelty(distance, p_value, novel, why))
        return told


YOUNG = 4
"""A reservoir holds at most one distance for so many events that its model has seen."""
BREATH = 1600.0
"""Events after which the radius, if it lost nothing, has shrunk to 1/e."""
_UNKNOWN = Novelty(explanation="no embedding came with the event")
_TO_3 = tuple(f"{i / 1000:.3f}" for i in range(2001))
_TO_4 = tuple(f"{i / 10_000:.4f}" for i in range(10_001))
"""Formatting a number takes longer than all else that is done for an event."""


def _sorted(distances: Floats) -> Floats:
    return np.sort(distances[~np.isnan(distances)])


_recent = Table(_sorted)


def _parts(sizes: Iterable[int]) -> list[slice]:
    """Rows that follow one another."""
    ends = list(accumulate(sizes))
    return [slice(begin, end) for begin, end in pairwise([0, *ends])]


def _sums(flags: Bools) -> NDArray[np.intp]:
    """[B + 1] how many are set before each row, and in all."""
    return np.concatenate([np.zeros(1, np.intp), np.cumsum(flags)])


def _nothing(count: int) -> _Verdicts:
    nan, none = np.full(count, np.nan, np.float32), np.zeros(count, np.int64)
    return _Verdicts(nan, np.ones(count), none, np.zeros(count, bool))


def _rows(group: Sequence[Scenario]) -> _Rows:
    named = hashes([s.event.event_id for s in group])
    times_ns = np.array([s.event.time_ns for s in group], np.int64)
    return _Rows(unit_vectors([s.event.embedding for s in group]), named, even(named), times_ns)


def model_key(scenario: Scenario) -> str:
    """Under which of `Models` a scenario's embedding falls."""
    event = scenario.event
    return f"{event.embedding_version}/{len(event.embedding)}"


def _rows_by_cell(group: Sequence[Scenario]) -> dict[str, Index]:
    rows: dict[str, list[int]] = {}
    for i, s in enumerate(group):
        rows.setdefault(s.cell, []).append(i)
    return {cell: np.array(here) for cell, here in rows.items()}
