"""The adaptation benchmark: its parts are what they say, its bars can be missed, its page is whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fleet.benchmarks.adaptation_page import (
    ADAPTER,
    ARMS,
    FEW_FULL,
    MANY_FULL,
    POOLED,
    ZERO_SHOT,
    Shares,
    assess,
    ratio,
    recovered,
)

EPISODES = 8


def driven(pdms: float, per_episode: int, parameters: int = 20) -> dict[str, Any]:
    scores = [pdms] * EPISODES
    return {
        "pdms": scores,
        "epdms": scores,
        "km": [0.5] * EPISODES,
        "disengagements": [per_episode] * EPISODES,
        "ade_m": 2 - pdms,
        "parameters": parameters,
    }


def runs(few: tuple[float, int] = (0.86, 2), seeds: int = 3, parameters: int = 20, after: float = 0.95) -> Any:
    arms = {
        ZERO_SHOT: driven(0.5, 10),
        ADAPTER: driven(*few, parameters),
        FEW_FULL: driven(0.8, 3),
        MANY_FULL: driven(0.9, 1),
    }
    practice = {"before": driven(0.9, 2), "after": driven(after, 1), "rounds": []}
    return {
        str(n): {"parameters": 1000, "abroad": {"uk": arms, "jp": arms}, "practice": practice}
        for n in range(seeds)
    }


def test_what_is_recovered_is_told_of_each_region_and_of_all() -> None:
    found = assess(runs()).results
    for region in ("uk", "jp", POOLED):
        parts = found["regions"][region]["recovered"][ADAPTER]
        assert parts["pdms"]["value"] == pytest.approx((0.86 - 0.5) / (0.9 - 0.5))
        assert parts["rate"]["value"] == pytest.approx((10 - 2) / (10 - 1))
        assert parts["ade"]["value"] == pytest.approx(0.9)
        assert parts["pdms"]["low"] <= parts["pdms"]["value"] <= parts["pdms"]["high"]
    told = found["regions"][POOLED]["arms"][ZERO_SHOT]
    assert told["disengagements"] == 3 * 2 * EPISODES * 10
    assert told["per_km"]["value"] == pytest.approx(20.0)
    assert found["practice"]["gain"]["pdms"]["value"] == pytest.approx(0.05)
    assert found["practice"]["rate_ratio"]["value"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("changes", "missed"),
    [
        ({}, set()),
        ({"few": (0.86, 4)}, {"recovered-rate"}),
        ({"few": (0.7, 2)}, {"recovered-pdms"}),
        ({"parameters": 31}, {"size"}),
        ({"seeds": 2}, {"seeds"}),
    ],
)
def test_bars_can_be_missed(changes: dict[str, Any], missed: set[str]) -> None:
    assert {bar.id for bar in assess(runs(**changes)).bars if not bar.holds} == missed


def test_a_page_has_a_line_for_each_model_and_region() -> None:
    page = assess(runs()).table
    assert sum(line.startswith("| uk |") for line in page.splitlines()) == len(ARMS)
    assert "| gain, by pairs | +0.050" in page
    assert "2.0%" in page


def test_a_ratio_is_of_pairs() -> None:
    """Scenes that are hard before are hard after: what differs between them says nothing of the ratio."""
    rng = np.random.default_rng(1)
    hard, km = rng.poisson(np.tile(rng.gamma(0.5, 4.0, 40), (3, 1))).astype(float), np.ones((3, 40))
    paired, apart = (ratio(Shares(0.8 * after, km), Shares(hard, km)) for after in (hard, hard[:, ::-1]))
    assert list(paired.values()) == pytest.approx([0.8, 0.8, 0.8])
    assert apart["value"] == pytest.approx(0.8)
    assert float(apart["high"] or 0) - float(apart["low"] or 0) > 0.3
    none = Shares(np.zeros((3, 40)), km)
    assert ratio(none, none) == {"value": None, "low": None, "high": None}


def test_intervals_follow_seeds_and_episodes() -> None:
    rng = np.random.default_rng(1)

    def shares(mean: float, spread: float) -> Shares:
        return Shares(mean + spread * rng.normal(size=(3, 40)), np.ones((3, 40)))

    narrow = recovered(shares(1.0, 0.01), shares(0.2, 0.01), shares(0.0, 0.01), -1)
    wide = recovered(shares(1.0, 0.5), shares(0.2, 0.5), shares(0.0, 0.5), -1)
    assert narrow["value"] == pytest.approx(0.8, abs=0.02)
    spans = [float(part["high"] or 0) - float(part["low"] or 0) for part in (narrow, wide)]
    assert spans[0] < 0.05
    assert spans[1] > 0.2
    same = shares(1.0, 0.1)
    nothing = {"value": None, "low": None, "high": None}
    assert recovered(same, same, same, 1) == nothing
    # Two that get worse alike have recovered nothing.
    assert recovered(shares(0.0, 0.01), shares(1.0, 0.01), shares(1.0, 0.01), -1) == nothing
