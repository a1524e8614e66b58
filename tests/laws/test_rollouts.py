"""Rollouts: what is good arrives everywhere, what is bad is taken back, and halted is final."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from msgspec.structs import replace

from streams.arms import CANDIDATE, CONTROL, NEITHER, assigned, ran
from streams.contracts.clock import SECOND_NS
from streams.contracts.codec import Message, encode
from streams.contracts.drive import Exposure, Telemetry
from streams.contracts.jobs import Release
from streams.contracts.releases import Rollout, RolloutState
from streams.rollouts import Rollouts, RolloutsConfig, RolloutsState, Wave
from streams.state import pack
from tests.laws.stage_laws import check_deterministic, check_dump_and_load, check_replay, run, shuffled
from tests.samples import T0, event, finished, in_batches, release, telemetry

CONFIG = RolloutsConfig(
    waves=(Wave(0.2, 30.0, 30.0), Wave(0.5, 60.0, 60.0, 10 * SECOND_NS)),
    control_share=0.3,
    look_ns=SECOND_NS,
    silence_ns=60 * SECOND_NS,
    report_ns=50 * SECOND_NS,
    pause_limit_ns=600 * SECOND_NS,
)
FLEET = [f"car-{i}" for i in range(40)]


def done(version: int, **changes: Any) -> Message:
    """A job that passed with this release."""
    return finished(f"{version:064x}", release=release(version, **changes))


class Fleet:
    """Vehicles that obey the newest rollout and report every ten seconds; rates in events per km by model."""

    def __init__(self, config: RolloutsConfig = CONFIG, rates: dict[str, float] | None = None) -> None:
        self.stage = Rollouts(config)
        self.state: RolloutsState = self.stage.initial()
        self.now_ns, self.sequence = T0, 0
        self.rates = rates or {}
        self.newest: Rollout | None = None
        self.history: list[Rollout] = []
        self.dead: set[str] = set()
        self.owed: dict[str, float] = {}
        self.undo = False

    def send(self, *messages: Message, wait_s: float = 0.0) -> list[Rollout]:
        self.now_ns += int(wait_s * SECOND_NS)
        outcome = self.stage.step(self.state, messages, self.now_ns)
        self.state = outcome.state
        told = [e.message for e in outcome.emits if isinstance(e.message, Rollout)]
        self.history += told
        self.newest = told[-1] if told else self.newest
        return told

    def runs(self, vehicle: str) -> str:
        """The model that a vehicle has by the newest rollout."""
        if self.newest is None:
            return ""
        if self.newest.state is not RolloutState.HALTED and assigned(self.newest, vehicle) == CANDIDATE:
            return self.newest.release.model_version
        return self.newest.previous.model_version if self.newest.previous else ""

    def report(self, vehicle: str, km: float = 1.0, **changes: Any) -> Telemetry:
        model = self.runs(vehicle)
        self.owed[model] = self.owed.get(model, 0.0) + self.rates.get(model, 0.1) * km
        events = int(self.owed[model])
        self.owed[model] -= events
        self.sequence += 1
        fields = {
            "model_version": model,
            "time_ns": self.now_ns,
            "exposures": [Exposure("c", km * 1000, 60.0, 500.0, 5.0, {"lateral": events})],
            "hardware": "sim",
        }
        return telemetry(self.sequence, vehicle, **fields | changes)

    def drive(self, rounds: int, km: float = 1.0) -> list[Rollout]:
        told: list[Rollout] = []
        for _ in range(rounds):
            self.now_ns += 10 * SECOND_NS
            told += self.send(*self.reports(km))
        return told

    def reports(self, km: float = 1.0) -> Iterable[Telemetry]:
        for vehicle in FLEET:
            candidate = self.newest is not None and assigned(self.newest, vehicle) == CANDIDATE
            if vehicle in self.dead and candidate and self.newest and self.newest.release.version > 1:
                continue
            undone = {"update_state": "rolled_back"} if self.undo and candidate else {}
            yield self.report(vehicle, km, **undone)


def states(told: Iterable[Rollout]) -> list[str]:
    """States as they changed."""
    found: list[str] = []
    for r in told:
        name = f"{r.release.version}:{r.state.value}:{r.share:g}"
        if not found or found[-1] != name:
            found.append(name)
    return found


def started(rates: dict[str, float] | None = None, config: RolloutsConfig = CONFIG) -> Fleet:
    """A fleet with release 1 everywhere and the canary of release 2 begun."""
    fleet = Fleet(config, rates)
    fleet.send(done(1))
    fleet.drive(2)
    fleet.send(done(2))
    return fleet


def test_a_first_release_goes_to_all_at_once() -> None:
    fleet = Fleet()
    (told,) = fleet.send(done(1))
    assert (told.state, told.share, told.previous) == (RolloutState.COMPLETE, 1.0, None)
    assert told.cohort == "sim" and encode(told)


def test_or_in_waves_where_that_is_asked_for() -> None:
    fleet = Fleet(RolloutsConfig(waves=CONFIG.waves, control_share=0.3, first_at_once=False, look_ns=SECOND_NS))
    assert states(fleet.send(done(1))) == ["1:canary:0.2"]
    assert states(fleet.drive(40))[-1] == "1:complete:1"


def test_a_good_release_goes_through_its_waves() -> None:
    fleet = started()
    assert states(fleet.history) == ["1:complete:1", "2:canary:0.2"]
    told = fleet.drive(60)
    assert states(told) == ["2:canary:0.2", "2:wave:0.5", "2:complete:1"] or states(told) == [
        "2:wave:0.5",
        "2:complete:1",
    ]
    last = told[-1]
    assert last.candidate.km >= 90 and last.control.km >= 90 and last.evidence < 5
    assert last.candidate.vehicles > 0 and last.candidate.hours > 0
    assert fleet.state.cohorts["sim"].champion == release(2)


def test_the_lot_hangs_on_what_is_released_not_on_the_bytes_of_its_bundle() -> None:
    """A bundle holds measured figures, so its hash is another one in each run; who is a canary must not be."""
    ids = []
    for sha256 in ("1" * 64, "2" * 64):
        fleet = Fleet()
        (told,) = fleet.send(finished("a" * 64, release=replace(release(1), sha256=sha256)))
        ids.append(told.rollout_id)
    assert ids[0] == ids[1]
    others = [
        Fleet().send(done(2))[0],
        Fleet().send(done(1, model="m9"))[0],
        Fleet().send(done(1, hardware="x"))[0],
    ]
    assert len({*ids, *(o.rollout_id for o in others)}) == 4


@pytest.mark.parametrize("size", [2, 3, 8])
def test_a_small_fleet_has_both_arms_in_every_rollout(size: int) -> None:
    """Eight vehicles and halves: one lot in 128 leaves an arm empty, and such a rollout would never end."""
    config = RolloutsConfig(waves=(Wave(0.5, 1.0, 1.0),), control_share=0.5, look_ns=SECOND_NS)
    fleet = Fleet(config)
    fleet.send(done(1))
    for version in range(2, 12):
        fleet.send(*(fleet.report(f"v{i}") for i in range(size)))
        (begun,) = fleet.send(done(version))
        arms = {assigned(begun, f"v{i}") for i in range(size)}
        assert arms == {CANDIDATE, CONTROL}, f"release {version}"
        for _ in range(6):
            fleet.now_ns += 10 * SECOND_NS
            fleet.send(*(fleet.report(f"v{i}") for i in range(size)))
        assert fleet.history[-1].state is RolloutState.COMPLETE


def test_no_wave_is_left_before_it_has_driven_enough() -> None:
    fleet = started()
    for told in fleet.drive(60, km=0.5):
        if told.state is RolloutState.WAVE:
            assert told.candidate.km >= 30 and told.control.km >= 30
            break
    else:
        pytest.fail("the first wave never came")


def test_a_harmful_release_is_halted_and_taken_back() -> None:
    fleet = started({"m1": 0.1, "m2": 1.5})
    told = fleet.drive(60)
    halted = next(r for r in told if r.state is RolloutState.HALTED)
    assert halted.share == 0.0 and halted.evidence >= 100 and halted.previous == release(1)
    assert "e-value" in halted.reason and "km" in halted.reason
    assert told[-1] is halted
    assert {fleet.runs(v) for v in FLEET} == {"m1"}
    assert fleet.state.cohorts["sim"].champion == release(1)


def test_doubt_pauses_and_its_end_goes_on() -> None:
    fleet = started({"m1": 0.1, "m2": 0.1})
    fleet.drive(1)
    candidate = next(v for v in FLEET if fleet.runs(v) == "m2")
    bad = fleet.report(candidate, exposures=[Exposure("c", 1000.0, 60.0, disengagements={"lateral": 9})])
    (paused,) = [r for r in fleet.send(bad, *fleet.reports(), wait_s=10) if r.state is RolloutState.PAUSED]
    assert paused.share == 0.2 and "e-value" in paused.reason
    told = fleet.drive(80)
    assert states(told)[-1] == "2:complete:1"


def test_a_doubt_that_does_not_end_halts() -> None:
    config = RolloutsConfig(**_fields(CONFIG) | {"pause_evidence": 1.0, "alpha": 1e-9})
    fleet = started({"m1": 0.1, "m2": 0.25}, config)
    told = fleet.drive(100)
    assert told[-1].state is RolloutState.HALTED and "held for too long" in told[-1].reason


def test_silence_of_the_candidates_is_a_failure() -> None:
    fleet = started()
    fleet.dead = set(FLEET)
    told = fleet.drive(30)
    halted = told[-1]
    assert halted.state is RolloutState.HALTED and "members failed" in halted.reason
    assert halted.candidate.failures >= 3 and halted.candidate.silent >= 3 and halted.control.failures == 0


def test_one_silent_vehicle_counts_once_as_an_event() -> None:
    fleet = started()
    fleet.dead = {next(v for v in FLEET if fleet.runs(v) == "m2")}
    told = fleet.drive(12)
    assert told[-1].candidate.failures == 1 and told[-1].state is not RolloutState.HALTED


def test_vehicles_that_were_gone_before_are_not_blamed_on_the_release() -> None:
    fleet = Fleet()
    fleet.send(done(1))
    fleet.drive(2)
    fleet.dead = set(FLEET)
    retired = [telemetry(900 + i, f"old-{i}", time_ns=fleet.now_ns, hardware="sim") for i in range(20)]
    fleet.send(*retired)
    fleet.dead = set()
    fleet.drive(10)
    fleet.send(done(2))
    told = fleet.drive(60)
    assert told[-1].state is RolloutState.COMPLETE and told[-1].candidate.failures == 0


def test_updates_that_vehicles_undo_are_failures() -> None:
    fleet = started()
    fleet.undo = True
    told = fleet.drive(5)
    assert told[-1].state is RolloutState.HALTED and told[-1].candidate.failures >= 3


def test_an_update_undone_before_is_not_counted_again() -> None:
    fleet = Fleet()
    fleet.send(done(1))
    fleet.drive(2)
    fleet.send(*(fleet.report(v, update_state="rolled_back") for v in FLEET), wait_s=1)
    fleet.send(done(2), wait_s=1)
    fleet.send(*(fleet.report(v, update_state="rolled_back") for v in FLEET), wait_s=1)
    fleet.drive(1)
    assert fleet.state.cohorts["sim"].active is not None
    assert fleet.state.cohorts["sim"].active.candidate.failures == 0
    undone = fleet.send(*(fleet.report(v, update_state="rolled_back") for v in FLEET), wait_s=1)
    assert undone[-1].state is RolloutState.HALTED


def test_when_nobody_is_heard_of_nothing_goes_on() -> None:
    fleet = started()
    fleet.drive(1)
    told = fleet.send(wait_s=100)
    assert told[-1].state is RolloutState.PAUSED and "no vehicle" in told[-1].reason
    assert fleet.state.cohorts["sim"].active is not None
    assert fleet.state.cohorts["sim"].active.candidate.failures == 0
    assert states(fleet.drive(60))[-1] == "2:complete:1"


def test_a_release_waits_while_another_is_on_its_way_and_the_newest_wins() -> None:
    fleet = started()
    assert fleet.send(done(3)) == [] == fleet.send(done(4))
    told = fleet.drive(140)
    assert states(told)[-1] == "4:complete:1" and not any(r.release.version == 3 for r in told)
    assert next(r for r in told if r.release.version == 4).previous == release(2)


def test_a_release_that_waits_follows_a_halted_one() -> None:
    fleet = started({"m1": 0.1, "m2": 1.5, "m3": 0.1})
    fleet.send(done(3))
    told = fleet.drive(140)
    assert states(told)[-1] == "3:complete:1"
    assert next(r for r in told if r.release.version == 3).previous == release(1)


@pytest.mark.parametrize("verdict", ["fail", "error"])
def test_only_what_passed_is_released(verdict: str) -> None:
    fleet = Fleet()
    assert fleet.send(finished("a" * 64, verdict, release=release(1)), finished("b" * 64)) == []


def test_cohorts_do_not_mix() -> None:
    fleet = started({"m1": 0.1, "m2": 0.1})
    fleet.send(done(5, hardware="other"))
    fleet.send(done(6, hardware="other"), wait_s=1)
    bad = [
        telemetry(700 + i, f"cab-{i}", model_version="m6", hardware="other", time_ns=fleet.now_ns)
        for i in range(9)
    ]
    fleet.send(*bad, wait_s=1)
    assert fleet.state.cohorts["sim"].roster.heard_ns.keys().isdisjoint(t.vehicle for t in bad)
    fleet.send(telemetry(990, "anyone", time_ns=fleet.now_ns))
    assert all("anyone" in c.roster.heard_ns for c in fleet.state.cohorts.values())


def test_the_roster_is_bounded() -> None:
    fleet = Fleet(RolloutsConfig(**_fields(CONFIG) | {"max_vehicles": 5}))
    fleet.send(done(1))
    fleet.drive(3)
    assert len(fleet.state.cohorts["sim"].roster.heard_ns) == 5


def test_a_clock_that_is_ahead_silences_nobody() -> None:
    fleet = started()
    ahead = fleet.report("car-0", time_ns=fleet.now_ns + 240 * SECOND_NS)
    fleet.send(ahead, *fleet.reports(), wait_s=1)
    assert fleet.state.cohorts["sim"].roster.newest_ns <= fleet.now_ns


def test_a_report_counts_for_the_model_that_drove() -> None:
    rollout = started().newest
    assert rollout is not None and rollout.previous is not None
    control = next(v for v in FLEET if assigned(rollout, v) == CONTROL)
    neither = next(v for v in FLEET if assigned(rollout, v) == NEITHER)
    candidate = next(v for v in FLEET if assigned(rollout, v) == CANDIDATE)
    assert ran(rollout, telemetry(1, control, model_version="m2")) == CANDIDATE
    assert ran(rollout, telemetry(1, control, model_version="m1")) == CONTROL
    assert ran(rollout, telemetry(1, neither, model_version="m1")) == NEITHER
    assert ran(rollout, telemetry(1, candidate, model_version="m1")) == NEITHER


def test_reports_from_before_the_rollout_do_not_count() -> None:
    fleet = started()
    old = [fleet.report(v, time_ns=T0) for v in FLEET]
    fleet.send(*old, wait_s=1)
    active = fleet.state.cohorts["sim"].active
    assert active is not None and active.candidate.km == 0 and active.control.km == 0


def test_unchanged_states_are_told_now_and_then() -> None:
    fleet = started()
    told = fleet.drive(11, km=0.01)
    assert [r.state for r in told] == [RolloutState.CANARY, RolloutState.CANARY]


@pytest.mark.parametrize(
    ("waves", "control", "match"),
    [
        ((), 0.1, "waves"),
        ((Wave(0.0, 1.0),), 0.1, "positive"),
        ((Wave(0.5, 1.0), Wave(0.2, 1.0)), 0.1, "grow"),
        ((Wave(0.9, 1.0),), 0.2, "exceed 1"),
    ],
)
def test_waves_that_cannot_be_are_refused(waves: tuple[Wave, ...], control: float, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        RolloutsConfig(waves=waves, control_share=control)


def script(seed: list[int]) -> list[Message]:
    """A release history and reports of a small fleet."""
    made: list[Message] = [done(1), done(2)]
    for i, n in enumerate(seed):
        changes = {"model_version": f"m{1 + n % 2}", "time_ns": T0 + i * SECOND_NS, "hardware": "sim"}
        made.append(telemetry(i, f"car-{n % 7}", **changes))
    return [*made, event()]


@settings(max_examples=30)
@given(st.lists(st.integers(0, 50), max_size=30), st.lists(st.integers(0, 6), min_size=1, max_size=4))
def test_laws(seed: list[int], sizes: list[int]) -> None:
    quiet = RolloutsConfig(report_ns=10**18, silence_ns=10**18, look_ns=10**18, control_share=0.3)
    batches = in_batches(script(seed), sizes)
    check_deterministic(Rollouts(CONFIG), Rollouts(CONFIG), batches, T0)
    check_dump_and_load(Rollouts(CONFIG), batches, T0)
    check_replay(Rollouts(quiet), batches, T0)


@settings(max_examples=30)
@given(st.lists(st.integers(0, 50), max_size=30), st.integers())
def test_order_of_reports_does_not_matter(seed: list[int], salt: int) -> None:
    first = run(Rollouts(CONFIG), [script(seed), []], T0, 100 * SECOND_NS)
    second = run(Rollouts(CONFIG), [shuffled(script(seed), salt), []], T0, 100 * SECOND_NS)
    assert first[1] == second[1]


class RolloutMachine(RuleBasedStateMachine):
    """Whatever happens: halted never advances, shares only grow within a rollout, versions only grow."""

    def __init__(self) -> None:
        super().__init__()
        self.fleet = Fleet()
        self.version = 0

    @rule(bad=st.booleans())
    def release(self, bad: bool) -> None:
        self.version += 1
        self.fleet.rates[f"m{self.version}"] = 2.0 if bad else 0.1
        self.fleet.send(done(self.version))

    @rule(version=st.integers(1, 5))
    def replay(self, version: int) -> None:
        if version <= self.version:
            before = pack(self.fleet.state)
            self.fleet.send(done(version))
            if version < self.version:
                assert pack(self.fleet.state) == before

    @rule(rounds=st.integers(1, 8), km=st.sampled_from([0.1, 1.0, 5.0]))
    def drive(self, rounds: int, km: float) -> None:
        self.fleet.drive(rounds, km)

    @rule(seconds=st.sampled_from([1, 70, 700]))
    def wait(self, seconds: int) -> None:
        self.fleet.send(wait_s=seconds)

    @rule(number=st.integers(0, 39))
    def die(self, number: int) -> None:
        self.fleet.dead.add(f"car-{number}")

    @rule()
    def revive(self) -> None:
        self.fleet.dead.clear()

    @rule(undo=st.booleans())
    def undo(self, undo: bool) -> None:
        self.fleet.undo = undo

    @rule()
    def restart(self) -> None:
        stage = self.fleet.stage
        self.fleet.state = stage.load(pack(self.fleet.state))

    @invariant()
    def history_is_lawful(self) -> None:
        over: dict[str, RolloutState] = {}
        shares: dict[str, float] = {}
        champion: Release | None = None
        newest = 0
        for r in self.fleet.history:
            assert r.rollout_id not in over, "an ended rollout moved"
            assert r.release.version >= newest
            assert r.previous == champion
            newest = r.release.version
            if r.state is RolloutState.HALTED:
                assert r.share == 0.0
            else:
                assert r.share >= shares.get(r.rollout_id, 0.0)
                assert r.state is RolloutState.COMPLETE or r.share + r.control_share <= 1
            shares[r.rollout_id] = r.share
            if r.state in (RolloutState.HALTED, RolloutState.COMPLETE):
                over[r.rollout_id] = r.state
            champion = r.release if r.state is RolloutState.COMPLETE else champion


TestRolloutMachine = RolloutMachine.TestCase
TestRolloutMachine.settings = settings(max_examples=20, stateful_step_count=20)


def test_a_few_failures_in_a_large_fleet_do_not_halt_by_themselves() -> None:
    fleet = started(config=RolloutsConfig(**_fields(CONFIG) | {"failure_share": 0.9}))
    fleet.dead = set([v for v in FLEET if fleet.runs(v) == "m2"][:4])
    told = fleet.drive(9, km=0.5)
    active = fleet.state.cohorts["sim"].active
    assert active is not None and active.candidate.failures >= 3
    assert not any(r.state is RolloutState.HALTED for r in told)


def _fields(config: RolloutsConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in config.__dataclass_fields__}
