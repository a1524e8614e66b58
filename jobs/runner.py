"""The worker: requests in; one run, one model version and one release out, however often it is killed."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count

import msgspec

from jobs.catalog import CATALOG
from jobs.context import JobContext
from jobs.errors import JobBusy, StepFailed, StepRetry
from jobs.launchers.local import Launcher, run_step
from jobs.record import JobRecord, StepDone
from jobs.step import Json, Step, Work, inputs_of, job_folder, key_of
from registry.errors import Retry
from registry.store import Store
from streams.contracts.clock import Clock, SystemClock
from streams.contracts.codec import Message
from streams.contracts.jobs import JobFinished, JobRequested, JobStarted, Release

Emit = Callable[[Message], None]
Watch = Callable[[str, int, int, str], None]
"""Called with (step, done, of, what). Must not block."""
LONGEST_REASON = 2000
"""The bound of Text in the contracts."""


def nobody(step: str, done: int, of: int, what: str) -> None:
    """Nobody watches."""


@dataclass(frozen=True)
class Worker:
    """Runs learning jobs, one after another.

    Each finished step is a document in the store: a job that is begun again goes on at its first unfinished step;
    one that has ended is told again and costs nothing. A job that ended in "error" stays so until `reopen`. Two
    workers on one machine never run the same job at once (a lock that dies with its holder).
    """

    context: JobContext
    clock: Clock = field(default_factory=SystemClock)
    """Of the messages; may be virtual."""
    catalog: Mapping[str, Sequence[Step]] = field(default_factory=lambda: CATALOG)
    launch: Launcher = run_step
    watch: Watch = nobody
    name: str = "local"
    sleep: Callable[[float], None] = time.sleep
    wall: Clock = field(default_factory=SystemClock)
    """Of signatures: vehicles check their expiry by real time, whatever the messages' clock is."""

    def run(self, request: JobRequested, emit: Emit) -> JobFinished:
        """Run a job to its end, from wherever it stands, and emit JobStarted and JobFinished.

        Raises KeyboardInterrupt (nothing is lost: run it again), JobBusy where another worker has it, and Retry
        where the store itself cannot be reached.
        """
        record = JobRecord(Store(self.context.places.store), request.fingerprint)
        with only_worker(self.context, request.fingerprint):
            finished = record.finished()
            if finished is None:
                emit(JobStarted(request.fingerprint, self.clock.now_ns(), _run_id(record), self.name))
                finished = self._to_the_end(record, request)
        emit(finished)
        return finished

    def _to_the_end(self, record: JobRecord, request: JobRequested) -> JobFinished:
        results: dict[str, Json] = {}
        try:
            for step in self._steps(request.kind):
                result = results[step.name] = self._step(record, step, request, results)
                if step.ends and result.get("verdict") == "fail":
                    return self._end(record, request, "fail", result["reasons"], results)
        except StepFailed as error:
            return self._end(record, request, "error", [str(error)], results)
        return self._end(record, request, "pass", results.get("gate", {}).get("reasons", []), results)

    def _steps(self, kind: str) -> Sequence[Step]:
        if kind not in self.catalog:
            raise StepFailed(f"there is no job kind {kind!r}, only {', '.join(self.catalog)}")
        return self.catalog[kind]

    def _step(self, record: JobRecord, step: Step, request: JobRequested, results: Mapping[str, Json]) -> Json:
        inputs = inputs_of(step, results)
        key = key_of(step, request, self.context, inputs)
        done = record.step(step.name)
        if done is None or done.key != key:
            started = time.monotonic()
            result, attempts = self._attempts(step, request, inputs, key)
            done = StepDone(key, result, round(time.monotonic() - started, 3), attempts)
            record.keep_step(step.name, done)
        self.watch(step.name, 1, 1, "done")
        return done.result

    def _attempts(
        self, step: Step, request: JobRequested, inputs: Mapping[str, Json], key: str
    ) -> tuple[Json, int]:
        wait_s = self.context.retry_seconds
        for attempt in count(1):
            try:
                return self._once(step, request, inputs, key), attempt
            except StepFailed as error:
                raise StepFailed(f"{step.name}: {error}") from error
            except (StepRetry, Retry) as error:
                if attempt > step.retries:
                    raise StepFailed(f"{step.name}: {error} ({attempt} attempts)") from error
                self.watch(step.name, 0, 1, f"again in {wait_s:.1f} s: {error}")
            self.sleep(wait_s)
            wait_s *= 2
        raise AssertionError("count() ends never")

    def _once(self, step: Step, request: JobRequested, inputs: Mapping[str, Json], key: str) -> Json:
        def progress(done: int, of: int, what: str) -> None:
            self.watch(step.name, done, of, what)

        return self.launch(step, Work(request, self.context, inputs, self.wall.now_ns(), progress, key))

    def _end(
        self,
        record: JobRecord,
        request: JobRequested,
        verdict: str,
        reasons: Sequence[str],
        results: Mapping[str, Json],
    ) -> JobFinished:
        # What is published by a job that did not pass must not be rolled out.
        release = results.get("sign", {}).get("release") if verdict == "pass" else None
        seconds = sum(done.seconds for name in results if (done := record.step(name)))
        finished = JobFinished(
            fingerprint=request.fingerprint,
            time_ns=self.clock.now_ns(),
            verdict=verdict,
            run_id=_run_id(record),
            model_version=results.get("register", {}).get("model_version", ""),
            reasons=[r[:LONGEST_REASON] for r in reasons][:100],
            release=msgspec.convert(release, Release) if release else None,
            gpu_hours=round(seconds / 3600, 6),
        )
        record.keep_finished(finished)
        return finished


def reopen(context: JobContext, fingerprint: str) -> bool:
    """Let a job that ended in "error" be run again, from its first unfinished step. False for any other job."""
    record = JobRecord(Store(context.places.store), fingerprint)
    with only_worker(context, fingerprint):
        finished = record.finished()
        if finished is None or finished.verdict != "error":
            return False
        record.forget_finished()
    return True


@contextmanager
def only_worker(context: JobContext, fingerprint: str) -> Iterator[None]:
    """Hold a job. The lock goes with the process, however it ends. Raises JobBusy where another holds it."""
    folder = job_folder(context, fingerprint)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "worker.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise JobBusy(f"another worker is running job {fingerprint}") from error
        yield


def _run_id(record: JobRecord) -> str:
    done = record.step("train")
    return str(done.result.get("run_id", "")) if done else ""
