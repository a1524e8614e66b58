"""The worker: goes on where it stopped, repeats what asks for it, ends with a reason."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest

from jobs.catalog import CATALOG
from jobs.context import JobContext, Places, Settings
from jobs.errors import JobBusy
from jobs.launchers.local import run_inline, run_step
from jobs.record import JobRecord
from jobs.runner import Worker, only_worker, reopen
from jobs.service import GROUP, work_off
from jobs.step import Json, Step, Work, job_folder
from registry.store import Store
from streams.contracts.clock import VirtualClock
from streams.contracts.codec import Headers, Message
from streams.contracts.ids import digest
from streams.contracts.jobs import JobFinished, JobRequested, JobStarted
from streams.transport.base import BackPressure
from streams.transport.memory import MemoryTransport
from streams.transport.messages import Inbox, send
from tests.far import FarTransport

ROOT = Path(__file__).resolve().parent.parent.parent
NOW_NS = 1_700_000_000_000_000_000


def context(folder: Path) -> JobContext:
    names = ("store", "clips.db", "lineage.db", "mlflow.db", "releases", "keys", "scratch")
    return JobContext(Places(*(str(folder / n) for n in names)), retry_seconds=0.0)


def request(kind: str = "test", clips: Sequence[str] = ("c1",)) -> JobRequested:
    return JobRequested(digest(kind, *clips), kind, NOW_NS, "m-1", "quick", list(clips))


def step(name: str, function: str = "count", needs: tuple[str, ...] = (), **more: bool) -> Step:
    return Step(name, f"tests.job_steps:{function}", needs, **{"own_process": True, **more})


class Bench:
    """A worker that counts what it launches and keeps what it says."""

    def __init__(self, folder: Path, *steps: Step, launch: Callable[[Step, Work], Json] = run_inline) -> None:
        self.context = context(folder)
        self.launched: list[str] = []
        self.said: list[Message] = []
        self.seen: list[tuple[str, int, int, str]] = []
        self._launch = launch
        self.worker = Worker(
            self.context,
            VirtualClock(NOW_NS),
            {"test": steps},
            self._count,
            watch=lambda *seen: self.seen.append(seen),
            sleep=lambda _: None,
        )

    def _count(self, step: Step, work: Work) -> Json:
        self.launched.append(step.name)
        return self._launch(step, work)

    def run(self, asked: JobRequested | None = None) -> JobFinished:
        return self.worker.run(asked or request(), self.said.append)


def test_a_job_runs_its_steps_and_a_repeated_request_costs_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path, step("a"), step("b", needs=("a",)), step("c", needs=("a", "b")))
    finished = bench.run()
    assert (finished.verdict, bench.launched) == ("pass", ["a", "b", "c"])
    assert bench.run() == finished
    assert bench.launched == ["a", "b", "c"]
    assert [type(m) for m in bench.said] == [JobStarted, JobFinished, JobFinished]
    record = JobRecord(Store(bench.context.places.store), request().fingerprint)
    done = record.step("c")
    assert done is not None
    assert done.result["value"] == 4


def test_an_interrupted_job_goes_on_at_the_first_unfinished_step(tmp_path: Path) -> None:
    steps = (step("a"), step("b", needs=("a",)), step("c", needs=("b",)))

    def interrupt(step: Step, work: Work) -> Json:
        if step.name == "b":
            raise KeyboardInterrupt
        return run_inline(step, work)

    with pytest.raises(KeyboardInterrupt):
        Bench(tmp_path, *steps, launch=interrupt).run()
    bench = Bench(tmp_path, *steps)
    assert bench.run().verdict == "pass"
    assert bench.launched == ["b", "c"]


def test_changed_settings_and_versions_make_results_anew(tmp_path: Path) -> None:
    failing = (step("a"), step("b", needs=("a",)), step("bad", "broken"))
    first = Bench(tmp_path, *failing)
    assert first.run().verdict == "error"
    reopen(first.context, request().fingerprint)
    again = Bench(tmp_path, failing[0], Step("b", failing[1].run, ("a",), version=2), failing[2])
    again.run()
    assert again.launched == ["b", "bad"]
    reopen(first.context, request().fingerprint)
    other = Bench(tmp_path, *failing)
    changed = msgspec.structs.replace(other.context, settings=Settings(seed=5))
    other.worker = Worker(changed, VirtualClock(NOW_NS), {"test": failing}, other._count, sleep=lambda _: None)
    other.run()
    assert other.launched == ["a", "b", "bad"]


def test_what_asks_for_a_retry_is_retried(tmp_path: Path) -> None:
    bench = Bench(tmp_path, step("f", "flaky"))
    assert bench.run().verdict == "pass"
    assert bench.launched == ["f", "f", "f"]
    assert [s for s in bench.seen if "again in" in s[3]]
    given_up = Bench(tmp_path / "2", Step("f", "tests.job_steps:flaky", retries=1))
    finished = given_up.run()
    assert (finished.verdict, finished.reasons) == ("error", ["f: the disk is busy (2 attempts)"])


def test_what_can_never_succeed_ends_the_job_with_its_reason(tmp_path: Path) -> None:
    bench = Bench(tmp_path, step("a"), step("x", "broken"))
    finished = bench.run()
    assert finished.verdict == "error"
    assert finished.reasons == ["x: ValueError: frame 7 of 'c1' is not finite"]
    assert bench.launched == ["a", "x"]
    assert bench.run() == finished  # told again, not tried again
    assert bench.launched == ["a", "x"]
    (job_folder(bench.context, request().fingerprint) / "repaired").touch()
    assert reopen(bench.context, request().fingerprint)
    assert bench.run().verdict == "pass"
    assert bench.launched == ["a", "x", "x"]
    assert not reopen(bench.context, request().fingerprint)


def test_a_verdict_ends_the_job_only_where_the_catalog_says_so(tmp_path: Path) -> None:
    steps = (step("gate", "refuses"), step("after"), step("end", "refuses", ends=True), step("never"))
    bench = Bench(tmp_path, *steps)
    finished = bench.run()
    assert (finished.verdict, finished.reasons) == ("fail", ["worse in fog"])
    assert bench.launched == ["gate", "after", "end"]


def test_an_unknown_kind_is_an_error_that_names_the_known(tmp_path: Path) -> None:
    finished = Bench(tmp_path, step("a")).run(request("dance"))
    assert finished.verdict == "error"
    assert finished.reasons == ["there is no job kind 'dance', only test"]


def test_a_job_is_run_by_one_worker_at_a_time(tmp_path: Path) -> None:
    bench = Bench(tmp_path, step("a"))
    with only_worker(bench.context, request().fingerprint), pytest.raises(JobBusy, match="another worker"):
        bench.run()
    assert bench.run().verdict == "pass"


def test_a_step_has_a_process_of_its_own(tmp_path: Path) -> None:
    bench = Bench(tmp_path, step("a"), step("b", needs=("a",)), step("here", own_process=False), launch=run_step)
    assert bench.run().verdict == "pass"
    record = JobRecord(Store(bench.context.places.store), request().fingerprint)
    done = [record.step(n) for n in ("a", "b", "here")]
    pids = [d.result["pid"] for d in done if d]
    assert len(set(pids)) == 3
    assert pids[2] == os.getpid()
    assert ("a", 1, 2, "half") in bench.seen


def test_a_killed_step_is_run_again_and_errors_cross_the_process_boundary(tmp_path: Path) -> None:
    bench = Bench(tmp_path, step("d", "dies"), step("x", "broken"), launch=run_step)
    finished = bench.run()
    assert bench.launched == ["d", "d", "x"]
    assert finished.reasons == ["x: ValueError: frame 7 of 'c1' is not finite"]
    log = job_folder(bench.context, request().fingerprint) / "x.log"
    assert "Traceback" in log.read_text()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_worker_takes_its_steps_with_it(tmp_path: Path, how: signal.Signals) -> None:
    """Killed or interrupted from the keyboard: no orphan goes on beside the next attempt."""
    script = (
        "import signal, sys, pathlib\n"
        # A shell's background job ignores SIGINT, and so would its children; a keyboard's target does not.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from tests.unit.test_job_runner import Bench, step\n"
        "from jobs.launchers.local import run_step\n"
        "Bench(pathlib.Path(sys.argv[1]), step('z', 'sleeps'), launch=run_step).run()\n"
    )
    worker = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT)
    sleeper = job_folder(context(tmp_path), request().fingerprint) / "sleeper"
    try:
        _wait(lambda: sleeper.exists() and bool(sleeper.read_text()))
    finally:
        worker.send_signal(how)
        assert worker.wait(20) != 0
    pid = int(sleeper.read_text())
    _wait(lambda: not Path(f"/proc/{pid}").exists())
    finished = Bench(tmp_path, step("z")).run()
    assert finished.verdict == "pass"


def test_requests_come_and_ends_go_over_a_transport(tmp_path: Path) -> None:
    transport = MemoryTransport()
    bench = Bench(tmp_path, step("a"))
    assert work_off(bench.worker, transport) == []
    send(transport, "learning.jobs", request(clips=["c1"]))
    send(transport, "learning.jobs", request(clips=["c1", "c2"]))
    ends = work_off(bench.worker, transport)
    assert [e.verdict for e in ends] == ["pass", "pass"]
    assert work_off(bench.worker, transport) == []  # its own words are no requests
    watcher = Inbox(transport, "watcher", ("learning.jobs",))
    heard = [m for m in watcher.receive(NOW_NS) if not isinstance(m, JobRequested)]
    assert sorted(type(m).__name__ for m in heard) == ["JobFinished", "JobFinished", "JobStarted", "JobStarted"]


def test_a_broker_that_takes_its_time_is_no_reason_to_overlook_a_request(tmp_path: Path) -> None:
    """What stands before the request, the words of an earlier job, takes answers of its own."""
    transport = FarTransport()
    bench = Bench(tmp_path, step("a"))
    for clips in (["c1"], ["c1", "c2"]):
        send(transport, "learning.jobs", request(clips=clips))
        transport.flush()
        assert [e.verdict for e in work_off(bench.worker, transport, timeout_s=0.1)] == ["pass"]


def test_a_request_comes_again_until_its_end_is_published(tmp_path: Path) -> None:
    transport = MemoryTransport()

    def interrupt(step: Step, work: Work) -> Json:
        raise KeyboardInterrupt

    send(transport, "learning.jobs", request())
    with pytest.raises(KeyboardInterrupt):
        work_off(Bench(tmp_path, step("a"), launch=interrupt).worker, transport)
    transport.restart(GROUP)
    assert [e.verdict for e in work_off(Bench(tmp_path, step("a")).worker, transport)] == ["pass"]


def test_a_request_that_could_not_be_run_comes_again_and_none_behind_it_is_lost(tmp_path: Path) -> None:
    """The same worker calls again, over the same transport: what was not ended is not passed over."""
    transport = MemoryTransport()
    bench = Bench(tmp_path, step("a"))
    asked = [request(clips=[f"c{i}"]) for i in range(3)]
    for each in asked:
        send(transport, "learning.jobs", each)
    with only_worker(bench.context, asked[1].fingerprint):
        for _ in range(2):
            with pytest.raises(JobBusy):
                work_off(bench.worker, transport)
    send(transport, "learning.jobs", request(clips=["later"]))
    work_off(bench.worker, transport)
    wanted = {*(a.fingerprint for a in asked), request(clips=["later"]).fingerprint}
    heard = Inbox(transport, "watcher", ("learning.jobs",)).receive(NOW_NS)
    assert {m.fingerprint for m in heard if isinstance(m, JobFinished)} == wanted
    assert bench.launched == ["a"] * 4
    transport.restart(GROUP)
    assert work_off(bench.worker, transport) == []


def test_an_end_that_could_not_be_published_is_told_again(tmp_path: Path) -> None:
    class Full(MemoryTransport):
        full = True

        def publish(self, topic: str, key: bytes, headers: Headers, value: bytes) -> None:
            if self.full and dict(headers)["ce_type"] == b"fleetwheel.job-finished.v1":
                raise BackPressure("full")
            super().publish(topic, key, headers, value)

    transport = Full()
    bench = Bench(tmp_path, step("a"))
    transport.full = False
    send(transport, "learning.jobs", request())
    transport.full = True
    with pytest.raises(BackPressure):
        work_off(bench.worker, transport)
    transport.full = False
    assert [e.verdict for e in work_off(bench.worker, transport)] == ["pass"]
    assert bench.launched == ["a"]


def test_the_catalog_names_what_exists() -> None:
    for kind, steps in CATALOG.items():
        names = [s.name for s in steps]
        assert len(set(names)) == len(names), kind
        for place, each in enumerate(steps):
            later = set(each.needs) & set(names[place:])
            assert not later, f"{kind}: {each.name} reads {later}, which come after it"
            module, _, function = each.run.partition(":")
            source = (ROOT / f"{module.replace('.', '/')}.py").read_text()
            assert f"def {function}(work: Work)" in source
    assert [s.name for s in CATALOG["learn"]] == [
        "curate", "label", "check", "train", "compile", "evaluate", "gate", "register", "sign",
        "promote",
    ]  # fmt: skip


def _wait(until: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
