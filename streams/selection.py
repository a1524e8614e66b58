"""Selection: which clips are worth their bytes. Candidates gather over a window; at its end the best are asked.

A part of the budget goes to the most valuable clips per byte, surely (inclusion probability 1). The rest is drawn
by systematic sampling with probability proportional to value (Madow 1949), started by the hash of the window, so
that each clip's inclusion probability is known and fleet statistics can be weighted back (Horvitz and Thompson
1952).

Where a pool is configured, what is rare in its partition is first judged by the whole fleet (pooling.py): here the
candidates of all partitions and vehicles meet.

Bytes are bounded by window, and on request by hour for each vehicle, each region and the fleet. What is drawn
keeps these bounds whatever the lot is: no more is drawn than would fit if it were the largest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, compress
from operator import attrgetter

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from streams.contracts.clips import ClipRequest
from streams.contracts.clock import SECOND_NS
from streams.contracts.codec import Message
from streams.contracts.drive import Trigger
from streams.contracts.scenarios import Scenario
from streams.dedup import Seen
from streams.draw import Left, Lot, draw, priorities
from streams.novelty import Models
from streams.pooling import Pool, PoolConfig
from streams.stage import Emit, Outcome, at_least
from streams.state import unpack
from streams.value import Candidate, Weights, distinct, value_all

RANDOM, CURATED = "random", "curated"
HOUR_NS = 3600 * SECOND_NS
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SelectionConfig:
    """Budgets hold per window. Shares are of the window's clips."""

    mode: str = CURATED
    """ "random": a uniform sample of driving, from the vehicles' own `sample` events alone (a benchmark's arm)."""
    window_ns: int = 600 * SECOND_NS
    clips: int = 100
    budget_bytes: int = 1 << 30
    vehicle_bytes: int | None = None
    """Of one vehicle's clips in an hour of the clock, as regions and the fleet too; None: no limit."""
    region_bytes: int | None = None
    hour_bytes: int | None = None
    sure_share: float = 0.7
    """Of the clips, those that are chosen for their value alone; the others are drawn."""
    per_vehicle: int = 10
    region_share: float = 0.7
    environment_share: float = 0.4
    """What one environment (cell without speed band) may take, or an equal share where there are few of them."""
    duplicate_share: float = 0.02
    """Of clips nearer to each other than this share of the median distance, the most valuable one stays."""
    weights: Weights = field(default_factory=Weights)
    upload_ns: int = 6 * 3600 * SECOND_NS
    """Time a vehicle has to answer."""
    candidates: int = 5_000
    """Bound on what is held; beyond it, a priority sample with known probability is."""
    seen_ids: int = 200_000
    pool: PoolConfig | None = None
    """None: a partition's word on novelty is the last, as is right where there is but one."""

    def __post_init__(self) -> None:
        if self.mode not in (RANDOM, CURATED):
            raise ValueError(f"mode {self.mode!r} is neither {CURATED!r} nor {RANDOM!r}")
        at_least(self, 1, "window_ns", "candidates", "seen_ids")
        at_least(self, 0, "clips", "budget_bytes", "per_vehicle")
        for name in ("vehicle_bytes", "region_bytes", "hour_bytes"):
            if (budget := getattr(self, name)) is not None and budget < 0:
                raise ValueError(f"{name} is {budget}: give the bytes of an hour, or None for no limit")

    @property
    def hourly(self) -> bool:
        """Whether what was asked for in an hour must be known."""
        return any(b is not None for b in (self.vehicle_bytes, self.region_bytes, self.hour_bytes))


class Spent(msgspec.Struct, frozen=True):
    """Bytes that were asked for in one hour of the clock."""

    hour: int = -1
    """Its number since 1970."""
    vehicles: dict[str, int] = {}
    regions: dict[str, int] = {}

    def all(self) -> int:
        """Of the fleet."""
        return sum(self.regions.values())

    def adding(self, lots: Sequence[Lot]) -> Spent:
        """With these clips."""
        vehicles, regions = dict(self.vehicles), dict(self.regions)
        for c in (lot.candidate for lot in lots):
            vehicles[c.vehicle] = vehicles.get(c.vehicle, 0) + c.bytes
            regions[c.region] = regions.get(c.region, 0) + c.bytes
        return Spent(self.hour, vehicles, regions)


