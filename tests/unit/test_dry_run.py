"""What a stage would emit is what it does emit on an engine; nothing else happens."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fleet.stages import make_stages
from fleet.times import BadTime, duration_ns, time_ns
from registry.store import Store
from streams.contracts.clock import SECOND_NS, VirtualClock
from streams.contracts.codec import encode
from streams.dedup import Dedup
from streams.dry_run import DryRun, chain
from streams.engines.inline import InlineEngine
from streams.novelty import NoveltyStage
from streams.recording import BadRecording, read_recording, write_recording
from streams.tagging import Tagging
from streams.topology import TOPOLOGY
from streams.transport.base import Record
from streams.transport.memory import MemoryTransport
from tests.conftest import fleet
from tests.samples import T0, event, scenario


def record(number: int, second: int = 0, vehicle: str = "car-1") -> Record:
    headers, value = encode(event(number, vehicle))
    return Record("fleet.events", 0, number, vehicle.encode(), headers, value, T0 + second * SECOND_NS)


def stages(name: str) -> DryRun:
    return DryRun(make_stages(chain(name), Store("memory://x")), name)


def test_a_chain_reaches_back_to_a_topic() -> None:
    assert chain("dedup") == ("dedup",)
    assert chain("novelty") == ("dedup", "tagging", "novelty")
    assert chain("selection") == ("selection",)


@pytest.mark.parametrize("node", TOPOLOGY, ids=lambda n: n.stage)
def test_every_stage_can_be_run_dry(node: object) -> None:
    name = str(getattr(node, "stage"))  # noqa: B009
    run = stages(name)
    list(run.run([record(n) for n in range(3)], settle_ns=SECOND_NS))
    assert run.report.records == 3


def test_it_emits_what_an_engine_emits() -> None:
    records = [record(n, second=n // 10) for n in range(60)]
    dry = [emit.message for _, emit in stages("novelty").run(records)]
    transport, clock = MemoryTransport(), VirtualClock(T0)
    engine = InlineEngine(transport, [Dedup(), Tagging(), NoveltyStage()], clock)
    for second in range(6):
        for r in records[second * 10 : second * 10 + 10]:
            transport.publish(r.topic, r.key, r.headers, r.value)
        engine.step()
        clock.advance(SECOND_NS)
    live = [r.value for r in transport.poll("look", ["fleet.scenarios"], 1000)]
    assert sorted(encode(m)[1] for m in dry) == sorted(live)
    assert len(live) == 60


def test_doubles_and_rubbish_are_counted() -> None:
    rubbish = replace(record(7), value=b"{")
    run = stages("dedup")
    emits = list(run.run([record(1), record(1), rubbish]))
    assert len(emits) == 1
    assert run.report.emitted == {"events.fresh": 1}
    assert run.report.dead_letters == {"malformed": 1}
    assert (run.report.records, run.report.taken) == (3, 2)


def test_windows_close_when_time_passes() -> None:
    headers, value = encode(scenario(1))
    recorded = [Record("fleet.scenarios", 0, 0, b"c", headers, value, T0)]
    assert list(stages("selection").run(recorded)) == []
    later = list(stages("selection").run(recorded, settle_ns=2 * 3600 * SECOND_NS))
    assert [emit.stream for _, emit in later] == ["fleet.clip-requests"]


def test_a_recording_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    records = [record(1), replace(record(2), value=b"\xff\x00 no text"), replace(record(3), time_ns=0)]
    assert write_recording(path, records) == 3
    assert list(read_recording(path)) == records


@pytest.mark.parametrize(
    "line", ["{}", "[1]", '{"topic": "no.such"}', '{"topic": "fleet.events", "colour": 1}', "\xff", '{"topic": 1}']
)
def test_a_line_that_is_no_record_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "events.jsonl"
    write_recording(path, [record(1)])
    path.write_bytes(path.read_bytes() + line.encode("latin-1") + b"\n")
    with pytest.raises(BadRecording, match=r"events\.jsonl:2"):
        list(read_recording(path))


def test_times_and_durations() -> None:
    assert time_ns("90s", T0) == T0 - 90 * SECOND_NS
    assert time_ns("1970-01-01T00:01:00Z", T0) == time_ns("1970-01-01T00:01:00", T0) == 60 * SECOND_NS
    assert duration_ns("1.5h") == 5400 * SECOND_NS
    for text in ("yesterday", "-3h", "", "3 h"):
        with pytest.raises(BadTime):
            time_ns(text, T0)


def test_the_command_tells_and_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    write_recording(path, [record(n) for n in range(5)])
    done = fleet("streams", "dry-run", "tagging", "--input", str(path), "--show", "2", "--json", timeout_s=60)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["emitted"] == {"events.tagged": 5}
    assert len(told["emits"]) == 2
    assert told["chain"] == ["dedup", "tagging"]
    assert list(tmp_path.iterdir()) == [path]
    for_another = fleet("streams", "dry-run", "rollouts", "--input", str(path), timeout_s=60)
    assert (
        for_another.returncode == 1 and "no record of learning.jobs, fleet.telemetry in it" in for_another.stderr
    )
