"""The driving and rigs benchmarks: figures worked by hand, bars that can be missed, and a small run of each."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fleet.benchmarks import driving, rigs
from fleet.benchmarks.curves import correlation, disagreement, plot
from fleet.benchmarks.driving_page import bars, table
from fleet.benchmarks.driving_speed import speeds
from fleet.benchmarks.schooling import expert_samples, taught
from fleet.suite_figures import pooled
from model.config import TrainingConfig
from model.policy import Observation, Plan
from model.rig import RIGS, THREE_CAMERAS
from monitoring.disengagements import garwood
from simulation.suites import SUITES


def driven(pdms: float, km: float = 1.0, **causes: int) -> dict[str, Any]:
    scores = {name: [pdms, pdms] for name in ("pdms", "epdms", "driving_score", "nuplan", "rss_danger")}
    return {"scores": scores, "km": km, "hours": km / 20, "causes": causes}


FAST = {"plain": {"per_s": 900.0}, "every scenario": {"per_s": 300.0}}


def runs_of(policy: Mapping[str, Any], seeds: int = 3) -> dict[str, Any]:
    suites = {name: {"expert": driven(0.8), "policy": dict(policy)} for name in SUITES}
    return {str(seed): {"suites": suites} for seed in range(seeds)}


def test_rates_and_shares_are_pooled_over_seeds() -> None:
    found = pooled(runs_of(driven(0.6, stop_sign=2, stuck=1)))["base"]
    assert found["policy"]["per_km"]["value"] == pytest.approx(3.0)
    assert (found["policy"]["per_km"]["low"], found["policy"]["per_km"]["high"]) == garwood(9, 3.0)
    assert found["policy"]["per_hour"]["value"] == pytest.approx(60.0)
    assert found["policy"]["causes"] == {"stop_sign": 6, "stuck": 3}
    assert found["share"]["pdms"]["value"] == pytest.approx(0.75)
    assert found["expert"]["disengagements"] == 0


def test_seeds_with_fewer_episodes_count_with_what_they_have() -> None:
    runs = runs_of(driven(0.6), 2)
    regressions = runs["0"]["suites"] | {"regressions": {"expert": driven(0.8), "policy": driven(0.3)}}
    regressions["regressions"]["policy"]["scores"]["pdms"] = [0.9]
    runs["0"] = {"suites": regressions}
    found = pooled(runs)["regressions"]["policy"]["scores"]["pdms"]
    assert found["value"] == pytest.approx((0.9 + 0.6 + 0.6) / 3)


def test_a_suite_without_an_episode_says_so() -> None:
    nothing = {"scores": {}, "km": 0.0, "hours": 0.0, "causes": {}}
    runs = runs_of(driven(0.6), 1)
    runs["0"]["suites"]["regressions"] = {"expert": nothing, "policy": nothing}
    found = pooled(runs)
    assert found["regressions"]["policy"]["per_km"]["value"] is None
    assert found["regressions"]["share"]["pdms"]["value"] is None
    page = table(found, {}, {}, {}, FAST)
    assert "| regressions | policy | 0.0 | – |" in page
    assert "plain 900; every scenario 300." in page


@pytest.mark.parametrize(
    ("policy", "seeds", "missed"),
    [
        (driven(0.77, 2.0, stuck=2), 3, set()),
        (driven(0.75, 2.0), 3, {"base-pdms"}),
        (driven(0.6), 3, {"base-pdms", "long-tail-pdms"}),
        (driven(0.8, 2.0, stuck=3), 3, {"base-per-km"}),
        (driven(0.8), 2, {"seeds"}),
        ({"scores": {}, "km": 0.0, "hours": 0.0, "causes": {}}, 3, {"base-pdms", "long-tail-pdms", "base-per-km"}),
    ],
)
def test_bars_can_be_missed(policy: dict[str, Any], seeds: int, missed: set[str]) -> None:
    found = bars(pooled(runs_of(policy, seeds)), seeds, FAST)
    assert {bar.id for bar in found if not bar.holds} == missed
    slow = bars(pooled(runs_of(policy, seeds)), seeds, FAST | {"plain": {"per_s": 799.0}})
    assert {bar.id for bar in slow if not bar.holds} == {*missed, "speed"}


def test_worlds_are_timed_in_turn() -> None:
    found = speeds(5, rounds=2, plans=1)
    assert {name: len(one["each"]) for name, one in found.items()} == {"plain": 2, "every scenario": 2}
    assert all(0 < min(one["each"]) <= one["per_s"] <= max(one["each"]) for one in found.values())


def point(samples: int, ade: float, per_km: float, share: float) -> dict[str, Any]:
    names = ("ade_m", "fde_m", "min_ade_m", "miss_rate", "mode_calibration_error")
    return {"samples": samples, "open_loop": dict.fromkeys(names, ade), "per_km": per_km, "pdms_share": share}


def test_rank_correlation_by_hand() -> None:
    assert correlation([1, 2, 3, 4, 5], [2, 3, 5, 8, 9])["value"] == pytest.approx(1.0)
    # Ranks 1 2 3 4 against 2 1 4 3: 1 - 6 * 4 / (4 * 15).
    assert correlation([1, 2, 3, 4], [20, 10, 40, 30])["value"] == pytest.approx(0.6)
    assert correlation([1, 1, 1, 1], [1, 2, 3, 4]) == {"value": None, "low": None, "high": None}
    assert correlation([1, 2], [2, 1]) == {"value": pytest.approx(-1.0), "low": None, "high": None}
    rng = np.random.default_rng(1)
    noise = correlation(rng.random(40).tolist(), rng.random(40).tolist())
    low, value, high = (noise[key] for key in ("low", "value", "high"))
    assert low is not None and value is not None and high is not None
    assert low < 0 < high and low < value < high
    assert noise == correlation(*np.random.default_rng(1).random((2, 40)).tolist())


def test_figures_that_agree_and_disagree_are_told_apart() -> None:
    agree = disagreement([point(i, ade=5.0 - i, per_km=9.0 - i, share=0.5 + 0.1 * i) for i in range(4)])
    assert agree["ade_m"]["per_km"]["value"] == pytest.approx(1.0)
    assert agree["ade_m"]["pdms_share"]["value"] == pytest.approx(1.0)
    against = disagreement([point(i, ade=5.0 - i, per_km=1.0 + i, share=0.9 - 0.1 * i) for i in range(4)])
    assert against["ade_m"]["per_km"]["value"] == pytest.approx(-1.0)
    assert against["ade_m"]["pdms_share"]["value"] == pytest.approx(-1.0)


def test_the_plot_is_a_picture_with_a_line_for_each_seed() -> None:
    curves = {"11": [point(0, 2, 9, 0.4), point(100, 1, 3, 0.8)], "12": [point(100, 1.5, 4, 0.7)]}
    root = ET.fromstring(plot(curves))
    space = "{http://www.w3.org/2000/svg}"
    assert len(root.findall(f".//{space}polyline")) == 3 * 2
    assert len(root.findall(f".//{space}circle")) == 3 * 3 + 2, "and what each colour is"
    numbers = [float(c.get(axis, "nan")) for c in root.iter(f"{space}circle") for axis in ("cx", "cy")]
    assert np.isfinite(numbers).all() and min(numbers) >= 0


TINY = TrainingConfig(steps=4, batch=8, warmup_steps=1, threads=1)
SCHOOL = replace(
    driving.QUICK.schooling,
    scenes=2,
    corrected=(1,),
    seconds=1.2,
    clone=TINY,
    correct=replace(TINY, replay_share=0.5),
)


def test_a_pupil_is_taught_the_same_by_the_same_seed() -> None:
    stages, again = (list(taught(SCHOOL, THREE_CAMERAS, 5, lambda *_: None)) for _ in range(2))
    assert [stage.name for stage in stages] == ["cloned", "corrected 1"]
    assert [stage.samples for stage in stages] == [32, 64]
    for first, second in zip(stages, again, strict=True):
        for name, tensor in first.checkpoint.weights.items():
            assert tensor.equal(second.checkpoint.weights[name]), name
    assert len(expert_samples(SCHOOL, THREE_CAMERAS, 5, lambda *_: None)) == 2 * 2


def test_a_seed_runs_through_every_suite_and_what_was_taught_is_not_taught_again(tmp_path: Path) -> None:
    extent, driven = driving.Extent(1, 6.0), ("base", "long-tail", "regressions", "adversarial")
    setup = replace(
        driving.QUICK,
        schooling=SCHOOL,
        suites=dict.fromkeys(driven, extent),
        curve=extent,
        frames=driving.Extent(2, 1.0),
        instances=1,
    )
    stages = driving.stages_of(SCHOOL, 5, tmp_path, lambda *_: None)
    again = driving.stages_of(SCHOOL, 5, tmp_path, lambda *_: pytest.fail("taught again"))
    assert [s.name for s in again] == [s.name for s in stages]
    row = driving.run(stages, setup, 5, tmp_path, lambda *_: None)
    assert tuple(row["suites"]) == driven
    assert [p["stage"] for p in row["curve"]] == ["cloned", "corrected 1"]
    assert (tmp_path / "regressions-5.json").exists()
    measured = driving.assess({"5": row}, FAST)
    assert {bar.id for bar in measured.bars} == {"seeds", "base-pdms", "base-per-km", "long-tail-pdms", "speed"}
    assert "driving.svg" in measured.pictures and "| long-tail | policy |" in measured.table
    assert "| 5 | corrected 1 | 64 |" in measured.table


class Broken:
    """A policy that loses its mind on black pictures."""

    def plan(self, observation: Observation) -> Plan:
        count = len(observation.images)
        modes = np.ones((count, 2, 8, 2), np.float32)
        modes[observation.images.reshape(count, -1).max(1) == 0] = np.nan
        return Plan(modes, np.full((count, 2), 0.5, np.float32), modes, np.zeros((count, 4), np.float32))


def test_plans_that_are_not_finite_are_counted_and_stand() -> None:
    images = np.zeros((3, 1, 4, 4, 3), np.uint8)
    images[1] = 9
    told = np.zeros(3, np.float32)
    watched = rigs.Watched(Broken())
    plan = watched.plan(Observation(images, told, told, np.zeros(3, np.int64)))
    assert (watched.plans, watched.not_finite) == (3, 2)
    assert np.isfinite(plan.best).all() and (plan.best[0] == 0).all() and (plan.best[1] == 1).all()


def rig_row(one: float, bad: int = 0) -> dict[str, Any]:
    def own(pdms: float, bad: int = 0) -> dict[str, Any]:
        return {"pdms": [pdms, pdms], "km": 1.0, "disengagements": 1, "plans": 10, "not_finite": bad}

    return {"cameras": 3, "specialist": own(0.8), "one": own(one), "one, a camera lost": own(0.4, bad)}


@pytest.mark.parametrize(
    ("rows", "missed"),
    [
        ({"a": rig_row(0.9), "b": rig_row(0.73)}, set()),
        ({"a": rig_row(0.9), "b": rig_row(0.7)}, {"one-for-all"}),
        ({"a": rig_row(0.8), "b": rig_row(0.8, bad=1)}, {"finite"}),
    ],
)
def test_the_rigs_bars_can_be_missed(rows: dict[str, Any], missed: set[str]) -> None:
    measured = rigs.assess(dict.fromkeys(("11", "12", "13"), rows))
    assert {bar.id for bar in measured.bars if not bar.holds} == missed
    assert {bar.id for bar in rigs.assess({"11": rows}).bars if not bar.holds} == missed | {"seeds"}
    assert "| b | 3 | one, a camera lost | 0.40" in measured.table


def test_one_network_learns_rigs_of_one_and_of_four_cameras() -> None:
    setup = replace(rigs.QUICK, scenes=1, seconds=2.0, episodes=1, driven_s=6.0, training=TINY)
    few = {name: RIGS[name] for name in ("dashcam-1", "robot-4")}
    row = rigs.run(setup, 5, lambda *_: None, few)
    assert {name: r["cameras"] for name, r in row.items()} == {"dashcam-1": 1, "robot-4": 4}
    assert all(r[driver]["not_finite"] == 0 for r in row.values() for driver in rigs.DRIVERS)
