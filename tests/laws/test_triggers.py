"""Triggers: one job at a time, each paid for, none for the same evidence twice, none that one vehicle makes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from streams.contracts.clips import ArchivedClip
from streams.contracts.clock import SECOND_NS
from streams.contracts.codec import MAX_RECORD_BYTES, Message, encode
from streams.contracts.ids import job_fingerprint, sha256_hex
from streams.contracts.jobs import JobFinished, JobRequested, JobStarted
from streams.contracts.releases import Rollout, RolloutState
from streams.state import pack
from streams.triggers import HOUR_NS, Triggers, TriggersConfig, TriggersState
from tests.laws.stage_laws import check_deterministic, check_dump_and_load, check_replay, shuffled
from tests.samples import T0, archived, finished, in_batches, release, rollout, telemetry

CONFIG = TriggersConfig(
    base_model="m1",
    start_clips=6,
    start_vehicles=3,
    join_clips=2,
    per_vehicle=4,
    debounce_ns=10 * SECOND_NS,
    patience_ns=60 * SECOND_NS,
    cooldown_ns=100 * SECOND_NS,
    budget_gpu_hours=5.0,
    reserve_gpu_hours=2.0,
)
LEFT, FOG = "left/night/clear/urban", "right/day/fog/urban"


def clips(count: int, vehicles: int = 3, cell: str = LEFT, tag: str = "c") -> list[ArchivedClip]:
    return [archived(f"{tag}-{i}", f"car-{i % vehicles}", cell) for i in range(count)]


class Bench:
    """A stage, its state, and a clock."""

    def __init__(self, config: TriggersConfig = CONFIG) -> None:
        self.stage = Triggers(config)
        self.state: TriggersState = self.stage.initial()
        self.now_ns = T0

    def send(self, *messages: Message, wait_s: float = 0.0) -> list[JobRequested]:
        """What is asked for after a wait."""
        self.now_ns += int(wait_s * SECOND_NS)
        outcome = self.stage.step(self.state, messages, self.now_ns)
        self.state = outcome.state
        return [e.message for e in outcome.emits if isinstance(e.message, JobRequested)]


def test_enough_clips_of_enough_vehicles_start_a_job_once_it_is_quiet() -> None:
    bench = Bench()
    assert bench.send(*clips(6)) == []
    assert bench.send(wait_s=9) == []
    (job,) = bench.send(wait_s=1)
    names = [c.clip_id for c in clips(6)]
    assert job.clips == names
    assert job.fingerprint == job_fingerprint([sha256_hex(n.encode()) for n in names], "m1", "fine-tune", "")
    assert job.evidence[LEFT].clips == 6 and job.evidence[LEFT].vehicles == 3
    assert f"{LEFT}: 6 clips of 3 vehicles" in job.reason
    assert bench.send(job, wait_s=1000) == []


@pytest.mark.parametrize(("count", "vehicles"), [(5, 3), (40, 2), (40, 1)])
def test_too_few_clips_or_vehicles_do_not(count: int, vehicles: int) -> None:
    bench = Bench()
    bench.send(*clips(count, vehicles))
    assert bench.send(wait_s=1e5) == []


def test_one_vehicle_does_not_dominate() -> None:
    bench = Bench()
    flood = [archived(f"flood-{i}", "car-0", LEFT) for i in range(50)]
    assert bench.send(*flood, *clips(2, 3)[1:], wait_s=1) == []
    assert bench.send(wait_s=100) == []
    (job,) = bench.send(archived("z", "car-2", LEFT)) or bench.send(wait_s=100)
    vehicles = Counter("flood" if c.startswith("flood") else c for c in job.clips)
    assert vehicles["flood"] == CONFIG.per_vehicle and len(job.clips) == 6


def test_a_stream_that_never_rests_starts_after_patience() -> None:
    bench = Bench()
    jobs: list[JobRequested] = []
    for i in range(80):
        jobs += bench.send(archived(f"s-{i}", f"car-{i % 5}", LEFT), wait_s=1)
    assert len(jobs) == 1
    assert len(jobs[0].clips) == 20


def test_cells_past_the_lower_mark_join() -> None:
    bench = Bench()
    lone = archived("lone", "car-9", "right/day/clear/rural")
    bench.send(*clips(6), *clips(2, 2, FOG, "f"), lone)
    (job,) = bench.send(wait_s=10)
    assert set(job.evidence) == {LEFT, FOG} and "lone" not in job.clips


def test_a_pass_moves_the_base_and_uses_up_its_clips() -> None:
    bench = Bench()
    bench.send(*clips(6))
    (job,) = bench.send(wait_s=10)
    bench.send(finished(job.fingerprint, model_version="m2"))
    assert bench.state.waiting == {} and bench.state.in_flight is None
    bench.send(*clips(6, tag="d"))
    assert bench.send(wait_s=50) == []
    (second,) = bench.send(wait_s=60)
    assert second.base_model == "m2" and all(c.startswith("d-") for c in second.clips)


@pytest.mark.parametrize("verdict", ["fail", "error"])
def test_what_did_not_pass_is_tried_again_only_with_new_evidence(verdict: str) -> None:
    bench = Bench()
    bench.send(*clips(6))
    (job,) = bench.send(wait_s=10)
    bench.send(finished(job.fingerprint, verdict))
    assert bench.send(wait_s=1e6) == []
    bench.send(*clips(6, tag="d"))
    (second,) = bench.send(wait_s=1000)
    assert len(second.clips) == 12 and second.base_model == "m1"
    assert second.evidence[LEFT].clips == 6


def test_failures_in_a_row_rest_longer() -> None:
    bench, waits = Bench(TriggersConfig(**_fields(CONFIG) | {"budget_gpu_hours": 1000.0})), []
    for i in range(3):
        bench.send(*clips(6, tag=f"t{i}"))
        jobs, waited = bench.send(wait_s=10), 10
        while not jobs:
            jobs, waited = bench.send(wait_s=10), waited + 10
        waits.append(waited)
        bench.send(finished(jobs[0].fingerprint, "fail"))
    assert waits == [10, 200, 400]


def test_the_budget_holds_and_only_urgency_uses_the_reserve() -> None:
    bench = Bench()
    started = 0
    for i in range(8):
        bench.send(*clips(6, tag=f"b{i}"))
        for job in bench.send(wait_s=200):
            started += 1
            bench.send(finished(job.fingerprint, model_version=f"m{i + 2}"))
    assert started == 3
    halted = rollout(RolloutState.HALTED, release=release(9, bench.state.base_model), previous=release(1, "m1"))
    (urgent,) = bench.send(halted, archived("u", "car-1", LEFT))
    assert "was halted" in urgent.reason and urgent.base_model == "m1"
    bench.send(finished(urgent.fingerprint, model_version="m20"), wait_s=1)
    assert bench.send(*clips(6, tag="last"), wait_s=20_000) == []
    assert len(bench.send(wait_s=86_400)) == 1


def test_what_a_job_really_took_is_booked() -> None:
    bench = Bench()
    bench.send(*clips(6))
    (job,) = bench.send(wait_s=10)
    bench.send(finished(job.fingerprint, gpu_hours=3.5))
    assert [s.gpu_hours for s in bench.state.spent] == [3.5]
    bench.send(*clips(6, tag="d"))
    assert bench.send(wait_s=500) == []


def test_a_halt_counts_once_and_goes_back_to_what_was_before() -> None:
    bench = Bench()
    bench.send(finished("c" * 64, model_version="m2"))
    halted = rollout(RolloutState.HALTED)
    assert bench.send(halted) == []
    assert bench.state.base_model == "m1" and bench.state.urgent
    (job,) = bench.send(archived("a", "car-1", LEFT))
    assert job.clips == ["a"]
    bench.send(finished(job.fingerprint, model_version="m3"))
    assert bench.send(halted, rollout(RolloutState.WAVE), archived("b", "car-1", LEFT), wait_s=1e4) == []
    assert bench.state.base_model == "m3"


def learned(bench: Bench, tag: str, model: str) -> list[str]:
    """The clips of a job that passed with this model; its rollout is not over."""
    bench.send(*clips(6, tag=tag), wait_s=1000)
    (job,) = bench.send(wait_s=10)
    bench.send(finished(job.fingerprint, model_version=model, release=release(int(model[1:]))))
    return job.clips


def rolled(state: RolloutState, model: str, previous: str = "m1") -> Rollout:
    of, before = (release(int(m[1:])) for m in (model, previous))
    return rollout(state, rollout_id=f"r-{model}", release=of, previous=before)


def test_what_a_halted_model_has_learned_is_learned_again_with_new_evidence() -> None:
    bench = Bench()
    used = learned(bench, "c", "m2")
    assert bench.state.waiting == {}
    assert bench.send(rolled(RolloutState.WAVE, "m2"), rolled(RolloutState.HALTED, "m2")) == []
    assert bench.send(wait_s=1e5) == []  # the same clips alone made what was halted
    (job,) = bench.send(archived("new", "car-1", LEFT))
    assert job.clips == sorted([*used, "new"]) and job.base_model == "m1"
    assert job.evidence[LEFT].clips == 1


def test_what_a_complete_model_has_learned_is_done_with() -> None:
    bench = Bench()
    learned(bench, "c", "m2")
    bench.send(rolled(RolloutState.COMPLETE, "m2"))
    later = learned(bench, "d", "m3")
    bench.send(rolled(RolloutState.HALTED, "m3", "m2"))
    (job,) = bench.send(archived("new", "car-1", LEFT))
    assert job.clips == sorted([*later, "new"]) and job.base_model == "m2"


def test_a_model_that_is_thrown_back_takes_what_it_was_taught_from_along() -> None:
    """m3 starts from m2 before m2 is complete: halted, both sets of clips are unlearned."""
    bench = Bench()
    first, second = learned(bench, "c", "m2"), learned(bench, "d", "m3")
    bench.send(rolled(RolloutState.HALTED, "m2"))
    assert bench.state.waiting == {} and bench.state.base_model == "m3"  # m3 still knows them
    bench.send(rolled(RolloutState.HALTED, "m3"))
    (job,) = bench.send(archived("new", "car-9", LEFT))
    assert job.clips == sorted([*first, *second, "new"]) and job.base_model == "m1"


def test_an_older_model_that_is_complete_keeps_what_it_knows() -> None:
    bench = Bench()
    learned(bench, "c", "m2")
    second = learned(bench, "d", "m3")
    bench.send(rolled(RolloutState.COMPLETE, "m2"), rolled(RolloutState.HALTED, "m3", "m2"))
    (job,) = bench.send(archived("new", "car-1", LEFT))
    assert job.clips == sorted([*second, "new"]) and job.base_model == "m2"


def test_what_learned_models_know_is_bounded_too() -> None:
    bench = Bench(TriggersConfig(**_fields(CONFIG) | {"pending_clips": 10, "budget_gpu_hours": 99.0}))
    learned(bench, "c", "m2")
    second = learned(bench, "d", "m3")
    assert [sorted(job.clips) for job in bench.state.learned] == [second]


@pytest.mark.parametrize("state", [RolloutState.HALTED, RolloutState.COMPLETE])
def test_a_job_and_the_end_of_its_rollout_in_one_batch(state: RolloutState) -> None:
    halted = state is RolloutState.HALTED
    for backwards in (False, True):
        bench = Bench()
        bench.send(*clips(6))
        (job,) = bench.send(wait_s=10)
        batch: list[Message] = [finished(job.fingerprint, model_version="m2"), rolled(state, "m2")]
        bench.send(*(batch[::-1] if backwards else batch))
        assert bench.state.base_model == ("m1" if halted else "m2")
        assert sorted(bench.state.waiting) == (job.clips if halted else [])
        assert bench.state.learned == ()


def test_a_halt_of_another_model_or_a_first_release_keeps_a_base() -> None:
    bench = Bench()
    bench.send(rollout(RolloutState.HALTED, release=release(7), rollout_id="r7"))
    assert bench.state.base_model == "m1"
    bench.send(finished("c" * 64, model_version="m8"))
    bench.send(rollout(RolloutState.HALTED, release=release(8), previous=None, rollout_id="r8"))
    assert bench.state.base_model == "m1"


def test_a_job_that_a_person_asked_for_is_waited_for() -> None:
    bench = Bench()
    theirs = JobRequested("d" * 64, "fine-tune", T0, "m1", "tiny", ["c-0", "elsewhere"], gpu_hours=1.0)
    bench.send(*clips(6), theirs)
    assert bench.send(JobStarted(theirs.fingerprint, T0), wait_s=1000) == []
    bench.send(finished(theirs.fingerprint, model_version="m2"))
    assert "c-0" not in bench.state.waiting
    assert bench.send(JobStarted("e" * 64, T0), theirs) == []
    assert bench.state.in_flight is None


def test_a_job_that_is_never_heard_of_again_counts_as_failed() -> None:
    bench = Bench()
    bench.send(*clips(6))
    (job,) = bench.send(wait_s=10)
    bench.send(JobStarted(job.fingerprint, T0), wait_s=3600)
    bench.send(wait_s=24 * 3600 - 1)
    assert bench.state.in_flight is not None
    bench.send(wait_s=1)
    assert bench.state.in_flight is None and bench.state.failures == 1
    assert bench.send(finished(job.fingerprint, model_version="m2"), wait_s=1) == []


def test_the_very_job_that_was_run_is_not_run_again() -> None:
    bench = Bench()
    known = job_fingerprint([c.sha256 for c in clips(6)], "m1", "fine-tune", "")
    bench.send(finished(known, "error"), *clips(6))
    assert bench.send(wait_s=1000) == []
    assert len(bench.send(*clips(1, tag="new")) + bench.send(wait_s=1000)) == 1


def test_equal_content_counts_once() -> None:
    bench = Bench()
    same = archived("c-0", "car-0", LEFT)
    copies = [ArchivedClip(**_fields(same) | {"clip_id": f"copy-{i}", "vehicle": f"car-{i}"}) for i in range(9)]
    bench.send(*clips(3), *copies)
    assert bench.send(wait_s=1000) == []


def test_the_oldest_clips_are_let_go_beyond_the_bound() -> None:
    bench = Bench(TriggersConfig(**_fields(CONFIG) | {"pending_clips": 10, "start_vehicles": 99}))
    for i in range(5):
        bench.send(*clips(5, tag=f"p{i}"), wait_s=1)
    assert len(bench.state.waiting) == 10 and "p4-4" in bench.state.waiting


def test_the_largest_job_fits_into_a_record() -> None:
    config = TriggersConfig(per_vehicle=10**6, pending_clips=10**6, debounce_ns=0)
    bench = Bench(config)
    many = [
        ArchivedClip(
            **_fields(archived()) | {"clip_id": f"{i:064d}", "sha256": f"{i:064x}", "vehicle": f"c{i % 9}"}
        )
        for i in range(config.job_clips + 500)
    ]
    (job,) = bench.send(*many)
    assert len(job.clips) == config.job_clips
    assert len(encode(job)[1]) < MAX_RECORD_BYTES


messages = st.lists(st.integers(0, 30), max_size=30)


def some(numbers: list[int]) -> list[Message]:
    made: list[Message] = [archived(f"c-{n}", f"car-{n % 4}", LEFT if n % 3 else FOG) for n in numbers]
    ends = [rollout(RolloutState.HALTED), rollout(RolloutState.COMPLETE, rollout_id="r3", release=release(3))]
    return [*made, telemetry(), finished("f" * 64, "fail"), finished("e" * 64, model_version="m3"), *ends]


@settings(max_examples=30)
@given(messages, st.lists(st.integers(0, 6), min_size=1, max_size=4))
def test_laws(numbers: list[int], sizes: list[int]) -> None:
    batches = [*in_batches(some(numbers), sizes), *[[]] * 80]
    check_deterministic(Triggers(CONFIG), Triggers(CONFIG), batches, T0)
    check_dump_and_load(Triggers(CONFIG), batches, T0)
    check_replay(Triggers(TriggersConfig(base_model="m1")), batches, T0)


@settings(max_examples=40)
@given(messages, st.integers())
def test_order_within_a_batch_does_not_matter(numbers: list[int], salt: int) -> None:
    first, second = Bench(), Bench()
    first.send(*some(numbers))
    second.send(*shuffled(some(numbers), salt))
    assert first.send(wait_s=30) == second.send(wait_s=30)


class TriggerMachine(RuleBasedStateMachine):
    """Whatever comes, and in whatever order: never two jobs in flight, never one fingerprint twice, never more
    GPU-hours than the budget, and no clip is let go before a model that learned from it is everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench()
        self.jobs: dict[str, int] = {}
        self.open: dict[str, JobRequested] = {}
        self.came: set[str] = set()
        self.done: set[str] = set()
        self.taught: dict[str, list[str]] = {}
        """Model -> clips that it knows and no complete model does."""

    def take(self, jobs: list[JobRequested]) -> None:
        for job in jobs:
            assert job.fingerprint not in self.jobs
            assert not self.open
            self.jobs[job.fingerprint] = self.bench.now_ns
            self.open[job.fingerprint] = job

    @rule(number=st.integers(0, 400), vehicle=st.integers(0, 5), fog=st.booleans(), wait=st.integers(0, 40))
    def clip(self, number: int, vehicle: int, fog: bool, wait: int) -> None:
        name = f"clip-{number}-{vehicle}"
        self.came |= {name} - self.done
        self.take(self.bench.send(archived(name, f"car-{vehicle}", FOG if fog else LEFT), wait_s=wait))

    @rule(start=st.integers(0, 400))
    def burst(self, start: int) -> None:
        burst = clips(12, 4, tag=f"burst-{start}")
        self.came |= {c.clip_id for c in burst} - self.done
        self.take(self.bench.send(*burst))

    @rule(seconds=st.sampled_from([1, 30, 300, 4000]))
    def wait(self, seconds: int) -> None:
        self.take(self.bench.send(wait_s=seconds))

    @rule(verdict=st.sampled_from(["pass", "fail", "error"]))
    def finish(self, verdict: str) -> None:
        for fingerprint, job in sorted(self.open.items()):
            self.open.clear()
            model = f"model-{len(self.jobs)}"
            if verdict == "pass":
                self.taught[model] = [*self.taught.get(job.base_model, []), *job.clips]
            self.take(self.bench.send(finished(fingerprint, verdict, model_version=model)))

    @rule(number=st.integers(0, 5))
    def halt(self, number: int) -> None:
        base = self.bench.state.base_model
        self.taught.pop(base, None)
        self.take(
            self.bench.send(rollout(RolloutState.HALTED, rollout_id=f"r{number}-{base}", release=release(9, base)))
        )

    @rule()
    def complete(self) -> None:
        base = self.bench.state.base_model
        self.done.update(self.taught.pop(base, []))
        self.came -= self.done
        done = rollout(RolloutState.COMPLETE, rollout_id=f"c-{base}", release=release(9, base))
        self.take(self.bench.send(done))

    @rule()
    def restart(self) -> None:
        self.bench.state = self.bench.stage.load(pack(self.bench.state))

    @rule()
    def hear_all_again(self) -> None:
        ends: list[JobFinished] = [finished(f, "fail") for f in sorted(set(self.jobs) - set(self.open))]
        self.take(self.bench.send(*ends))

    @invariant()
    def the_budget_holds(self) -> None:
        spent = sum(s.gpu_hours for s in self.bench.state.spent)
        assert spent <= CONFIG.budget_gpu_hours
        assert sum(self.bench.now_ns - t < 24 * HOUR_NS for t in self.jobs.values()) <= CONFIG.budget_gpu_hours

    @invariant()
    def no_clip_is_lost(self) -> None:
        state = self.bench.state
        assert self.came <= {*state.waiting, *(name for job in state.learned for name in job.clips)}


TestTriggerMachine = TriggerMachine.TestCase
TestTriggerMachine.settings = settings(max_examples=40, stateful_step_count=30)


def _fields(value: Any) -> dict[str, Any]:
    names = getattr(value, "__struct_fields__", None) or value.__dataclass_fields__
    return {name: getattr(value, name) for name in names}
