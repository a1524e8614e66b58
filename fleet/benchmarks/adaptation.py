"""Adaptation: a model of some regions driven in others, as it is and after it learnt from clips from there; and a
model before and after it practised in closed loop.

Each seed has a model, clips and worlds of its own. Clips are of learning seeds, figures of reporting ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fleet.benchmarks.adaptation_page import ADAPTER, FEW_FULL, MANY_FULL, ZERO_SHOT, assess
from fleet.benchmarks.apart import each_seed
from fleet.benchmarks.result import Measured
from fleet.console import Watcher
from jobs.code import code_version
from jobs.practise import Ground, practise
from jobs.recorded import from_recording
from model.adapter_file import Base, base_of
from model.adapters import adapt, adapting, merged
from model.checkpoint import Checkpoint, load, save
from model.closed_loop import PractiseConfig, PractiseHooks, Round
from model.config import NetworkConfig, TrainingConfig
from model.data import Samples
from model.open_loop import evaluate
from model.rig import THREE_CAMERAS
from model.torch_policy import TorchPolicy
from model.training import Hooks, fine_tune, train
from simulation.arrays import Ints
from simulation.episode import record_expert
from simulation.examination import Reference, examine, refer, seeing
from simulation.lessons import lessons
from simulation.suites import Row, Suite, courses
from streams.contracts.ids import digest

RIG = THREE_CAMERAS
HOME = ("us", "de")
ABROAD = ("uk", "jp", "held_signs")
"""Never seen by the base model: two that keep left, with signs, lines and speeds of their own, and one that is
like home but for its stop signs."""
SHARE = 0.10
"""Of the clips from abroad: what a few shots are."""
RunRow = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Setup:
    """One form of the benchmark."""

    network: NetworkConfig
    drives: int
    """At home, from which the base model is cloned."""
    drive_s: float
    clone: TrainingConfig
    clips: int
    """From each region abroad, of `clip_s`."""
    clip_s: float
    replayed: int
    """Drives at home, such as the base has learnt from, that an adapter learns from besides."""
    adapter: TrainingConfig
    full: TrainingConfig
    scenes: int
    """In which each model is examined abroad, for `examined_s`."""
    home_scenes: int
    """The same at home: what practising brings there is little."""
    examined_s: float
    practice: PractiseConfig
    vehicles: int
    """That practise at a time, for `practised_s`."""
    practised_s: float


FULL = Setup(
    network=NetworkConfig(stem_width=32),
    drives=160,
    drive_s=30.0,
    clone=TrainingConfig(steps=1_200, batch=48, peak_rate=2e-3, warmup_steps=50, threads=1),
    clips=200,
    clip_s=10.0,
    replayed=24,
    adapter=adapting(200),
    full=TrainingConfig(steps=200, batch=48, peak_rate=1e-3, warmup_steps=30, threads=1),
    scenes=12,
    home_scenes=32,
    examined_s=30.0,
    practice=PractiseConfig(rounds=12),
    vehicles=24,
    practised_s=12.0,
)
QUICK = Setup(
    network=NetworkConfig(heads=2, stem_width=8, latent_depth=1, latents=2, modes=3),
    drives=4,
    drive_s=6.0,
    clone=TrainingConfig(steps=12, batch=16, warmup_steps=4, threads=1),
    clips=10,
    clip_s=3.0,
    replayed=2,
    adapter=adapting(6),
    full=TrainingConfig(steps=6, batch=16, warmup_steps=2, threads=1),
    scenes=2,
    home_scenes=2,
    examined_s=6.6,
    practice=PractiseConfig(rounds=1, group=3, updates=2, batch=8),
    vehicles=2,
    practised_s=3.0,
)


def measure(seeds: list[int], scratch: Path, quick: bool) -> Measured:
    """Everything for each seed, in a process of its own. Base models that this code made before are taken from
    SCRATCH."""
    return assess(each_seed(run_seed, seeds, scratch, quick))


def run_seed(seed: int, scratch: Path, quick: bool) -> RunRow:
    """Everything of one seed, on one core."""
    with Watcher() as watch:
        run = Run(QUICK if quick else FULL, seed, watch)
        base = run.base(scratch)
        home, _ = run.recorded(HOME, run.setup.replayed, run.setup.drive_s)
        abroad = {region: run.abroad(base, home, region) for region in ABROAD}
        return {"parameters": base.parameters, "abroad": abroad, "practice": run.practised(base)}


@dataclass(frozen=True)
class Run:
    """One seed."""

    setup: Setup
    seed: int
    watch: Watcher

    def base(self, scratch: Path) -> Base:
        """A model of the regions at home."""
        s = self.setup
        made_of = (code_version(), repr((s.network, s.clone, s.drives, s.drive_s)), str(self.seed))
        path = scratch / f"base-{digest('base', *made_of)[:16]}.safetensors"
        if not path.exists():
            samples, _ = self.recorded(HOME, s.drives, s.drive_s)
            save(train(samples, RIG, s.network, s.clone, seed=self.seed, hooks=self._hooks("cloning")), path)
        return base_of(load(path))

    def abroad(self, base: Base, home: Samples, region: str) -> RunRow:
        """The base in a region, and what becomes of it there."""
        s = self.setup
        references = self._references([region], s.scenes)
        clips, drive = self.recorded([region], s.clips, s.clip_s)
        few = clips.take(np.flatnonzero(drive < max(round(SHARE * s.clips), 1)))
        driven = [scene for reference in references for scene in reference.course.scenes]
        seen = record_expert(driven, RIG, s.examined_s, self.seed, perturb=None, every=4)
        frames = from_recording(seen, region)

        def told(checkpoint: Checkpoint) -> RunRow:
            ade_m = evaluate(TorchPolicy(checkpoint, RIG), frames).ade_m
            return self._examined(checkpoint, references) | {"ade_m": ade_m}

        row: RunRow = {ZERO_SHOT: told(base.checkpoint)}
        adapter = adapt(
            base, region, home, few, RIG, s.adapter, seed=self.seed, hooks=self._hooks(f"{region}, adapter")
        )
        row[ADAPTER] = told(merged(base, [adapter])) | {"parameters": adapter.parameters}
        for arm, learnt in ((FEW_FULL, few), (MANY_FULL, clips)):
            hooks = self._hooks(f"{region}, {arm}")
            row[arm] = told(fine_tune(base.checkpoint, learnt, learnt, RIG, s.full, seed=self.seed, hooks=hooks))
        return row | {"frames": {"few": len(few), "all": len(clips)}}

    def practised(self, base: Base) -> RunRow:
        """The base at home, before and after practising there."""
        s, rounds = self.setup, list[RunRow]()
        ground = Ground([Row("base", region).condition() for region in HOME], RIG, s.vehicles, s.practised_s)

        def told(done: Round) -> None:
            rounds.append(asdict(done))
            self.watch(f"{self.seed}: practising", done.number, done.of, f"reward {done.reward:.3f}")

        better = practise(base.checkpoint, ground, s.practice, seed=self.seed, hooks=PractiseHooks(told))
        references = self._references(HOME, s.home_scenes)
        found = {"before": base.checkpoint, "after": better}
        return {name: self._examined(c, references) for name, c in found.items()} | {"rounds": rounds}

    def recorded(self, regions: Sequence[str], drives: int, seconds: float) -> tuple[Samples, Ints]:
        """The expert's drives in regions as samples, and of which drive each frame is."""
        scenes = lessons(drives, self.seed, {Row("base", region): 1.0 for region in regions})
        what = ", ".join(regions)

        def tell(share: float) -> None:
            self.watch(f"{self.seed}: recording {what}", round(100 * share), 100, "")

        recorded = record_expert(scenes, RIG, seconds, self.seed, progress=tell)
        return from_recording(recorded, what), recorded.vehicle

    def _references(self, regions: Sequence[str], scenes: int) -> list[Reference]:
        where = Suite("regions", ", ".join(regions), "table", tuple(Row("base", region) for region in regions))
        return [refer(c) for c in courses(where, "reporting", self.seed, scenes, self.setup.examined_s)]

    def _examined(self, checkpoint: Checkpoint, references: Sequence[Reference]) -> RunRow:
        driver = seeing(TorchPolicy(checkpoint, RIG))
        marks = [examine(driver, reference, RIG, whole=False).marks for reference in references]
        scores = {name: np.concatenate([m.scores[name] for m in marks]).tolist() for name in ("pdms", "epdms")}
        km = np.concatenate([m.km for m in marks]).tolist()
        return scores | {"km": km, "disengagements": [sum(c.values()) for m in marks for c in m.causes]}

    def _hooks(self, what: str) -> Hooks:
        return Hooks(lambda done, of, loss: self.watch(f"{self.seed}: {what}", done, of, f"loss {loss:.2f}"))
