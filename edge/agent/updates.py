"""What a vehicle does about releases: a state machine, pure. Effects are updater.py's.

idle -> downloading -> staged -> probation -> committed, or -> rolled_back. Two slots; the one that boots is never
written to. A release's counter only grows: nothing below the highest one that ever booted comes in from outside,
whatever a message says; going back means the other slot, whose bytes proved themselves here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from streams.contracts.clock import SECOND_NS
from streams.contracts.ids import bucket
from streams.contracts.jobs import Release
from streams.contracts.releases import Rollout, RolloutState

Slot = Literal["a", "b"]
SLOTS: tuple[Slot, Slot] = ("a", "b")


class Phase(StrEnum):
    """Where an update stands; committed and rolled_back are idle with a memory."""

    IDLE = "idle"
    DOWNLOADING = "downloading"
    STAGED = "staged"
    PROBATION = "probation"
    COMMITTED = "committed"
    ROLLED_BACK = "rolled_back"


class Installed(Struct, frozen=True):
    """What a slot holds: a release whose signatures and hashes were checked."""

    version: int
    model_version: str
    files: dict[str, str]
    """Member -> sha256."""
    proven: bool = False
    """It passed a probation on this vehicle."""


class State(Struct, frozen=True):
    """All that must survive a restart."""

    phase: Phase = Phase.IDLE
    active: Slot | None = None
    """The slot that boots; None: no model, the driver drives."""
    a: Installed | None = None
    b: Installed | None = None
    wanted: Release | None = None
    highest: int = 0
    """Highest release counter that ever booted."""
    refused: tuple[int, ...] = ()
    """Releases that were signed and yet unfit, or failed their probation here."""
    boots: int = 0
    since_ns: int = -1
    """First frame since the boot; -1 before it."""
    healthy: int = 0
    unhealthy: int = 0
    problem: str = ""
    """Why the last step did not succeed; for a person."""
    retry_ns: int = 0
    """No download before then."""

    def slot(self, name: Slot | None) -> Installed | None:
        """What a slot holds."""
        return {"a": self.a, "b": self.b, None: None}[name]

    @property
    def spare(self) -> Slot:
        """The slot that may be written."""
        return "b" if self.active == "a" else "a"


@dataclass(frozen=True, slots=True)
class Policy:
    """When an update may happen, and when it has proven itself."""

    min_charge: float = 0.3
    max_temperature_c: float = 70.0
    healthy_frames: int = 50
    """A plan on so many frames commits."""
    unhealthy_frames: int = 5
    """No plan on so many frames rolls back."""
    window_s: float = 120.0
    """Driving time within which a boot must commit; else it rolls back."""
    max_boots: int = 3
    """Boots on probation before it rolls back."""
    retry_s: float = 300.0


@dataclass(frozen=True, slots=True)
class Conditions:
    """How the vehicle stands."""

    parked: bool
    charge: float = 1.0
    """Share of the battery."""
    temperature_c: float = 25.0
    """Of the computer."""


class Do(StrEnum):
    """What to do next."""

    NOTHING = "nothing"
    DOWNLOAD = "download"
    SWITCH = "switch"
    COMMIT = "commit"
    ROLL_BACK = "roll_back"
    RETURN = "return"
    """To the proven release in the other slot, because the fleet goes back."""
    DISCARD = "discard"


def wanted(rollout: Rollout, vehicle: str, current: Release | None) -> Release | None:
    """The release a vehicle of the rollout's cohort should run; `current` is what it was told before."""
    match rollout.state:
        case RolloutState.HALTED:
            return rollout.previous
        case RolloutState.COMPLETE:
            return rollout.release
        case RolloutState.PAUSED:
            return current
    place = bucket(rollout.rollout_id, vehicle)
    if place < rollout.share and place < 1 - rollout.control_share:
        return rollout.release
    return rollout.previous if rollout.previous else current


def unmet(conditions: Conditions, policy: Policy) -> list[str]:
    """What stands against a switch now; empty: go ahead."""
    reasons = []
    if not conditions.parked:
        reasons.append("not parked")
    if conditions.charge < policy.min_charge:
        reasons.append(f"charge {conditions.charge:.0%} below {policy.min_charge:.0%}")
    if conditions.temperature_c > policy.max_temperature_c:
        reasons.append(f"computer at {conditions.temperature_c:.0f} C above {policy.max_temperature_c:.0f} C")
    return reasons


def next_step(state: State, conditions: Conditions, policy: Policy, now_ns: int) -> tuple[Do, str]:
    """The next step and its reason. Probation is judged first, then what the fleet wants."""
    if state.phase is Phase.PROBATION:
        verdict = _judge(state, policy, now_ns)
        if verdict[0] is not Do.NOTHING:
            return verdict
    want, spare = state.wanted, state.slot(state.spare)
    if want is None or _version(state.slot(state.active)) == want.version:
        return (Do.DISCARD, "no longer wanted") if state.phase is Phase.STAGED else (Do.NOTHING, "up to date")
    if state.phase is Phase.STAGED and spare is not None and spare.version == want.version:
        reasons = unmet(conditions, policy)
        return (Do.NOTHING, ", ".join(reasons)) if reasons else (Do.SWITCH, f"release {want.version}")
    if state.phase is Phase.STAGED:
        return Do.DISCARD, "another release is wanted"
    if spare is not None and spare.proven and spare.version == want.version:
        reasons = unmet(conditions, policy)
        return (Do.NOTHING, ", ".join(reasons)) if reasons else (Do.RETURN, "the fleet goes back")
    return _may_download(state, want, now_ns)


