"""World model: are dreams nearer to what comes than the last picture, or than flow going on; do they obey?"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleet import world_recipes as recipes
from fleet.benchmarks.apart import processes
from fleet.benchmarks.result import Bar, Measured
from fleet.benchmarks.world_model_driving import EpisodeRecipe, episodes
from fleet.console import Watcher
from model import dream_scores
from model.odometry import Odometry, read_motion, train_odometry
from model.picture_scores import mse, psnr, ssim
from model.rig import RIGS, THREE_CAMERAS, Rig
from model.sequences import CONTEXT, STEP_S, Sequences
from model.world_file import save_world
from model.world_model import WorldModel

CONTENDERS = ("world model", "last picture", "constant flow")
BARRED_STEPS = 10
"""The bars hold at each of so many steps; three times as many are dreamt."""
SHOWN_STEPS = (1, 2, 3, 5, 7, 10, 15, 20, 30)
GRIPS = ("real", "as driven", "as another drove")
"""Pictures that motion is read from: real ones; dreamt ones under the actions of the drive; and under those of
another drive, which nothing in the pictures suggests."""
OTHER_RIGS = tuple(name for name in RIGS if name != THREE_CAMERAS.name)
Row = dict[str, Any]
Pictures = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Size:
    """How much is done for each seed."""

    recipe: recipes.WorldRecipe
    held_out: int
    """Drives that are dreamt."""
    odometry_pairs: int
    """Of real pictures, from which it is learnt to read motion."""
    episodes: EpisodeRecipe
    other_rigs: int = 12
    """Drives through each rig that was not trained with."""
    steps: int = 30


def full() -> Size:
    """Minutes a seed."""
    return Size(recipes.default(), 40, 1600, EpisodeRecipe())


def cut() -> Size:
    """Seconds."""
    return Size(recipes.quick(), 6, 40, EpisodeRecipe(worlds=4, train_steps=10), 2, 12)


def measure(seeds: list[int], scratch: Path, quick: bool) -> Measured:
    """For each seed, in a process of its own with one thread: a world model trained and held against drives of
    worlds that it has never seen."""
    scratch.mkdir(parents=True, exist_ok=True)
    runs: dict[str, Row] = {}
    with Watcher() as watch:
        for seed in seeds:
            with processes() as child:
                runs[str(seed)] = row = child.submit(run_seed, seed, scratch, quick).result()
            errors = ", ".join(f"{name} {row['pixels'][name]['mse'][BARRED_STEPS - 1]:.0f}" for name in CONTENDERS)
            watch.say(f"seed {seed}: squared error after {BARRED_STEPS} steps: {errors}")
    return assess(runs)


def run_seed(seed: int, scratch: Path, quick: bool) -> Row:
    """All figures of one seed. Leaves the world model in the scratch folder."""
    size, rig = cut() if quick else full(), THREE_CAMERAS
    with Watcher() as watch:
        drives = recipes.recorded(size.recipe, rig, "train", seed, watch)
        model = recipes.trained(size.recipe, drives, rig, seed, watch)
        save_world(model, scratch / f"world-{seed}.safetensors")
        odometry = train_odometry(recipes.sequences(drives), rig, size.odometry_pairs, seed)
        held = recipes.with_drives(size.recipe, size.held_out, CONTEXT + size.steps)
        real = recipes.sequences(recipes.recorded(held, rig, "heldout", seed, watch))
        dreams = dream_scores.dreamt(model, rig, real)
        dreamt, copied = dream_scores.latent_errors(model, rig, real)
        return {
            "pixels": contest(real, dreams),
            "latents": {"world model": dreamt.tolist(), "last picture": copied.tolist()},
            "actions": fidelity(model, odometry, real, dreams),
            "episodes": episodes(model, drives, seed, size.episodes, watch),
            "rigs": {name: elsewhere(model, RIGS[name], size, seed, watch) for name in OTHER_RIGS},
        }


def elsewhere(
    model: WorldModel, rig: Rig, size: Size, seed: int, watch: Watcher
) -> dict[str, dict[str, list[float]]]:
    """`contest` through cameras that the model was not trained with."""
    held = recipes.with_drives(size.recipe, size.other_rigs, CONTEXT + BARRED_STEPS)
    real = recipes.sequences(recipes.recorded(held, rig, "heldout", seed, watch))
    return contest(real, dream_scores.dreamt(model, rig, real))


def contest(real: Sequences, dreams: Pictures) -> dict[str, dict[str, list[float]]]:
    """Contender -> score -> its mean over drives at each step."""
    shown = {
        "world model": dreams,
        "last picture": dream_scores.copied(real),
        "constant flow": dream_scores.flowed(real),
    }
    return {name: _scores(images, real.images[:, CONTEXT:]) for name, images in shown.items()}


def _scores(images: Pictures, real: Pictures) -> dict[str, list[float]]:
    errors = [mse(images[:, k], real[:, k]) for k in range(real.shape[1])]
    return {
        "mse": [float(e.mean()) for e in errors],
        "psnr": [float(psnr(e).mean()) for e in errors],
        "ssim": [float(ssim(images[:, k], real[:, k]).mean()) for k in range(real.shape[1])],
    }


def fidelity(model: WorldModel, odometry: Odometry, real: Sequences, dreams: Pictures) -> dict[str, Row]:
    """Grip -> how well the motion read from its pictures over the barred steps is the one that was commanded."""
    real = real.window(0, CONTEXT + BARRED_STEPS)
    swapped = np.concatenate([real.actions[:, :1], np.roll(real.actions[:, 1:], 1, axis=0)], 1)
    others = Sequences(real.images, swapped)
    last = real.images[:, CONTEXT - 1 : CONTEXT]
    led = slice(CONTEXT - 1, None)
    seen = {
        "real": (real.images[:, CONTEXT - 1 :], real.actions[:, led]),
        "as driven": (np.concatenate([last, dreams[:, :BARRED_STEPS]], 1), real.actions[:, led]),
        "as another drove": (
            np.concatenate([last, dream_scores.dreamt(model, THREE_CAMERAS, others)], 1),
            others.actions[:, led],
        ),
    }
    return {grip: _obeyed(read_motion(odometry, images), actions) for grip, (images, actions) in seen.items()}


def _obeyed(read: NDArray[np.float64], told: NDArray[np.float32]) -> Row:
    """Of speed and yaw rate: correlation, slope of read on told, and mean absolute error in m/s and rad/s."""
    out: Row = {}
    for column, name in enumerate(("speed", "yaw_rate")):
        x, y = told[..., column].ravel().astype(float), read[..., column].ravel()
        slope = float(np.polyfit(x, y, 1)[0])
        correlation = float(np.corrcoef(x, y)[0, 1])
        out[name] = {"correlation": correlation, "slope": slope, "error": float(np.abs(x - y).mean())}
    return out


def assess(runs: Mapping[str, Row]) -> Measured:
    """Means over seeds, bars and tables."""
    rows = list(runs.values())
    results = {"step_s": STEP_S, "context": CONTEXT, "runs": dict(runs)}
    return Measured(results, _bars(rows), "\n\n".join(table(rows) for table in _TABLES))


def _bars(rows: Sequence[Row]) -> list[Bar]:
    """A ratio is the worst of all barred steps and seeds."""
    bars = []
    for name, key in (("last picture", "last-picture"), ("constant flow", "constant-flow")):
        worst = max(ratio for row in rows for ratio in _ratios(row, name)[:BARRED_STEPS])
        what = f"squared error over that of {name}, worst of {BARRED_STEPS} steps and all seeds"
        bars.append(Bar(key, what, worst, "< 1", worst < 1))
    longest = max(_ratios(row, "last picture")[-1] for row in rows)
    seconds = len(_ratios(rows[0], "last picture")) * STEP_S
    what = f"squared error over that of last picture after {seconds:g} s of recursion, worst seed"
    return [*bars, Bar("long", what, longest, "< 1", longest < 1)]


def _ratios(row: Row, name: str) -> list[float]:
    own, other = (row["pixels"][n]["mse"] for n in ("world model", name))
    return [a / b for a, b in zip(own, other, strict=True)]


def _mean(rows: Sequence[Row], *path: str | int) -> float:
    values: list[Any] = list(rows)
    for part in path:
        values = [v[part] for v in values]
    return statistics.fmean(values)


def _pixels(rows: Sequence[Row]) -> str:
    steps = [k for k in SHOWN_STEPS if k <= len(rows[0]["pixels"]["world model"]["mse"])]
    head = f"| score | contender | {' | '.join(f'{k}' for k in steps)} |"
    lines = [head, "|" + "---|" * (len(steps) + 2)]
    for score, digits in (("mse", 0), ("psnr", 1), ("ssim", 3)):
        for name in CONTENDERS:
            values = " | ".join(f"{_mean(rows, 'pixels', name, score, k - 1):.{digits}f}" for k in steps)
            lines.append(f"| {score.upper()} | {name} | {values} |")
    for name in ("world model", "last picture"):
        values = " | ".join(f"{_mean(rows, 'latents', name, k - 1):.2f}" for k in steps)
        lines.append(f"| latents' MSE | {name} | {values} |")
    growth = ", ".join(f"{name} {_growth(rows, name):.1f}" for name in CONTENDERS)
    note = (
        f"Steps of {STEP_S:g} s after {CONTEXT} real pictures; held-out worlds, half plain, half rich; means over "
        f"drives and seeds; MSE in grey levels squared. MSE grows each step, from the first to the tenth, by: "
        f"{growth}."
    )
    return "\n".join([note, "", *lines])


def _growth(rows: Sequence[Row], name: str) -> float:
    last = BARRED_STEPS - 1
    return (_mean(rows, "pixels", name, "mse", last) - _mean(rows, "pixels", name, "mse", 0)) / last


def _actions(rows: Sequence[Row]) -> str:
    lines = ["| motion read from | of | correlation | slope | mean error |", "|" + "---|" * 5]
    for grip in GRIPS:
        for name, unit in (("speed", "m/s"), ("yaw_rate", "rad/s")):
            r, slope, error = (
                _mean(rows, "actions", grip, name, key) for key in ("correlation", "slope", "error")
            )
            lines.append(f"| {grip} | {name.replace('_', ' ')} | {r:.3f} | {slope:.2f} | {error:.3f} {unit} |")
    note = (
        "Motion is read from two pictures by trying motions, and a small network trained on real pictures alone: "
        "what it makes of real ones is its own error."
    )
    return "\n".join([note, "", *lines])


def _episodes(rows: Sequence[Row]) -> str:
    lines = ["| the policy sees | after | apart | sideways | of so far driven | and steered |", "|" + "---|" * 6]
    for name in ("world model", "last picture"):
        for after in rows[0]["episodes"][name]:
            keys = ("apart_m", "aside_m", "driven_m", "steered_m")
            apart, aside, way, steered = (_mean(rows, "episodes", name, after, key) for key in keys)
            lines.append(f"| {name} | {after} | {apart:.3f} m | {aside:.3f} m | {way:.1f} m | {steered:.2f} m |")
    note = (
        "One policy drives from one instant, beside its way, in the simulation and in a dream: how far apart the "
        "two are, means over held-out worlds."
    )
    return "\n".join([note, "", *lines])


def _rigs(rows: Sequence[Row]) -> str:
    steps = (1, 3, BARRED_STEPS)
    lines = [f"| rig | contender | {' | '.join(f'MSE at {k}' for k in steps)} |", "|" + "---|" * (len(steps) + 2)]
    for rig in OTHER_RIGS:
        for name in CONTENDERS:
            values = " | ".join(f"{_mean(rows, 'rigs', rig, name, 'mse', k - 1):.0f}" for k in steps)
            lines.append(f"| {rig} | {name} | {values} |")
    return "\n".join(
        [f"The same model through other rigs; it was trained with {THREE_CAMERAS.name} alone.", "", *lines]
    )


_TABLES: tuple[Callable[[Sequence[Row]], str], ...] = (_pixels, _actions, _episodes, _rigs)
