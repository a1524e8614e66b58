"""What the driving benchmark says: means and rates over seeds with their intervals, bars, and a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from fleet.benchmarks.driving_speed import LEAST_PER_S
from fleet.benchmarks.result import Bar, interval, seeds_bar
from monitoring.disengagements import garwood
from simulation.arrays import Floats
from simulation.scores.suites import mean
from simulation.suites import SUITES

Row = Mapping[str, Any]
DRIVERS = ("expert", "policy")
BASE_SHARE, LONG_TAIL_SHARE, BASE_PER_KM = 0.95, 0.80, 1.0


def pooled(runs: Mapping[str, Row]) -> dict[str, Any]:
    """Suite -> driver -> figures over all seeds; and the policy's share of the expert's scores."""
    names = [name for name in SUITES if all(name in run["suites"] for run in runs.values())]
    found: dict[str, Any] = {}
    for name in names:
        rows = [run["suites"][name] for run in runs.values()]
        drivers = {driver: _driver([row[driver] for row in rows]) for driver in DRIVERS}
        found[name] = drivers | {"share": {score: _share(rows, score) for score in ("pdms", "epdms")}}
    return found


def _driver(rows: Sequence[Row]) -> dict[str, Any]:
    km, hours = sum(row["km"] for row in rows), sum(row["hours"] for row in rows)
    causes = sum((Counter(row["causes"]) for row in rows), Counter[str]())
    count = sum(causes.values())
    names = {name: None for row in rows for name in row["scores"]}
    return {
        "scores": {name: asdict(mean(_table(rows, name))) for name in names},
        "km": km,
        "hours": hours,
        "disengagements": count,
        "causes": dict(causes.most_common()),
        "per_km": _rate(count, km),
        "per_hour": _rate(count, hours),
    }


def _table(rows: Sequence[Row], score: str) -> Floats:
    """[seeds, episodes], NaN where a seed had fewer episodes."""
    values = [np.asarray(row["scores"].get(score, []), float) for row in rows]
    out = np.full((len(rows), max(1, *map(len, values)) if values else 1), np.nan)
    for row, line in zip(out, values, strict=True):
        row[: len(line)] = line
    return out


def _rate(count: int, exposure: float) -> dict[str, float | None]:
    """With the Garwood interval; None where nothing was driven."""
    if exposure <= 0:
        return {"value": None, "low": None, "high": None}
    low, high = garwood(count, exposure)
    return {"value": count / exposure, "low": low, "high": high}


def _share(rows: Sequence[Row], score: str) -> dict[str, float | None]:
    """The policy's mean over the expert's, with the interval of the former: both drove the same."""
    experts = _table([row["expert"] for row in rows], score)
    whole = float(np.nanmean(experts)) if np.isfinite(experts).any() else 0.0
    if whole <= 0:
        return {"value": None, "low": None, "high": None}
    return asdict(mean(_table([row["policy"] for row in rows], score) / whole))


def bars(found: Mapping[str, Any], seeds: int, fast: Mapping[str, Any]) -> list[Bar]:
    """What must hold."""
    base, tail = found["base"], found["long-tail"]["share"]["pdms"]["value"] or 0.0
    share, rate = base["share"]["pdms"]["value"] or 0.0, base["policy"]["per_km"]["value"]
    # JSON has no infinity.
    per_km = 1e9 if rate is None else rate
    return [
        seeds_bar(seeds),
        Bar("base-pdms", "policy's PDMS over the expert's, base", share, f">= {BASE_SHARE}", share >= BASE_SHARE),
        Bar("base-per-km", "disengagements per km, base", per_km, f"<= {BASE_PER_KM:g}", per_km <= BASE_PER_KM),
        Bar(
            "long-tail-pdms",
            "policy's PDMS over the expert's, long-tail",
            tail,
            f">= {LONG_TAIL_SHARE}",
            tail >= LONG_TAIL_SHARE,
        ),
        Bar(
            "speed",
            "three-camera rigs simulated per second of CPU, plain world",
            fast["plain"]["per_s"],
            f">= {LEAST_PER_S:g}",
            fast["plain"]["per_s"] >= LEAST_PER_S,
        ),
    ]


SCORES = ("driving_score", "pdms", "epdms", "nuplan", "rss_danger", "rss_longitudinal", "rss_lateral")


def table(
    found: Mapping[str, Any],
    correlations: Mapping[str, Any],
    harm: Mapping[str, Sequence[float]],
    curves: Mapping[str, Sequence[Row]],
    fast: Mapping[str, Any],
) -> str:
    """The page's text."""
    return "\n".join(
        [
            "Supervised driving gives disengagements (95 % Garwood intervals); driving alone gives CARLA's score,",
            "nuPlan's score and the shares of time in danger and in violation by RSS; PDMS and EPDMS of windows",
            "of 4 s from the expert's states. 95 % intervals over seeds and episodes.",
            "",
            suites_table(found),
            "",
            *(f"- {suite.name}: {suite.what}" for suite in SUITES.values()),
            "",
            "![Open-loop and closed-loop curves](driving.svg)",
            "",
            *_agreement(correlations),
            "",
            *_stages(curves),
            "",
            "Harm by an adversary (takeovers in a drive, of three, where the expert needs none), by generation:",
            "; ".join(f"seed {seed}: {', '.join(f'{h:.2f}' for h in told)}" for seed, told in harm.items()),
            "",
            "Three-camera rigs moved on and rendered per second of CPU, median of the rounds: "
            + "; ".join(f"{name} {one['per_s']:,.0f}" for name, one in fast.items())
            + ".",
        ]
    )


