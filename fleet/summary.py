"""The figures of a run: from a job's evaluation to the turns of summary.json."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from jobs.documents import Driven, Tally
from monitoring.disengagements import garwood
from simulation.scenarios import BASE, EASY, UNSEEN


def turn_entry(turn: int, model_version: str, driven: Driven) -> dict[str, Any]:
    """One turn of summary.json: pooled over the unseen conditions, then each condition, base first."""
    by_condition = driven.by_condition
    return {
        "turn": turn,
        "model_version": model_version,
        **rates(pool(by_condition, UNSEEN)),
        "by_condition": {name: rates(by_condition[name]) for name in (BASE, *UNSEEN) if name in by_condition},
        "without_easy": rates(pool(by_condition, [n for n in UNSEEN if n not in EASY])),
    }


def pool(by_condition: Mapping[str, Tally], names: Iterable[str]) -> Tally:
    """The sum over some conditions."""
    chosen = [by_condition[name] for name in names if name in by_condition]
    causes: dict[str, int] = {}
    for tally in chosen:
        for cause, count in tally.causes.items():
            causes[cause] = causes.get(cause, 0) + count
    return Tally(
        km=sum(t.km for t in chosen),
        hours=sum(t.hours for t in chosen),
        causes=dict(sorted(causes.items())),
        vehicles=sum(t.vehicles for t in chosen),
    )


def rates(tally: Tally) -> dict[str, Any]:
    """Counts, and rates per km and per vehicle-hour with their exact 95 % Poisson (Garwood) intervals."""
    count = tally.disengagements
    km_low, km_high = garwood(count, tally.km)
    hour_low, hour_high = garwood(count, tally.hours)
    return {
        "km": round(tally.km, 4),
        "vehicle_hours": round(tally.hours, 5),
        "disengagements": count,
        "rate_per_km": count / tally.km if tally.km else 0.0,
        "rate_low": km_low,
        "rate_high": km_high,
        "rate_per_hour": count / tally.hours if tally.hours else 0.0,
        "rate_per_hour_low": hour_low,
        "rate_per_hour_high": hour_high,
        "by_cause": dict(tally.causes),
    }
