"""Figures of suites: a policy's and the expert's, means and rates with their intervals, and a table of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from monitoring.disengagements import garwood
from simulation.arrays import Floats
from simulation.scores.suites import mean
from simulation.suites import SUITES

Row = Mapping[str, Any]
DRIVERS = ("expert", "policy")
SCORES = ("driving_score", "pdms", "epdms", "nuplan", "rss_danger", "rss_longitudinal", "rss_lateral")


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
        "per_km": rated(count, km),
        "per_hour": rated(count, hours),
    }


def _table(rows: Sequence[Row], score: str) -> Floats:
    """[seeds, episodes], NaN where a seed had fewer episodes."""
    values = [np.asarray(row["scores"].get(score, []), float) for row in rows]
    out = np.full((len(rows), max(1, *map(len, values)) if values else 1), np.nan)
    for row, line in zip(out, values, strict=True):
        row[: len(line)] = line
    return out


def rated(count: int, exposure: float) -> dict[str, float | None]:
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


def suites_table(found: Mapping[str, Any]) -> str:
    """Both drivers on every suite: Markdown."""
    head = ["suite", "driver", "km", "per km", "per hour", *SCORES, "PDMS of the expert's", "causes"]
    rows = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, suite in found.items():
        for driver in DRIVERS:
            rows.append("| " + " | ".join(_cells(name, driver, suite)) + " |")
    return "\n".join(rows)


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


def interval(figure: Mapping[str, float | None], digits: int = 2, sign: str = "") -> str:
    """`value`, `low` and `high` as 0.97 [0.95, 0.99]; without bounds the value alone, without a value a dash."""
    value, low, high = (figure.get(key) for key in ("value", "low", "high"))
    form = f"{sign}.{digits}f"
    if value is None:
        return "–"
    return f"{value:{form}}" if low is None or high is None else f"{value:{form}} [{low:{form}}, {high:{form}}]"
