"""The scaling law: a ladder of networks and of data, trained alike; what each sees and how it drives; the law
fitted to that, and put to the test on a run with more data than it was fitted on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet.benchmarks.apart import each_seed
from fleet.benchmarks.result import Bar, Measured
from fleet.charts import Series, law_chart, standalone
from fleet.console import Watcher
from jobs.recorded import from_recording
from model.checkpoint import Checkpoint
from model.config import NetworkConfig, TrainingConfig
from model.data import Samples
from model.open_loop import evaluate
from model.rig import THREE_CAMERAS
from model.scaling_law import Fit, Run, TooFewRuns, fit
from model.torch_policy import TorchPolicy
from model.training import mean_loss, train
from simulation.episode import drive, record_expert
from simulation.scenarios import BASE, Split, scenes

WORLD_S = 38.0
"""Recorded in each world."""
ASKED = 1
"""The seed of the worlds that every model is judged in, whatever its own: seeds differ in what is learnt from."""
EPOCHS = 4
"""Passes over the data: more teach little that is new (Muennighoff et al., arXiv:2305.16264)."""
NETWORKS = (
    NetworkConfig(width=16, heads=2, stem_width=8, latent_depth=1, latents=2, modes=3),
    NetworkConfig(width=24, heads=2, stem_width=8, latent_depth=2, latents=2, modes=3),
    NetworkConfig(width=32, heads=2, stem_width=12, latent_depth=2, latents=4, modes=4),
    NetworkConfig(width=48, heads=4, stem_width=16, latent_depth=3, latents=4, modes=4),
    NetworkConfig(width=64, heads=4, stem_width=24, latent_depth=4, latents=6, modes=4),
)


@dataclass(frozen=True, slots=True)
class Score:
    """Of a trained model."""

    value: float
    weight: float = 1.0
    """Inverse variance, relative to other models' scores of the same kind."""


@dataclass(frozen=True, slots=True)
class Ladder:
    """What is trained, and on how much it is judged."""

    networks: tuple[NetworkConfig, ...]
    worlds: tuple[int, ...]
    """Data of the rungs; those of a rung are among those of the next."""
    beyond: int
    """Worlds of the one run that the law is tested on, with the largest network."""
    heldout_worlds: int
    vehicles: int
    seconds: float
    """Driven by each vehicle."""
    resamples: int


Judge = Callable[[Checkpoint, Ladder], Mapping[str, Score]]
"""Drives a model and gives scores by name, each a row of SCORES. What cannot be said (a rate without
kilometres) is left out."""

FULL = Ladder(NETWORKS, (8, 16, 32, 64), 128, heldout_worlds=12, vehicles=16, seconds=30.0, resamples=300)
QUICK = Ladder(NETWORKS[:3], (1, 2, 3), 4, heldout_worlds=1, vehicles=2, seconds=6.0, resamples=20)


def measure(seeds: list[int], scratch: Path, quick: bool) -> Measured:
    """One ladder for each seed, side by side; the law over all of them."""
    rows = each_seed(run_seed, seeds[:1] if quick else seeds, scratch, quick)
    return assess([run for row in rows.values() for run in row["runs"]], QUICK if quick else FULL)


def run_seed(seed: int, scratch: Path, quick: bool) -> dict[str, Any]:
    """The ladder of one seed, on one core."""
    with Watcher() as watch:
        return {"runs": climb(QUICK if quick else FULL, seed, watch)}


def climb(ladder: Ladder, seed: int, watch: Watcher, judge: Judge | None = None) -> list[dict[str, Any]]:
    """Every network on every amount of data, then the run beyond; judged on worlds that no run has seen."""
    data = _recorded(ladder.beyond, seed, "train", watch)
    held_out, _ = _recorded(ladder.heldout_worlds, ASKED, "heldout", watch)
    cells = [(network, worlds) for worlds in ladder.worlds for network in ladder.networks]
    cells.append((ladder.networks[-1], ladder.beyond))
    found = []
    for number, (network, worlds) in enumerate(cells):
        samples = data[0].take(data[1] < worlds)
        model = train(samples, THREE_CAMERAS, network, training(len(samples)), seed=seed)
        scores = {**open_loop(model, held_out), **(judge or closed_loop)(model, ladder)}
        parameters = sum(tensor.numel() for tensor in model.weights.values())
        cell = {"seed": seed, "parameters": parameters, "frames": len(samples), "beyond": worlds == ladder.beyond}
        found.append(cell | {"scores": {name: [s.value, s.weight] for name, s in scores.items()}})
        watch(f"seed {seed}: models", number + 1, len(cells), f"{parameters:,} on {len(samples)} frames")
    return found


