"""The benchmark heads: its bars hold where they should and can be missed; cut down, it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fleet.benchmarks import heads
from model.labels import MOTION


def row(skill: float, speed: float) -> dict[str, Any]:
    named = dict.fromkeys(("motion.yaw_rate_radps", "occupancy.body", "risk", "tags.night"), skill)
    skills = named | {"motion.speed_mps": speed}
    return {"skill": skills, "cases": dict.fromkeys(skills, 100), "ade_m": 0.5, "ade_without_signals_m": 0.9}


def run(one: float, two: float, skill: float = 0.4) -> dict[str, Any]:
    return {"frames": 1000, "asked": 100, "1": row(skill, one), "2": row(skill, two)}


def test_what_is_told_well_holds_and_is_listed() -> None:
    found = heads.assess({"1": run(0.3, 0.6), "2": run(0.5, 0.8), "3": run(0.4, 0.7)})
    assert all(bar.holds for bar in found.bars)
    assert {bar.id for bar in found.bars} == {*heads.HEADS, "blind", "history", "seeds"}
    assert next(bar.value for bar in found.bars if bar.id == "history") == pytest.approx(0.3)
    assert "| motion.speed_mps | 100 | 0.40 | 0.70 | 0.60, 0.80, 0.70 |" in found.table
    assert "| mean displacement, speed and yaw rate not known | 0.90 m | 0.90 m |" in found.table


def test_a_head_that_knows_nothing_and_a_history_that_adds_nothing_miss_their_bars() -> None:
    runs = {"1": run(0.6, 0.6, skill=0.05), "2": run(0.6, 0.6, skill=0.05)}
    runs["2"]["2"]["skill"].pop("risk")  # nobody failed there: nothing to tell
    assert {bar.id for bar in heads.assess(runs).bars if not bar.holds} == {
        "occupancy",
        "risk",
        "tags",
        "history",
        "seeds",
    }
    for seed in runs:
        runs[seed]["2"]["skill"].pop("risk", None)
    assert not next(bar.holds for bar in heads.assess(runs).bars if bar.id == "risk"), "never asked is not known"
    runs["1"]["2"]["skill"]["tags.night"] = -0.2
    assert next(bar.value for bar in heads.assess(runs).bars if bar.id == "blind") == 1


def test_it_runs_cut_down_and_asks_about_other_drives(tmp_path: Path) -> None:
    found = heads.run_seed(3, tmp_path, quick=True)
    size = heads.QUICK
    frames = round(size.seconds * 5)
    assert found["frames"] == (size.expert_scenes + size.pupil_scenes) * frames
    assert found["asked"] == 2 * size.asked_scenes * frames
    for seen in ("1", "2"):
        told = found[seen]["skill"]
        assert {f"motion.{name}" for name in MOTION} <= set(told)
        assert {"occupancy.road", "occupancy.body"} <= set(told)
        assert any(name.startswith("tags.") for name in told)
        assert found[seen]["ade_m"] > 0 and found[seen]["ade_without_signals_m"] > 0
    assert found["1"] != found["2"]
