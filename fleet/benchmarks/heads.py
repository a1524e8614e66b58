"""Heads: what a network learns to tell from its cameras beside where to drive, and what an earlier frame adds.

One network with every head learns from the expert's and from a pupil's drives: only who errs shows what is risky.
Another one, otherwise alike, sees no earlier frame. What is said in words has a benchmark of its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fleet.benchmarks.apart import each_seed
from fleet.benchmarks.result import Bar, Measured, seeds_bar
from fleet.benchmarks.schooling import Report
from fleet.console import Watcher
from jobs.recorded import from_recording
from model.checkpoint import Checkpoint
from model.config import Gaps, NetworkConfig, TrainingConfig
from model.data import Samples, concatenate
from model.head_scores import head_scores
from model.open_loop import evaluate
from model.rig import THREE_CAMERAS
from model.torch_policy import TorchPolicy
from model.training import Hooks, train
from simulation.episode import record_expert, record_policy
from simulation.faults import FAULTS
from simulation.scenarios import SCENARIOS, Split, scenes

RIG = THREE_CAMERAS
MIX = dict.fromkeys((name for name in SCENARIOS if name not in FAULTS), 1.0)
"""Every scenario alike, but for those whose cameras do not work."""
HEADS = ("motion", "occupancy", "risk", "tags")
LABELS = ("motion", "occupancy", "tags")
"""Of any instant; whether it was risky is known afterwards."""
HISTORY = 2
SKILL, GAIN = 0.1, 0.1
"""What must hold: the least mean skill of a head, and what an earlier frame adds to that of the speed."""
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Size:
    """How much is learnt from, and asked."""

    network: NetworkConfig
    training: TrainingConfig
    expert_scenes: int
    pupil_scenes: int
    asked_scenes: int
    """Driven by the expert, and as many by the pupil."""
    seconds: float
    pupil_steps: int
    """The pupil's training, without heads: enough to drive, too few to drive well."""


FULL = Size(
    NetworkConfig(stem_width=32, gaps=1, **dict.fromkeys(HEADS, 1)),
    TrainingConfig(
        steps=4_000, batch=48, peak_rate=2e-3, threads=1, gaps=Gaps(camera=0.05, past=0.1, signals=0.3)
    ),
    expert_scenes=110,
    pupil_scenes=110,
    asked_scenes=24,
    seconds=24.0,
    pupil_steps=600,
)
QUICK = Size(
    NetworkConfig(
        width=16, heads=2, stem_width=8, latent_depth=1, latents=2, modes=2, gaps=1, **dict.fromkeys(HEADS, 1)
    ),
    TrainingConfig(steps=6, batch=16, warmup_steps=2, threads=1, gaps=Gaps(signals=0.3)),
    expert_scenes=3,
    pupil_scenes=3,
    asked_scenes=3,
    seconds=5.0,
    pupil_steps=3,
)


def measure(seeds: list[int], scratch: Path, quick: bool) -> Measured:
    """Two networks for each seed, on one core."""
    return assess(each_seed(run_seed, seeds, scratch, quick))


def run_seed(seed: int, scratch: Path, quick: bool) -> Row:
    """What both networks of a seed tell of frames that neither has seen, by the frames that they see at once."""
    size = QUICK if quick else FULL
    with Watcher() as watch:
        expert = driven(size, None, seed, "train", watch)
        pupil = _pupil(size, expert, seed, watch)
        learnt = concatenate([expert, driven(size, pupil, seed, "train", watch)])
        asked = concatenate([driven(size, who, seed, "heldout", watch) for who in (None, pupil)])
        found: Row = {"frames": len(learnt), "asked": len(asked)}
        for frames in (1, HISTORY):
            network = replace(size.network, history=frames)
            hooks = _hooks(watch, f"seed {seed}: sees {frames}")
            found[str(frames)] = judged(train(learnt, RIG, network, size.training, seed=seed, hooks=hooks), asked)
    return found


def driven(size: Size, pupil: Checkpoint | None, seed: int, split: Split, report: Report) -> Samples:
    """Labelled frames of the expert's disturbed drives, or of the pupil's."""
    learnt = size.expert_scenes if pupil is None else size.pupil_scenes
    who, count = "the expert" if pupil is None else "a pupil", learnt if split == "train" else size.asked_scenes
    drawn = scenes(MIX, count, seed if pupil is None else seed + 1000, split)

    def progress(share: float) -> None:
        report(f"seed {seed}: recording {who}, {split}", round(share * count), count, "scenes")

    if pupil is None:
        got = record_expert(drawn, RIG, size.seconds, seed, labels=LABELS, progress=progress)
    else:
        policy = TorchPolicy(pupil, RIG)
        got = record_policy(policy, drawn, RIG, size.seconds, seed, labels=LABELS, progress=progress)
    return from_recording(got, f"{who}, {split}")


