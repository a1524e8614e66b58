"""`fleet demo`: turns of the wheel, then summary.json and report.html."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import typer

from fleet import config as configs
from fleet.config import WheelConfig
from fleet.console import Watcher
from fleet.gallery import clip_views
from fleet.local import Turn, Wheel
from fleet.places import check_reachable, places_below
from fleet.report import ReportInputs, write_report
from fleet.summary import turn_entry
from jobs.context import Places
from monitoring.exporter import MetricsServer
from registry.lineage import Kind, Node
from streams.contracts.releases import Rollout
from streams.recording import REPLAYED, write_recording
from streams.transport.base import Transport
from streams.transport.memory import MemoryTransport

RECORDING = "run.jsonl"
"""All that was said, for `fleet replay`, `streams dry-run` and `campaigns debt`; a broker keeps it itself."""
MARK = "fleetwheel-run"
"""A folder with this file in it is a run of ours: it may be replaced."""


class OutFolderInUse(ValueError):
    """The folder holds something else: give another with --out, or empty it."""


def run_demo(
    out: Path,
    *,
    seed: int,
    turns: int | None = None,
    quick: bool = False,
    kafka: str | None = None,
    store: str = "",
    mlflow: str = "",
    metrics_port: int | None = None,
    as_json: bool = False,
) -> None:
    """The command. Raises OutFolderInUse, ConnectionFailed, Unreachable, WheelStuck."""
    config = (configs.quick if quick else configs.demo)(seed)
    if turns is not None:
        config = replace(config, turns=turns)
    config, places = shared(config, out, store, mlflow)
    check_reachable(places)
    transport = open_transport(kafka)
    prepare(out)
    with Watcher() as watch, ExitStack() as open_:
        open_.callback(transport.close)
        wheel = Wheel(config, out, transport, watch, places)
        if metrics_port is not None:
            watch.say(f"metrics: {open_.enter_context(MetricsServer(wheel.exporter, metrics_port)).url}")
        summary = turn_the_wheel(wheel, watch)
        write(wheel, summary)
        if isinstance(transport, MemoryTransport):
            record(transport, out / RECORDING)
        watch.say(f"report: {out / 'report.html'}")
    typer.echo(json.dumps(summary) if as_json else _told(summary))


def shared(config: WheelConfig, out: Path, store: str, mlflow: str) -> tuple[WheelConfig, Places]:
    """Where this run's things lie. What others use too gets a corner for this run: a folder of the store, a name
    of the model; jobs that an earlier run of the same seed has finished there are not this one's."""
    run = f"demo-{time.time_ns():x}"
    if mlflow:
        config = replace(config, settings=msgspec.structs.replace(config.settings, model_name=f"driver-{run}"))
    return config, places_below(out, f"{store.rstrip('/')}/{run}" if store else "", mlflow)


def open_transport(kafka: str | None) -> Transport:
    """Memory, or a broker. Raises ConnectionFailed naming the address."""
    if kafka is None:
        return MemoryTransport()
    # The embedded default needs no client library.
    from streams.transport.kafka import KafkaConfig, KafkaTransport  # noqa: PLC0415

    return KafkaTransport(KafkaConfig(kafka))


def prepare(out: Path) -> None:
    """An empty folder for the run. Raises OutFolderInUse where something else lies there."""
    if out.exists() and any(out.iterdir()) and not (out / MARK).exists():
        raise OutFolderInUse(f"{out} is not empty and no earlier run: give another folder with --out")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / MARK).write_text("This folder was made by fleet demo, which replaces it.\n")


def turn_the_wheel(wheel: Wheel, watch: Watcher) -> dict[str, Any]:
    """All turns; the summary."""
    started = time.monotonic()
    turns = [wheel.bootstrap()]
    watch.say(_line(wheel, turns[-1]))
    for _ in range(wheel.config.turns):
        turns.append(wheel.turn())
        watch.say(_line(wheel, turns[-1]))
    wheel.ledger.verify(wheel.store)
    wheel.seconds.add("total", started)
    return summarise(wheel)


def summarise(wheel: Wheel) -> dict[str, Any]:
    """summary.json's object. A turn whose candidate failed the gate, or was thrown back by the fleet, goes on with
    the champion's figures."""
    entries: list[dict[str, Any]] = []
    for turn in wheel.turns:
        entries.append(_entry(turn, entries[-1] if entries else None))
    return {
        "schema": 1,
        "seed": wheel.config.seed,
        "turns": entries,
        "clips": wheel.ledger.counts(),
        "jobs": [_job(turn) for turn in wheel.turns],
        "bundle": _bundle(wheel.turns),
        "releases": _releases(wheel.turns),
        "seconds": {what: round(spent, 1) for what, spent in wheel.seconds.spent.items()},
    }