def suites_table(found: Mapping[str, Any]) -> str:
    """Both drivers on every suite: Markdown."""
    head = ["suite", "driver", "km", "per km", "per hour", *SCORES, "PDMS of the expert's", "causes"]
    rows = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, suite in found.items():
        for driver in DRIVERS:
            rows.append("| " + " | ".join(_cells(name, driver, suite)) + " |")
    return "\n".join(rows)


def _agreement(correlations: Mapping[str, Any]) -> list[str]:
    closed = list(next(iter(correlations.values()), {}))
    rows = [
        "Rank correlation of open-loop with closed-loop figures over all stages and seeds; 1 is agreement.",
        "",
        "| open loop | " + " | ".join(closed) + " |",
        "|---|" + "---|" * len(closed),
    ]
    return rows + [
        f"| {n} | " + " | ".join(interval(c[k]) for k in closed) + " |" for n, c in correlations.items()
    ]


OPEN_LOOP = ("ade_m", "fde_m", "min_ade_m", "miss_rate", "mode_calibration_error", "coverage")


def _stages(curves: Mapping[str, Sequence[Row]]) -> list[str]:
    head = ["seed", "stage", "frames shown", *OPEN_LOOP, "per km", "km", "PDMS of the expert's"]
    rows = [
        "Stages, in base and long-tail of tuning seeds.",
        "",
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
    ]
    for seed, points in curves.items():
        for p in points:
            figures = [*(p["open_loop"][name] for name in OPEN_LOOP), p["per_km"], p["km"], p["pdms_share"]]
            cells = [seed, p["stage"], str(p["samples"]), *(f"{figure:.2f}" for figure in figures)]
            rows.append("| " + " | ".join(cells) + " |")
    return rows


def _cells(name: str, driver: str, suite: Mapping[str, Any]) -> list[str]:
    own = suite[driver]
    scores = [interval(own["scores"].get(score, {})) for score in SCORES]
    share = interval(suite["share"]["pdms"]) if driver == "policy" else "1"
    causes = ", ".join(f"{cause} {count}" for cause, count in own["causes"].items())
    return [
        name,
        driver,
        f"{own['km']:.1f}",
        interval(own["per_km"]),
        interval(own["per_hour"]),
        *scores,
        share,
        causes,
    ]
