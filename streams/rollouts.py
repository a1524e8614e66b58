"""Rollouts: who gets a release when, and when it is taken back. Pure; a vehicle decides its membership itself.

A release goes to a canary share of its cohort and then, wave by wave, to more, while a randomised control keeps
what was before. What both arms drive is compared by an always-valid test on disengagements per km. A vehicle that
falls silent, or undoes the update, counts as an event of its arm: silence is not safety. Halted is final.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from msgspec.structs import replace

from streams.arms import CANDIDATE, CONTROL, Roster, Tally, count
from streams.contracts.clock import SECOND_NS
from streams.contracts.codec import Message
from streams.contracts.drive import Telemetry
from streams.contracts.ids import digest
from streams.contracts.jobs import JobFinished, Release
from streams.contracts.releases import Rollout, RolloutState
from streams.dedup import Seen
from streams.evidence import e_value
from streams.stage import Emit, Outcome
from streams.state import unpack

HOUR_NS = 3600 * SECOND_NS
MAX_DRAWS = 100
"""Lots that are drawn for a rollout at most; a cohort that nobody was heard of keeps the last."""


@dataclass(frozen=True, slots=True)
class Wave:
    """A share of the cohort, and what it must have driven with the release since the wave began."""

    share: float
    candidate_km: float
    control_km: float = 0.0
    min_ns: int = 0


WAVES: tuple[Wave, ...] = (
    #    share  candidate km  control km  at least
    Wave(0.05, 100.0, 100.0, HOUR_NS),
    Wave(0.20, 400.0, 200.0, 4 * HOUR_NS),
    Wave(0.50, 1000.0, 400.0, 12 * HOUR_NS),
)
"""After the last one the release is complete."""


@dataclass(frozen=True, slots=True)
class RolloutsConfig:
    """The waves, and what ends them."""

    waves: tuple[Wave, ...] = WAVES
    control_share: float = 0.2
    alpha: float = 0.01
    """Chance of halting a release that is no worse, over all looks together."""
    pause_evidence: float = 5.0
    """e-value at which a rollout holds; it goes on below half of it."""
    margin: float = 1.0
    """Rate ratio up to which a release counts as no worse."""
    look_ns: int = 60 * SECOND_NS
    """Stretch of exposure that enters the test at once."""
    silence_ns: int = 900 * SECOND_NS
    """A member not heard of for so long, while others are, counts as a failure."""
    failure_share: float = 0.25
    """Of the members, beyond the control's share: so many failures halt even where nothing is driven."""
    min_failures: int = 3
    pause_limit_ns: int = 24 * HOUR_NS
    """A rollout that is held for so long is halted."""
    report_ns: int = 60 * SECOND_NS
    """At most so often the figures of an unchanged state are told."""
    first_at_once: bool = True
    """The first release of a cohort has nothing to be compared with: it goes to all."""
    max_vehicles: int = 200_000
    """Vehicles of a cohort that are watched for silence."""

    def __post_init__(self) -> None:
        shares = [w.share for w in self.waves]
        if not shares or shares != sorted(shares) or shares[0] <= 0:
            raise ValueError(f"shares of waves must be positive and grow: {shares}")
        if shares[-1] + self.control_share > 1:
            raise ValueError(f"the last wave's {shares[-1]} and the control's {self.control_share} exceed 1")


class Cohort(msgspec.Struct, frozen=True):
    """Vehicles of one hardware id."""

    champion: Release | None = None
    """The newest release that is complete."""
    active: Rollout | None = None
    wave: int = 0
    wave_began_ns: int = 0
    wave_candidate_km: float = 0.0
    """Driven when the wave began."""
    wave_control_km: float = 0.0
    paused_ns: int = 0
    told_ns: int = 0
    queued: Release | None = None
    highest: int = 0
    """Highest release counter that was taken: an older one is a replay."""
    roster: Roster = Roster()
    tally: Tally = Tally()


class RolloutsState(msgspec.Struct, frozen=True):
    """Cohorts by hardware id."""

    seen: Seen
    cohorts: dict[str, Cohort] = {}


