"""A benchmark's object has the agreed form, its exit status is its bars', its pooled figures are sums."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fleet import benchmarks
from fleet.benchmarks import BadSeeds, UnknownBenchmark, run_benchmark
from fleet.benchmarks.flywheel import ARMS, assess
from fleet.benchmarks.result import Bar, Measured
from fleet.summary import turn_entry
from jobs.documents import Driven, Tally
from simulation.scenarios import CONDITIONS


def measured(holds: bool) -> Measured:
    return Measured({"answer": 42}, [Bar("b", "what", 0.5, "<= 1", holds)], "a table")


@pytest.mark.parametrize(("holds", "status"), [(True, 0), (False, 1)])
def test_the_object_is_written_and_told_and_a_missed_bar_is_an_exit_status(
    holds: bool, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(benchmarks.CATALOG, "flywheel", lambda seeds, scratch, quick: measured(holds))
    assert run_benchmark("flywheel", seeds="3,4", out=tmp_path, quick=True, as_json=True) == status
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads((tmp_path / "flywheel.json").read_text())
    assert set(told) == {"name", "command", "date", "machine", "seeds", "quick", "results", "bars"}
    assert told["seeds"] == [3, 4]
    assert told["bars"] == [{"id": "b", "what": "what", "value": 0.5, "bar": "<= 1", "holds": holds}]
    page = (tmp_path / "flywheel.md").read_text()
    assert "a table" in page
    assert "cut down" in page


def test_what_is_cut_down_does_not_take_the_place_of_a_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(benchmarks.CATALOG, "flywheel", lambda seeds, scratch, quick: measured(True))
    for quick in (False, True):
        run_benchmark("flywheel", seeds="3", out=None, quick=quick, as_json=True)
    assert "cut down" not in (tmp_path / "docs/results/flywheel.md").read_text()
    assert "cut down" in (tmp_path / "runs/benchmarks/flywheel-quick/flywheel.md").read_text()


def test_wrong_words_are_named(tmp_path: Path) -> None:
    with pytest.raises(UnknownBenchmark, match="flywheel"):
        run_benchmark("warp", seeds="1", out=tmp_path, quick=True, as_json=False)
    with pytest.raises(BadSeeds, match="whole numbers"):
        run_benchmark("flywheel", seeds="1;2", out=tmp_path, quick=True, as_json=False)


def turn(number: int, events: int, km: float = 10.0) -> dict[str, Any]:
    """A turn in which every condition had `events` events in `km`."""
    driven = Driven("graph", {name: Tally(km, km / 30, {"lateral": events}, 1.0, 24) for name in CONDITIONS})
    entry = turn_entry(number, f"m{number}", driven)
    clips = {"stored": 240, "by_condition": {"night": 60}}
    return {**entry, "candidate": entry, "verdict": "pass", "clips": clips}


def runs(curated: tuple[int, ...], random: tuple[int, ...], km: tuple[float, ...] = (10, 10, 10)) -> Any:
    arms = zip(ARMS, (curated, random), strict=True)
    one = {arm: [turn(n, e, km[n]) for n, e in enumerate(events)] for arm, events in arms}
    return {"11": one, "12": one}


def test_good_runs_hold_every_bar_and_counts_are_pooled_over_seeds_and_conditions() -> None:
    found = assess(runs((120, 40, 30), (120, 100, 80)))
    assert {b.id: b.holds for b in found.bars} == dict.fromkeys(
        ("fall-per-km", "fall-per-hour", "apart", "km", "curated-over-random"), True
    ) | {"base": True}
    pooled = found.results["pooled"]["all unseen"]["curated"]
    assert pooled[0]["disengagements"] == 2 * 6 * 120
    assert pooled[0]["rate_per_km"] == pytest.approx(12.0)
    without = next(v for k, v in found.results["pooled"].items() if k.startswith("without"))
    assert without["curated"][0]["disengagements"] == 2 * 4 * 120


@pytest.mark.parametrize(
    ("curated", "random", "km", "missed"),
    [
        ((120, 80, 60), (120, 118, 100), (10, 10, 10), {"fall-per-km", "fall-per-hour"}),
        ((120, 40, 30), (120, 50, 40), (10, 10, 10), {"curated-over-random"}),
        ((120, 40, 20), (120, 100, 80), (10, 10, 7), {"km"}),
    ],
)
def test_each_bar_can_be_missed(
    curated: tuple[int, ...], random: tuple[int, ...], km: tuple[float, ...], missed: set[str]
) -> None:
    assert {b.id for b in assess(runs(curated, random, km)).bars if not b.holds} == missed
