"""Language: is the cited rule the right one, and does an explanation go when its cause does?"""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleet.benchmarks.apart import processes
from fleet.benchmarks.language_scenes import RIG, Case, held_out, taught
from fleet.benchmarks.result import Bar, Measured
from fleet.console import Watcher
from jobs.code import code_version
from model.checkpoint import Checkpoint, load, save
from model.config import NetworkConfig, TrainingConfig
from model.data import Samples
from model.explainer import Explained, Explainer
from model.grammar import Explanation
from model.policy import Observation
from model.rules import RULES
from model.samples_file import open_file
from model.samples_file import save as write_samples
from model.training import Hooks, train
from streams.contracts.ids import digest

LEARNT_WITH = 11
"""The seed of what is learnt from; the benchmark's seeds are of what is asked."""
RIGHT, FAITHFUL = 0.90, 0.85
"""What must hold: the share of held-out scenes with the right rule, and of causes without which it goes."""
MODEL = "model.safetensors"
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Size:
    """How much is learnt from, and asked."""

    network: NetworkConfig
    training: TrainingConfig
    scenes: int
    seconds: float
    every: int
    asked: int
    asked_seconds: float = 40.0


FULL = Size(
    NetworkConfig(stem_width=32, language=2),
    TrainingConfig(steps=13_000, batch=48, peak_rate=2e-3, threads=1),
    scenes=4_500,
    seconds=24.0,
    every=3,
    asked=150,
)
QUICK = Size(
    NetworkConfig(width=32, heads=2, stem_width=8, latent_depth=1, latents=2, modes=3, language=1),
    TrainingConfig(steps=40, batch=32, warmup_steps=5, threads=1),
    scenes=12,
    seconds=6.0,
    every=5,
    asked=12,
    asked_seconds=16.0,
)


def measure(seeds: list[int], scratch: Path, quick: bool) -> Measured:
    """One model, left in SCRATCH/model.safetensors, asked about each seed's held-out scenes; in a process with one
    thread. What an interrupted run of the same code has recorded and learnt is taken from SCRATCH."""
    scratch.mkdir(parents=True, exist_ok=True)
    with processes() as child:
        return assess(*child.submit(run, seeds, scratch, quick).result())


def run(seeds: Sequence[int], scratch: Path, quick: bool) -> tuple[Row, dict[str, Row]]:
    """What the model learnt from, and what it said of each seed's scenes. The model is left in MODEL."""
    size = QUICK if quick else FULL
    folder = scratch / digest("language", code_version(), repr(size), str(LEARNT_WITH))[:16]
    folder.mkdir(exist_ok=True)
    runs: dict[str, Row] = {}
    with Watcher() as watch:
        samples = _recorded(size, folder / "samples.safetensors", watch)
        trained = _learnt(samples, size, folder / "learning.safetensors", watch)
        save(trained, scratch / MODEL)
        for seed in seeds:
            cases = held_out(seed, size.asked, size.asked_seconds, partial(_told, watch, f"asked, seed {seed}"))
            runs[str(seed)] = row = examined(trained, cases)
            watch.say(f"seed {seed}: {row['right']:.1%} rules right, {row['faithful']:.1%} go with their cause")
    shutil.rmtree(folder)
    return {"frames": len(samples), "parameters": _parameters(trained)}, runs


def _recorded(size: Size, file: Path, watch: Watcher) -> Samples:
    """What is learnt from, read in place once it is in the file."""
    if not file.exists():
        half = file.with_suffix(".half")
        told = partial(_told, watch, "recorded")
        write_samples(taught(LEARNT_WITH, size.scenes, size.seconds, size.every, told), half)
        half.rename(file)
    return open_file(file)


def _learnt(samples: Samples, size: Size, file: Path, watch: Watcher) -> Checkpoint:
    """Goes on from what the file holds."""

    def progress(done: int, of: int, loss: float) -> None:
        watch("trained", done, of, f"loss {loss:.2f}")

    def keep(checkpoint: Checkpoint) -> None:
        save(checkpoint, file)

    resume = load(file) if file.exists() else None
    hooks = Hooks(progress, keep, size.training.keep_every, resume)
    return train(samples, RIG, size.network, size.training, seed=LEARNT_WITH, hooks=hooks)


