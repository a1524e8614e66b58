"""`fleet streams run`: what is wrong is named before anything is done."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fleet.cli import app
from fleet.kafka import free_port
from fleet.stages import STAGES, BadStageSetting, make_stages
from fleet.streams import ENGINES, BadOption, Tally, UnknownEngine, runner
from registry.store import Store
from streams.contracts.clock import SystemClock
from streams.dedup import Dedup
from streams.engines.batch.engine import NotTogether
from streams.engines.inline import InlineEngine
from streams.engines.round import Counts, UnknownStage
from streams.novelty import NoveltyConfig, NoveltyStage
from streams.pooling import PoolConfig
from streams.selection import Selection, SelectionConfig
from streams.topology import BY_STAGE, topics_read
from streams.transport.base import ConnectionFailed
from streams.transport.memory import MemoryTransport


def run(*words: str) -> BaseException | None:
    return CliRunner().invoke(app, ["streams", "run", *words]).exception


def test_an_engine_that_is_not_there() -> None:
    with pytest.raises(UnknownEngine, match=r"no engine 'storm'; there are: .*batch"):
        runner("storm")


def test_an_engine_whose_libraries_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENGINES, "storm", "fleet.run_storm:run")
    with pytest.raises(UnknownEngine, match=r"'storm' needs fleet\.run_storm"):
        runner("storm")


def test_every_stage_of_the_topology_can_be_made(tmp_path: Path) -> None:
    made = make_stages(STAGES, Store(tmp_path))
    assert [s.name for s in made] == list(STAGES)
    assert set(STAGES) == set(BY_STAGE)


def test_a_stage_that_is_not_there() -> None:
    error = run("--kafka", "127.0.0.1:1", "--stages", "dedup,guessing")
    assert isinstance(error, UnknownStage) and "'guessing'; there are: dedup" in str(error)


def test_no_broker_is_said_within_seconds(tmp_path: Path) -> None:
    port, began = free_port(), time.monotonic()
    error = run("--kafka", f"127.0.0.1:{port}", "--store", str(tmp_path))
    assert isinstance(error, ConnectionFailed) and str(port) in str(error)
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("limit", "NAME=VALUE"),
        ("=5", "NAME=VALUE"),
        ("limit=many", "give a number"),
        ("selection.hour_bytes=much", "selection.hour_bytes=much: Expected `int"),
        ("selection.vehicle_bytes=-1", "vehicle_bytes is -1"),
        ("selection.window_ns=0", "window_ns is 0: give 1 or more"),
        ("selection.budget_bytes=-5", "budget_bytes is -5"),
        ("novelty.reservoir=0", "reservoir is 0: give 1 or more"),
        ("dedup.limit=0", "limit is 0"),
        ("selection.minute_bytes=5", "stage selection has mode, window_ns"),
        ("tagging.speed=5", "stage tagging has no settings; those that have: dedup"),
        ("archive.uri=x", "stage archive is not among dedup"),
    ],
)
def test_a_setting_that_is_none(setting: str, said: str) -> None:
    error = run("--kafka", "127.0.0.1:1", "--set", setting)
    assert isinstance(error, BadOption | BadStageSetting) and said in str(error)


def test_a_stage_takes_its_settings() -> None:
    settings = {"selection.hour_bytes": "2000000000", "selection.clips": "7", "novelty.false_alarm_rate": "0.01"}
    novelty, selection, tagging = make_stages(("novelty", "selection", "tagging"), Store("memory://s"), settings)
    assert isinstance(selection, Selection) and isinstance(novelty, NoveltyStage)
    assert selection.config == SelectionConfig(hour_bytes=2_000_000_000, clips=7, pool=PoolConfig())
    assert novelty.config == NoveltyConfig(false_alarm_rate=0.01)
    assert tagging.name == "tagging"


def test_stages_that_read_apart_do_not_share_a_group(tmp_path: Path) -> None:
    """Only where partition-scoped stages read more than one topic; today's data plane reads one."""
    shared = [n.stage for n in BY_STAGE.values() if n.scope == "partition"]
    if len(topics_read(tuple(shared))) < 2:
        pytest.skip("all stages of scope partition read one topic")
    error = run("--kafka", "127.0.0.1:1", "--stages", ",".join(shared), "--store", str(tmp_path))
    assert isinstance(error, NotTogether) and "run the readers of each in a group" in str(error)


@pytest.mark.parametrize("engine", ["batch", "inline"])
def test_a_setting_that_kafkas_client_does_not_have_is_named(engine: str) -> None:
    error = run("--engine", engine, "--kafka", "127.0.0.1:1", "--set", "nonesuch=3")
    assert isinstance(error, ConnectionFailed | BadOption) and "nonesuch" in str(error)


@pytest.mark.parametrize("option", [("--master", "h:8081"), ("--restore", "latest"), ("--parallelism", "2")])
def test_what_only_flink_takes(option: tuple[str, str]) -> None:
    for engine in ("inline", "batch", "faust"):
        error = run("--engine", engine, "--kafka", "127.0.0.1:1", *option)
        assert isinstance(error, BadOption) and str(error) == f"{option[0]}: only --engine flink takes it"


def test_a_tally_adds_up_what_engines_did() -> None:
    engine = InlineEngine(MemoryTransport(), [Dedup()], SystemClock())
    engine.taken, engine.rejected, engine.counts["dedup"] = 5, 2, Counts(3, 2, 1)
    assert str(Tally().add(engine)) == "5 records, 2 of them rejected (dead letters): dedup 3 -> 2 (1 refused)"
    engine.rejected = 0
    assert str(Tally().add(engine).add(engine)) == "10 records: dedup 6 -> 4 (2 refused)"


def test_stages_must_be_some() -> None:
    error = run("--kafka", "127.0.0.1:1", "--stages", " , ")
    assert isinstance(error, BadOption) and "--stages names none; there are dedup, tagging" in str(error)


def test_the_inline_engine_wants_numbers() -> None:
    error = run("--engine", "inline", "--kafka", "127.0.0.1:1", "--set", "limit=many")
    assert isinstance(error, BadOption) and "limit=many" in str(error)
