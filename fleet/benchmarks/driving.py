"""Driving: a policy taught here and the expert, in closed loop, by suite; and what open-loop figures say of it.

For each seed the policy is taught anew from seeded worlds (schooling.py), then driven in worlds of seeds that
nothing was learnt, searched or tuned with (simulation/suites.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fleet.benchmarks.apart import each_seed, processes
from fleet.benchmarks.curves import disagreement, plot
from fleet.benchmarks.driving_page import bars, table
from fleet.benchmarks.driving_speed import speeds
from fleet.benchmarks.result import Measured
from fleet.benchmarks.schooling import Report, Schooling, Stage, taught
from fleet.console import Watcher
from fleet.examining import on_suite, regressions_of, told
from fleet.suite_figures import pooled
from jobs.code import code_version
from jobs.recorded import from_recording
from model.checkpoint import Checkpoint, load, save
from model.config import NetworkConfig, TrainingConfig
from model.data import Samples
from model.open_loop import evaluate
from model.rig import THREE_CAMERAS
from model.torch_policy import TorchPolicy
from registry.backends import write_atomically
from simulation.adversary import Belief, drawn_from, ignorant, learned, scene_of
from simulation.arrays import Floats
from simulation.episode import record_expert
from simulation.examination import Examined, Reference, examine, expert, refer, seeing, watched
from simulation.regressions import Regression, of_each_cause, replay, to_bytes
from simulation.scenarios import Scene, scene_seed
from simulation.suites import SPLITS, SUITES, Course, Row, Suite, course, courses
from streams.contracts.ids import digest

RIG = THREE_CAMERAS
MOST_HARM = 3
"""Takeovers of one drive; more tell an adversary nothing new."""
RunRow = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is driven of a suite: scenes and seconds in each."""

    scenes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Setup:
    """One form of the benchmark."""

    schooling: Schooling
    suites: dict[str, Extent]
    curve: Extent
    """Of each of base and long-tail, driven by every checkpoint."""
    frames: Extent
    """That open-loop figures are made of."""
    generations: int
    """Of the adversary's search, and how many instances each has."""
    instances: int


_CLONE = TrainingConfig(steps=3_000, batch=48, peak_rate=2e-3, warmup_steps=100, threads=1)
_CORRECT = TrainingConfig(steps=1_600, batch=48, peak_rate=1e-3, warmup_steps=30, replay_share=0.5, threads=1)
FULL = Setup(
    Schooling(NetworkConfig(stem_width=32), 300, (100, 100), 40.0, 2, _CLONE, _CORRECT, 3),
    {
        "base": Extent(28, 50.0),
        "regions": Extent(12, 40.0),
        "long-tail": Extent(24, 40.0),
        "regressions": Extent(12, 0.0),
        "adversarial": Extent(12, 40.0),
    },
    curve=Extent(10, 30.0),
    frames=Extent(30, 20.0),
    generations=3,
    instances=20,
)
_SMALL = NetworkConfig(width=32, heads=2, stem_width=8, latent_depth=1, latents=2, modes=3)
QUICK = Setup(
    Schooling(
        _SMALL,
        10,
        (4,),
        12.0,
        3,
        TrainingConfig(steps=30, batch=24, warmup_steps=5, threads=1),
        TrainingConfig(steps=10, batch=24, warmup_steps=2, replay_share=0.5, threads=1),
        1,
    ),
    {name: Extent(1 if name == "regressions" else 2, 6.0) for name in SUITES},
    curve=Extent(1, 6.0),
    frames=Extent(4, 4.0),
    generations=1,
    instances=2,
)


def measure(seeds: list[int], scratch: Path, quick: bool) -> Measured:
    """Each seed: a policy of its own, examined in worlds of its own. Policies that this code taught before are
    taken from SCRATCH. Last, when all of them have ended, how fast the worlds are."""
    runs = each_seed(run_seed, seeds, scratch, quick)
    with processes() as child:
        fast = child.submit(speeds, seeds[0], *((1, 2) if quick else (5, 25))).result()
    return assess(runs, fast)