def write(wheel: Wheel, summary: Mapping[str, Any]) -> None:
    """summary.json, report.html and metrics.prom."""
    (wheel.out / "metrics.prom").write_text(wheel.exporter.text())
    (wheel.out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    inputs = ReportInputs(
        summary=summary,
        selections=_selections(wheel),
        clips=clip_views(wheel.ledger, wheel.store),
        rollouts=[_rollout(r) for turn in wheel.turns for r in turn.rollouts],
        lineage=_lineage(wheel),
    )
    write_report(inputs, wheel.out / "report.html")


def record(transport: Transport, path: Path) -> None:
    """What lies on the topics, in the order in which it happened."""
    records = transport.poll("recording", REPLAYED, sys.maxsize)
    write_recording(path, sorted(records, key=lambda r: dict(r.headers)["ce_time"]))


def _entry(turn: Turn, before: dict[str, Any] | None) -> dict[str, Any]:
    if not turn.drives or turn.evaluated is None:
        assert before is not None, "the first model passed, or Wheel.bootstrap had raised"
        return {**before, "turn": turn.number}
    return turn_entry(turn.number, turn.finished.model_version, turn.evaluated.candidate)


def _job(turn: Turn) -> dict[str, Any]:
    end = turn.finished
    return {"fingerprint": end.fingerprint, "run_id": end.run_id, "verdict": end.verdict, "reasons": end.reasons}


def _bundle(turns: Sequence[Turn]) -> dict[str, Any]:
    """The card of the newest bundle that was released."""
    turn = next(t for t in reversed(turns) if t.finished.release is not None)
    assert turn.compiled is not None
    assert turn.finished.release is not None
    made = turn.compiled
    return {
        "bytes": turn.finished.release.bytes,
        "runtime": made.runtime,
        "parity_max_error": made.parity_max_error,
        "latency_ms_p50": made.latency_ms_p50,
        "latency_ms_p99": made.latency_ms_p99,
        "watts": made.watts,
        "watts_source": made.watts_source,
    }


def _releases(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """Each release and where its rollout ended."""
    return [
        {"version": t.finished.release.version, "state": str(t.rollouts[-1].state) if t.rollouts else "published"}
        for t in turns
        if t.finished.release is not None
    ]


def _selections(wheel: Wheel) -> list[dict[str, Any]]:
    return [
        {
            "turn": t.number,
            **wheel.ledger.counts(t.number),
            "by_condition": wheel.ledger.stored_by_condition(t.number),
        }
        for t in wheel.turns[1:]
    ]


def _rollout(r: Rollout) -> dict[str, Any]:
    return {
        "release": r.release.version,
        "state": str(r.state),
        "share": r.share,
        "candidate_km": r.candidate.km,
        "candidate_events": r.candidate.disengagements,
        "control_km": r.control.km,
        "control_events": r.control.disengagements,
        "reason": r.reason,
    }


def _lineage(wheel: Wheel) -> list[tuple[str, str]]:
    """From one stored clip down to the vehicles that run what was learned from it."""
    clip = next((n for n in sorted(wheel.ledger.verified)), None)
    if clip is None:
        return []
    start = Node(Kind.CLIP, clip)
    below = wheel.lineage.descendants(start)
    chain = [*wheel.lineage.ancestors(start), start]
    for kind in list(Kind)[2:]:
        found = [n for n in below if n.kind is kind]
        if kind is Kind.VEHICLE and found:
            chain.append(Node(Kind.VEHICLE, f"{len(found)} vehicles, {found[0].id} among them"))
        else:
            chain += found
    return [(str(n.kind), n.id) for n in chain]


def _line(wheel: Wheel, turn: Turn) -> str:
    if turn.evaluated is None:
        return f"turn {turn.number}: {turn.finished.verdict}: {'; '.join(turn.finished.reasons)}"
    e = turn_entry(turn.number, turn.finished.model_version, turn.evaluated.candidate)
    return (
        f"turn {turn.number}: {turn.finished.verdict}; {e['rate_per_km']:.2f} [{e['rate_low']:.2f}, "
        f"{e['rate_high']:.2f}] disengagements per km, {e['rate_per_hour']:.0f} per vehicle-hour in unseen "
        f"conditions; base {e['by_condition']['base']['rate_per_km']:.2f}"
    )


def _told(summary: Mapping[str, Any]) -> str:
    rows = [
        f"turn {t['turn']}  {t['rate_per_km']:6.2f} per km [{t['rate_low']:.2f}, {t['rate_high']:.2f}]  "
        f"{t['rate_per_hour']:6.0f} per vehicle-hour  {t['km']:.1f} km"
        for t in summary["turns"]
    ]
    clips, seconds = summary["clips"], summary["seconds"]["total"]
    return "\n".join(
        [
            "Disengagements over all unseen conditions, held-out worlds:",
            *rows,
            f"clips: {clips['recorded']} offered, {clips['requested']} requested, {clips['stored']} stored, "
            f"{clips['lost']} lost; {seconds:.0f} s",
        ]
    )
