"""Novelty: are planted rare scenarios found in a bounded memory, and is the threshold the false-alarm rate?"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fleet import config as configs
from fleet.benchmarks.apart import processes
from fleet.benchmarks.novelty_data import COMMON, Drives, Fads, Mixture, Stream, mixture, with_fads, worlds
from fleet.benchmarks.novelty_picks import BATCH, Chosen, by_windows, k_center, score
from fleet.benchmarks.novelty_sharing import ARMS, EVERYTHING, PARTITIONS, by_partition, pooled, sharing
from fleet.benchmarks.result import Bar, Measured
from fleet.console import Watcher
from fleet.demo import prepare
from fleet.local import Wheel
from registry.models import Models
from streams.contracts.ids import sha256_hex
from streams.novelty import NoveltyConfig
from streams.pooling import PoolConfig
from streams.transport.memory import MemoryTransport

SHARE = 0.05
"""Of all bytes: what may be uploaded."""
WINDOW = 4000
"""Events within which a streaming contender ranks."""
LEVELS = (0.02, 0.05, 0.1)
COUNTS = (64, 128, 256, 512, 1024)
DRIFTS: dict[str, Mapping[str, Any]] = {
    "stationary": {"turn_rad": 0.0, "jump": 0.0},
    "gradual": {"turn_rad": 1.2, "jump": 0.0},
    "abrupt": {"turn_rad": 0.0, "jump": 0.5},
    "repeats": {"turn_rad": 0.0, "jump": 0.0, "repeats": 0.7},
    "small cells": {"turn_rad": 0.5, "jump": 0.0, "cells": 200, "any_cell": True},
    "small cells of their own kind": {"turn_rad": 0.5, "jump": 0.0, "cells": 200, "common": 200},
}
DRIFTS_POOLED = ("stationary", "gradual", "abrupt")
CONTENDERS = ("novelty", "k-center", "uncertainty", "uniform")
Row = dict[str, Any]


def measure(seeds: list[int], scratch: Path, quick: bool) -> Measured:
    """Everything for each seed, in a process of its own with one thread; the model is made once, or taken from
    SCRATCH/model.onnx where one lies there."""
    runs: dict[str, Row] = {}
    with Watcher() as watch:
        watch.say("the model whose embeddings are searched")
        model = own_model(scratch, seeds[0], quick)
        for seed in seeds:
            with processes() as child:
                runs[str(seed)] = row = child.submit(run_seed, seed, model, quick).result()
            found = ", ".join(f"{name} {row[name]['recall']['novelty']:.2f}" for name in ("mixture", "worlds"))
            watch.say(f"seed {seed}: recall at {SHARE:.0%} of the bytes: {found}")
    return assess(runs, sha256_hex(model.read_bytes()))


def own_model(scratch: Path, seed: int, quick: bool) -> Path:
    """The exported first model of a wheel, as `fleet demo` makes it."""
    file = scratch / ("quick-model.onnx" if quick else "model.onnx")
    if not file.exists():
        out = scratch / ("quick-wheel" if quick else "wheel")
        prepare(out)
        config = replace((configs.quick if quick else configs.demo)(seed), processes=1 if quick else 2)
        with Watcher() as watch:
            wheel = Wheel(config, out, MemoryTransport(), watch)
            wheel.bootstrap()
        champion = (models := Models(wheel.context.places.mlflow, config.settings.model_name)).champion()
        assert champion is not None, "bootstrap promotes a model or raises"
        models.fetch(champion, "model.onnx", out / "model").replace(file)
    return file


def run_seed(seed: int, model: Path, quick: bool) -> Row:
    """All figures of one seed."""
    m = Mixture(events=12_000, planted=10) if quick else Mixture()
    drives = Drives(12, 1, 12.0) if quick else Drives()
    common = with_fads(
        mixture(seed, Mixture(events=12_000 if quick else 80_000, each=6)), seed, Fads(each=60 if quick else 400)
    )
    return {
        "mixture": contest(mixture(seed, m), seed),
        "worlds": contest(worlds(seed, model, drives), seed),
        "sharing": sharing(*common, seed, SHARE, WINDOW),
        "false_alarms": false_alarms(seed, 6_000 if quick else 30_000),
        "speed": speed(seed, 12_000 if quick else 30_000),
    }


def contest(stream: Stream, seed: int) -> Row:
    """Every contender on one stream: recall of planted events and of planted kinds, and bytes of memory."""
    scored = score(stream, NoveltyConfig())
    rng = np.random.default_rng(seed)
    chosen = {
        "novelty": by_windows(-scored.p_values, stream.bytes, SHARE, WINDOW),
        "k-center": k_center(stream.embeddings, stream.bytes, SHARE),
        "uncertainty": by_windows(stream.uncertainty, stream.bytes, SHARE, WINDOW),
        "uniform": by_windows(rng.random(len(stream)), stream.bytes, SHARE, WINDOW),
    }
    each, held = stream.embeddings.shape[1] + 4, scored.held_bytes
    return {
        "events": len(stream),
        "planted": int((stream.kinds != COMMON).sum()),
        "recall": {name: _recall(stream, picked) for name, picked in chosen.items()},
        "kinds_found": {name: _kinds_found(stream, picked) for name, picked in chosen.items()},
        "recall_by_kind": {name: _by_kind(stream, picked) for name, picked in chosen.items()},
        "byte_share": {name: float(stream.bytes[c].sum() / stream.bytes.sum()) for name, c in chosen.items()},
        "called_novel": float(scored.novel.mean()),
        "memory_bytes": {"novelty": max(held), "k-center": each * len(stream)},
        "memory_share": max(held) / (each * len(stream)),
        "memory_growth": {
            str(n): {"novelty": held[-(-n // BATCH) - 1], "k-center": each * n}
            for n in (len(stream) >> shift for shift in (5, 3, 1, 0))
        },
        "state_bytes": scored.state_bytes,
    }


def false_alarms(seed: int, events: int) -> dict[str, dict[str, float]]:
    """Drift -> level -> share of a stream without planted events that is called novel, start-up included; of some
    drifts also where partitions judge it and the fleet pools what is rare."""
    found: dict[str, dict[str, float]] = {}
    for drift, changes in DRIFTS.items():
        stream = mixture(seed, replace(Mixture(events=events, each=0), **changes))
        told = {level: score(stream, NoveltyConfig(false_alarm_rate=level)).novel for level in LEVELS}
        found[drift] = {f"{level:g}": float(novel.mean()) for level, novel in told.items()}
        if drift in DRIFTS_POOLED:
            rates = {f"{level:g}": _pooled_alarms(stream, seed, level) for level in LEVELS}
            found[f"{drift}, {PARTITIONS} partitions pooled"] = rates
    return found


def _pooled_alarms(stream: Stream, seed: int, level: float) -> float:
    config = NoveltyConfig(false_alarm_rate=level)
    told = pooled(by_partition(stream, seed, config), PoolConfig(novelty=config), WINDOW)
    return statistics.fmean(s.novelty.novel for s in told)


def speed(seed: int, events: int) -> dict[str, float]:
    """Number of prototypes -> events a second of processor time, once the models are grown."""
    stream = mixture(seed, Mixture(events=2 * events))
    return {
        str(count): score(stream, NoveltyConfig(prototypes=count), warm=events).events_per_s for count in COUNTS
    }


def assess(runs: Mapping[str, Row], model_sha256: str) -> Measured:
    """Means over seeds, bars and tables."""
    rows = list(runs.values())
    results = {"model_sha256": model_sha256, "share": SHARE, "window": WINDOW, "runs": dict(runs)}
    return Measured(results, _bars(rows), "\n\n".join(table(rows) for table in _TABLES))


def _recall(stream: Stream, chosen: Chosen) -> float:
    planted = stream.kinds != COMMON
    return float(chosen[planted].mean())


def _by_kind(stream: Stream, chosen: Chosen) -> dict[str, float]:
    there = [(i, name) for i, name in enumerate(stream.names) if (stream.kinds == i).any()]
    return {name: float(chosen[stream.kinds == i].mean()) for i, name in there}


def _kinds_found(stream: Stream, chosen: Chosen) -> float:
    return statistics.fmean(share > 0 for share in _by_kind(stream, chosen).values())


def _mean(rows: Sequence[Row], *path: str) -> float:
    values: list[Any] = list(rows)
    for part in path:
        values = [v[part] for v in values]
    return statistics.fmean(values)


def _worst_alarm(rows: Sequence[Row]) -> float:
    """The largest relative distance of a rate, as the mean over seeds, from its level."""
    return max(abs(_mean(rows, "false_alarms", d, f"{a:g}") / a - 1) for d in _alarmed(rows) for a in LEVELS)


def _alarmed(rows: Sequence[Row]) -> list[str]:
    return list(rows[0]["false_alarms"])


def _bars(rows: Sequence[Row]) -> list[Bar]:
    bars: list[Bar] = []
    for data in ("mixture", "worlds"):
        ratio = _mean(rows, data, "recall", "novelty") / max(_mean(rows, data, "recall", "k-center"), 1e-9)
        what = f"recall of planted events over greedy k-center's, {data}"
        bars.append(Bar(f"recall-{data}", what, ratio, ">= 0.95", ratio >= 0.95))
    share, worst = max(r["mixture"]["memory_share"] for r in rows), _worst_alarm(rows)
    return [
        *bars,
        Bar("memory", "bytes over greedy k-center's, mixture", share, "<= 0.01", share <= 0.01),
        Bar("false-alarms", "worst relative distance of a rate from its level", worst, "<= 0.2", worst <= 0.2),
    ]


def _recalls(rows: Sequence[Row]) -> str:
    lines = ["| data | contender | planted events found | planted kinds found | bytes held |", "|" + "---|" * 5]
    for data in ("mixture", "worlds"):
        for name in CONTENDERS:
            held = f"{_mean(rows, data, 'memory_bytes', name):,.0f}" if name in ("novelty", "k-center") else ""
            recall, kinds = (_mean(rows, data, key, name) for key in ("recall", "kinds_found"))
            lines.append(f"| {data} | {name} | {recall:.3f} | {kinds:.2f} | {held} |")
    events = ", ".join(f"{data} {_mean(rows, data, 'events'):,.0f}" for data in ("mixture", "worlds"))
    note = f"Means over seeds, {SHARE:.0%} of the bytes; events a seed: {events}. One partition."
    return "\n".join([note, "", *lines])


def _memory(rows: Sequence[Row]) -> str:
    events = list(rows[0]["mixture"]["memory_growth"])
    lines = [
        f"| bytes held after events, mixture | {' | '.join(f'{int(n):,}' for n in events)} |",
        "|---|" + "---|" * len(events),
    ]
    for name in ("novelty", "k-center"):
        held = [f"{_mean(rows, 'mixture', 'memory_growth', n, name):,.0f}" for n in events]
        lines.append(f"| {name} | {' | '.join(held)} |")
    ids = _mean(rows, "mixture", "state_bytes") - _mean(rows, "mixture", "memory_growth", events[-1], "novelty")
    note = (
        "k-center holds every event (68 bytes each) and chooses at the end. "
        f"Novelty also holds {ids:,.0f} bytes of ids, 100,000 at most, so that it learns no event twice."
    )
    return "\n".join([*lines, "", note])


def _shared(rows: Sequence[Row]) -> str:
    lines = [
        "| with fads | planted events found | over k-center's | uploads of a fad | bytes on fads |",
        "|" + "---|" * 5,
    ]
    best = _mean(rows, "sharing", EVERYTHING, "recall")
    for arm in ARMS:
        recall, of_a_fad, on_fads = (
            _mean(rows, "sharing", arm, key) for key in ("recall", "of_a_fad", "bytes_on_fads")
        )
        lines.append(f"| {arm} | {recall:.3f} | {recall / best:.2f} | {of_a_fad:.1f} | {on_fads:.1%} |")
    note = (
        "A fad comes up at some time and is then sent again and again by vehicles of all partitions: "
        "its first few uploads are worth their bytes, the others are copies."
    )
    return "\n".join([*lines, "", note])


def _alarms(rows: Sequence[Row]) -> str:
    head = "| share called novel | " + " | ".join(f"level {a:g}" for a in LEVELS) + " |"
    lines = [head, "|---|" + "---|" * len(LEVELS)]
    for drift in _alarmed(rows):
        rates = " | ".join(f"{_mean(rows, 'false_alarms', drift, f'{a:g}'):.4f}" for a in LEVELS)
        lines.append(f"| {drift} | {rates} |")
    return "\n".join(lines)


def _speeds(rows: Sequence[Row]) -> str:
    head = "| prototypes a cell | " + " | ".join(map(str, COUNTS)) + " |"
    rates = " | ".join(f"{_mean(rows, 'speed', str(n)):,.0f}" for n in COUNTS)
    return "\n".join([head, "|---|" + "---|" * len(COUNTS), f"| events per processor-second | {rates} |"])


_TABLES: tuple[Callable[[Sequence[Row]], str], ...] = (_recalls, _memory, _shared, _alarms, _speeds)