def run_seed(seed: int, scratch: Path, quick: bool) -> RunRow:
    """Everything of one seed, on one core."""
    setup = QUICK if quick else FULL
    with Watcher() as watch:
        stages = stages_of(setup.schooling, seed, scratch, watch)
        row = run(stages, setup, seed, scratch, watch)
        last = row["curve"][-1]
        watch.say(
            f"seed {seed}: {last['per_km']:.2f} per km, {last['pdms_share']:.2f} of the expert's PDMS (tuning)"
        )
    return row


def assess(runs: dict[str, RunRow], fast: dict[str, Any]) -> Measured:
    """Figures over all seeds, the bars, the page and its plot. `fast` as of driving_speed."""
    found = pooled(runs)
    points = [point for row in runs.values() for point in row["curve"]]
    results = {"suites": found, "curves": {seed: row["curve"] for seed, row in runs.items()}}
    results |= {"disagreement": disagreement(points), "adversary": {s: r["adversary"] for s, r in runs.items()}}
    results |= {"rigs_per_cpu_s": fast}
    page = table(found, results["disagreement"], results["adversary"], results["curves"], fast)
    return Measured(results, bars(found, len(runs), fast), page, {"driving.svg": plot(results["curves"])})


def stages_of(schooling: Schooling, seed: int, scratch: Path, report: Report) -> list[Stage]:
    """The policy's stages, taught now or, where the same code taught them with the same seed before, read."""
    folder = scratch / digest("schooling", code_version(), repr(schooling), str(seed))[:16]
    finished = folder / "finished"
    if not finished.exists():
        folder.mkdir(parents=True, exist_ok=True)
        names = []
        for number, stage in enumerate(taught(schooling, RIG, seed, report)):
            save(stage.checkpoint, folder / f"{number}.safetensors")
            names.append(f"{stage.name},{stage.samples}")
        finished.write_text("\n".join(names))
    lines = [line.rsplit(",", 1) for line in finished.read_text().splitlines()]
    return [Stage(name, int(n), load(folder / f"{i}.safetensors")) for i, (name, n) in enumerate(lines)]


def run(stages: Sequence[Stage], setup: Setup, seed: int, scratch: Path, report: Report) -> RunRow:
    """One seed: the last stage on every suite, all of them on the curve."""
    policy = TorchPolicy(stages[-1].checkpoint, RIG)
    past = disengagements(stages[0].checkpoint, setup, seed)
    write_atomically(scratch / f"regressions-{seed}.json", [to_bytes(past)])
    belief, harm = adversary(policy, setup, seed, report)
    suites = {}
    for number, (name, extent) in enumerate(setup.suites.items()):
        report(f"seed {seed}, suites", number, len(setup.suites), name)
        suites[name], _ = on_suite(policy, _courses(SUITES[name], extent, seed, past, belief), RIG)
    report(f"seed {seed}, suites", len(setup.suites), len(setup.suites), "")
    return {"suites": suites, "curve": curve(stages, setup, seed, report), "adversary": harm}


def disengagements(checkpoint: Checkpoint, setup: Setup, seed: int) -> list[Regression]:
    """What an earlier stage fails in, with tuning seeds: each cause in turn."""
    suite, extent, own = SUITES["regressions"], setup.suites["long-tail"], seeing(TorchPolicy(checkpoint, RIG))
    found = list[Regression]()
    for each in courses(suite, "tuning", seed, extent.scenes, extent.seconds):
        found += regressions_of(suite.name, each, watched(each, own(), RIG)[1])
    return of_each_cause(found, setup.suites["regressions"].scenes)


