"""Runs a step on this machine: in a process of its own, so that its memory goes back when it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path
from threading import Lock
from typing import IO, Protocol

import msgspec
from msgspec import Struct

from jobs.context import JobContext
from jobs.errors import JobError, StepFailed, StepRetry
from jobs.step import Json, Progress, Step, Work, perform
from registry.errors import RegistryError, Retry
from streams.contracts.jobs import JobRequested

CHILD_ENVIRONMENT: Mapping[str, str] = {
    # One thread a process: spinning threads of two processes on a busy machine cost 3 to 6 times their gain.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "passive",
}
TRANSIENT = (StepRetry, Retry, ConnectionError, TimeoutError)
"""Errors after which the same step may succeed."""
LOG_TAIL_BYTES = 2000


class Task(Struct, frozen=True):
    """What a child process is asked, as JSON."""

    function: str
    argument: msgspec.Raw


class Answer(Struct, frozen=True):
    """What it answers."""

    result: Json | None = None
    error: str = ""
    transient: bool = False


class StepTask(Struct, frozen=True):
    """A step and its work, as JSON."""

    step: Json
    request: JobRequested
    context: JobContext
    inputs: dict[str, Json]
    now_ns: int
    key: str


class Launcher(Protocol):
    """Runs a step and gives its document. Blocks until it is done. Raises StepRetry and StepFailed; on
    KeyboardInterrupt it ends what it started and passes it on."""

    def __call__(self, step: Step, work: Work) -> Json: ...


def run_step(step: Step, work: Work) -> Json:
    """A `Launcher`."""
    if not step.own_process:
        return run_inline(step, work)
    details = {name: getattr(step, name) for name in Step.__slots__}
    task = StepTask(details, work.request, work.context, dict(work.inputs), work.now_ns, work.key)
    log = work.scratch / f"{step.name}.log"
    return call("jobs.launchers.child:step", task, log, work.progress, hold=work.scratch / "step.lock")


def run_inline(step: Step, work: Work) -> Json:
    """A `Launcher` without a process of its own."""
    try:
        return perform(step, work)
    except Exception as error:
        raise as_job_error(error) from error


def as_job_error(error: Exception) -> JobError:
    """The reaction an error asks for: retry for what is transient, else stop."""
    said = str(error) if isinstance(error, JobError | RegistryError) else f"{type(error).__name__}: {error}"
    return StepRetry(said) if isinstance(error, TRANSIENT) else StepFailed(said)


def call(function: str, argument: Struct, log: Path, progress: Progress, hold: Path | None = None) -> Json:
    """Call "module:function"(argument as JSON) in a process of its own. `log` gets what it writes to stderr;
    `hold` is a lock file it keeps while it runs. Raises StepRetry (also where it was killed) and StepFailed."""
    process = start(function, argument, log, hold)
    try:
        return finish(process, log, progress)
    finally:
        stop(process)


def call_all(calls: Sequence[tuple[str, Struct, Path]], progress: Progress) -> list[Json]:
    """Several `call`s at once: (function, argument, log) each. `progress` is called by one of them at a time.
    Where one raises, the others are ended."""
    lock = Lock()

    def in_turn(done: int, of: int, what: str) -> None:
        with lock:
            progress(done, of, what)

    processes = [start(*each) for each in calls]
    try:
        with ThreadPoolExecutor(max_workers=max(1, len(calls))) as pool:
            waiting = [
                pool.submit(finish, process, log, in_turn)
                for process, (_, _, log) in zip(processes, calls, strict=True)
            ]
            ended: set[Future[Json]] = set()
            try:
                ended = wait(waiting, return_when=FIRST_EXCEPTION).done
            finally:
                if not all(w in ended and w.exception() is None for w in waiting):
                    for process in processes:
                        process.kill()
            # What ended by itself says why; the others only say that they were killed.
            return [w.result() for w in sorted(waiting, key=lambda w: w not in ended)]
    finally:
        for process in processes:
            stop(process)


def start(function: str, argument: Struct, log: Path, hold: Path | None = None) -> subprocess.Popen[bytes]:
    """Begin a call; `finish` gives its result. The child ends when its standard input closes, so it does not
    outlive this process, however that ends."""
    with log.open("ab") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "jobs.launchers.child", *([str(hold)] if hold else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, **CHILD_ENVIRONMENT},
        )
    try:
        stdin = _pipe(process.stdin)
        stdin.write(msgspec.json.encode(Task(function, msgspec.Raw(msgspec.json.encode(argument)))) + b"\n")
        stdin.flush()
    except BrokenPipeError:
        pass  # it died at once; `finish` says why
    return process


def finish(process: subprocess.Popen[bytes], log: Path, progress: Progress) -> Json:
    """Wait for a call and give its result. Raises StepRetry and StepFailed."""
    answer: Answer | None = None
    for line in _pipe(process.stdout):
        if line.startswith(b'["progress",'):
            _, done, of, what = msgspec.json.decode(line)
            progress(done, of, what)
        elif line.startswith(b'{"result"'):
            answer = msgspec.json.decode(line, type=Answer)
    code = process.wait()
    if answer is None:
        raise StepRetry(f"its process ended with {code} and no answer; the end of {log}:\n{_tail(log)}")
    if answer.result is None:
        raise (StepRetry if answer.transient else StepFailed)(answer.error)
    return answer.result


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a call that is still running. Nothing happens where it has ended."""
    if process.poll() is None:
        process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe:
            pipe.close()


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe


def _tail(log: Path) -> str:
    return log.read_bytes()[-LOG_TAIL_BYTES:].decode("utf-8", "replace").strip()
