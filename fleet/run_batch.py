"""`fleet streams run --engine batch`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

from fleet.role import say, stop_on_signals, wait_again
from fleet.stages import make_stages
from fleet.streams import RunOptions, Tally, number
from registry.errors import Retry as StoreRetry
from registry.store import Store
from streams.contracts.clock import SystemClock
from streams.engines.batch.engine import BatchConfig, BatchEngine
from streams.engines.now import clock_time, record_time
from streams.transport.base import ConnectionFailed, Retry
from streams.transport.kafka import KafkaConfig

_TUNING = {f.name: f for f in fields(BatchConfig) if f.name in ("limit", "snapshot_s", "snapshot_records")}
_ROLE = "streams"
_SIGN_OF_LIFE_S = 10.0


def run(options: RunOptions) -> None:
    """Until SIGINT or SIGTERM, or until nothing comes any more; a broker or a store that is away for a while is
    waited for. Raises what asks for a person: UnknownStage, NotTogether, ConnectionFailed where the broker cannot
    be reached at the start, Fenced, StateUnreadable, BadOption."""
    stop = stop_on_signals()
    total = Tally()
    try:
        _run(options, stop, total)
    finally:
        if total.counts:
            say(_ROLE, f"took {total}")


def _run(options: RunOptions, stop: threading.Event, total: Tally) -> None:
    failures, engine = 0, _engine(options)
    while True:
        try:
            _work(engine, stop, options)
            return
        except (Retry, StoreRetry, OSError) as error:
            failed: Exception = error
        finally:
            # Before the wait: who does not poll must not hold partitions.
            engine.close()
            total.add(engine)
        failures = wait_again(_ROLE, failed, 0 if engine.taken else failures, stop)
        following = _when_it_answers(options, stop)
        if following is None:
            return
        engine = following


def _when_it_answers(options: RunOptions, stop: threading.Event) -> BatchEngine | None:
    """A new engine, whenever the broker is there again; None where it is to stop."""
    failures = 0
    while not stop.is_set():
        try:
            return _engine(options)
        except (Retry, ConnectionFailed) as error:
            failures = wait_again(_ROLE, error, failures, stop)
    return None


def _engine(options: RunOptions) -> BatchEngine:
    store = Store(options.store)
    stages = make_stages(options.stages, store, options.of_stages)
    tuning, client = _settings(options.settings)
    # --set now=records: time passes as the records say, for a recording that is run again.
    now = record_time if client.pop("now", "clock") == "records" else clock_time(SystemClock())
    kafka = KafkaConfig(options.kafka, prefix=options.prefix, options=client)
    config = replace(BatchConfig(kafka, options.group, options.instance), **tuning)
    return BatchEngine(config, stages, now, store)


def _settings(settings: dict[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """The engine's own, and the rest for the client. Raises BadOption."""
    tuning: dict[str, Any] = {}
    for name in _TUNING.keys() & settings.keys():
        tuning[name] = number(name, settings[name], float if name == "snapshot_s" else int)
    return tuning, {name: value for name, value in settings.items() if name not in _TUNING}


def _work(engine: BatchEngine, stop: threading.Event, options: RunOptions) -> None:
    say(_ROLE, f"runs {', '.join(options.stages)} as group {options.group}; Ctrl-C ends it")
    told = _Told(engine)

    def stopped() -> bool:
        told()
        return stop.is_set()

    engine.run(stopped, options.idle_s)


class _Told:
    """A line now and then: how fast, and what came of it."""

    def __init__(self, engine: BatchEngine, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine, self._clock = engine, clock
        self._at_s, self._taken = clock(), 0
        self._held: list[int] = []

    def __call__(self) -> None:
        if self._engine.partitions != self._held:
            self._held = self._engine.partitions
            say(_ROLE, "holds all partitions" if self._held == [-1] else f"holds partitions {self._held}")
        passed_s = self._clock() - self._at_s
        if passed_s < _SIGN_OF_LIFE_S:
            return
        rate = (self._engine.taken - self._taken) / passed_s
        self._at_s, self._taken = self._clock(), self._engine.taken
        if not rate and (away := self._engine.absent()):
            say(_ROLE, f"{away}; waits for it")
            return
        say(_ROLE, f"{rate:.0f} records/s, in all {Tally().add(self._engine)}")
