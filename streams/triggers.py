"""Triggers: when the fleet has seen enough to learn from. Pure; one job in flight; every start is paid for.

A cell is ripe when enough new clips of enough vehicles lie in it, no vehicle counting for more than its share.
Once the clips stop coming for a while, a job starts from all ripe cells and from those past a lower mark
(hysteresis), if the cool-down is over and the GPU-hour budget allows. A halted rollout may draw on the budget's
reserve and skips the waiting.

What a passed job has learned from is kept until its rollout is complete, and given back where it is halted: the
clips wait again, as tried. They are no new evidence, or the same clips would at once make what was halted; but the
next job takes them along.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec
from msgspec.structs import replace

from streams.contracts.clips import ArchivedClip
from streams.contracts.clock import SECOND_NS
from streams.contracts.codec import Message
from streams.contracts.ids import digest, job_fingerprint
from streams.contracts.jobs import Evidence, JobFinished, JobRequested, JobStarted
from streams.contracts.releases import Rollout, RolloutState
from streams.dedup import Seen
from streams.stage import Emit, Outcome
from streams.state import unpack

HOUR_NS = 3600 * SECOND_NS


@dataclass(frozen=True, slots=True)
class TriggersConfig:
    """Marks, waits and the budget."""

    base_model: str = "base"
    """The model that the first job starts from; later ones start from the last that passed."""
    recipe: str = "fine-tune"
    code: str = ""
    """Version of the code that learns: part of the fingerprint."""
    kind: str = "fine-tune"
    """The job's key in the job catalog."""
    start_clips: int = 50
    """Counted new clips that make a cell ripe."""
    start_vehicles: int = 3
    join_clips: int = 10
    """Counted new clips with which another cell joins a job that starts."""
    per_vehicle: int = 25
    """Clips of one vehicle and cell that count and that enter one job: nobody dominates."""
    debounce_ns: int = 60 * SECOND_NS
    """Quiet time before a start, so that what belongs together comes together."""
    patience_ns: int = 1800 * SECOND_NS
    """A ripe cell waits no longer for quiet."""
    cooldown_ns: int = 600 * SECOND_NS
    """From the end of a job to the next start; twice as long after each that did not pass, at most 64 times."""
    job_gpu_hours: float = 1.0
    budget_gpu_hours: float = 24.0
    reserve_gpu_hours: float = 4.0
    """Part of the budget that only halted rollouts may use."""
    budget_ns: int = 24 * HOUR_NS
    """The budget holds for any span of this length."""
    job_timeout_ns: int = 24 * HOUR_NS
    """A job that is silent for so long counts as failed."""
    pending_clips: int = 50_000
    """Bound on clips that wait; the oldest are let go."""
    job_clips: int = 12_000
    """Bound on one job: its message must fit into a record."""


class Waiting(msgspec.Struct, frozen=True):
    """An archived clip that no passed job has learned from."""

    cell: str
    vehicle: str
    sha256: str
    came_ns: int
    tried: bool = False
    """A job that did not pass has used it: it is no new evidence, but the next job takes it along."""


class Learned(msgspec.Struct, frozen=True):
    """What a passed job has learned from, until its model or a later one is everywhere."""

    model_version: str
    clips: dict[str, Waiting]


class InFlight(msgspec.Struct, frozen=True):
    """The job that was asked for and has not finished."""

    fingerprint: str
    heard_ns: int
    base_model: str = ""
    clips: tuple[str, ...] = ()


class Spent(msgspec.Struct, frozen=True):
    """GPU-hours taken from the budget."""

    fingerprint: str
    time_ns: int
    gpu_hours: float


