"""The streams benchmark judges what was measured: each bar can be met and missed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

import msgspec
import pytest

from fleet.benchmarks.streams import CONTENDERS, ENDURANCE, ROOT, Contender, Plan, _Bench, assess
from fleet.benchmarks.streams_endurance import again
from fleet.benchmarks.streams_load import Load, encoded
from fleet.benchmarks.streams_watch import ContenderFailed
from streams.contracts.codec import decode, encode
from streams.contracts.drive import TriggerEvent
from streams.contracts.ids import event_id
from streams.dedup import Dedup
from streams.engines.batch.unit import Flow, Taken, Unit
from streams.novelty import NoveltyStage
from streams.selection import Selection, SelectionConfig
from streams.tagging import Tagging
from streams.transport.base import Record
from streams.transport.memory import partition_of
from tests.benchmarks.peers.stages import WORKS, work_of

decode_event = msgspec.json.Decoder(TriggerEvent).decode


def ran(*per_s: float, distinct: int = 1_000) -> list[dict[str, Any]]:
    return [
        {"per_s": r, "peak_mb": 100.0, "scenarios": distinct, "distinct": distinct, "requests": 1, "events": 1_000}
        for r in per_s
    ]


def results(
    batch: tuple[float, ...],
    p99: float = 40.0,
    mb: tuple[int, ...] = (90, 99, 100),
    **others: list[dict[str, Any]],
) -> dict[str, Any]:
    runs = {
        "raw": ran(300, 30, 300, distinct=0),
        "batch": ran(*batch),
        "hand": ran(100, 10, 100),
        "quixstreams": ran(30, 3, 30),
        "bytewax": ran(40, 4, 40),
        "hand-rough": ran(105, 10.5, 105),
        "quixstreams-rough": ran(30, 3, 30),
        "bytewax-rough": ran(45, 4.5, 45),
    }
    grown = {"256": {"per_s": 1.0, "peak_mb": 2.0}}
    delays = {"p50": 10.0, "p90": 20.0, "p99": p99}
    latency = {"rate_per_s": 5_000, "p99_each": [p99], "hand": delays, "by_rate": {"100": delays}} | delays
    return {
        "events": 1_000,
        "more_events": 2_000,
        "throughput": runs | {name.replace("_", "-"): given for name, given in others.items()},
        "latency_ms": latency,
        "left_out": {"faust": "missing"},
        "failed": {},
        "by_prototypes": grown,
        "by_partitions": grown,
        "endurance": [{"events": 1_000 * n, "mb": mb, "cpu_s": 0.1 * n} for n, mb in enumerate(mb, 1)],
    }


def held(given: dict[str, Any]) -> dict[str, bool]:
    return {bar.id: bar.holds for bar in assess(given).bars}


def test_ratios_are_taken_within_a_turn() -> None:
    """The second turn was ten times slower for everybody."""
    bars = {b.id: b for b in assess(results((95, 9.5, 95))).bars}
    assert all(b.holds for b in bars.values())
    assert bars["batch-hand"].value == pytest.approx(0.95)
    assert bars["batch-peers"].value == pytest.approx(95 / 40)
    assert bars["batch-raw"].value == pytest.approx(95 / 300)


@pytest.mark.parametrize(
    ("given", "missed"),
    [
        (results((95, 9.5, 95), hand=ran(110, 11, 110)), {"batch-hand"}),
        (results((95, 9.5, 95), bytewax=ran(50, 5, 50)), {"batch-peers"}),
        (results((95, 9.5, 95), hand_rough=ran(110, 11, 110)), {"batch-hand-rough"}),
        (results((95, 9.5, 95), bytewax_rough=ran(50, 5, 50)), {"batch-peers-rough"}),
        (results((95, 9.5, 95), raw=ran(500, 50, 500)), {"batch-raw"}),
        (results((95, 9.5, 95), p99=101.0), {"latency"}),
        (results((95, 9.5, 95), mb=(90, 100, 106)), {"memory"}),
        (results((95, 9.5, 95), hand=ran(100, 10, 100, distinct=999)), {"complete"}),
    ],
)
def test_each_bar_can_be_missed(given: dict[str, Any], missed: set[str]) -> None:
    assert {name for name, holds in held(given).items() if not holds} == missed


def test_without_peers_their_bar_does_not_hold() -> None:
    given = results((95, 9.5, 95))
    del given["throughput"]["quixstreams"], given["throughput"]["bytewax"]
    given["throughput"]["flink"] = ran(50, 5, 50)
    assert not held(given)["batch-peers"] and not held(given)["flink-pyflink"]


def test_who_failed_is_named_and_no_bar_is_met_by_it() -> None:
    given = results((95, 9.5, 95))
    given["failed"] = {"flink": "0 of 1000 outputs"}
    assert not held(given)["contenders"]
    assert "Failed: flink (0 of 1000 outputs)" in assess(given).table


def test_a_contender_that_fails_does_not_take_the_others_along(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_: object, contender: Contender, *__: object) -> dict[str, Any]:
        if contender.name == failing:
            raise ContenderFailed(f"{failing}: 0 of 9 outputs")
        return ran(5.0)[0]

    monkeypatch.setattr(_Bench, "_run", run)
    monkeypatch.setattr(_Bench, "_raw", lambda _: ran(9.0)[0])
    monkeypatch.setattr(Contender, "missing", lambda _: "")
    failing = "bytewax"
    bench = _Bench("nowhere", Plan(repeats=2), 1, lambda _: None)
    found = bench._throughput()
    assert "bytewax" not in found and len(found["batch"]) == len(found["hand"]) == 2
    assert bench._failed == {"bytewax": "bytewax: 0 of 9 outputs"}
    failing = "batch"
    with pytest.raises(ContenderFailed):
        bench._throughput()


def test_the_table_names_who_was_left_out() -> None:
    assert "Left out: faust (missing)" in assess(results((95, 9.5, 95))).table


def test_the_load_is_sound_and_keeps_to_its_partitions() -> None:
    for event in Load(3, 50, partitions=2).all():
        headers, value = encode(event)
        assert decode(headers, value, event.time_ns) == event
        assert 800 < len(value) < 1_300 and len(event.embedding) == 64
        assert partition_of(event.vehicle.encode(), 8) < 2


def test_a_contender_that_is_not_installed_says_who_makes_it() -> None:
    assert all(c.script.exists() for c in CONTENDERS if c.script.parent.name in ("peers", "benchmarks"))
    missing = [c.missing() for c in CONTENDERS if not c.python.exists()]
    assert all("make" in said for said in missing)


def test_the_long_run_feeds_sound_events_and_tells_what_it_holds() -> None:
    command = [sys.executable, "-P", str(ENDURANCE), "500", "3"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    told = subprocess.run(command, env=environment, capture_output=True, check=True, text=True, timeout=120).stdout
    (only,) = map(json.loads, told.splitlines())
    assert only["events"] == only["outputs"] == 500 and only["mb"] > 10


def test_events_of_another_drive_are_of_their_own() -> None:
    event = next(Load(3, 1).all())
    same, other = (decode_event(again(event, drive)) for drive in (0, 1))
    assert same == event and other.event_id == event_id(event.vehicle, "boot-0002", event.sequence)
    assert other.clip and other.clip.clip_id == other.event_id and other.embedding == event.embedding


def test_peers_that_are_given_the_same_work_decide_the_same() -> None:
    """Whatever the cut; rough work decides less well, and as much."""
    values = [value for _, _, value in encoded(Load(3, 600))]
    junk = [b"{}", values[0], values[0].replace(b"us-ca", b"us-xx")]
    unit = Unit(Flow.of([Dedup(), Tagging(), NoveltyStage(), Selection(SelectionConfig())]))
    lanes: dict[int, list[bytes]] = {}
    for value in values:
        lane = partition_of(decode_event(value).vehicle.encode(), 8)
        lanes.setdefault(lane, []).append(value)

    def record_at(number: int) -> Record:
        raise AssertionError("nothing here is refused")

    batch = {("fleet.events", n): Taken(v, 0, len(v), record_at) for n, v in lanes.items()}
    done = unit.step(batch, time.time_ns())
    expected = sorted(value for topic, _, _, value in done.outgoing() if topic == "fleet.scenarios")
    same = work_of("same", "256")
    told = same.batch(values[:7] + junk) + same.batch(values[3:300]) + same.batch([]) + same.batch(values[200:])
    assert sorted(value for topic, _, _, value in told if topic == "fleet.scenarios") == expected
    rough = work_of("rough", "256")
    told = (
        rough.batch(values[:7] + junk) + rough.batch(values[3:300]) + rough.batch([]) + rough.batch(values[200:])
    )
    assert [t[0] for t in told].count("fleet.scenarios") == 600


def test_an_event_alone_is_told_sound_or_not() -> None:
    (value,) = (value for _, _, value in encoded(Load(3, 1)))
    for work in (work_of(name, "16") for name in WORKS):
        event = work.event(value)
        assert work.event(b"{}") is None and work.event(value.replace(b"boot-0001", b"boot-0002")) is None
        assert [topic for topic, *_ in work.decide([event])] == ["fleet.scenarios"]