class Rollouts:
    """learning.jobs (what passed, with a release) + fleet.telemetry -> fleet.releases."""

    name = "rollouts"

    def __init__(self, config: RolloutsConfig | None = None) -> None:
        self.config = config or RolloutsConfig()

    def initial(self) -> RolloutsState:
        """No release."""
        return RolloutsState(Seen(24 * HOUR_NS, 400_000))

    def step(self, state: RolloutsState, batch: Sequence[Message], now_ns: int) -> Outcome[RolloutsState]:
        """Releases, then telemetry, then one decision for each cohort."""
        cohorts = dict(state.cohorts)
        for end in (m for m in batch if isinstance(m, JobFinished)):
            if end.verdict == "pass" and end.release is not None:
                cohort = cohorts.get(end.release.hardware, Cohort())
                cohorts[end.release.hardware] = _enqueue(cohort, end.release)
        reports = {t.event_id: t for t in batch if isinstance(t, Telemetry) and t.event_id not in state.seen}
        emits: list[Emit] = []
        for name, cohort in sorted(cohorts.items()):
            mine = [t for t in reports.values() if t.hardware in ("", name)]
            cohorts[name], told = self._advance(name, self._count(cohort, mine, now_ns), now_ns)
            emits += [Emit("fleet.releases", rollout) for rollout in told]
        seen = state.seen.remember(dict.fromkeys(reports, 0), now_ns)
        return Outcome(RolloutsState(seen, cohorts), tuple(emits))

    def load(self, data: bytes) -> RolloutsState:
        """Raises StateUnreadable."""
        return unpack(data, RolloutsState)

    def _count(self, cohort: Cohort, reports: Sequence[Telemetry], now_ns: int) -> Cohort:
        roster = cohort.roster.hear(reports, now_ns, self.config.max_vehicles)
        if cohort.active is None:
            return replace(cohort, roster=roster)
        tally = count(cohort.tally, cohort.active, reports)
        silent = roster.silent(cohort.active, self.config.silence_ns)
        for arm, vehicles in enumerate(silent):
            tally = tally.fail(arm, vehicles)
        tally = tally.look(now_ns, self.config.look_ns, self.config.margin)
        active = replace(
            cohort.active,
            candidate=replace(tally.candidate, silent=len(silent[CANDIDATE])),
            control=replace(tally.control, silent=len(silent[CONTROL])),
            evidence=e_value(tally.evidence),
        )
        return replace(cohort, roster=roster, tally=tally, active=active)

    def _advance(self, name: str, cohort: Cohort, now_ns: int) -> tuple[Cohort, list[Rollout]]:
        """Decide until nothing changes; what is to be told, in order."""
        told: list[Rollout] = []
        while True:
            changed = self._decide(name, cohort, now_ns)
            if changed is None:
                break
            cohort, rollout = changed
            told.append(rollout)
        if told:
            return replace(cohort, told_ns=now_ns), told
        if cohort.active is not None and now_ns - cohort.told_ns >= self.config.report_ns:
            rollout = replace(cohort.active, time_ns=now_ns)
            return replace(cohort, active=rollout, told_ns=now_ns), [rollout]
        return cohort, []

    def _decide(self, name: str, cohort: Cohort, now_ns: int) -> tuple[Cohort, Rollout] | None:
        """The next change of a cohort, if one is due."""
        if cohort.active is None:
            return None if cohort.queued is None else self._begin(name, cohort, cohort.queued, now_ns)
        harm = self._harm(cohort, now_ns)
        if harm:
            return self._end(cohort, RolloutState.HALTED, harm, now_ns)
        doubt = self._doubt(cohort, now_ns)
        if cohort.active.state is RolloutState.PAUSED:
            return None if doubt else self._go_on(cohort, now_ns)
        if doubt:
            paused = replace(cohort.active, state=RolloutState.PAUSED, reason=doubt, time_ns=now_ns)
            return replace(cohort, active=paused, paused_ns=now_ns), paused
        return self._next_wave(cohort, now_ns) if self._driven(cohort, now_ns) else None

    def _begin(self, name: str, cohort: Cohort, release: Release, now_ns: int) -> tuple[Cohort, Rollout]:
        """The canary; or everyone, where there is nothing to compare with."""
        rollout = self._lot(name, cohort, release, now_ns)
        begun = Cohort(
            champion=cohort.champion,
            active=rollout,
            wave_began_ns=now_ns,
            highest=cohort.highest,
            roster=cohort.roster.since(now_ns, self.config.silence_ns),
            tally=Tally(began_ns=now_ns, looked_ns=now_ns, excused=cohort.roster.undone),
        )
        if cohort.champion is None and self.config.first_at_once:
            return self._end(begun, RolloutState.COMPLETE, "the first release of the cohort", now_ns)
        return begun, rollout

    def _lot(self, name: str, cohort: Cohort, release: Release, now_ns: int) -> Rollout:
        """Who is a canary and who is the control. The rollout's id salts the lot; no hash of the bundle, which
        covers measured figures, enters it. Drawn anew while an arm has nobody: a small cohort would never end."""
        first = self.config.waves[0].share
        for attempt in range(MAX_DRAWS):
            of = digest("rollout", name, str(release.version), release.model_version, str(attempt))
            rollout = Rollout(
                rollout_id=f"r{release.version}-{of[:12]}",
                cohort=name,
                time_ns=now_ns,
                state=RolloutState.CANARY,
                release=release,
                previous=cohort.champion,
                share=first,
                control_share=self.config.control_share,
                evidence=1.0,
                reason=f"canary: {first:.0%} of the cohort",
            )
            canaries, control = cohort.roster.members(rollout)
            if canaries and (control or not self.config.control_share):
                break
        return rollout

    def _harm(self, cohort: Cohort, now_ns: int) -> str:
        """Why the rollout must end; "" where there is no reason."""
        active = cohort.active
        assert active is not None
        if active.evidence >= 1 / self.config.alpha:
            return f"{_figures(active)}: e-value {active.evidence:.1f} reached {1 / self.config.alpha:g}"
        failed = active.candidate.failures
        if failed >= self.config.min_failures:
            members, others = cohort.roster.members(active)
            usual = active.control.failures / max(others, 1)
            if failed / max(members, 1) - usual >= self.config.failure_share:
                return f"{failed} of {members} members failed, against {usual:.1%} of the control"
        paused = active.state is RolloutState.PAUSED
        if paused and now_ns - cohort.paused_ns >= self.config.pause_limit_ns:
            return f"held for too long: {active.reason}"
        return ""

    def _doubt(self, cohort: Cohort, now_ns: int) -> str:
        """Why the rollout must not go on for now."""
        active = cohort.active
        assert active is not None
        paused = active.state is RolloutState.PAUSED
        limit = self.config.pause_evidence / (2 if paused else 1)
        if active.evidence >= limit:
            return f"{_figures(active)}: e-value {active.evidence:.1f} is at or above {limit:g}"
        if now_ns - max(cohort.roster.newest_ns, cohort.tally.began_ns) >= self.config.silence_ns:
            return "no vehicle of the cohort is heard of"
        return ""

    def _driven(self, cohort: Cohort, now_ns: int) -> bool:
        """Whether the wave has shown what it must."""
        wave, active = self.config.waves[cohort.wave], cohort.active
        assert active is not None
        control_km = wave.control_km if active.previous is not None else 0.0
        return (
            now_ns - cohort.wave_began_ns >= wave.min_ns
            and active.candidate.km - cohort.wave_candidate_km >= wave.candidate_km
            and active.control.km - cohort.wave_control_km >= control_km
        )

    def _next_wave(self, cohort: Cohort, now_ns: int) -> tuple[Cohort, Rollout]:
        active, number = cohort.active, cohort.wave + 1
        assert active is not None
        if number == len(self.config.waves):
            return self._end(cohort, RolloutState.COMPLETE, f"no worse: {_figures(active)}", now_ns)
        share = self.config.waves[number].share
        reason = f"wave {number}: {share:.0%} of the cohort; {_figures(active)}"
        rollout = replace(active, state=RolloutState.WAVE, share=share, reason=reason, time_ns=now_ns)
        cohort = replace(
            cohort,
            active=rollout,
            wave=number,
            wave_began_ns=now_ns,
            wave_candidate_km=active.candidate.km,
            wave_control_km=active.control.km,
            roster=cohort.roster.since(now_ns, self.config.silence_ns, cohort.tally.failed),
        )
        return cohort, rollout

    def _go_on(self, cohort: Cohort, now_ns: int) -> tuple[Cohort, Rollout]:
        assert cohort.active is not None
        state = RolloutState.WAVE if cohort.wave else RolloutState.CANARY
        reason = f"goes on: {_figures(cohort.active)}"
        rollout = replace(cohort.active, state=state, reason=reason, time_ns=now_ns)
        return replace(cohort, active=rollout, paused_ns=0), rollout

    def _end(self, cohort: Cohort, state: RolloutState, reason: str, now_ns: int) -> tuple[Cohort, Rollout]:
        """Complete: all install it, and it is what the next is compared with. Halted: all go back."""
        active = cohort.active
        assert active is not None
        complete = state is RolloutState.COMPLETE
        share, control = (1.0, 0.0) if complete else (0.0, active.control_share)
        rollout = replace(active, state=state, share=share, control_share=control, reason=reason, time_ns=now_ns)
        ended = Cohort(
            champion=active.release if complete else cohort.champion,
            queued=cohort.queued,
            highest=cohort.highest,
            roster=cohort.roster,
        )
        return ended, rollout


def _enqueue(cohort: Cohort, release: Release) -> Cohort:
    """The newest release waits; an older one, or the same again, is passed over."""
    if release.version <= cohort.highest:
        return cohort
    return replace(cohort, queued=release, highest=release.version)


def _figures(rollout: Rollout) -> str:
    a, b = rollout.candidate, rollout.control
    first, second = (f"{x.disengagements} + {x.failures} failures in {x.km:.1f} km" for x in (a, b))
    return f"{first}, control {second}"
