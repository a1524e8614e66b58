"""Novelty: how unlike the fleet's recent past an event is, as a p-value, so that the threshold is the false-alarm
rate.

For each cell, and for all cells together, there is a model of what is usual (scoring.py). A cell judges by itself
once it is mature; until then the model of all cells does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
from msgspec.structs import replace

from streams.contracts.clock import SECOND_NS
from streams.contracts.codec import Message
from streams.contracts.scenarios import Novelty, Scenario
from streams.dedup import Seen
from streams.prototypes import Index, cosine_distances, unit_vectors
from streams.scoring import Asked, Bools, Model, NoveltyConfig, Rows, Scoring, Verdicts, slices
from streams.stage import Emit, Outcome
from streams.state import unpack

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

EVERYWHERE = ""
"""The "cell" of the model over all cells."""
Models = dict[str, dict[str, Model]]
"""By "version/dimension", then by cell."""


class NoveltyState(msgspec.Struct, frozen=True):
    """What a partition knows, and the ids of what it has learned from."""

    seen: Seen
    models: Models = {}


@dataclass(slots=True)
class _Lane:
    """Scenarios of one lane on their way: in order, their verdicts, and which are left."""

    models: Models
    scenarios: Sequence[Scenario]
    told: list[Novelty] = field(init=False)
    left: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.told = [_UNKNOWN] * len(self.scenarios)
        self.left = [row for row, s in enumerate(self.scenarios) if s.event.embedding]

    def scored(self) -> list[Scenario]:
        """With their verdicts."""
        return [replace(s, novelty=n) for s, n in zip(self.scenarios, self.told, strict=True)]


@dataclass(frozen=True, slots=True)
class _Group:
    """Of a lane, the rows of one embedding version."""

    lane: _Lane
    key: str
    rows: list[int]

    @property
    def scenarios(self) -> list[Scenario]:
        return [self.lane.scenarios[row] for row in self.rows]

    @property
    def dimension(self) -> int:
        return len(self.lane.scenarios[self.rows[0]].event.embedding)

    def close(self, cells: dict[str, Model], novelties: Iterator[Novelty]) -> None:
        """The models that learned from it, and what they said."""
        self.lane.models[self.key] = cells
        for row in self.rows:
            self.lane.told[row] = next(novelties)


class NoveltyStage:
    """events.tagged -> fleet.scenarios: each scenario with its novelty score and the reason for it."""

    name = "novelty"

    def __init__(self, config: NoveltyConfig | None = None) -> None:
        self.config = config or NoveltyConfig()
        self._scoring = Scoring(self.config)

    def initial(self) -> NoveltyState:
        """Nothing known: every p-value is 1."""
        return NoveltyState(Seen(24 * 3600 * SECOND_NS, self.config.seen_ids))

    def step(self, state: NoveltyState, batch: Sequence[Message], now_ns: int) -> Outcome[NoveltyState]:
        """Score the scenarios that were not seen before; they leave in the order they came."""
        return self.step_all([state], [batch], now_ns)[0]

    def step_all(
        self, states: Sequence[NoveltyState], batches: Sequence[Sequence[Message]], now_ns: int
    ) -> list[Outcome[NoveltyState]]:
        """`step` in several lanes, whose models are asked at once."""
        seen: list[Seen] = []
        asked: list[tuple[Models, Sequence[Scenario]]] = []
        for state, batch in zip(states, batches, strict=True):
            scenarios = [s for s in batch if isinstance(s, Scenario)]
            fresh, known = state.seen.admit([s.event.event_id for s in scenarios], now_ns)
            seen.append(known)
            asked.append((state.models, [scenarios[row] for row in fresh]))
        return [
            Outcome(NoveltyState(known, models), tuple([Emit("fleet.scenarios", s) for s in scored]))
            for known, (models, scored) in zip(seen, self.score_all(asked), strict=True)
        ]

    def score(self, models: Models, scenarios: Sequence[Scenario]) -> tuple[Models, list[Scenario]]:
        """Scenarios of different ids, in order, with what models say of each; and the models that learned from
        them."""
        return self.score_all([(models, scenarios)])[0]

    def score_all(self, asked: Sequence[tuple[Models, Sequence[Scenario]]]) -> list[tuple[Models, list[Scenario]]]:
        """`score` in several lanes, which know nothing of one another."""
        lanes = [_Lane(models, scenarios) for models, scenarios in asked]
        while groups := [group for lane in lanes for group in self._next(lane)]:
            for dimension in {group.dimension: None for group in groups}:
                self._score([group for group in groups if group.dimension == dimension])
        return [(lane.models, lane.scored()) for lane in lanes]

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

    def _next(self, lane: _Lane) -> list[_Group]:
        """Its rows by embedding version, up to one that another version must be forgotten for: which one hangs on
        those before it. They are no longer left."""
        if not lane.left:
            return []
        rows, lane.left = lane.left, []
        keys = [model_key(lane.scenarios[row]) for row in rows]
        lane.models = self._room_for(lane.models, keys[0])
        known, groups = {*lane.models, keys[0]}, dict[str, list[int]]()
        for number, (row, key) in enumerate(zip(rows, keys, strict=True)):
            if key not in known and len(known) >= self.config.versions:
                lane.left = rows[number:]
                break
            known.add(key)
            groups.setdefault(key, []).append(row)
        return [_Group(lane, key, some) for key, some in groups.items()]

    def _score(self, groups: Sequence[_Group]) -> None:
        """Of one dimension. Each scenario is asked of its cell and of all cells: these see everything, as a share
        of it alone would make small cells look usual to them."""
        scenarios = [s for group in groups for s in group.scenarios]
        asked: dict[tuple[int, str], Asked] = {}
        count = len(scenarios)
        known = [group.lane.models.get(group.key, {}) for group in groups]
        for number, (cells, part) in enumerate(zip(known, slices(len(g.rows) for g in groups), strict=True)):
            for cell, rows in self._by_cell(cells, scenarios[part]).items():
                asked[number, cell] = Asked(rows + part.start, self.config.mature)
            asked[number, EVERYWHERE] = Asked(np.arange(part.start, part.stop) + count, 1)
        models = {(number, cell): known[number][cell] for number, cell in asked if cell in known[number]}
        twice = Rows.of(scenarios).take(np.tile(np.arange(count), 2))
        said = self._scoring.ask(models, asked, twice)
        verdicts, mature = said.take(np.arange(count)), said.hold[:count].copy()
        young = np.flatnonzero(~mature)
        verdicts.put(young, said.take(young + count))
        novelties = iter(self._tell(scenarios, verdicts, mature))
        learned = [dict(cells) for cells in known]
        for (number, cell), model in models.items():
            learned[number][cell] = model
        for group, cells in zip(groups, learned, strict=True):
            group.close(cells, novelties)

    def _by_cell(self, known: dict[str, Model], scenarios: Sequence[Scenario]) -> dict[str, Index]:
        """Rows by cell, of those that have a model or find room for one."""
        rows: dict[str, list[int]] = {}
        room = self.config.cells - len(known.keys() - {EVERYWHERE})
        for i, s in enumerate(scenarios):
            if s.cell in rows:
                rows[s.cell].append(i)
            elif s.cell in known or room > 0:
                room -= s.cell not in known
                rows[s.cell] = [i]
        return {cell: np.array(some) for cell, some in rows.items()}

    def _tell(self, group: Sequence[Scenario], v: Verdicts, mature: Bools) -> list[Novelty]:
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


_UNKNOWN = Novelty(explanation="no embedding came with the event")
_TO_3 = tuple(f"{i / 1000:.3f}" for i in range(2001))
_TO_4 = tuple(f"{i / 10_000:.4f}" for i in range(10_001))
"""Formatting a number takes longer than all else that is done for an event."""


def model_key(scenario: Scenario) -> str:
    """Under which of `Models` a scenario's embedding falls."""
    event = scenario.event
    return f"{event.embedding_version}/{len(event.embedding)}"
