"""Rigs: one network that drives with any of the four, against one for each of the same size; and a camera lost.

The one network is shown each rig's frames as often as that rig's specialist is, in the same scenes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fleet.benchmarks.apart import each_seed
from fleet.benchmarks.result import Bar, Measured, seeds_bar
from fleet.benchmarks.schooling import Report
from fleet.console import Watcher
from fleet.suite_figures import interval, rated
from jobs.recorded import from_recording
from model.checkpoint import Checkpoint
from model.config import NetworkConfig, TrainingConfig
from model.data import Samples
from model.policy import Observation, Plan, Policy, frames_seen
from model.rig import RIGS, Rig
from model.torch_policy import TorchPolicy
from model.training import Hooks, train, train_on_rigs
from simulation.episode import record_expert
from simulation.examination import Reference, examine, refer, seeing
from simulation.lessons import LESSONS, lessons
from simulation.scores.suites import mean
from simulation.suites import Row, Suite, courses

LARGEST_LOSS = 0.10
LOST = "lost_camera"
WHOLE = Suite("base", "all cameras", "table", (Row("base"),))
ONE_LOST = Suite("base", "one camera black", "table", (Row("base", fault=LOST),))
RigRow = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Setup:
    """One form of the benchmark."""

    network: NetworkConfig
    scenes: int
    """Recorded with every rig."""
    seconds: float
    every: int
    training: TrainingConfig
    """Of a specialist; the one network takes as many steps for each rig."""
    episodes: int
    driven_s: float


FULL = Setup(
    NetworkConfig(stem_width=32),
    110,
    40.0,
    2,
    TrainingConfig(steps=1_100, batch=48, peak_rate=2e-3, camera_dropout=0.2, threads=1),
    16,
    32.0,
)
QUICK = Setup(
    NetworkConfig(width=32, heads=2, stem_width=8, latent_depth=1, latents=2, modes=3),
    3,
    8.0,
    4,
    TrainingConfig(steps=8, batch=16, warmup_steps=2, camera_dropout=0.2, threads=1),
    2,
    7.0,
)


class Watched:
    """A policy whose plans are counted, and those among them that are not finite."""

    def __init__(self, policy: Policy) -> None:
        self._policy, self.history = policy, frames_seen(policy)
        self.plans = self.not_finite = 0

    def plan(self, observation: Observation) -> Plan:
        """The policy's plan; where it is not finite, the vehicle is to stand."""
        plan = self._policy.plan(observation)
        fine = np.asarray(np.isfinite(plan.modes).all((1, 2, 3)) & np.isfinite(plan.confidence).all(1))
        self.plans, self.not_finite = self.plans + len(fine), self.not_finite + int((~fine).sum())
        modes = np.where(fine[:, None, None, None], plan.modes, np.float32(0))
        confidence = np.where(fine[:, None], plan.confidence, np.float32(0))
        return Plan(modes, confidence, plan.scale_m, plan.embedding)


def measure(seeds: list[int], scratch: Path, quick: bool) -> Measured:
    """Every seed: the recordings, the specialists, the one network, and their drives."""
    return assess(each_seed(run_seed, seeds, scratch, quick))


def run_seed(seed: int, scratch: Path, quick: bool) -> dict[str, RigRow]:
    """Everything of one seed, on one core."""
    with Watcher() as watch:
        return run(QUICK if quick else FULL, seed, watch)


def run(setup: Setup, seed: int, report: Report, rigs: Mapping[str, Rig] = RIGS) -> dict[str, RigRow]:
    """One seed, by rig."""
    parts = [(recorded(setup, rig, seed, report), rig) for rig in rigs.values()]
    specialists = {
        rig.name: train(
            frames, rig, setup.network, setup.training, seed=seed, hooks=_hooks(report, f"specialist {rig.name}")
        )
        for frames, rig in parts
    }
    config = setup.training
    longer = replace(config, steps=config.steps * len(parts))
    one = train_on_rigs(parts, setup.network, longer, seed=seed, hooks=_hooks(report, "one for all"))
    parts.clear()
    driven = courses(WHOLE, "reporting", seed, setup.episodes, setup.driven_s)
    lost = courses(ONE_LOST, "reporting", seed, setup.episodes, setup.driven_s)
    whole, without = [refer(c) for c in driven], [refer(c) for c in lost]
    rows = {}
    for number, rig in enumerate(rigs.values()):
        report(f"seed {seed}, driving", number, len(rigs), rig.name)
        rows[rig.name] = {
            "cameras": len(rig.cameras),
            "specialist": drive(specialists[rig.name], whole, rig),
            "one": drive(one, whole, rig),
            "one, a camera lost": drive(one, without, rig),
        }
    return rows


