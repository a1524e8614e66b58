"""A role over a broker: work, wait where the broker is away, stop when asked. What worker, exporter and registrar
share."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable

from registry.errors import Retry as StoreRetry
from streams.transport.base import ConnectionFailed, Retry
from streams.transport.kafka import KafkaConfig, KafkaTransport

WAITS_S = (1.0, 2.0, 5.0, 10.0, 30.0)
LOOKS_S = 10.0
"""Where nothing comes for so long it is looked whether the broker is there at all."""
Work = Callable[[KafkaTransport], int]
"""One round; how much it did. May wait a second for records; raises Retry where it is to be done again on a new
connection."""


def stop_on_signals() -> threading.Event:
    """Set by SIGINT and SIGTERM: the round that runs is finished first."""
    stop = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stop.set())
    return stop


def run_role(
    name: str, kafka: KafkaConfig, begin: Callable[[], Work], stop: threading.Event, idle_s: float | None = None
) -> None:
    """Rounds until `stop` is set or nothing was done for `idle_s`; `begin` is called for every new connection.
    Raises ConnectionFailed where the broker cannot be reached at the start; later the role waits for it."""
    failures, began = 0, False
    while not stop.is_set():
        try:
            transport = KafkaTransport(kafka)
        except (ConnectionFailed, Retry) as error:
            if not began:
                raise
            failures = wait_again(name, error, failures, stop)
            continue
        began, work = True, begin()
        idle_since = looked_s = time.monotonic()
        try:
            while not stop.is_set():
                if work(transport):
                    idle_since = looked_s = time.monotonic()
                failures = 0
                idle = idle_s is not None and time.monotonic() - idle_since > idle_s
                if idle or time.monotonic() - looked_s > LOOKS_S:
                    looked_s = time.monotonic()
                    if away := transport.absent():
                        idle, idle_since = False, looked_s  # who hears nothing knows nothing
                        say(name, f"{away}; waits for it")
                if idle:
                    return
        except (Retry, StoreRetry) as error:
            failures = wait_again(name, error, failures, stop)
        finally:
            _close(transport)


def say(name: str, text: str) -> None:
    """A line for the log, on stderr."""
    sys.stderr.write(f"fleet {name}: {text}\n")
    sys.stderr.flush()


def wait_again(name: str, error: Exception, failures: int, stop: threading.Event) -> int:
    """Says why, and waits longer for every failure in a row; how many there are now."""
    wait_s = WAITS_S[min(failures, len(WAITS_S) - 1)]
    say(name, f"{error}; goes on from the last commit in {wait_s:g} s")
    stop.wait(wait_s)
    return failures + 1


def _close(transport: KafkaTransport) -> None:
    """What was not flushed comes again from the last commit, so a broker that is away may keep it."""
    try:
        transport.close()
    except Retry:
        return