class SelectionState(msgspec.Struct, frozen=True):
    """Candidates of the open window, and the largest priority that found no room in it."""

    seen: Seen
    window: int = -1
    """Number of the open window: its start over its length; -1 before the first."""
    window_ns: int = 0
    """Its length, which the configuration may have given up since."""
    held: tuple[Scenario, ...] = ()
    threshold: float = 0.0
    priorities: NDArray[np.float64] = msgspec.field(default_factory=lambda: np.zeros(0))
    """[held]; none while there was room for all."""
    spent: Spent = Spent()
    """Of the hour of the last window that was closed, where hours have budgets."""
    pool: Models = {}
    """What the fleet knows of what is rare."""


class Selection:
    """fleet.scenarios -> fleet.clip-requests: one request for each clip that is chosen when a window ends."""

    name = "selection"

    def __init__(self, config: SelectionConfig | None = None) -> None:
        self.config = config or SelectionConfig()
        self._pool = Pool(self.config.pool) if self.config.pool and self.config.mode == CURATED else None

    def initial(self) -> SelectionState:
        """No window is open."""
        return SelectionState(Seen(24 * 3600 * SECOND_NS, self.config.seen_ids))

    def step(self, state: SelectionState, batch: Sequence[Message], now_ns: int) -> Outcome[SelectionState]:
        """Close the window that `now_ns` has left, then add the batch to the one it is in."""
        window = now_ns // self.config.window_ns
        emits: tuple[Emit, ...] = ()
        if window > state.window or state.window_ns != self.config.window_ns:
            pool, judged = self._pool.judge(state.pool, state.held) if self._pool else (state.pool, state.held)
            lots, of = self._choose(state, judged)
            emits = tuple(Emit("fleet.clip-requests", r) for r in self._requests(lots, of, state))
            spent = self._spent(state).adding(lots) if self.config.hourly else state.spent
            state = SelectionState(state.seen, window, self.config.window_ns, spent=spent, pool=pool)
        scenarios = [s for s in batch if isinstance(s, Scenario)]
        rows, seen = state.seen.admit([s.event.event_id for s in scenarios], now_ns)
        new = [scenarios[row] for row in rows]
        return Outcome(self._hold(replace(state, seen=seen), new), emits)

    def load(self, data: bytes) -> SelectionState:
        """Raises StateUnreadable."""
        state = unpack(data, SelectionState)
        return replace(state, seen=replace(state.seen, limit=self.config.seen_ids))

    def _hold(self, state: SelectionState, new: Sequence[Scenario]) -> SelectionState:
        """With what offers a clip: all of it while there is room; then what has the highest priority (draw.py), in
        the order it came."""
        every = self.config.mode == CURATED
        new = [s for s in new if s.event.clip is not None and (every or s.event.kind is Trigger.SAMPLE)]
        room = self.config.candidates
        if len(state.held) + len(new) <= room:
            return replace(state, held=(*state.held, *new)) if new else state
        known = state.priorities
        if len(known) != len(state.held):
            known = self._priorities(state.held, state.window)
        fresh = self._priorities(new, state.window)
        # Below the threshold nothing can find room any more: most of a batch, once much has come.
        likely = np.flatnonzero(fresh >= state.threshold)
        held = (*state.held, *(new[i] for i in likely.tolist()))
        return self._cut(replace(state, held=held, priorities=np.concatenate([known, fresh[likely]])))

    def _cut(self, state: SelectionState) -> SelectionState:
        """Down to what there is room for."""
        kept = _highest(state.priorities, self.config.candidates, lambda i: state.held[i].event.event_id)
        lost = state.priorities[~kept].max(initial=0.0)
        return replace(
            state,
            held=tuple(compress(state.held, kept.tolist())),
            priorities=state.priorities[kept],
            threshold=max(state.threshold, float(lost)),
        )

    def _priorities(self, scenarios: Sequence[Scenario], window: int) -> Floats:
        return priorities(self._worth(scenarios), str(window), [s.event.event_id for s in scenarios])

    def _worth(self, scenarios: Sequence[Scenario]) -> Floats:
        """[B] what can be said before the window's other candidates are known."""
        return np.ones(len(scenarios)) if self.config.mode == RANDOM else self.config.weights.alone(scenarios)

    def _held_probability(self, scenario: Scenario | None, threshold: float) -> float:
        return 1.0 if scenario is None else min(1.0, float(self._worth([scenario])[0]) / threshold)

    def _choose(self, state: SelectionState, judged: Sequence[Scenario]) -> tuple[list[Lot], int]:
        """A window's clips, most valuable first, and among how many; in which order they came does not matter."""
        candidates = value_all(judged, self.config.weights, flat=self.config.mode == RANDOM)
        if not candidates:
            return [], 0
        spent = self._spent(state)
        sure, rest = self._take_sure(candidates, spent) if self.config.mode == CURATED else ([], candidates)
        lots = [Lot(c, 1.0, "chosen for its value") for c in sure] + self._draw(sure, rest, state.window, spent)
        return sorted(lots, key=lambda lot: (-lot.candidate.value, lot.candidate.name)), len(candidates)

    def _spent(self, state: SelectionState) -> Spent:
        """In the hour in which the open window began, before it."""
        hour = state.window * state.window_ns // HOUR_NS
        return state.spent if state.spent.hour == hour else Spent(hour)

    def _take_sure(self, candidates: list[Candidate], spent: Spent) -> tuple[list[Candidate], list[Candidate]]:
        """Down the list by value per byte, without near-duplicates and within their part of the caps, so that what
        is left, which is returned too, has a chance in every vehicle, environment and region."""
        wanted = round(self.config.clips * self.config.sure_share)
        tally = _Tally(self.config, candidates, spent, self.config.sure_share)
        sure: list[Candidate] = []
        rest: list[Candidate] = []
        for candidate in distinct(candidates, self.config.duplicate_share):
            if len(sure) < wanted and tally.room(candidate):
                tally.add(candidate)
                sure.append(candidate)
            else:
                rest.append(candidate)
        return sure, rest

    def _draw(self, sure: list[Candidate], rest: list[Candidate], window: int, spent: Spent) -> list[Lot]:
        """By lot from the rest. What is larger than the bytes that are left cannot be asked for: it has no part in
        the lot."""
        tally = _Tally(self.config, [*sure, *rest], spent)
        for candidate in sure:
            tally.add(candidate)
        fitting = [c for c in rest if tally.fits(c)]
        number = min(self.config.clips - len(sure), _surely_within(tally.bytes, fitting))
        return draw(fitting, number, str(window), tally.left(fitting))

    def _requests(self, lots: Sequence[Lot], of: int, state: SelectionState) -> Iterator[ClipRequest]:
        spent = self._spent(state)
        # By what was known of it then, not by what the pool has said since.
        as_held = {s.event.event_id: s for s in state.held} if state.threshold > 0 else {}
        for number, lot in enumerate(lots, 1):
            spent = spent.adding([lot]) if self.config.hourly else spent
            why = f"window {state.window}, {number} of {of} by value: "
            why += f"{lot.candidate.explained(self.config.weights)}; {lot.how}"
            if self._pool:
                why += f"; novelty: {lot.candidate.scenario.novelty.explanation[:600]}"
            held = self._held_probability(as_held.get(lot.candidate.name), state.threshold)
            yield self._request(lot, why + self._of_budgets(lot.candidate, spent), held, state)

    def _of_budgets(self, candidate: Candidate, spent: Spent) -> str:
        """What it leaves of the hour's bytes."""
        budgets = (
            ("its vehicle", spent.vehicles.get(candidate.vehicle, 0), self.config.vehicle_bytes),
            ("its region", spent.regions.get(candidate.region, 0), self.config.region_bytes),
            ("the fleet", spent.all(), self.config.hour_bytes),
        )
        told = [
            f"{used / 1e6:.2f} of {most / 1e6:g} MB of {whose}"
            for whose, used, most in budgets
            if most is not None
        ]
        return f"; this hour {', '.join(told)}" if told else ""

    def _request(self, lot: Lot, why: str, held: float, state: SelectionState) -> ClipRequest:
        event, candidate = lot.candidate.scenario.event, lot.candidate
        assert event.clip is not None
        ends_ns = (state.window + 1) * state.window_ns
        chance = min(1.0, lot.probability * held * event.collection_probability)
        return ClipRequest(
            clip_id=event.clip.clip_id,
            event_id=event.event_id,
            vehicle=event.vehicle,
            requested_ns=ends_ns,
            before_ns=ends_ns + self.config.upload_ns,
            region=event.region,
            cell=candidate.scenario.cell,
            kind=event.kind.value,
            cause=event.cause,
            priority=round(1000 * candidate.value),
            inclusion_probability=chance,
            reason=f"{why}; inclusion probability {chance:.4f}",
            event_ns=event.time_ns,
        )


