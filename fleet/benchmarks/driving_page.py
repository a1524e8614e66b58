"""What the driving benchmark says: means and rates over seeds with their intervals, bars, and a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fleet.benchmarks.driving_speed import LEAST_PER_S
from fleet.benchmarks.result import Bar, seeds_bar
from fleet.suite_figures import interval, suites_table
from simulation.suites import SUITES

Row = Mapping[str, Any]
BASE_SHARE, LONG_TAIL_SHARE, BASE_PER_KM = 0.95, 0.80, 1.0


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