def _told(watch: Watcher, what: str, done: int, of: int) -> None:
    watch(what, done, of, "scenes")


def _parameters(trained: Checkpoint) -> int:
    return sum(tensor.numel() for tensor in trained.weights.values())


def examined(trained: Checkpoint, cases: Sequence[Case]) -> Row:
    """What a model says of held-out instants, and of the same without their cause, or without somebody else."""
    explainer = Explainer(trained, RIG)
    now = _explained(explainer, cases, [case.images for case in cases])
    removed = [i for i, case in enumerate(cases) if _matters(case)]
    gone = _explained(explainer, [cases[i] for i in removed], [cases[i].without for i in removed])
    spared = [i for i, case in enumerate(cases) if case.beside is not None]
    beside = _explained(explainer, [cases[i] for i in spared], [cases[i].beside for i in spared])
    right = [said.rule == case.truth.rule for said, case in zip(now.said, cases, strict=True)]
    goes = [
        now.said[i].cause == cases[i].truth.cause and _changed(now.said[i], after)
        for i, after in zip(removed, gone.said, strict=True)
    ]
    truths = [cases[i].then for i in removed]
    then = [after.rule == truth.rule for truth, after in zip(truths, gone.said, strict=True) if truth]
    stays = [not _changed(now.said[i], after) for i, after in zip(spared, beside.said, strict=True)]
    said = [*now.said, *gone.said, *beside.said]
    by_cause = _by_cause([case.truth.cause for case in cases], right, removed, goes)
    return {
        "asked": len(cases),
        "right": float(np.mean(right)),
        "cause_right": float(np.mean([s.cause == c.truth.cause for s, c in zip(now.said, cases, strict=True)])),
        "words_right": float(np.mean([s == c.truth for s, c in zip(now.said, cases, strict=True)])),
        "by_cause": by_cause,
        "right_of_causes": float(np.mean([c["right"] / c["asked"] for c in by_cause.values()])),
        "mistaken": _mistaken(now.said, cases),
        "removed": len(removed),
        "faithful": _mean(goes),
        "then_right": _mean(then),
        "spared": len(spared),
        "stays": _mean(stays),
        "looked_at_it": _looked_at_it(explainer, now, cases),
        "unknown_rules": sum(s.number not in RULES for s in said),
        "said": len(said),
    }


def _matters(case: Case) -> bool:
    """Whether the expert would explain himself otherwise without the cause: else it is none to be faithful to."""
    return case.without is not None and case.then is not None and _changed(case.truth, case.then)


def _changed(before: Explanation, after: Explanation) -> bool:
    return (before.cause, before.rule) != (after.cause, after.rule)


def _explained(
    explainer: Explainer, cases: Sequence[Case], images: Sequence[NDArray[np.uint8] | None]
) -> Explained:
    """What is said of so many images, each with what the case's vehicle sensed."""
    if not cases:
        return Explained((), np.zeros((0, 1, 1, 1), np.float32), np.zeros(0, np.float32))
    observation = Observation(
        np.stack([image for image in images if image is not None]),
        np.array([case.speed_mps for case in cases], np.float32),
        np.array([case.yaw_rate_radps for case in cases], np.float32),
        np.array([case.command for case in cases], np.int64),
    )
    return explainer.explain(observation)


def _looked_at_it(explainer: Explainer, found: Explained, cases: Sequence[Case]) -> float:
    """Of the causes that some patch shows, the share whose most looked-at patch shows it as well as any, about."""
    shown = explainer.shown(np.stack([case.look for case in cases])).reshape(len(cases), -1)
    most = found.look.reshape(len(cases), -1).argmax(1)
    there = shown.sum(1) > 0
    return _mean((shown[np.arange(len(cases)), most] > shown.max(1) / 2)[there])


def _mean(hits: Sequence[bool] | NDArray[np.bool_]) -> float:
    """0 where there is nothing to take it of."""
    return float(np.mean(hits)) if len(hits) else 0.0


def _by_cause(
    causes: Sequence[str], right: Sequence[bool], removed: Sequence[int], goes: Sequence[bool]
) -> dict[str, dict[str, int]]:
    """Cause -> how many were asked about and were right, were taken out and went from the explanation."""
    found: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(("asked", "right", "removed", "gone"), 0))
    for cause, hit in zip(causes, right, strict=True):
        found[cause]["asked"] += 1
        found[cause]["right"] += hit
    for i, hit in zip(removed, goes, strict=True):
        found[causes[i]]["removed"] += 1
        found[causes[i]]["gone"] += hit
    return dict(sorted(found.items()))


