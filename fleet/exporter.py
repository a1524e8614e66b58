"""`fleet exporter`: the fleet's messages and the groups' lag as Prometheus metrics."""

from __future__ import annotations

import time
from dataclasses import astuple
from typing import cast

from fleet.role import Work, run_role, say, stop_on_signals
from monitoring.exporter import Exporter, MetricsServer, Place
from streams.contracts.clock import SystemClock
from streams.topics import TOPICS
from streams.transport.kafka import KafkaConfig, KafkaTransport
from streams.transport.kafka_admin import KafkaAdmin
from streams.transport.messages import Inbox

MONITORED = tuple(t.name for t in TOPICS if t.name != "fleet.clips")
"""Clips are large, and told of by fleet.archive."""
GROUP = "exporter"


def run_exporter(
    broker: str, prefix: str, address: str, port: int, lag_every_s: float, idle_s: float | None
) -> None:
    """Until stopped. Counters begin at 0 with the process and go on from the group's offsets: Prometheus knows
    such resets. Raises ConnectionFailed, OSError where the port is taken."""
    stop, exporter = stop_on_signals(), Exporter()
    kafka = KafkaConfig(broker, prefix=prefix)
    with MetricsServer(exporter, port, address) as server:
        say("exporter", f"metrics: {server.url}")
        run_role("exporter", kafka, lambda: _work(exporter, kafka, lag_every_s), stop, idle_s)


def _work(exporter: Exporter, kafka: KafkaConfig, lag_every_s: float) -> Work:
    admin, clock = KafkaAdmin(kafka), SystemClock()
    looked_s = -lag_every_s

    def work(transport: KafkaTransport) -> int:
        nonlocal looked_s
        inbox = Inbox(transport, GROUP, MONITORED)
        messages = inbox.receive(clock.now_ns(), timeout_s=1.0)
        for message in messages:
            exporter.observe(message)
        inbox.done()
        if time.monotonic() - looked_s >= lag_every_s:
            looked_s = time.monotonic()
            exporter.places(cast(Place, astuple(place)) for place in admin.places())
        return len(messages)

    return work
