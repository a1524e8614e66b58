"""`fleet worker`: learning jobs, one after another, from learning.jobs."""

from __future__ import annotations

import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from fleet import config as configs
from fleet.places import check_reachable, places_below
from fleet.role import Work, run_role, say
from jobs import service
from jobs.code import code_version
from jobs.context import JobContext, Settings
from jobs.errors import JobBusy
from jobs.runner import Worker
from registry.releases import Releases
from streams.transport.kafka import KafkaConfig, KafkaTransport

BUSY_S = 10.0
CONFIGS = {"demo": configs.demo, "quick": configs.quick}


class UnknownConfig(ValueError):
    """No configuration of that name."""


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What `fleet worker` was asked for."""

    kafka: str
    prefix: str
    home: Path
    """Index, lineage, releases, keys and scratch; the store and MLflow too where no URL is given."""
    store: str
    mlflow: str
    config: str
    seed: int
    processes: int
    name: str
    idle_s: float | None


def run_worker(options: WorkerOptions) -> None:
    """Until SIGINT or SIGTERM. Between jobs it ends at once; within one too: what the job's finished steps made
    is kept, and whoever runs it next goes on there. Raises ConnectionFailed, Unreachable, UnknownConfig."""
    context = context_of(options)
    check_reachable(context.places)
    Releases(Path(context.places.releases), Path(context.places.keys)).create(time.time_ns())
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    worker = Worker(context, name=options.name, watch=_Progress())
    say(
        "worker", f"takes jobs as {options.name!r}, {options.config} settings, code {context.code}; Ctrl-C ends it"
    )
    kafka = KafkaConfig(options.kafka, prefix=options.prefix)
    try:
        run_role("worker", kafka, lambda: _work(worker), threading.Event(), options.idle_s)
    except KeyboardInterrupt:
        say("worker", "stopped; a job that was running goes on where it stood when a worker runs again")


def context_of(options: WorkerOptions) -> JobContext:
    """Places and settings of the jobs. Raises UnknownConfig."""
    if options.config not in CONFIGS:
        raise UnknownConfig(f"no configuration {options.config!r}; there are: {', '.join(CONFIGS)}")
    settings: Settings = CONFIGS[options.config](options.seed).settings
    return JobContext(
        places_below(options.home, options.store, options.mlflow), settings, options.processes, code_version()
    )


def _work(worker: Worker) -> Work:
    def work(transport: KafkaTransport) -> int:
        try:
            ends = service.work_off(worker, transport, limit=1, timeout_s=1.0)
        except JobBusy as error:
            say("worker", f"{error}; looks again in {BUSY_S:g} s")
            time.sleep(BUSY_S)
            return 0
        for end in ends:
            reasons = f": {'; '.join(end.reasons)}" if end.reasons else ""
            say("worker", f"job {end.fingerprint[:12]} ended: {end.verdict}{reasons}")
        return len(ends)

    return work


class _Progress:
    """A line for each step that begins or ends, and a sign of life every 30 s."""

    def __init__(self) -> None:
        self._step, self._told_s = "", 0.0

    def __call__(self, step: str, done: int, of: int, what: str) -> None:
        now_s = time.monotonic()
        if step != self._step or done >= of or now_s - self._told_s > 30:
            self._step, self._told_s = step, now_s
            say("worker", f"{step}: {done}/{of} {what}")