def adversary(policy: TorchPolicy, setup: Setup, seed: int, report: Report) -> tuple[Belief, list[float]]:
    """Where the policy is harmed, searched with tuning seeds; and the mean harm by generation."""
    rows, extent = SUITES["adversarial"].rows, setup.suites["adversarial"]
    belief, rng, harms = ignorant(len(rows)), np.random.default_rng([seed, 7]), list[float]()
    for generation in range(setup.generations):
        report(f"seed {seed}, adversary", generation, setup.generations, "")
        draws = drawn_from(belief, setup.instances, rng)
        seeds = [
            scene_seed(SPLITS["tuning"], seed, 900_000 + 1000 * generation + i) for i in range(len(draws.row))
        ]
        made = [scene_of(rows[r], t, s) for r, t, s in zip(draws.row, draws.twist, seeds, strict=True)]
        harm = harm_of(policy, course(made, extent.seconds))
        harms.append(float(harm.mean()))
        belief = learned(belief, draws, harm)
    return belief, harms


def harm_of(policy: TorchPolicy, hard: Course) -> Floats:
    """How often the policy needs its safety driver where the expert never does, [E], 0..1 of MOST_HARM times."""
    own, experts = watched(hard, seeing(policy)(), RIG)[0], watched(hard, expert)[0]
    failed, fails = (np.array([c.total() for c in marks.causes]) for marks in (own, experts))
    return np.where(fails == 0, np.minimum(failed, MOST_HARM) / MOST_HARM, 0.0)


def _courses(suite: Suite, extent: Extent, seed: int, past: Sequence[Regression], belief: Belief) -> list[Course]:
    if suite.source == "disengagements":
        return [replay(one) for one in past]
    if suite.source == "search":
        return [course(_adversaries(suite.rows, belief, extent.scenes, seed), extent.seconds)]
    return courses(suite, "reporting", seed, extent.scenes, extent.seconds)


def _adversaries(rows: Sequence[Row], belief: Belief, count: int, seed: int) -> list[Scene]:
    """Instances like those that did harm, in scenes that the search never saw."""
    draws, split = drawn_from(belief, count, np.random.default_rng([seed, 8])), SPLITS["reporting"]
    seeds = [scene_seed(split, seed, 900_000 + i) for i in range(count)]
    return [scene_of(rows[r], t, s) for r, t, s in zip(draws.row, draws.twist, seeds, strict=True)]


def curve(stages: Sequence[Stage], setup: Setup, seed: int, report: Report) -> list[RunRow]:
    """Open-loop and closed-loop figures of every stage, with tuning seeds: a stage may be chosen by them."""
    extent = setup.curve
    references = [
        refer(each)
        for name in ("base", "long-tail")
        for each in courses(SUITES[name], "tuning", seed, extent.scenes, extent.seconds)
    ]
    frames, points = open_loop_frames(setup.frames, seed), []
    for number, stage in enumerate(stages):
        report(f"seed {seed}, curve", number, len(stages), stage.name)
        points.append(
            {"stage": stage.name, "samples": stage.samples} | _point(stage.checkpoint, references, frames)
        )
    return points


def _point(checkpoint: Checkpoint, references: Sequence[Reference], frames: Samples) -> RunRow:
    policy = TorchPolicy(checkpoint, RIG)
    own: list[Examined] = [examine(seeing(policy), reference, RIG, whole=False) for reference in references]
    driven, experts = told([e.marks for e in own]), told([r.marks for r in references])
    count = sum(driven["causes"].values())
    share = np.nanmean(driven["scores"]["pdms"]) / np.nanmean(experts["scores"]["pdms"])
    return {
        "open_loop": asdict(evaluate(policy, frames)),
        "pdms_share": float(share),
        "per_km": count / max(driven["km"], 1e-9),
        "disengagements": count,
        "km": driven["km"],
    }


def open_loop_frames(extent: Extent, seed: int) -> Samples:
    """Frames of undisturbed driving by the expert, base and long-tail alike."""
    half = extent.scenes // 2
    scenes = [
        scene
        for name in ("base", "long-tail")
        for each in courses(SUITES[name], "tuning", seed + 1_000_000, half, extent.seconds)
        for scene in each.scenes
    ]
    return from_recording(record_expert(scenes, RIG, extent.seconds, seed, perturb=None, every=3), "open loop")
