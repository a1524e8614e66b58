"""Novelty: how unlike the fleet's recent past an event is, as a p-value, so that the threshold is the false-alarm
rate.

For each cell, and for all cells together, a model holds a bounded set of prototypes (online k-centres after
Charikar et al. 1997: the radius breathes so that the set stays full) and a bounded reservoir of the distances of
recent events. An event's distance is the mean cosine distance to its k nearest predecessors, prototypes standing
for as many as they weigh; its smoothed conformal p-value (Vovk, Gammerman, Shafer 2005) is its place among the
recent distances. A slot of the reservoir is chosen by the hash of the event's id and overwritten, so the
reservoir forgets and the p-value follows drift; what lag is left is taken out by a level that rises while too
few events are called novel and falls while too many are (adaptive conformal inference, Gibbs and Candes 2021),
which holds the long-run rate.

A model learns in blocks of a fixed number of events and scores the events of a block against the blocks before, so
the result does not depend on how an engine cuts the stream into batches.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from streams.contracts.clock import SECOND_NS
from streams.contracts.codec import Message
from streams.contracts.scenarios import Novelty, Scenario
from streams.dedup import Seen
from streams.stage import Emit, Outcome
from streams.state import pack, unpack

Floats = NDArray[np.float32]
Units = NDArray[np.int8]
"""[B, D] unit vectors times 127. Their dot products are whole numbers below 2^24, so float32 sums are exact and
no batch size, thread or BLAS changes a distance."""
EVERYWHERE = ""
"""The "cell" of the model over all cells."""


@dataclass(frozen=True, slots=True)
class NoveltyConfig:
    """Sizes are bounds: memory is at most versions x (cells + 1) x (prototypes x dimension + reservoir) floats."""

    false_alarm_rate: float = 0.05
    nearest: int = 4
    """k of the k-NN distance."""
    prototypes: int = 64
    reservoir: int = 512
    block: int = 32
    """Events after which a model learns."""
    mature: int = 64
    """Distances a cell's reservoir must hold before the cell judges by itself; until then all cells do."""
    adaption: float = 0.05
    """Step of the level for each event, as a share of the false-alarm rate; 0 trusts the reservoir alone."""
    fading: float = 0.995
    """Weight of a prototype after each block."""
    cells: int = 128
    versions: int = 4
    seen_ids: int = 100_000


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
    taken_ns: NDArray[np.int64]
    """[R] event times of those."""
    pending: Units
    """[n, D] the block that is being filled."""
    pending_ids: tuple[str, ...] = ()
    pending_distances: tuple[float, ...] = ()
    pending_ns: tuple[int, ...] = ()
    pending_novel: int = 0
    used_ns: int = 0
    """Time of the newest event."""


class NoveltyState(msgspec.Struct, frozen=True):
    """Models by "version/dimension", then by cell."""

    seen: Seen
    models: dict[str, dict[str, Model]] = {}


@dataclass(frozen=True, slots=True)
class _Score:
    distance: float
    p_value: float
    known: int


