"""The world model's benchmark: its bars are the worst of steps and seeds, and its quick form runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fleet.benchmarks.world_model import CONTENDERS, GRIPS, OTHER_RIGS, _obeyed, assess, run_seed


def row(own: list[float], last: float = 100.0, flow: float = 90.0) -> dict[str, Any]:
    steps = len(own)
    errors = dict(zip(CONTENDERS, (own, [last] * steps, [flow] * steps), strict=True))
    told = {"correlation": 0.9, "slope": 1.0, "error": 0.1}
    apart = {"1 s": {"apart_m": 0.1, "aside_m": 0.05, "driven_m": 8.0, "steered_m": 0.3}}
    pixels = {n: {"mse": e, "psnr": [20.0] * steps, "ssim": [0.5] * steps} for n, e in errors.items()}
    return {
        "pixels": pixels,
        "rigs": dict.fromkeys(OTHER_RIGS, pixels),
        "latents": {n: [0.1] * steps for n in CONTENDERS[:2]},
        "actions": {grip: {"speed": told, "yaw_rate": told} for grip in GRIPS},
        "episodes": dict.fromkeys(CONTENDERS[:2], apart),
    }


def test_a_bar_is_the_worst_step_of_the_worst_seed() -> None:
    good = [50.0] * 30
    bars = {b.id: b for b in assess({"1": row(good), "2": row(good)}).bars}
    assert all(b.holds for b in bars.values())
    assert bars["last-picture"].value == pytest.approx(0.5)
    one_step = [*good[:3], 95.0, *good[4:]]
    bars = {b.id: b for b in assess({"1": row(good), "2": row(one_step)}).bars}
    assert bars["last-picture"].holds
    assert bars["last-picture"].value == pytest.approx(0.95)
    assert not bars["constant-flow"].holds
    late = [*good[:29], 130.0]
    bars = {b.id: b for b in assess({"1": row(late)}).bars}
    assert bars["last-picture"].holds, "after the tenth step another bar looks"
    assert not bars["long"].holds


def test_the_page_has_a_column_for_each_step() -> None:
    table = assess({"1": row([50.0 + k for k in range(30)])}).table
    assert "| MSE | world model | 50 | 51 | 52 | 54 | 56 | 59 | 64 | 69 | 79 |" in table
    assert "world model 1.0" in table, "it grows by one a step"


def test_obedience_is_told_by_slope_and_error() -> None:
    told = np.random.default_rng(1).uniform(0, 10, (20, 10, 2)).astype(np.float32)
    read = told * [0.5, 1.0] + [0.0, 0.2]
    found = _obeyed(read, told)
    assert found["speed"]["slope"] == pytest.approx(0.5)
    assert found["speed"]["correlation"] == pytest.approx(1.0)
    assert found["yaw_rate"]["error"] == pytest.approx(0.2, abs=1e-6)


def test_the_quick_form_tells_everything(tmp_path: Path) -> None:
    found = run_seed(3, tmp_path, quick=True)
    assert assess({"3": found}).table
    assert [p.name for p in tmp_path.iterdir()] == ["world-3.safetensors"]
    errors = {name: found["pixels"][name]["mse"] for name in CONTENDERS}
    assert all(np.isfinite(e).all() and min(e) > 0 for e in errors.values())
    assert errors["world model"][0] < errors["last picture"][0], "geometry alone is better than nothing"