def _pupil(size: Size, expert: Samples, seed: int, report: Report) -> Checkpoint:
    """Learns the same way as what is judged, for fewer steps and without heads."""
    network = replace(size.network, **dict.fromkeys(HEADS, 0))
    config = replace(size.training, steps=size.pupil_steps)
    return train(expert, RIG, network, config, seed=seed, hooks=_hooks(report, f"seed {seed}: the pupil"))


def _hooks(report: Report, what: str) -> Hooks:
    return Hooks(progress=lambda done, of, loss: report(what, done, of, f"loss {loss:.2f}"))


def judged(trained: Checkpoint, asked: Samples) -> Row:
    """The skill of all that is told, by name, and how far plans are off, with signals and without."""
    policy, scores = TorchPolicy(trained, RIG), head_scores(trained, asked, RIG)
    unknown = np.full_like(asked.speed_mps, np.nan)
    mute = replace(asked, speed_mps=unknown, yaw_rate_radps=unknown)
    return {
        "skill": {name: scored.skill for name, scored in scores.items()},
        "cases": {name: scored.cases for name, scored in scores.items()},
        "ade_m": evaluate(policy, asked).ade_m,
        "ade_without_signals_m": evaluate(policy, mute).ade_m,
    }


def assess(runs: Mapping[str, Row]) -> Measured:
    """Means over seeds, bars and the page."""
    each = {frames: [row[frames] for row in runs.values()] for frames in ("1", str(HISTORY))}
    skills = {frames: _means([row["skill"] for row in rows]) for frames, rows in each.items()}
    heads = {frames: _by_head(found) for frames, found in skills.items()}
    speed = "motion.speed_mps"
    gain = skills[str(HISTORY)].get(speed, 0.0) - skills["1"].get(speed, 0.0)
    bars = [
        Bar(head, f"mean skill of what {head} tells", value, f">= {SKILL}", value >= SKILL)
        for head, value in ((head, heads[str(HISTORY)].get(head, 0.0)) for head in HEADS)
    ]
    told = skills[str(HISTORY)]
    blind = sum(value < 0 for value in told.values())
    bars += [
        Bar("blind", f"of {len(told)} things told, those that a constant tells better", blind, "0", blind == 0),
        Bar("history", "what an earlier frame adds to the skill of the speed", gain, f">= {GAIN}", gain >= GAIN),
        seeds_bar(len(runs)),
    ]
    return Measured({"runs": dict(runs), "skills": skills, "heads": heads}, bars, _table(runs, each, skills))


def _means(rows: list[dict[str, float]]) -> dict[str, float]:
    """Over the seeds in which there was something to tell."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    for row in rows:
        for name, value in row.items():
            found[name].append(value)
    return {name: float(np.mean(values)) for name, values in found.items()}


def _by_head(skills: Mapping[str, float]) -> dict[str, float]:
    """The mean of all that a head tells."""
    return _means([{name.partition(".")[0]: value} for name, value in skills.items()])


def _table(
    runs: Mapping[str, Row], each: Mapping[str, list[Row]], skills: Mapping[str, Mapping[str, float]]
) -> str:
    cases = _means([row["cases"] for rows in each.values() for row in rows])
    lines = [
        "Skill: 1 where nothing is wrong, 0 where a constant, chosen with the answers, does as well.",
        "",
        "| what is told | cases | skill, one frame seen | skill, two | of each seed, two |",
        "|---|---|---|---|---|",
    ]
    for name, value in skills[str(HISTORY)].items():
        own = ", ".join(f"{row['skill'][name]:.2f}" for row in each[str(HISTORY)] if name in row["skill"])
        lines.append(f"| {name} | {cases[name]:.0f} | {skills['1'].get(name, 0.0):.2f} | {value:.2f} | {own} |")
    lines += ["", "| plans | one frame seen | two |", "|---|---|---|"]
    for key, what in (("ade_m", "signals known"), ("ade_without_signals_m", "speed and yaw rate not known")):
        cells = [f"{np.mean([row[key] for row in rows]):.2f} m" for rows in each.values()]
        lines.append(f"| mean displacement, {what} | {' | '.join(cells)} |")
    counts = ", ".join(f"{row['frames']:,}" for row in runs.values())
    lines += [
        "",
        f"Learnt from {counts} frames of the expert's and a pupil's drives, asked about those of others.",
    ]
    return "\n".join(lines)