class _Tally:
    """What is still free while one window is decided."""

    def __init__(
        self, config: SelectionConfig, candidates: Sequence[Candidate], spent: Spent, part: float = 1.0
    ) -> None:
        """`part`: of the caps and of the bytes of vehicles and regions."""
        self._config = config
        self._vehicles = dict.fromkeys((c.vehicle for c in candidates), max(1, int(config.per_vehicle * part)))
        environments = {c.environment for c in candidates}
        regions = {c.region for c in candidates}
        self._environments = dict.fromkeys(
            environments, _cap(config.clips, config.environment_share, len(environments), part)
        )
        self._regions = dict.fromkeys(regions, _cap(config.clips, config.region_share, len(regions), part))
        self.bytes = min(config.budget_bytes, _unspent(config.hour_bytes, spent.all()))
        each, region = config.vehicle_bytes, config.region_bytes
        self._vehicle_bytes = {v: int(part * _unspent(each, spent.vehicles.get(v, 0))) for v in self._vehicles}
        self._region_bytes = {r: int(part * _unspent(region, spent.regions.get(r, 0))) for r in regions}

    def fits(self, candidate: Candidate) -> bool:
        """Whether its bytes are left."""
        return (
            candidate.bytes <= self.bytes
            and candidate.bytes <= self._vehicle_bytes[candidate.vehicle]
            and candidate.bytes <= self._region_bytes[candidate.region]
        )

    def room(self, candidate: Candidate) -> bool:
        """Whether it fits, and no cap is reached."""
        return (
            self.fits(candidate)
            and self._vehicles[candidate.vehicle] > 0
            and self._environments[candidate.environment] > 0
            and self._regions[candidate.region] > 0
        )

    def add(self, candidate: Candidate) -> None:
        self.bytes -= candidate.bytes
        self._vehicles[candidate.vehicle] -= 1
        self._vehicle_bytes[candidate.vehicle] -= candidate.bytes
        self._environments[candidate.environment] -= 1
        self._regions[candidate.region] -= 1
        self._region_bytes[candidate.region] -= candidate.bytes

    def left(self, fitting: Sequence[Candidate]) -> Left | None:
        """Clips that may be drawn from these; None where nothing limits them but their number."""
        config = self._config
        vehicles, environments, regions = self._vehicles, self._environments, self._regions
        if config.mode == RANDOM:
            if config.vehicle_bytes is None and config.region_bytes is None:
                return None
            vehicles, environments, regions = (
                dict.fromkeys(d, len(fitting)) for d in (vehicles, environments, regions)
            )
        if config.vehicle_bytes is not None:
            most = _surely(fitting, attrgetter("vehicle"), self._vehicle_bytes)
            vehicles = vehicles | {v: min(n, vehicles[v]) for v, n in most.items()}
        unlimited = config.region_bytes is None
        surely = {} if unlimited else _surely(fitting, attrgetter("region"), self._region_bytes)
        return Left(vehicles, environments, regions, surely)


