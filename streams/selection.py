"""Selection: which clips are worth their bytes. Candidates gather over a window; at its end the best are asked.

A part of the budget goes to the most valuable clips per byte, surely (inclusion probability 1). The rest is drawn
by systematic sampling with probability proportional to value (Madow 1949), started by the hash of the window, so
that each clip's inclusion probability is known and fleet statistics can be weighted back (Horvitz and Thompson
1952).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import msgspec

from streams.contracts.clips import ClipRequest
from streams.contracts.clock import SECOND_NS
from streams.contracts.codec import Message
from streams.contracts.drive import Trigger
from streams.contracts.scenarios import Scenario
from streams.dedup import Seen
from streams.draw import Left, Lot, draw, priority
from streams.stage import Emit, Outcome
from streams.state import pack, unpack
from streams.value import Candidate, Weights, distinct, value_all

RANDOM, CURATED = "random", "curated"


@dataclass(frozen=True, slots=True)
class SelectionConfig:
    """Budgets hold per window. Shares are of the window's clips."""

    mode: str = CURATED
    """ "random": a uniform sample of driving, from the vehicles' own `sample` events alone (a benchmark's arm)."""
    window_ns: int = 600 * SECOND_NS
    clips: int = 100
    budget_bytes: int = 1 << 30
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

    def __post_init__(self) -> None:
        if self.mode not in (RANDOM, CURATED):
            raise ValueError(f"mode {self.mode!r} is neither {CURATED!r} nor {RANDOM!r}")


class SelectionState(msgspec.Struct, frozen=True):
    """Candidates of the open window, and the largest priority that found no room in it."""

    seen: Seen
    window: int = -1
    """Number of the open window: its start over its length; -1 before the first."""
    held: tuple[Scenario, ...] = ()
    threshold: float = 0.0


