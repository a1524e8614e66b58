"""The two arms of a rollout: what they drove, who belongs to them, and who fell silent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from msgspec.structs import replace

from streams import evidence
from streams.contracts.drive import Telemetry
from streams.contracts.ids import bucket
from streams.contracts.releases import Arm, Rollout

CANDIDATE, CONTROL, NEITHER = 0, 1, 2
ROLLED_BACK = "rolled_back"


def assigned(rollout: Rollout, vehicle: str) -> int:
    """The arm that the lot gives a vehicle: what the vehicle itself computes."""
    place = bucket(rollout.rollout_id, vehicle)
    if place < rollout.share:
        return CANDIDATE
    return CONTROL if place >= 1 - rollout.control_share else NEITHER


def ran(rollout: Rollout, report: Telemetry) -> int:
    """The arm that a report's driving belongs to: by the model that really drove. The control is the randomised
    one, so a vehicle that waits for its update counts for nobody."""
    if report.model_version == rollout.release.model_version:
        return CANDIDATE
    before = rollout.previous.model_version if rollout.previous else ""
    control = assigned(rollout, report.vehicle) == CONTROL
    return CONTROL if control and report.model_version == before else NEITHER


class Tally(msgspec.Struct, frozen=True):
    """What both arms did, in all and since the last look."""

    began_ns: int = 0
    looked_ns: int = 0
    candidate: Arm = Arm()
    control: Arm = Arm()
    looked_candidate: Arm = Arm()
    """As they stood at the last look."""
    looked_control: Arm = Arm()
    evidence: tuple[float, ...] = evidence.NONE
    failed: frozenset[str] = frozenset()
    """Vehicles that have been counted as failures: each counts once."""
    drove: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset())
    """Vehicles that drove as candidates, and as controls."""
    excused: frozenset[str] = frozenset()
    """Vehicles that still tell of an update they undid before this rollout."""

    def look(self, now_ns: int, every_ns: int, margin: float) -> Tally:
        """Let what came since the last look enter the test. When to look hangs on time and on exposure alone,
        never on the counts, which keeps the test valid."""
        if now_ns - self.looked_ns < every_ns:
            return self
        first = _since(self.candidate, self.looked_candidate)
        second = _since(self.control, self.looked_control)
        if first[1] <= 0 or second[1] <= 0:
            return self
        return replace(
            self,
            looked_ns=now_ns,
            looked_candidate=self.candidate,
            looked_control=self.control,
            evidence=evidence.update(self.evidence, first, second, margin),
        )

    def fail(self, arm: int, vehicles: Iterable[str]) -> Tally:
        """Count vehicles as failures of an arm, each once in a rollout."""
        new = frozenset(vehicles) - self.failed
        if not new or arm == NEITHER:
            return self
        name = "candidate" if arm == CANDIDATE else "control"
        before: Arm = getattr(self, name)
        changed = {name: replace(before, failures=before.failures + len(new))}
        return replace(self, failed=self.failed | new, **changed)


def count(tally: Tally, rollout: Rollout, reports: Sequence[Telemetry]) -> Tally:
    """Add what was driven since the rollout began; sums, so the order of the reports does not matter."""
    arms, drove = [tally.candidate, tally.control], list(tally.drove)
    for report in (r for r in reports if r.time_ns >= tally.began_ns):
        arm = ran(rollout, report)
        if arm != NEITHER:
            drove[arm] = drove[arm] if report.vehicle in drove[arm] else drove[arm] | {report.vehicle}
            arms[arm] = replace(_driven(arms[arm], report), vehicles=len(drove[arm]))
    excused, undone = set(tally.excused), set[str]()
    for report in sorted(reports, key=lambda r: (r.time_ns, r.event_id)):
        if report.update_state != ROLLED_BACK:
            excused.discard(report.vehicle)
        elif report.vehicle not in excused and report.time_ns >= tally.began_ns:
            undone.add(report.vehicle)
    candidate, control = arms
    tally = replace(
        tally, candidate=candidate, control=control, drove=(drove[0], drove[1]), excused=frozenset(excused)
    )
    return tally.fail(CANDIDATE, (v for v in undone if assigned(rollout, v) == CANDIDATE))


def _driven(arm: Arm, report: Telemetry) -> Arm:
    """Engaged driving: the policy answers for nothing else."""
    return replace(
        arm,
        km=arm.km + sum(e.engaged_m for e in report.exposures) / 1000,
        hours=arm.hours + sum(e.engaged_s for e in report.exposures) / 3600,
        disengagements=arm.disengagements + sum(sum(e.disengagements.values()) for e in report.exposures),
    )


def _since(arm: Arm, before: Arm) -> tuple[float, float]:
    """Events and km."""
    events = arm.disengagements + arm.failures - before.disengagements - before.failures
    return float(events), max(arm.km - before.km, 0.0)


class Roster(msgspec.Struct, frozen=True):
    """When each vehicle of a cohort was last heard of."""

    heard_ns: dict[str, int] = {}
    newest_ns: int = 0
    """Time of the newest report: silence is measured against it, so that an outage of ours silences nobody."""
    since_ns: int = 0
    """Patience counts from here where a vehicle was heard of before."""
    undone: frozenset[str] = frozenset()
    """Vehicles whose last report told of an update they undid."""

    def hear(self, reports: Sequence[Telemetry], now_ns: int, bound: int) -> Roster:
        """Take reports in; a clock that is ahead counts as now."""
        if not reports:
            return self
        heard, undone, newest = dict(self.heard_ns), set(self.undone), self.newest_ns
        for report in sorted(reports, key=lambda r: (r.time_ns, r.event_id)):
            time_ns = min(report.time_ns, now_ns)
            newest = max(newest, time_ns)
            if report.vehicle not in heard and len(heard) >= bound:
                continue
            heard[report.vehicle] = max(heard.get(report.vehicle, 0), time_ns)
            (undone.add if report.update_state == ROLLED_BACK else undone.discard)(report.vehicle)
        return replace(self, heard_ns=heard, newest_ns=newest, undone=frozenset(undone))

    def since(self, now_ns: int, silence_ns: int, keep: frozenset[str] = frozenset()) -> Roster:
        """Patience starts anew, as new members have got something to install. Who is gone already is forgotten:
        the release is not to blame. `keep` stays: those were counted while it ran."""
        gone = set(self._gone(silence_ns)) - keep
        heard = {v: heard_ns for v, heard_ns in self.heard_ns.items() if v not in gone}
        return replace(self, heard_ns=heard, since_ns=now_ns, undone=self.undone - gone)

    def members(self, rollout: Rollout) -> tuple[int, int]:
        """Vehicles that are assigned to the candidate and to the control."""
        arms = [assigned(rollout, v) for v in self.heard_ns]
        return arms.count(CANDIDATE), arms.count(CONTROL)

    def silent(self, rollout: Rollout, silence_ns: int) -> tuple[list[str], list[str]]:
        """Silent vehicles of the candidate and of the control, by the lot: one that never came up again ran
        nothing that could tell its arm."""
        gone = [(assigned(rollout, v), v) for v in self._gone(silence_ns)]
        return [v for arm, v in gone if arm == CANDIDATE], [v for arm, v in gone if arm == CONTROL]

    def _gone(self, silence_ns: int) -> list[str]:
        limit = self.newest_ns - silence_ns
        return [v for v, heard in self.heard_ns.items() if max(heard, self.since_ns) <= limit]