def training(frames: int) -> TrainingConfig:
    """So many passes over the data whatever the network: a law of N and D must not be one of the schedule."""
    steps = max(math.ceil(EPOCHS * frames / 32), 10)
    return TrainingConfig(steps=steps, batch=32, peak_rate=2e-3, warmup_steps=max(steps // 20, 1), threads=1)


def open_loop(model: Checkpoint, held_out: Samples) -> dict[str, Score]:
    """The loss that is trained, in nats, and the displacement error, on frames that were not."""
    displaced = evaluate(TorchPolicy(model, THREE_CAMERAS), held_out)
    return {"loss": Score(mean_loss(model, held_out, THREE_CAMERAS)), "ade_m": Score(displaced.ade_m)}


def closed_loop(model: Checkpoint, ladder: Ladder) -> dict[str, Score]:
    """Disengagements per km in base worlds. A rate of n events in k km varies by n / k^2."""
    drawn = scenes({BASE: 1.0}, ladder.vehicles, ASKED, "heldout")
    pooled = drive(TorchPolicy(model, THREE_CAMERAS), drawn, THREE_CAMERAS, ladder.seconds, ASKED).pooled()
    if pooled.km <= 0:
        return {}
    return {"disengagements_per_km": Score(pooled.count / pooled.km, pooled.km**2 / max(pooled.count, 1))}


def _recorded(worlds: int, seed: int, split: Split, watch: Watcher) -> tuple[Samples, Any]:
    """Disturbed expert driving, and of which world each frame is."""
    drawn = scenes({BASE: 1.0}, worlds, seed, split)
    got = record_expert(
        drawn,
        THREE_CAMERAS,
        WORLD_S,
        seed,
        progress=lambda share: watch(f"seed {seed}: {split} worlds", math.floor(share * worlds), worlds, ""),
    )
    return from_recording(got, f"{split}-{seed}"), got.vehicle


SCORES = {
    "loss": ("imitation loss on held-out frames, nats", False),
    "ade_m": ("displacement error on held-out frames, m", True),
    "disengagements_per_km": ("disengagements per km, base worlds", True),
}
"""Name -> what it is, and whether it cannot be negative."""


def assess(runs: Sequence[Mapping[str, Any]], ladder: Ladder) -> Measured:
    """Fits, bars, plots and tables of finished runs."""
    fits = {name: found for name in SCORES if (found := _fit(runs, name, ladder.resamples)) is not None}
    told = {name: _told(found, runs, name) for name, found in fits.items()}
    pictures = {f"scaling-{name}.svg": _plot(found, runs, name) for name, found in fits.items()}
    return Measured({"runs": list(runs), "laws": told}, _bars(told), _table(runs, told), pictures)


def _fit(runs: Sequence[Mapping[str, Any]], name: str, resamples: int) -> Fit | None:
    try:
        return fit(_points(runs, name, beyond=False), positive=SCORES[name][1], resamples=resamples, seed=0)
    except TooFewRuns:
        return None


def _points(runs: Sequence[Mapping[str, Any]], name: str, *, beyond: bool) -> list[Run]:
    return [
        Run(float(r["parameters"]), float(r["frames"]), *r["scores"][name])
        for r in runs
        if r["beyond"] == beyond and name in r["scores"]
    ]


def _told(found: Fit, runs: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any]:
    """The law's numbers, and its prediction of the run beyond, as a share of the range of all scores."""
    law, beyond = found.law, _points(runs, name, beyond=True)
    told: dict[str, Any] = {
        "law": {n: [getattr(law, n), *found.intervals[n]] for n in ("floor", "a", "alpha", "b", "beta")},
        "explained": found.explained,
    }
    if beyond:
        weight = sum(run.weight for run in beyond)
        measured = sum(run.score * run.weight for run in beyond) / weight
        scores = [run.score for run in _points(runs, name, beyond=False)]
        predicted = found.predicted(beyond[0].parameters, beyond[0].frames)
        told |= {
            "beyond": {"measured": measured, "predicted": predicted},
            "miss": abs(predicted[0] - measured) / max(max(scores) - min(scores), 1e-12),
        }
    return told


EXPLAINED, MISS = 0.8, 0.15
"""Of the open-loop loss: a law that explains less, or that misses by more, is none to plan with."""


def _bars(told: Mapping[str, Mapping[str, Any]]) -> list[Bar]:
    loss = told.get("loss", {})
    explained, miss = float(loss.get("explained", 0.0)), float(loss.get("miss", math.inf))
    both = float("loss" in told and "disengagements_per_km" in told)
    return [
        Bar(
            "explained",
            "open-loop loss: share of the variance that the law explains",
            explained,
            f">= {EXPLAINED}",
            explained >= EXPLAINED,
        ),
        Bar(
            "beyond",
            "open-loop loss of the run beyond the ladder: error of the prediction over the range",
            miss,
            f"<= {MISS}",
            miss <= MISS,
        ),
        Bar("both", "laws fitted for open-loop loss and for disengagements per km", both, "= 1", both == 1),
    ]


def _plot(found: Fit, runs: Sequence[Mapping[str, Any]], name: str) -> str:
    """Score over frames, one colour for each network, the law drawn through."""
    series = []
    low, high = (bound(float(r["frames"]) for r in runs) for bound in (min, max))
    sizes = sorted({float(r["parameters"]) for r in runs})
    for size in sizes:
        dots = [
            (p.frames, p.score)
            for p in (*_points(runs, name, beyond=False), *_points(runs, name, beyond=True))
            if p.parameters == size
        ]
        across = [low * (high / low) ** (k / 24) for k in range(25)]
        series.append(Series(f"{size / 1000:.0f} k", dots, [(x, found.law(size, x)) for x in across]))
    return standalone(law_chart(series, SCORES[name][0], "frames of data (log); colour: parameters"))


def _table(runs: Sequence[Mapping[str, Any]], told: Mapping[str, Mapping[str, Any]]) -> str:
    rows = ["| score | E | A | alpha | B | beta | explained | run beyond: predicted, measured |", "|" + "---|" * 8]
    for name, entry in told.items():
        cells = [f"{v:.3g} [{low:.3g}, {high:.3g}]" for v, low, high in entry["law"].values()]
        beyond = entry.get("beyond")
        test = "" if beyond is None else _predicted(beyond["predicted"], beyond["measured"])
        rows.append(f"| {SCORES[name][0]} | {' | '.join(cells)} | {entry['explained']:.2f} | {test} |")
    pictures = "\n".join(f"![{SCORES[name][0]}](scaling-{name}.svg)" for name in told)
    fitted = sum(not run["beyond"] for run in runs)
    note = (
        f"score = E + A / parameters^alpha + B / frames^beta over {fitted} runs, with 95 % bootstrap "
        f"intervals. Every run makes {EPOCHS} passes over its data. The run beyond the ladder took no part in it. "
        "All models are judged in the same worlds, which none has learnt from."
    )
    return "\n".join([note, "", *rows, "", pictures, "", *_grid(runs)])


def _predicted(predicted: tuple[float, float, float], measured: float) -> str:
    value, low, high = predicted
    return f"{value:.3g} [{low:.3g}, {high:.3g}], {measured:.3g}"


def _grid(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [
        "| parameters | frames | " + " | ".join(text for text, _ in SCORES.values()) + " |",
        "|---|---|" + "---|" * len(SCORES),
    ]
    for parameters, frames in sorted({(r["parameters"], r["frames"]) for r in runs}):
        some = [r for r in runs if (r["parameters"], r["frames"]) == (parameters, frames)]
        cells = []
        for name in SCORES:
            values = [r["scores"][name][0] for r in some if name in r["scores"]]
            cells.append(", ".join(f"{v:.3g}" for v in values) or "none driven")
        rows.append(f"| {parameters:,} | {frames} | {' | '.join(cells)} |")
    return rows