class NoveltyStage:
    """events.tagged -> fleet.scenarios: each scenario with its novelty score and the reason for it."""

    name = "novelty"

    def __init__(self, config: NoveltyConfig | None = None) -> None:
        self.config = config or NoveltyConfig()

    def initial(self) -> NoveltyState:
        """Nothing known: every p-value is 1."""
        return NoveltyState(Seen(24 * 3600 * SECOND_NS, self.config.seen_ids))

    def step(self, state: NoveltyState, batch: Sequence[Message], now_ns: int) -> Outcome[NoveltyState]:
        """Score the scenarios that were not seen before, grouped by model; they leave in the order they came."""
        fresh = {s.event.event_id: s for s in batch if isinstance(s, Scenario)}
        fresh = {name: s for name, s in fresh.items() if name not in state.seen}
        models = dict(state.models)
        scored: dict[str, Novelty] = {}
        for key, group in _by_model(fresh.values()).items():
            models = self._room_for(models, key)
            models[key], novelties = self._score_group(models.get(key, {}), group)
            scored |= novelties
        seen = state.seen.remember(dict.fromkeys(fresh, 0), now_ns)
        emits = (Emit("fleet.scenarios", replace(s, novelty=scored.get(n, _UNKNOWN))) for n, s in fresh.items())
        return Outcome(NoveltyState(seen, models), tuple(emits))

    def merge(self, a: NoveltyState, b: NoveltyState) -> NoveltyState:
        """What two partitions know together; merge(a, b) and merge(b, a) know the same."""
        models: dict[str, dict[str, Model]] = {}
        for key in sorted({*a.models, *b.models}):
            first, second = a.models.get(key, {}), b.models.get(key, {})
            models[key] = {c: self._merged(first.get(c), second.get(c)) for c in sorted({*first, *second})}
        names = {n: c for g in (*a.seen.generations, *b.seen.generations) for n, c in sorted(g.ids.items())}
        newest = max((g.since_ns for s in (a.seen, b.seen) for g in s.generations), default=0)
        return NoveltyState(replace(a.seen, generations=()).remember(dict(sorted(names.items())), newest), models)

    def dump(self, state: NoveltyState) -> bytes:
        """MessagePack."""
        return pack(state)

    def load(self, data: bytes) -> NoveltyState:
        """Raises StateUnreadable."""
        return unpack(data, NoveltyState)

    def _room_for(self, models: dict[str, dict[str, Model]], key: str) -> dict[str, dict[str, Model]]:
        """Forget the embedding version that was used longest ago where a new one finds no room."""
        if key in models or len(models) < self.config.versions:
            return models
        oldest = min(models, key=lambda k: (max((m.used_ns for m in models[k].values()), default=0), k))
        return {k: m for k, m in models.items() if k != oldest}

    def _score_group(
        self, cells: dict[str, Model], group: list[Scenario]
    ) -> tuple[dict[str, Model], dict[str, Novelty]]:
        """Scenarios of one embedding version, in order."""
        cells = dict(cells)
        units = unit_vectors([s.event.embedding for s in group])
        ids = [s.event.event_id for s in group]
        times = [s.event.time_ns for s in group]
        everywhere = cells.get(EVERYWHERE) or self._empty(units.shape[1])
        cells[EVERYWHERE], overall = self._pass(everywhere, units, ids, times)
        local: dict[int, _Score] = {}
        for cell, rows in _rows_by_cell(group).items():
            if cell not in cells and len(cells) > self.config.cells:
                continue
            model = cells.get(cell) or self._empty(units.shape[1])
            here = units[rows], [ids[r] for r in rows], [times[r] for r in rows]
            cells[cell], scores = self._pass(model, *here)
            local |= dict(zip(rows, scores, strict=True))
        told = {s.event.event_id: self._tell(s.cell, local.get(i), overall[i]) for i, s in enumerate(group)}
        return cells, told

    def _pass(self, model: Model, units: Units, ids: list[str], times: list[int]) -> tuple[Model, list[_Score]]:
        """Score rows against the model; learn whenever a block is full."""
        scores: list[_Score] = []
        start = 0
        while start < len(ids):
            end = min(len(ids), start + self.config.block - len(model.pending_ids))
            part = self._score(model, units[start:end], ids[start:end])
            scores += part
            model = replace(
                model,
                pending=np.concatenate([model.pending, units[start:end]]),
                pending_ids=(*model.pending_ids, *ids[start:end]),
                pending_distances=(*model.pending_distances, *(s.distance for s in part)),
                pending_ns=(*model.pending_ns, *times[start:end]),
                pending_novel=model.pending_novel + sum(s.p_value <= self.config.false_alarm_rate for s in part),
                used_ns=max(model.used_ns, *times[start:end]),
            )
            if len(model.pending_ids) >= self.config.block:
                model = self._learn(model)
            start = end
        return model, scores

    def _score(self, model: Model, units: Units, ids: list[str]) -> list[_Score]:
        recent = np.sort(model.distances[~np.isnan(model.distances)])
        if model.weights.sum() < self.config.nearest:
            return [_Score(float("nan"), 1.0, len(recent)) for _ in ids]
        distances = mean_nearest(units, model.prototypes, model.weights, self.config.nearest)
        above = len(recent) - np.searchsorted(recent, distances, side="right")
        at_least = len(recent) - np.searchsorted(recent, distances, side="left")
        ties = np.array([_unit_hash("tie", name) for name in ids])
        raw = (above + ties * (at_least - above + 1)) / (len(recent) + 1)
        p = levelled(raw, model.level, self.config.false_alarm_rate)
        return [_Score(float(d), float(v), len(recent)) for d, v in zip(distances, p, strict=True)]

    def _learn(self, model: Model) -> Model:
        """Take the full block into the prototypes and the reservoir; the order within the block is forgotten."""
        order = sorted(range(len(model.pending_ids)), key=lambda i: zlib.crc32(model.pending_ids[i].encode()))
        prototypes, weights, radius = self._absorb(model, model.pending[order])
        distances, taken_ns = model.distances.copy(), model.taken_ns.copy()
        for i in order:
            slot = zlib.crc32(model.pending_ids[i].encode()) % len(distances)
            if not np.isnan(model.pending_distances[i]):
                distances[slot], taken_ns[slot] = model.pending_distances[i], model.pending_ns[i]
        empty = np.zeros((0, prototypes.shape[1]), np.int8)
        level = self._next_level(model)
        return Model(prototypes, weights, radius, level, distances, taken_ns, empty, used_ns=model.used_ns)

    def _next_level(self, model: Model) -> float:
        alpha, number = self.config.false_alarm_rate, len(model.pending_ids)
        level = model.level + self.config.adaption * alpha * (alpha * number - model.pending_novel)
        return min(max(level, alpha / 20), 4 * alpha)

    def _absorb(self, model: Model, block: Units) -> tuple[Units, Floats, float]:
        """Near events pull their prototype, far ones become prototypes, and the set is cut to its bound."""
        prototypes, weights = model.prototypes, model.weights * np.float32(self.config.fading)
        radius = model.radius * 0.98
        far = np.ones(len(block), bool)
        if len(prototypes):
            distance = cosine_distances(block, prototypes)
            nearest = distance.argmin(1)
            far = distance[np.arange(len(block)), nearest] > radius
            pulled, gained = prototypes * weights[:, None], np.zeros_like(weights)
            np.add.at(pulled, nearest[~far], block[~far])
            np.add.at(gained, nearest[~far], np.float32(1))
            prototypes, weights = as_units(pulled), weights + gained
        prototypes = np.concatenate([prototypes, block[far]])
        weights = np.concatenate([weights, np.ones(far.sum(), np.float32)])
        return condense(prototypes, weights, radius, self.config.prototypes)

    def _merged(self, a: Model | None, b: Model | None) -> Model:
        if a is None or b is None:
            model = a or b
            assert model is not None
            return model
        later = b.taken_ns > a.taken_ns
        same = b.taken_ns == a.taken_ns
        distances = np.where(later, b.distances, np.where(same, np.fmax(a.distances, b.distances), a.distances))
        prototypes, weights, radius = condense(
            np.concatenate([a.prototypes, b.prototypes]),
            np.concatenate([a.weights, b.weights]),
            max(a.radius, b.radius),
            self.config.prototypes,
        )
        taken_ns, level = np.maximum(a.taken_ns, b.taken_ns), (a.level + b.level) / 2
        model = Model(prototypes, weights, radius, level, distances, taken_ns, a.pending[:0])
        for part in sorted((a, b), key=lambda m: m.pending_ids):
            model = self._refill(model, part)
        return replace(model, used_ns=max(a.used_ns, b.used_ns))

    def _refill(self, model: Model, part: Model) -> Model:
        """Add another model's unfinished block."""
        model = replace(
            model,
            pending=np.concatenate([model.pending, part.pending]),
            pending_ids=(*model.pending_ids, *part.pending_ids),
            pending_distances=(*model.pending_distances, *part.pending_distances),
            pending_ns=(*model.pending_ns, *part.pending_ns),
            pending_novel=model.pending_novel + part.pending_novel,
        )
        return self._learn(model) if len(model.pending_ids) >= self.config.block else model

    def _empty(self, dimension: int) -> Model:
        none = np.zeros((0, dimension), np.int8)
        reservoir = np.full(self.config.reservoir, np.nan, np.float32)
        taken_ns, level = np.zeros(self.config.reservoir, np.int64), self.config.false_alarm_rate
        return Model(none, np.zeros(0, np.float32), 0.0, level, reservoir, taken_ns, none)

    def _tell(self, cell: str, here: _Score | None, overall: _Score) -> Novelty:
        """The cell's own verdict once it is mature, before that the whole fleet's."""
        alpha = self.config.false_alarm_rate
        local = here is not None and here.known >= self.config.mature and not np.isnan(here.distance)
        score = here if local and here is not None else overall
        if np.isnan(score.distance):
            return Novelty(0.0, 1.0, False, f"fewer than {self.config.nearest} events are known yet")
        where = f"cell {cell}" if local else "all cells"
        return Novelty(
            distance=max(score.distance, 0.0),
            p_value=min(max(score.p_value, 0.0), 1.0),
            novel=score.p_value <= alpha,
            explanation=f"distance {score.distance:.3f} to its {self.config.nearest} nearest in {where}, "
            f"p = {score.p_value:.4f} among {score.known} recent; novel at or below {alpha:g}",
        )


