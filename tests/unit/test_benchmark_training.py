"""Bars of the benchmarks training and scaling hold where they should, and can be missed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from fleet.benchmarks import run_benchmark, scaling, training
from fleet.benchmarks.scaling import QUICK, climb
from fleet.console import Watcher
from model.cost import flops_per_sample, peak_flops
from model.recipes import quick, small, tiny
from model.rig import DASHCAM, THREE_CAMERAS
from model.training import initial


def speed(ratio: float) -> dict[str, Any]:
    return {
        "parameters": 1000,
        "gflop_per_sample": 0.1,
        "samples_per_second": [10.0, 20.0, 30.0],
        "plain_samples_per_second": [20.0],
        "ratio": ratio,
        "gflop_per_second": 2.0,
        "mfu": None,
        "checkpoint_seconds": 0.1,
    }


def agreement(weights: float, resumed: float) -> dict[str, float]:
    two = {"alone_samples_per_second": 5.0, "two_samples_per_second": 9.0}
    return two | {"weights_differ": weights, "resumed_differ": resumed}


@pytest.mark.parametrize(
    ("ratio", "weights", "resumed", "missed"),
    [(1.1, 1e-4, 0, set()), (0.5, 1e-4, 0, {"ratio-tiny"}), (1.1, 0.1, 1e-9, {"sharded", "resumed"})],
)
def test_each_bar_of_training_can_be_missed(
    ratio: float, weights: float, resumed: float, missed: set[str]
) -> None:
    found = training.assess({"tiny": speed(ratio)}, agreement(weights, resumed))
    assert {bar.id for bar in found.bars if not bar.holds} == missed
    assert "| tiny | 1,000 | 0.1 | 20 | 20 |" in found.table


def test_models_are_as_far_apart_as_they_are() -> None:
    start, one = initial(quick().network, 1), initial(quick().network, 2)
    assert training.apart(one, start, start) == pytest.approx(1.0)
    assert training.apart(one, one, start) == 0


def test_work_is_counted_and_known_gpus_have_a_peak() -> None:
    sizes = [flops_per_sample(r().network, THREE_CAMERAS) for r in (quick, tiny, small)]
    assert 1e6 < sizes[0] < sizes[1] < sizes[2] < 1e11
    assert flops_per_sample(quick().network, DASHCAM) < sizes[0]
    assert peak_flops("NVIDIA H100 PCIe") == 756e12
    assert peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_flops("") is None


def ladder(slope: float, beyond: float) -> list[dict[str, Any]]:
    """Runs whose scores fall with data by `slope`; the one beyond is off the law by so much."""
    cells = [(n, d, False) for n in (1e4, 3e4, 9e4) for d in (500, 1000, 2000, 4000)] + [(9e4, 8000, True)]
    return [
        {
            "seed": seed,
            "parameters": n,
            "frames": d,
            "beyond": last,
            "scores": {
                "loss": [1 - slope * (1 - (d / 500) ** -0.5) + 0.2 * (n / 1e4) ** -0.5 + last * beyond, 1.0],
                "ade_m": [1 + (d / 500) ** -0.5, 1.0],
                "disengagements_per_km": [5 + 20 * (d / 500) ** -1.0, 2.0],
            },
        }
        for n, d, last in cells
        for seed in (1, 2)
    ]


def test_a_ladder_with_a_law_holds_the_bars_and_is_drawn() -> None:
    found = scaling.assess(ladder(1.0, 0.0), QUICK)
    assert all(bar.holds for bar in found.bars)
    assert set(found.pictures) == {f"scaling-{name}.svg" for name in scaling.SCORES}
    for name, svg in found.pictures.items():
        assert f"({name})" in found.table
        drawn = ElementTree.fromstring(svg)
        assert len(drawn.findall("{http://www.w3.org/2000/svg}polyline")) == 3
    law = found.results["laws"]["disengagements_per_km"]["law"]
    assert law["floor"][0] == pytest.approx(5, abs=0.5)
    assert law["beta"][0] == pytest.approx(1.0, abs=0.1)


def test_a_prediction_that_fails_and_a_missing_score_miss_their_bars() -> None:
    runs = ladder(1.0, 0.9)
    for run in runs:
        run["scores"].pop("disengagements_per_km")
    assert {bar.id for bar in scaling.assess(runs, QUICK).bars if not bar.holds} == {"beyond", "both"}


def test_a_ladder_is_climbed_with_any_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    """The smallest there is; drives are judged by a stand-in."""
    monkeypatch.setattr(scaling, "WORLD_S", 2.0)
    judged: list[object] = []

    def judge(model: object, of: object) -> dict[str, scaling.Score]:
        judged.append(model)
        return {"disengagements_per_km": scaling.Score(3.0, 1.0)}

    with Watcher(quiet=True) as watch:
        runs = climb(replace(QUICK, networks=QUICK.networks[:1], worlds=(1, 2), beyond=3), 1, watch, judge)
    assert [run["frames"] for run in runs] == [10, 20, 30]
    assert [run["beyond"] for run in runs] == [False, False, True]
    assert len(judged) == 3
    assert set(runs[0]["scores"]) == set(scaling.SCORES)


def test_pictures_lie_beside_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "measure", lambda *_: scaling.assess(ladder(1.0, 0.0), QUICK))
    assert run_benchmark("scaling", seeds="1", out=tmp_path, quick=True, as_json=True) == 0
    assert (tmp_path / "scaling-loss.svg").read_text().startswith("<svg")
    assert json.loads((tmp_path / "scaling.json").read_text())["results"]["laws"]["loss"]["explained"] > 0.9
