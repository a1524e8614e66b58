"""`fleet replay`: a campaign or stages over recorded topics, and what they would cost and find."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import typer

from edge.agent.expressions import check_expression
from fleet.backtest import Found, Known, in_time_order, replay_campaign, replay_stages
from fleet.campaigns import NoSuchCampaign, Source, new_campaign
from fleet.dry_run import recorded
from fleet.estimates import Bootstrap, Estimate, estimates
from fleet.stages import STAGES, make_stages
from fleet.times import duration_ns
from registry.store import Store
from streams.contracts.campaigns import Campaign
from streams.contracts.clock import SECOND_NS
from streams.engines.round import UnknownStage
from streams.recording import REPLAYED
from streams.stage import AnyStage
from streams.transport.base import Record
from streams.triggers import TriggersConfig


class NothingToReplay(ValueError):
    """Neither or both of a campaign and stages, or no record of what they read."""


@dataclass(frozen=True, slots=True)
class What:
    """What is replayed: one of the three."""

    when: str = ""
    """A condition, with `fields` of a campaign."""
    campaign: str = ""
    """The name of a recorded campaign."""
    stages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Recorded:
    """Where the records come from."""

    file: Path | None
    broker: str | None
    prefix: str = ""
    begin: str = ""
    end: str = ""


def run_replay(
    what: What, source: Recorded, fields: dict[str, object], settle: str, how: Bootstrap, *, as_json: bool
) -> None:
    """The command. Raises NothingToReplay, UnknownStage, NoSuchCampaign, BadCampaign, BadExpression, NoInput,
    BadTime, BadRecording, ConnectionFailed, OSError."""
    if sum(map(bool, (what.when, what.campaign, what.stages))) != 1:
        raise NothingToReplay("give --when CONDITION, --campaign NAME or --stage NAME, one of them")
    unknown = [s for s in what.stages if s not in STAGES]
    if unknown:
        raise UnknownStage(f"no stage {', '.join(map(repr, unknown))}; there are: {', '.join(STAGES)}")
    if what.when:
        check_expression(what.when)
    records = in_time_order(
        recorded(source.file, source.broker, source.prefix, REPLAYED, source.begin, source.end)
    )
    known = Known()
    for record in records:
        known.take(record)
    if not known.vehicles:
        raise NothingToReplay(f"{known.records} records, and no event or report of a vehicle among them")
    found = _found(what, source, fields, records, known, duration_ns(settle))
    costs, yields = estimates(found.collected, found.seen, known.vehicles, how)
    report = _report(what, known, found, costs, yields, how)
    typer.echo(json.dumps(report) if as_json else _told(report))


def _found(
    what: What,
    source: Recorded,
    fields: dict[str, object],
    records: Sequence[Record],
    known: Known,
    settle_ns: int,
) -> Found:
    if what.stages:
        return replay_stages(what.stages, _make, records, settle_ns)[0]
    if not known.novel:
        # Nobody recorded what novelty thought: ask it now.
        for message in replay_stages(("novelty",), _make, records, settle_ns)[1]:
            known.learn(message)
    return replay_campaign(_campaign(what, source, fields), known, TriggersConfig())


def _campaign(what: What, source: Recorded, fields: dict[str, object]) -> Campaign:
    if what.when:
        return new_campaign("replayed", what.when, "replay", 1.0, **fields)
    found = Source(source.broker, source.prefix, source.file).campaigns()
    if what.campaign not in found:
        raise NoSuchCampaign(
            f"no campaign {what.campaign!r} was recorded; there are: {', '.join(found) or 'none'}"
        )
    return found[what.campaign]


def _make(names: tuple[str, ...]) -> list[AnyStage]:
    return make_stages(names, Store("memory://replay"))


def _report(
    what: What,
    known: Known,
    found: Found,
    costs: dict[str, Estimate],
    yields: dict[str, Estimate],
    how: Bootstrap,
) -> dict[str, Any]:
    """What `--json` prints."""
    hours = (known.to_ns - known.from_ns) / SECOND_NS / 3600
    return {
        "replayed": {k: v for k, v in asdict(what).items() if v},
        "recording": {
            "records": known.records,
            "unreadable": known.unreadable,
            "events": len(known.events),
            "vehicles": len(known.vehicles),
            "km": round(known.km, 3),
            "hours": round(hours, 4),
        },
        "occurrences": len(found.seen),
        "undecided": found.undecided,
        "emitted": found.emitted,
        "cost": {k: asdict(v) for k, v in costs.items()}
        | {"jobs": found.jobs, "gpu_hours": round(found.gpu_hours, 6)},
        "yield": {k: asdict(v) for k, v in yields.items()},
        "bootstrap": asdict(how),
    }


def _told(report: dict[str, Any]) -> str:
    recording, cost = report["recording"], report["cost"]
    confidence = f"{report['bootstrap']['confidence']:.0%}"
    lines = [
        f"recorded    {recording['records']} records: {recording['events']} events of {recording['vehicles']} "
        f"vehicles in {recording['hours']:.2f} h, {recording['km']:.1f} km; {recording['unreadable']} unreadable",
        f"occurrences {report['occurrences']}"
        + (
            f"; undecided on {report['undecided']} events that lack what it asks for"
            if report["undecided"]
            else ""
        ),
    ]
    if report["emitted"]:
        lines.append("emitted     " + ", ".join(f"{n} to {s}" for s, n in report["emitted"].items()))
    lines += [f"{name:11} {_figure(cost[name], '.0f', confidence)}" for name in ("events", "clips", "bytes")]
    lines.append(f"{'jobs':11} {cost['jobs']}, {cost['gpu_hours']:g} GPU-hours")
    lines += [f"{name:11} {_figure(value, '.1%', confidence)}" for name, value in report["yield"].items()]
    return "\n".join(lines)


def _figure(estimate: dict[str, float | None], shape: str, confidence: str) -> str:
    value, low, high = estimate["value"], estimate["low"], estimate["high"]
    if value is None:
        return "unknown: nothing was found"
    if low is None or high is None:
        return f"{value:{shape}} (no interval: fewer than two vehicles)"
    return f"{value:{shape}} [{low:{shape}}, {high:{shape}}] ({confidence}, by vehicle)"