_UNKNOWN = Novelty(explanation="no embedding came with the event")


def levelled(raw: NDArray[np.float64], level: float, alpha: float) -> NDArray[np.float64]:
    """P-values stretched so that what was `level` becomes `alpha`; 0 and 1 stay."""
    low = raw * (alpha / level)
    high = 1 - (1 - raw) * ((1 - alpha) / (1 - level))
    return np.where(raw <= level, low, high)


def unit_vectors(embeddings: Sequence[bytes]) -> Units:
    """Int8 embeddings of one length, brought to unit length [B, D]; a zero vector stays zero."""
    whole = np.frombuffer(b"".join(embeddings), np.int8).reshape(len(embeddings), -1)
    return as_units(whole.astype(np.float32))


def as_units(vectors: Floats) -> Units:
    """[B, D] scaled to length 127 and rounded; zero vectors stay zero."""
    length = np.sqrt((vectors.astype(np.float64) ** 2).sum(1))[:, None]
    return np.asarray(np.rint(vectors * (127.0 / np.where(length > 0, length, 1))), np.int8)


def cosine_distances(a: Units, b: Units) -> Floats:
    """1 - cosine of each pair, [A, B]; a zero vector is at distance 1 from everything."""
    x, y = a.astype(np.float32), b.astype(np.float32)
    lengths = np.sqrt((x * x).sum(1)[:, None] * (y * y).sum(1)[None])
    return np.asarray(1 - (x @ y.T) / np.where(lengths > 0, lengths, 1), np.float32)


