"""A unit: states that move together. One partition's, or all of a process that holds the whole fleet. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from streams.engines.batch.changelog import Past
from streams.engines.round import Counts, Outgoing, Round, States, of_scope, run_all
from streams.stage import AnyStage, Content
from streams.state import StateUnreadable
from streams.topology import BY_STAGE
from streams.transport.base import Position, Positions, Record


@dataclass(frozen=True, slots=True)
class Taken(Sequence[Record]):
    """Records of one partition, one after the other. Whole records are made only where they are asked for."""

    values: Sequence[bytes]
    first: int
    """Offset of the first."""
    until: int
    """Offset behind the last."""
    record_at: Callable[[int], Record]

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, i: int) -> Record:  # type: ignore[override]  # nobody slices
        return self.record_at(i)

    def __iter__(self) -> Iterator[Record]:
        return (self.record_at(i) for i in range(len(self.values)))


Batch = dict[Position, Taken]


@dataclass(frozen=True, slots=True)
class Flow:
    """Stages by where their state lives."""

    in_lanes: list[AnyStage]
    whole: list[AnyStage]
    counts: dict[str, Counts] = field(default_factory=dict)

    @classmethod
    def of(cls, stages: Sequence[AnyStage]) -> Flow:
        """Of stages in the topology's order."""
        counts = {s.name: Counts() for s in stages}
        return cls(of_scope(stages, "partition"), of_scope(stages, "fleet"), counts)

    @property
    def fused(self) -> frozenset[str]:
        """Topics that stages of scope "fleet" take straight from those of scope "partition" in the same process,
        beside being published: every writer is here, as one process holds all partitions."""
        written = {t for s in self.in_lanes for t in BY_STAGE[s.name].writes}
        return frozenset(written & {t for s in self.whole for t in BY_STAGE[s.name].reads})


@dataclass(frozen=True, slots=True)
class Done:
    """What a step came to; it counts once the unit has accepted it."""

    now_ns: int
    lanes: dict[int, States]
    states: States
    rounds: list[Round]

    @property
    def silent(self) -> bool:
        """Whether nothing leaves."""
        return all(r.silent for r in self.rounds)

    @property
    def rejected(self) -> int:
        """Records that no stage was shown: dead letters."""
        return sum(r.rejected for r in self.rounds)

    @property
    def contents(self) -> list[Content]:
        """What must be stored before anything else."""
        return [c for r in self.rounds for c in r.contents]

    def outgoing(self) -> list[Outgoing]:
        """Encoded, in order."""
        return [out for r in self.rounds for out in r.outgoing()]


class Unit:
    """Keeps states; `step` proposes what follows from a batch, `accept` makes it so."""

    def __init__(self, flow: Flow, past: Past | None = None) -> None:
        """As the snapshot says; the steps since are the caller's to take. Raises StateUnreadable."""
        past = past or Past()
        self.flow = flow
        self.now_ns, self.positions = past.now_ns, dict(past.positions)
        self.lanes: dict[int, States] = {}
        self.states: States = {s.name: _state(s, past.states.get(s.name)) for s in flow.whole}
        for lane in sorted({int(key.partition("/")[2]) for key in past.states if "/" in key}):
            self.lanes[lane] = {s.name: _state(s, past.states.get(f"{s.name}/{lane}")) for s in flow.in_lanes}

    def step(self, batch: Batch, now_ns: int, counts: Mapping[str, Counts] | None = None) -> Done:
        """Run the stages. Those of all lanes, then what is of scope "fleet"."""
        counts = self.flow.counts if counts is None else counts
        whole = Round(now_ns)
        done = Done(now_ns, {}, dict(self.states), [])
        by_lane = _by_lane(batch)
        if self.flow.in_lanes:
            for lane in sorted({*self.lanes, *by_lane}):
                round_ = Round(now_ns)
                _read(round_, by_lane.get(lane, {}))
                done.lanes[lane] = dict(self.lanes.get(lane) or self._initial())
                done.rounds.append(round_)
            if done.rounds:
                run_all(done.rounds, self.flow.in_lanes, list(done.lanes.values()), counts)
            for round_ in done.rounds:
                whole.adopt(round_, self.flow.fused)
        else:
            _read(whole, batch)
        if self.flow.whole:
            whole.run(self.flow.whole, done.states, counts)
            done.rounds.append(whole)
        return done

    def accept(self, done: Done, batch: Batch) -> None:
        """The states are now those after the step, and the input goes on behind the batch."""
        self.now_ns, self.lanes, self.states = done.now_ns, done.lanes or self.lanes, done.states
        self.positions |= {place: taken.until for place, taken in batch.items()}

    def held(self) -> dict[str, object]:
        """States by stage; of scope "partition" by "stage/partition". To be written later: they are values."""
        held = {s.name: self.states[s.name] for s in self.flow.whole}
        for lane, states in self.lanes.items():
            held |= {f"{s.name}/{lane}": states[s.name] for s in self.flow.in_lanes}
        return held

    def _initial(self) -> States:
        return {s.name: s.initial() for s in self.flow.in_lanes}


def starts(past: Past, committed: Positions) -> Positions:
    """Where the input goes on: behind the last step; what an operator has committed since counts more."""
    behind = dict(past.positions)
    for step in past.steps:
        behind |= step.until
    return behind | committed


def _state(stage: AnyStage, dump: bytes | None) -> object:
    try:
        return stage.initial() if dump is None else stage.load(dump)
    except StateUnreadable as error:
        raise StateUnreadable(f"stage {stage.name}: {error}") from error


def _by_lane(batch: Batch) -> dict[int, Batch]:
    lanes: dict[int, Batch] = {}
    for place, taken in sorted(batch.items()):
        lanes.setdefault(place[1], {})[place] = taken
    return lanes


def _read(round_: Round, batch: Batch) -> None:
    for (topic, _), taken in sorted(batch.items()):
        round_.take(topic, taken.values, taken.record_at)
