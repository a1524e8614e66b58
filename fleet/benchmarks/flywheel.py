"""The proof: turns of the wheel with chosen clips, beside the same number of random clips, on the same worlds."""

from __future__ import annotations

import json
import shutil
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from fleet import config as configs
from fleet.benchmarks.apart import processes
from fleet.benchmarks.result import Bar, Measured
from fleet.config import OPEN_GATE, WheelConfig
from fleet.console import Watcher
from fleet.demo import prepare, summarise
from fleet.local import Wheel, WheelStuck
from fleet.summary import turn_entry
from monitoring.disengagements import garwood
from simulation.scenarios import EASY
from streams.selection import CURATED, RANDOM
from streams.transport.memory import MemoryTransport

ARMS = (CURATED, RANDOM)
Rates = Mapping[str, Any]
Runs = Mapping[str, Mapping[str, list[dict[str, Any]]]]


def measure(seeds: list[int], scratch: Path, quick: bool) -> Measured:
    """For each seed one first model, then both arms from it, side by side, each in a process of its own."""
    runs: dict[str, dict[str, list[dict[str, Any]]]] = {}
    with Watcher() as watch:
        for seed in seeds:
            watch.say(f"seed {seed}: the first model")
            first_model(seed, scratch, quick)
            watch.say(f"seed {seed}: both arms")
            with processes(len(ARMS)) as pool:
                futures = {arm: pool.submit(run_arm, seed, arm, scratch, quick) for arm in ARMS}
                runs[str(seed)] = {arm: future.result() for arm, future in futures.items()}
            watch.say(f"seed {seed}: " + "; ".join(_told(arm, turns) for arm, turns in runs[str(seed)].items()))
    return assess(runs)


def first_model(seed: int, scratch: Path, quick: bool) -> None:
    """What both arms start from: the `clone` job, run to its end in a folder that the arms copy."""
    out = _folder(seed, "first", scratch, quick)
    prepare(out)
    config = replace(_config(seed, CURATED, quick), processes=2)
    with Watcher() as watch:
        Wheel(config, out, MemoryTransport(), watch).bootstrap()
    shutil.rmtree(out / "vehicles")


def run_arm(seed: int, arm: str, scratch: Path, quick: bool) -> list[dict[str, Any]]:
    """All turns of one arm; the entries of summary.json, with the clips by condition."""
    out = _folder(seed, arm, scratch, quick)
    prepare(out)
    shutil.copytree(_folder(seed, "first", scratch, quick), out, dirs_exist_ok=True)
    config = _config(seed, arm, quick)
    with Watcher() as watch:
        wheel = Wheel(config, out, MemoryTransport(), watch)
        wheel.bootstrap()
        for _ in range(config.turns):
            wheel.turn()
        wheel.ledger.verify(wheel.store)
        summary = summarise(wheel)
    (out / "summary.json").write_text(json.dumps(summary, indent=1))
    shutil.rmtree(out / "scratch", ignore_errors=True)
    return [
        {
            **entry,
            "verdict": wheel.turns[n].finished.verdict,
            "candidate": _candidate(wheel, n),
            "clips": wheel.ledger.counts(n) | {"by_condition": wheel.ledger.stored_by_condition(n)},
        }
        for n, entry in enumerate(summary["turns"])
    ]


def assess(runs: Runs) -> Measured:
    """Pooled figures, bars and tables of finished runs: seed -> arm -> turns."""
    return Measured({"runs": runs, "pooled": _pooled(runs)}, _bars(runs), _table(runs))


def _folder(seed: int, arm: str, scratch: Path, quick: bool) -> Path:
    return scratch / f"{'quick-' if quick else ''}{seed}-{arm}"


def _config(seed: int, arm: str, quick: bool) -> WheelConfig:
    """The demo's, one process for each arm. The gate is open in both: the arms are judged by their clips, and each
    turn starts from what the one before learned."""
    config = (configs.quick if quick else configs.demo)(seed).with_mode(arm)
    return replace(config, processes=1, settings=msgspec.structs.replace(config.settings, gate=OPEN_GATE))


def _candidate(wheel: Wheel, number: int) -> dict[str, Any]:
    turn = wheel.turns[number]
    if turn.evaluated is None:
        raise WheelStuck(f"turn {number} was not evaluated: {'; '.join(turn.finished.reasons)}")
    return turn_entry(number, turn.finished.model_version, turn.evaluated.candidate)