class TriggersState(msgspec.Struct, frozen=True):
    """Evidence by clip id, the job in flight, and what bounds the next one."""

    base_model: str
    seen: Seen
    """Clips (by id and by hash), jobs and rollouts that were taken into account."""
    waiting: dict[str, Waiting] = {}
    learned: tuple[Learned, ...] = ()
    """Oldest first; each model was taught from the one before."""
    in_flight: InFlight | None = None
    rest_until_ns: int = 0
    failures: int = 0
    """Jobs in a row that did not pass."""
    spent: tuple[Spent, ...] = ()
    urgent: str = ""
    """Why a job is needed at once."""


class Triggers:
    """fleet.archive + learning.jobs + fleet.releases -> learning.jobs."""

    name = "triggers"

    def __init__(self, config: TriggersConfig | None = None) -> None:
        self.config = config or TriggersConfig()

    def initial(self) -> TriggersState:
        """No evidence."""
        return TriggersState(self.config.base_model, Seen(365 * 24 * HOUR_NS, 400_000))

    def step(self, state: TriggersState, batch: Sequence[Message], now_ns: int) -> Outcome[TriggersState]:
        """Take the batch in, whatever its order, then decide once."""
        for job in (m for m in batch if isinstance(m, JobRequested | JobStarted)):
            state = self._running(state, job, now_ns)
        for end in (m for m in batch if isinstance(m, JobFinished)):
            state = self._finished(state, end, now_ns)
        for rollout in (m for m in batch if isinstance(m, Rollout)):
            state = self._rolled_out(state, rollout, now_ns)
        state = self._gather(state, [m for m in batch if isinstance(m, ArchivedClip)], now_ns)
        state = self._time_passes(state, now_ns)
        request = self._decide(state, now_ns)
        if request is None:
            return Outcome(state)
        return Outcome(self._start(state, request, now_ns), (Emit("learning.jobs", request),))

    def load(self, data: bytes) -> TriggersState:
        """Raises StateUnreadable."""
        return unpack(data, TriggersState)

    def _rolled_out(self, state: TriggersState, rollout: Rollout, now_ns: int) -> TriggersState:
        """A rollout is over: what its model knows is learned for good, or not at all."""
        name = f"rollout/{rollout.rollout_id}"
        if rollout.state not in (RolloutState.COMPLETE, RolloutState.HALTED) or name in state.seen:
            return state
        state = replace(state, seen=state.seen.remember({name: 0}, now_ns))
        if rollout.state is RolloutState.HALTED:
            return self._halted(state, rollout)
        models = [job.model_version for job in state.learned]
        model = rollout.release.model_version
        return replace(state, learned=state.learned[models.index(model) + 1 :]) if model in models else state

    def _halted(self, state: TriggersState, rollout: Rollout) -> TriggersState:
        """The champion is again what the rollout went back to; learn from what is there, at once. What the newest
        model knew is unlearned; what an older one knew, the newer ones that were taught from it still know."""
        base, model = state.base_model, rollout.release.model_version
        if base == model:
            base = rollout.previous.model_version if rollout.previous else self.config.base_model
        urgent = f"rollout {rollout.rollout_id} was halted: {rollout.reason}"
        state = replace(state, base_model=base, urgent=urgent)
        if not state.learned or state.learned[-1].model_version != model:
            return state
        back = {n: replace(w, tried=True) for job in state.learned for n, w in job.clips.items()}
        return replace(state, waiting=state.waiting | back, learned=())

    def _running(self, state: TriggersState, job: JobRequested | JobStarted, now_ns: int) -> TriggersState:
        """A job is under way: ours, or one that a person asked for."""
        if f"job/{job.fingerprint}" in state.seen:
            return state
        if state.in_flight is None and isinstance(job, JobRequested):
            state = self._charge(state, job.fingerprint, job.gpu_hours, now_ns)
            job_now = InFlight(job.fingerprint, now_ns, job.base_model, tuple(job.clips))
            return replace(state, in_flight=job_now)
        if state.in_flight is not None and state.in_flight.fingerprint == job.fingerprint:
            return replace(state, in_flight=replace(state.in_flight, heard_ns=now_ns))
        return state

    def _finished(self, state: TriggersState, end: JobFinished, now_ns: int) -> TriggersState:
        """What a passed job has learned is no evidence any more; what another has tried waits for company."""
        name = f"job/{end.fingerprint}"
        if name in state.seen:
            return state
        state = replace(state, seen=state.seen.remember({name: 0}, now_ns))
        if end.gpu_hours:
            state = self._charge(state, end.fingerprint, end.gpu_hours, now_ns)
        passed = end.verdict == "pass"
        if passed and end.model_version:
            state = replace(state, base_model=end.model_version)
        if state.in_flight is None or state.in_flight.fingerprint != end.fingerprint:
            return state
        return self._land(state, passed, now_ns, end.model_version)

    def _land(self, state: TriggersState, passed: bool, now_ns: int, model: str = "") -> TriggersState:
        """The job in flight is over."""
        assert state.in_flight is not None
        used = set(state.in_flight.clips)
        failures = 0 if passed else state.failures + 1
        if passed:
            taken = Learned(model, {n: w for n, w in state.waiting.items() if n in used})
            state = replace(state, learned=_newest((*state.learned, taken), self.config.pending_clips))
            waiting = {n: w for n, w in state.waiting.items() if n not in used}
        else:
            waiting = {n: replace(w, tried=w.tried or n in used) for n, w in state.waiting.items()}
        rest_ns = self.config.cooldown_ns * 2 ** min(failures, 6)
        return replace(state, waiting=waiting, in_flight=None, failures=failures, rest_until_ns=now_ns + rest_ns)

    def _gather(self, state: TriggersState, clips: Sequence[ArchivedClip], now_ns: int) -> TriggersState:
        """New clips, each id and each content once; beyond the bound the oldest go."""
        waiting, new = dict(state.waiting), dict[str, int]()
        for clip in sorted(clips, key=lambda c: (c.time_ns, c.clip_id)):
            names = (f"clip/{clip.clip_id}", f"sha256/{clip.sha256}")
            if not any(n in new or n in state.seen for n in names):
                waiting[clip.clip_id] = Waiting(clip.cell, clip.vehicle, clip.sha256, now_ns)
            new |= dict.fromkeys(names, 0)
        for name in _oldest(waiting, len(waiting) - self.config.pending_clips):
            del waiting[name]
        return replace(state, waiting=waiting, seen=state.seen.remember(new, now_ns))

    def _time_passes(self, state: TriggersState, now_ns: int) -> TriggersState:
        spent = tuple(s for s in state.spent if now_ns - s.time_ns < self.config.budget_ns)
        state = replace(state, spent=spent)
        job = state.in_flight
        if job is not None and now_ns - job.heard_ns >= self.config.job_timeout_ns:
            seen = state.seen.remember({f"job/{job.fingerprint}": 0}, now_ns)
            return self._land(replace(state, seen=seen), False, now_ns)
        return state

    def _decide(self, state: TriggersState, now_ns: int) -> JobRequested | None:
        """The job to ask for now, if any."""
        if state.in_flight is not None or not state.waiting:
            return None
        cells = self._evidence(state)
        ripe = [c for c, e in cells.items() if self._ripe(e)]
        urgent = bool(state.urgent) and any(e.clips for e in cells.values())
        if not urgent and not (ripe and self._settled(state, ripe, now_ns) and now_ns >= state.rest_until_ns):
            return None
        if not self._affordable(state, urgent):
            return None
        joining = [c for c, e in cells.items() if c in ripe or urgent or e.clips >= self.config.join_clips]
        return self._request(state, sorted(joining), cells, now_ns)

    def _evidence(self, state: TriggersState) -> dict[str, Evidence]:
        """Counted new clips and their vehicles, by cell."""
        counts: dict[str, dict[str, int]] = {}
        for clip in state.waiting.values():
            if not clip.tried:
                vehicles = counts.setdefault(clip.cell, {})
                vehicles[clip.vehicle] = vehicles.get(clip.vehicle, 0) + 1
        cap = self.config.per_vehicle
        return {c: Evidence(sum(min(n, cap) for n in v.values()), len(v)) for c, v in sorted(counts.items())}

    def _ripe(self, evidence: Evidence) -> bool:
        return evidence.clips >= self.config.start_clips and evidence.vehicles >= self.config.start_vehicles

    def _settled(self, state: TriggersState, ripe: list[str], now_ns: int) -> bool:
        """No new clip for a while in the ripe cells, or their first has waited long enough."""
        came = [w.came_ns for w in state.waiting.values() if w.cell in ripe and not w.tried]
        quiet = now_ns - max(came) >= self.config.debounce_ns
        return quiet or now_ns - min(came) >= self.config.patience_ns

    def _affordable(self, state: TriggersState, urgent: bool) -> bool:
        limit = self.config.budget_gpu_hours - (0.0 if urgent else self.config.reserve_gpu_hours)
        return sum(s.gpu_hours for s in state.spent) + self.config.job_gpu_hours <= limit

    def _request(
        self, state: TriggersState, cells: list[str], evidence: dict[str, Evidence], now_ns: int
    ) -> JobRequested | None:
        """None where this very job was run before: the same clips on the same model teach nothing new."""
        clips = self._clips_of(state, cells)
        hashes = [state.waiting[c].sha256 for c in clips]
        fingerprint = job_fingerprint(hashes, state.base_model, self.config.recipe, self.config.code)
        if f"job/{fingerprint}" in state.seen:
            return None
        told = ", ".join(f"{c}: {evidence[c].clips} clips of {evidence[c].vehicles} vehicles" for c in cells)
        return JobRequested(
            fingerprint=fingerprint,
            kind=self.config.kind,
            time_ns=now_ns,
            base_model=state.base_model,
            recipe=self.config.recipe,
            clips=clips,
            evidence={c: evidence[c] for c in cells},
            reason=f"{state.urgent}{'; ' if state.urgent else ''}{told}"[:2000],
            gpu_hours=self.config.job_gpu_hours,
        )

    def _clips_of(self, state: TriggersState, cells: Iterable[str]) -> list[str]:
        """Clips of the cells, at most so many of a vehicle and cell, picked by hash; sorted."""
        chosen = set(cells)
        taken: dict[tuple[str, str], int] = {}
        clips: list[str] = []
        for name in sorted(state.waiting, key=lambda n: digest("pick", n)):
            clip = state.waiting[name]
            number = taken.get((clip.cell, clip.vehicle), 0)
            if clip.cell in chosen and number < self.config.per_vehicle:
                taken[clip.cell, clip.vehicle] = number + 1
                clips.append(name)
        return sorted(clips[: self.config.job_clips])

    def _start(self, state: TriggersState, request: JobRequested, now_ns: int) -> TriggersState:
        state = self._charge(state, request.fingerprint, request.gpu_hours, now_ns)
        job = InFlight(request.fingerprint, now_ns, request.base_model, tuple(request.clips))
        return replace(state, in_flight=job, urgent="")

    def _charge(self, state: TriggersState, fingerprint: str, gpu_hours: float, now_ns: int) -> TriggersState:
        """Book a job once: what it took replaces what was set aside for it."""
        booked = next((s.time_ns for s in state.spent if s.fingerprint == fingerprint), now_ns)
        others = tuple(s for s in state.spent if s.fingerprint != fingerprint)
        return replace(state, spent=(*others, Spent(fingerprint, booked, gpu_hours)))


def _oldest(waiting: dict[str, Waiting], number: int) -> list[str]:
    return sorted(waiting, key=lambda n: (waiting[n].came_ns, n))[:number] if number > 0 else []


def _newest(learned: tuple[Learned, ...], clips: int) -> tuple[Learned, ...]:
    """Without the oldest, so that they hold at most so many clips."""
    while sum(len(job.clips) for job in learned) > clips:
        learned = learned[1:]
    return learned