def _mistaken(said: Sequence[Explanation], cases: Sequence[Case]) -> dict[str, int]:
    """ "true cause -> told cause" of the wrong rules, and how often."""
    found: dict[str, int] = defaultdict(int)
    for told, case in zip(said, cases, strict=True):
        if told.rule != case.truth.rule:
            found[f"{case.truth.cause} -> {told.cause}"] += 1
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def assess(learnt: Row, runs: Mapping[str, Row]) -> Measured:
    """Pooled over seeds: bars and tables."""
    rows = list(runs.values())
    right, faithful = _pooled(rows, "right", "asked"), _pooled(rows, "faithful", "removed")
    unknown = sum(row["unknown_rules"] for row in rows)
    said, asked = sum(row["said"] for row in rows), sum(row["asked"] for row in rows)
    removed = sum(row["removed"] for row in rows)
    bars = [
        Bar("rule", f"cited rule right, of {asked} held-out scenes", right, f">= {RIGHT}", right >= RIGHT),
        Bar(
            "faithful",
            f"the cause is told, and the explanation goes when it is taken out of the world, of {removed}",
            faithful,
            f">= {FAITHFUL}",
            faithful >= FAITHFUL,
        ),
        Bar("known", f"explanations that cite an unknown rule, of {said}", unknown, "0", unknown == 0),
    ]
    tables = (_figures(runs), _causes(rows), f"{_told_of(learnt)} {NOTE}")
    return Measured({"learnt": learnt, "runs": dict(runs)}, bars, "\n\n".join(tables))


def _told_of(learnt: Row) -> str:
    return f"One model of {learnt['parameters']:,} parameters, learnt from {learnt['frames']:,} frames."


NOTE = (
    "Asked is one instant of each held-out scene, of the causes that come up in it one drawn evenly: a rule that "
    "binds for a second before and after it, whose cause a camera shows (a ball around it of more than two "
    "pixels' radius). A cause is taken out of the world, which is rendered again; counted are those without which "
    "the expert follows another rule. Somebody else: a road user near by, not of the cause, without whom the "
    "explanation should stay."
)


def _pooled(rows: Sequence[Row], share: str, of: str) -> float:
    """A share of all seeds' cases; 0 where there are none."""
    return float(sum(row[share] * row[of] for row in rows) / max(sum(row[of] for row in rows), 1))


_COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("rule right", "right", ".1%"),
    ("mean over causes", "right_of_causes", ".1%"),
    ("cause right", "cause_right", ".1%"),
    ("every word right", "words_right", ".1%"),
    ("goes with its cause", "faithful", ".1%"),
    ("then right", "then_right", ".1%"),
    ("stays without somebody else", "stays", ".1%"),
    ("looked at the cause", "looked_at_it", ".1%"),
)


def _figures(runs: Mapping[str, Row]) -> str:
    head = f"| seed | asked | {' | '.join(name for name, *_ in _COLUMNS)} |"
    lines = [head, "|---" * (len(_COLUMNS) + 2) + "|"]
    for seed, row in runs.items():
        told = " | ".join(format(row[key], form) for _, key, form in _COLUMNS)
        lines.append(f"| {seed} | {row['asked']} | {told} |")
    return "\n".join(lines)


def _causes(rows: Sequence[Row]) -> str:
    """All seeds together."""
    total: dict[str, dict[str, float]] = {}
    for row in rows:
        for cause, counts in row["by_cause"].items():
            own = total.setdefault(cause, dict.fromkeys(counts, 0.0))
            for key, count in counts.items():
                own[key] += count
    lines = ["| cause | asked | rule right | taken out | explanation goes |", "|---|---|---|---|---|"]
    for cause, c in sorted(total.items()):
        gone = f"{c['gone'] / c['removed']:.0%}" if c["removed"] else ""
        lines.append(
            f"| {cause} | {c['asked']:.0f} | {c['right'] / c['asked']:.0%} | {c['removed']:.0f} | {gone} |"
        )
    return "\n".join(lines)
