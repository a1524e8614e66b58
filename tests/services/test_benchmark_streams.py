"""The streams benchmark on a real broker: who is measured begins when it is told to, and is counted whole."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import pytest
from confluent_kafka import Consumer

from fleet.benchmarks.streams import CONTENDERS, Contender, Plan, _Bench
from fleet.benchmarks.streams_load import Gate, Load, encoded, prepare, read_outputs
from fleet.kafka import NativeKafka
from tests.benchmarks.peers.clients import consumer_of, places

pytestmark = pytest.mark.services
SMALL = Plan(events=300, first=100, timeout_s=60)
_prefixes = (f"bench{n}." for n in itertools.count())


def read(consumer: Consumer, most_s: float = 10.0, quiet_s: float = 1.0) -> int:
    """Records a reader of what is committed gets, until no more come."""
    ends, number = time.monotonic() + most_s, 0
    while time.monotonic() < ends:
        if some := len(consumer.consume(1_000, 0.1)):
            number, ends = number + some, time.monotonic() + quiet_s
    return number


def test_what_waits_behind_the_gate_is_read_once_it_is_open(broker: NativeKafka) -> None:
    prefix = next(_prefixes)
    gate = Gate(broker.bootstrap, prefix, encoded(Load(3, 50)), 10)
    consumer = consumer_of(broker.bootstrap, prefix + "reader")
    consumer.assign(places(prefix, 0))
    assert read(consumer) == 10
    before_ms = time.time_ns() // 1_000_000
    assert gate.open() >= before_ms
    assert read(consumer) == 40
    consumer.close()


@pytest.mark.parametrize("name", ["batch", "hand"])
def test_a_contender_is_measured_over_all_its_events(broker: NativeKafka, name: str) -> None:
    (contender,) = (c for c in CONTENDERS if c.name == name)
    ran = _Bench(broker.bootstrap, SMALL, 3, lambda _: None)._run(contender)
    assert ran["distinct"] == ran["scenarios"] == ran["events"] == 400
    assert 1 < ran["per_s"] < 100_000 and ran["peak_mb"] > 10


def test_a_contender_that_ends_by_itself_is_told_with_its_last_words(broker: NativeKafka, tmp_path: Path) -> None:
    script = tmp_path / "gone.py"
    script.write_text("raise SystemExit('had enough')")
    gone = Contender("gone", CONTENDERS[0].python, script)
    with pytest.raises(OSError, match=r"0 of 100 outputs; had enough"):
        _Bench(broker.bootstrap, SMALL, 3, lambda _: None)._run(gone)


def test_outputs_are_counted_behind_what_was_there(broker: NativeKafka) -> None:
    prefix = next(_prefixes)
    prepare(broker.bootstrap, prefix)
    assert read_outputs(broker.bootstrap, prefix).per_s(0, 0) == 0