def recorded(setup: Setup, rig: Rig, seed: int, report: Report) -> Samples:
    """The expert's disturbed driving through the cameras of a rig; the scenes are the same for every rig."""
    found = lessons(setup.scenes, seed, LESSONS)
    return from_recording(
        record_expert(
            found,
            rig,
            setup.seconds,
            seed,
            every=setup.every,
            progress=lambda share: report(f"recording {rig.name}", round(100 * share), 100, "%"),
        ),
        rig.name,
    )


def drive(checkpoint: Checkpoint, references: Sequence[Reference], rig: Rig) -> RigRow:
    """PDMS by episode, disengagements, and whether every plan was finite."""
    policy = Watched(TorchPolicy(checkpoint, rig))
    marks = [examine(seeing(policy), reference, rig, whole=False).marks for reference in references]
    return {
        "pdms": np.concatenate([m.scores["pdms"] for m in marks]).tolist(),
        "km": float(sum(m.km.sum() for m in marks)),
        "disengagements": sum(sum(cause.values()) for m in marks for cause in m.causes),
        "plans": policy.plans,
        "not_finite": policy.not_finite,
    }


def assess(runs: Mapping[str, Mapping[str, RigRow]]) -> Measured:
    """Pooled figures, bars and the page."""
    found = {name: _pooled([run[name] for run in runs.values()]) for name in next(iter(runs.values()))}
    losses = {name: _lost(row, "one") for name, row in found.items()}
    worst = max(losses, key=losses.__getitem__)
    bad = sum(row[driver]["not_finite"] for row in found.values() for driver in DRIVERS)
    bars = [
        Bar(
            "one-for-all",
            f"PDMS lost against the rig's specialist, the worst of {len(found)} rigs: {worst}",
            losses[worst],
            f"<= {LARGEST_LOSS}",
            losses[worst] <= LARGEST_LOSS,
        ),
        Bar("finite", "plans that are not finite, a lost camera included", bad, "0", bad == 0),
        seeds_bar(len(runs)),
    ]
    return Measured({"rigs": found, "losses": losses}, bars, _table(found))


def _lost(row: RigRow, driver: str) -> float:
    """Share of the specialist's PDMS."""
    return 1 - float(row[driver]["pdms"]["value"]) / max(float(row["specialist"]["pdms"]["value"]), 1e-9)


DRIVERS = ("specialist", "one", "one, a camera lost")


def _pooled(rows: Sequence[RigRow]) -> RigRow:
    out: RigRow = {"cameras": rows[0]["cameras"]}
    for driver in DRIVERS:
        own = [row[driver] for row in rows]
        count, km = sum(o["disengagements"] for o in own), sum(o["km"] for o in own)
        out[driver] = {
            "pdms": asdict(mean(np.array([o["pdms"] for o in own]))),
            "per_km": rated(count, km),
            "km": km,
            "disengagements": count,
            "plans": sum(o["plans"] for o in own),
            "not_finite": sum(o["not_finite"] for o in own),
        }
    return out


def _table(found: Mapping[str, RigRow]) -> str:
    rows = [
        "| rig | cameras | driver | PDMS | lost against specialist | disengagements/km | km | plans not finite |",
        "|" + "---|" * 8,
    ]
    for name, row in found.items():
        for driver in DRIVERS:
            own = row[driver]
            rows.append(
                f"| {name} | {row['cameras']} | {driver} | {interval(own['pdms'])} | "
                f"{_lost(row, driver):.1%} | {interval(own['per_km'])} | {own['km']:.1f} | "
                f"{own['not_finite']} of {own['plans']} |"
            )
    note = (
        "Base worlds of reporting seeds; a lost camera is black. 95 % intervals over seeds and episodes; rates "
        "Garwood's. The one network takes as many steps for each rig as that rig's specialist does in all."
    )
    return "\n".join([note, "", *rows])


def _hooks(report: Report, what: str) -> Hooks:
    return Hooks(lambda done, of, loss: report(what, done, of, f"loss {loss:.2f}"))