def _pool(runs: Runs, arm: str, number: int, key: Callable[[Rates], Rates]) -> dict[str, float]:
    """Counts over all seeds, with the Garwood interval."""
    chosen = [key(turns[arm][number]["candidate"]) for turns in runs.values() if number < len(turns[arm])]
    km, hours = sum(c["km"] for c in chosen), sum(c["vehicle_hours"] for c in chosen)
    count = sum(c["disengagements"] for c in chosen)
    low, high = garwood(count, km)
    return {
        "km": km,
        "disengagements": count,
        "rate_per_km": count / km,
        "rate_low": low,
        "rate_high": high,
        "rate_per_hour": count / hours,
    }


GROUPS: dict[str, Callable[[Rates], Rates]] = {
    "all unseen": lambda turn: turn,
    f"without {' and '.join(EASY)}": lambda turn: turn["without_easy"],
    "base": lambda turn: turn["by_condition"]["base"],
}


def _pooled(runs: Runs) -> dict[str, Any]:
    turns = len(next(iter(runs.values()))[CURATED])
    return {
        name: {arm: [_pool(runs, arm, n, key) for n in range(turns)] for arm in ARMS}
        for name, key in GROUPS.items()
    }


def _bars(runs: Runs) -> list[Bar]:
    pooled = _pooled(runs)
    unseen, base = pooled["all unseen"][CURATED], pooled["base"][CURATED]
    other = pooled["all unseen"][RANDOM]
    first, last = unseen[0], unseen[-1]
    fall_km = first["rate_per_km"] / max(last["rate_per_km"], 1e-9)
    fall_hour = first["rate_per_hour"] / max(last["rate_per_hour"], 1e-9)
    against = unseen[1]["rate_per_km"] / max(other[1]["rate_per_km"], 1e-9)
    driven = last["km"] / first["km"]
    kept = base[-1]["rate_per_km"] / max(base[0]["rate_per_km"], 1e-9)
    return [
        Bar("fall-per-km", "first over last rate per km, all unseen", fall_km, ">= 3", fall_km >= 3),
        Bar("fall-per-hour", "first over last rate per vehicle-hour", fall_hour, ">= 3", fall_hour >= 3),
        Bar(
            "apart",
            "gap between the first's low and the last's high, per km",
            first["rate_low"] - last["rate_high"],
            "> 0",
            first["rate_low"] > last["rate_high"],
        ),
        Bar("km", "km driven, last over first", driven, ">= 0.85", driven >= 0.85),
        Bar("base", "base rate, last over first", kept, "<= 1.25", kept <= 1.25),
        Bar("curated-over-random", "rate per km after turn 1, all unseen", against, "<= 0.7", against <= 0.7),
    ]


def _table(runs: Runs) -> str:
    pooled = _pooled(runs)
    turns = len(pooled["base"][CURATED])
    head = "| conditions | clips | " + " | ".join(f"turn {n}" for n in range(turns)) + " |"
    rows = [head, "|---|---|" + "---|" * turns]
    for name, arms in pooled.items():
        for arm in ARMS:
            cells = [f"{r['rate_per_km']:.2f} [{r['rate_low']:.2f}, {r['rate_high']:.2f}]" for r in arms[arm]]
            rows.append(f"| {name} | {arm} | " + " | ".join(cells) + " |")
    note = "Disengagements per km with 95 % Garwood intervals, candidates as evaluated, pooled over seeds."
    return "\n".join([note, "", *rows, "", _by_seed(runs)])


def _by_seed(runs: Runs) -> str:
    rows = [
        "| seed | clips | turn | verdict | stored | per km | per hour | by condition of the clips |",
        "|" + "---|" * 8,
    ]
    for seed, arms in runs.items():
        for arm, turns in arms.items():
            for t in turns:
                c, clips = t["candidate"], t["clips"]
                where = ", ".join(f"{n} {k}" for n, k in clips["by_condition"].items())
                rows.append(
                    f"| {seed} | {arm} | {t['turn']} | {t['verdict']} | {clips['stored']} | "
                    f"{c['rate_per_km']:.2f} | {c['rate_per_hour']:.0f} | {where} |"
                )
    return "\n".join(rows)


def _told(arm: str, turns: Sequence[Rates]) -> str:
    rates = " -> ".join(f"{t['candidate']['rate_per_km']:.2f}" for t in turns)
    return f"{arm} {rates} per km (median {statistics.median(t['km'] for t in turns):.1f} km)"