class Selection:
    """fleet.scenarios -> fleet.clip-requests: one request for each clip that is chosen when a window ends."""

    name = "selection"

    def __init__(self, config: SelectionConfig | None = None) -> None:
        self.config = config or SelectionConfig()

    def initial(self) -> SelectionState:
        """No window is open."""
        return SelectionState(Seen(24 * 3600 * SECOND_NS, self.config.seen_ids))

    def step(self, state: SelectionState, batch: Sequence[Message], now_ns: int) -> Outcome[SelectionState]:
        """Close the window that `now_ns` has left, then add the batch to the one it is in."""
        window = now_ns // self.config.window_ns
        emits: tuple[Emit, ...] = ()
        if window > state.window:
            emits = tuple(Emit("fleet.clip-requests", r) for r in self._choose(state))
            state = SelectionState(state.seen, window)
        new = {s.event.event_id: s for s in batch if isinstance(s, Scenario)}
        new = {name: s for name, s in new.items() if name not in state.seen}
        held, threshold = self._hold(state, [s for s in new.values() if self._offered(s)])
        seen = state.seen.remember(dict.fromkeys(new, 0), now_ns)
        return Outcome(SelectionState(seen, state.window, held, threshold), emits)

    def dump(self, state: SelectionState) -> bytes:
        """MessagePack."""
        return pack(state)

    def load(self, data: bytes) -> SelectionState:
        """Raises StateUnreadable."""
        return unpack(data, SelectionState)

    def _offered(self, scenario: Scenario) -> bool:
        sampled = scenario.event.kind is Trigger.SAMPLE
        return scenario.event.clip is not None and (sampled or self.config.mode == CURATED)

    def _hold(self, state: SelectionState, new: list[Scenario]) -> tuple[tuple[Scenario, ...], float]:
        """All of them while there is room; then those of highest priority (Duffield, Lund and Thorup 2007)."""
        held = (*state.held, *new)
        if len(held) <= self.config.candidates:
            return held, state.threshold
        ranked = sorted(held, key=lambda s: (-self._priority(s, state.window), s.event.event_id))
        lost = self._priority(ranked[self.config.candidates], state.window)
        return tuple(ranked[: self.config.candidates]), max(state.threshold, lost)

    def _priority(self, scenario: Scenario, window: int) -> float:
        return priority(self._worth(scenario), str(window), scenario.event.event_id)

    def _worth(self, scenario: Scenario) -> float:
        """What can be said before the window's other candidates are known."""
        return 1.0 if self.config.mode == RANDOM else self.config.weights.alone(scenario)

    def _held_probability(self, scenario: Scenario, threshold: float) -> float:
        return 1.0 if threshold <= 0 else min(1.0, self._worth(scenario) / threshold)

    def _choose(self, state: SelectionState) -> list[ClipRequest]:
        """The requests of a window, most valuable first; the order in which candidates came does not matter."""
        candidates = value_all(state.held, self.config.weights, flat=self.config.mode == RANDOM)
        if not candidates:
            return []
        sure, rest = self._take_sure(candidates) if self.config.mode == CURATED else ([], candidates)
        lots = [Lot(c, 1.0, "chosen for its value") for c in sure] + self._draw(sure, rest, state.window)
        lots = sorted(lots, key=lambda lot: (-lot.candidate.value, lot.candidate.name))
        return [self._request(lot, number, len(candidates), state) for number, lot in enumerate(lots, 1)]

    def _take_sure(self, candidates: list[Candidate]) -> tuple[list[Candidate], list[Candidate]]:
        """Down the list by value per byte, without near-duplicates and within their part of the caps, so that what
        is left, which is returned too, has a chance in every vehicle, environment and region."""
        wanted = round(self.config.clips * self.config.sure_share)
        tally = _Tally(self.config, candidates, self.config.sure_share)
        sure: list[Candidate] = []
        rest: list[Candidate] = []
        for candidate in distinct(candidates, self.config.duplicate_share):
            if len(sure) < wanted and tally.room(candidate):
                tally.add(candidate)
                sure.append(candidate)
            else:
                rest.append(candidate)
        return sure, rest

    def _draw(self, sure: list[Candidate], rest: list[Candidate], window: int) -> list[Lot]:
        """By lot from the rest. What is larger than the bytes that are left cannot be asked for: it has no part in
        the lot."""
        left_bytes = self.config.budget_bytes - sum(c.bytes for c in sure)
        fitting = [c for c in rest if c.bytes <= left_bytes]
        if not fitting:
            return []
        number = min(self.config.clips - len(sure), _surely_within(left_bytes, fitting))
        if self.config.mode == RANDOM:
            return draw(fitting, number, str(window))
        tally = _Tally(self.config, [*sure, *rest])
        for candidate in sure:
            tally.add(candidate)
        return draw(fitting, number, str(window), tally.left)

    def _request(self, lot: Lot, number: int, of: int, state: SelectionState) -> ClipRequest:
        event, candidate = lot.candidate.scenario.event, lot.candidate
        assert event.clip is not None
        ends_ns = (state.window + 1) * self.config.window_ns
        held = self._held_probability(candidate.scenario, state.threshold)
        chance = min(1.0, lot.probability * held * event.collection_probability)
        reason = f"window {state.window}, {number} of {of} by value: {candidate.explanation}; {lot.how}"
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
            reason=f"{reason}; inclusion probability {chance:.4f}",
            event_ns=event.time_ns,
        )


class _Tally:
    """What is still free while one window is decided."""

    def __init__(self, config: SelectionConfig, candidates: list[Candidate], part: float = 1.0) -> None:
        environments = {c.environment for c in candidates}
        regions = {c.region for c in candidates}
        self._bytes_left = config.budget_bytes
        self.left = Left(
            dict.fromkeys((c.vehicle for c in candidates), max(1, int(config.per_vehicle * part))),
            dict.fromkeys(environments, _cap(config.clips, config.environment_share, len(environments), part)),
            dict.fromkeys(regions, _cap(config.clips, config.region_share, len(regions), part)),
        )

    def room(self, candidate: Candidate) -> bool:
        return (
            candidate.bytes <= self._bytes_left
            and self.left.vehicles[candidate.vehicle] > 0
            and self.left.environments[candidate.environment] > 0
            and self.left.regions[candidate.region] > 0
        )

    def add(self, candidate: Candidate) -> None:
        self._bytes_left -= candidate.bytes
        self.left.vehicles[candidate.vehicle] -= 1
        self.left.environments[candidate.environment] -= 1
        self.left.regions[candidate.region] -= 1


def _surely_within(budget_bytes: int, candidates: Sequence[Candidate]) -> int:
    """How many may be drawn so that the budget holds whatever is: as many of the largest fit in together."""
    sizes = accumulate(sorted((c.bytes for c in candidates), reverse=True))
    return sum(1 for size in sizes if size <= budget_bytes)


def _cap(clips: int, share: float, among: int, part: float) -> int:
    """Whole clips that one of them may take: its share, or an equal share where they are few; at least 1."""
    return max(1, int(part * round(clips * max(share, 1 / among))))
