"""Chaos in its short form: each kind of fault once or twice on a real broker. `make chaos` is the full one."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.benchmarks.chaos import LeftOut, Row, carry
from fleet.benchmarks.chaos_faults import FAULTS
from fleet.benchmarks.chaos_run import Outcome, Trial
from fleet.kafka import NativeKafka
from tests.services.broker import native_broker

pytestmark = pytest.mark.services
SHORT: tuple[Row, ...] = (
    ("batch", "kill", 1),
    ("batch x2", "late", 1),
    ("faust", "poison", 1),
    ("inline", "skew", 1),
    ("batch", "store full", 1),
    ("inline", "broker", 1),
)


@pytest.fixture(scope="module")
def broker() -> Iterator[NativeKafka]:
    """One of its own, as trials stop and kill it."""
    with native_broker() as kafka:
        yield kafka


@pytest.mark.parametrize(("setup", "fault", "rounds"), SHORT)
def test_nothing_is_lost(broker: NativeKafka, tmp_path: Path, setup: str, fault: str, rounds: int) -> None:
    prefix = f"{time.time_ns()}."
    done = carry(Trial(setup, FAULTS[fault], rounds, seed=5), broker, tmp_path, prefix)
    if isinstance(done, LeftOut):
        pytest.skip(done.why)
    assert isinstance(done, Outcome), done.why
    counts, verdict = done.counts, done.verdict
    sys.stdout.write(f"{setup}, {fault}: {counts.kills} kills, {verdict.found} decisions, {done.losses} losses\n")
    assert verdict.expected > 0 and counts.kills + counts.others >= rounds
    assert not done.losses, (verdict, done.ended)