_NO_LIMIT = 1 << 62


def _unspent(budget: int | None, spent: int) -> int:
    return _NO_LIMIT if budget is None else max(budget - spent, 0)


def _surely(
    candidates: Sequence[Candidate], of: Callable[[Candidate], str], left: Mapping[str, int]
) -> dict[str, int]:
    """How many of each group's may be drawn, whichever they are."""
    groups: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        groups.setdefault(of(candidate), []).append(candidate)
    return {name: _surely_within(left[name], some) for name, some in groups.items()}


def _highest(priorities: Floats, room: int, name_of: Callable[[int], str]) -> NDArray[np.bool_]:
    """Which have the `room` highest priorities; of equal ones the first by name."""
    if len(priorities) <= room:
        return np.ones(len(priorities), bool)
    limit = np.partition(priorities, len(priorities) - room)[len(priorities) - room]
    kept = np.asarray(priorities > limit)
    level = sorted(np.flatnonzero(priorities == limit).tolist(), key=name_of)
    kept[level[: room - int(kept.sum())]] = True
    return kept


def _surely_within(budget_bytes: int, candidates: Sequence[Candidate]) -> int:
    """How many may be drawn so that the budget holds whatever is: as many of the largest fit in together."""
    sizes = accumulate(sorted((c.bytes for c in candidates), reverse=True))
    return sum(1 for size in sizes if size <= budget_bytes)


def _cap(clips: int, share: float, among: int, part: float) -> int:
    """Whole clips that one of them may take: its share, or an equal share where they are few; at least 1."""
    return max(1, int(part * round(clips * max(share, 1 / among))))