def _judge(state: State, policy: Policy, now_ns: int) -> tuple[Do, str]:
    if state.unhealthy >= policy.unhealthy_frames:
        return Do.ROLL_BACK, f"no plan on {state.unhealthy} frames"
    if state.boots > policy.max_boots:
        return Do.ROLL_BACK, f"not healthy after {policy.max_boots} boots"
    if state.healthy >= policy.healthy_frames:
        return Do.COMMIT, f"{state.healthy} healthy frames"
    if state.since_ns >= 0 and now_ns - state.since_ns > policy.window_s * SECOND_NS:
        return Do.ROLL_BACK, f"{state.healthy} healthy frames in {policy.window_s:g} s"
    return Do.NOTHING, ""


def _may_download(state: State, want: Release, now_ns: int) -> tuple[Do, str]:
    if state.phase is Phase.PROBATION:
        return Do.NOTHING, "on probation"
    if want.version in state.refused:
        return Do.NOTHING, f"release {want.version} was refused here"
    if want.version < state.highest:
        return Do.NOTHING, f"release {want.version} is below {state.highest}"
    if now_ns < state.retry_ns:
        return Do.NOTHING, state.problem
    return Do.DOWNLOAD, f"release {want.version}"


# What happened -> the state after it


def offered(state: State, want: Release | None) -> State:
    """The fleet says what to run; with a new release the last one's outcome is history."""
    if want == state.wanted:
        return state
    resting = state.phase in (Phase.COMMITTED, Phase.ROLLED_BACK)
    return replace(state, wanted=want, phase=Phase.IDLE if resting else state.phase, retry_ns=0)


def downloading(state: State) -> State:
    """The spare slot is about to be overwritten."""
    return _with_slot(replace(state, phase=Phase.DOWNLOADING, problem=""), state.spare, None)


def staged(state: State, installed: Installed) -> State:
    """The spare slot holds verified bytes."""
    return _with_slot(replace(state, phase=Phase.STAGED), state.spare, installed)


def failed(state: State, problem: str, policy: Policy, now_ns: int) -> State:
    """The download did not work out, which says nothing about the release: try again later."""
    retry_ns = now_ns + int(policy.retry_s * SECOND_NS)
    return replace(state, phase=Phase.IDLE, problem=problem, retry_ns=retry_ns)


def refused(state: State, version: int, problem: str) -> State:
    """The release is signed and yet unfit for this vehicle: never again."""
    known = tuple(sorted({*state.refused, version}))
    return replace(state, phase=Phase.IDLE, problem=problem, refused=known)


def discarded(state: State) -> State:
    """What was staged is not to be booted."""
    return _with_slot(replace(state, phase=Phase.IDLE), state.spare, None)


def switched(state: State) -> State:
    """The spare slot is the one that boots now; on probation."""
    version = _version(state.slot(state.spare)) or 0
    return replace(
        state, phase=Phase.PROBATION, active=state.spare, highest=max(state.highest, version), boots=0,
        since_ns=-1, healthy=0, unhealthy=0,
    )  # fmt: skip


def booted(state: State) -> State:
    """The active slot was loaded."""
    if state.phase is not Phase.PROBATION:
        return state
    return replace(state, boots=state.boots + 1, since_ns=-1, healthy=0, unhealthy=0)


def observed(state: State, now_ns: int, healthy: bool) -> State:
    """A frame was driven with (or without) a plan; counts on probation only."""
    if state.phase is not Phase.PROBATION:
        return state
    since_ns = now_ns if state.since_ns < 0 else state.since_ns
    return replace(
        state, since_ns=since_ns, healthy=state.healthy + healthy, unhealthy=state.unhealthy + (not healthy)
    )


def committed(state: State) -> State:
    """The probation is passed."""
    installed = state.slot(state.active)
    assert state.active is not None and installed is not None
    return _with_slot(replace(state, phase=Phase.COMMITTED), state.active, replace(installed, proven=True))


def rolled_back(state: State, reason: str) -> State:
    """The release failed its probation: never again. The other slot boots if it is proven, else none."""
    left, other = state.slot(state.active), state.slot(state.spare)
    bad = {left.version} if left else set()
    to = state.spare if other and other.proven else None
    known = tuple(sorted({*state.refused, *bad}))
    return replace(state, phase=Phase.ROLLED_BACK, active=to, refused=known, problem=reason)


def lost(state: State, reason: str) -> State:
    """The active slot is damaged, which is not the release's fault. The other one boots if it is proven."""
    other = state.slot(state.spare)
    to = state.spare if other and other.proven else None
    after = replace(state, phase=Phase.ROLLED_BACK, active=to, problem=reason)
    return _with_slot(after, state.active, None) if state.active else after


def returned(state: State) -> State:
    """The other, proven slot boots again."""
    return replace(state, phase=Phase.COMMITTED, active=state.spare)


def _version(installed: Installed | None) -> int | None:
    return installed.version if installed else None


def _with_slot(state: State, slot: Slot, installed: Installed | None) -> State:
    return replace(state, a=installed) if slot == "a" else replace(state, b=installed)