def mean_nearest(units: Units, prototypes: Units, weights: Floats, k: int) -> Floats:
    """Mean cosine distance of each row to the k nearest events, [B]: a prototype stands for as many events as it
    weighs, so that merging alike prototypes changes little. Over all of them where they weigh less than k."""
    distance = cosine_distances(units, prototypes)
    order = np.argsort(distance, axis=1, kind="stable")
    nearest, mass = np.take_along_axis(distance, order, 1), weights[order].astype(np.float64)
    counted = np.clip(k - (np.cumsum(mass, 1) - mass), 0, mass)
    return np.asarray(np.maximum((nearest * counted).sum(1) / counted.sum(1), 0), np.float32)


def condense(prototypes: Units, weights: Floats, radius: float, bound: int) -> tuple[Units, Floats, float]:
    """At most `bound` prototypes, in an order that hangs on nothing but themselves. Those nearest to a heavier one
    give it their weight and go; the radius is the largest distance that was lost so."""
    order = np.lexsort((*prototypes.T, -weights))
    prototypes, weights = prototypes[order], weights[order].copy()
    excess = len(prototypes) - bound
    if excess <= 0:
        return prototypes, weights, radius
    distance = cosine_distances(prototypes, prototypes)
    distance[np.triu_indices(len(prototypes))] = np.inf
    heir, gap = distance.argmin(1), distance.min(1)
    gone = np.sort(np.argsort(gap, kind="stable")[:excess])
    for i in gone[::-1]:
        weights[heir[i]] += weights[i]
    return np.delete(prototypes, gone, 0), np.delete(weights, gone), max(radius, float(gap[gone].max()))


def _by_model(scenarios: Iterable[Scenario]) -> dict[str, list[Scenario]]:
    groups: dict[str, list[Scenario]] = {}
    for s in scenarios:
        if s.event.embedding:
            groups.setdefault(f"{s.event.embedding_version}/{len(s.event.embedding)}", []).append(s)
    return groups


def _rows_by_cell(group: list[Scenario]) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {}
    for i, s in enumerate(group):
        rows.setdefault(s.cell, []).append(i)
    return rows


def _unit_hash(salt: str, name: str) -> float:
    return zlib.crc32(f"{salt}/{name}".encode()) / 2**32
