"""`fleet model dream`: what the world model makes of a scene under other actions, as video and as samples."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image

from fleet import world_recipes as recipes
from fleet.console import Watcher
from fleet.simulate import ACROSS, Picture, caption, write_video
from model.data import BadSamples, Samples, samples_from_arrays
from model.dreamer import Dreamer
from model.picture_scores import mse, psnr
from model.rig import Rig, rig_named
from model.samples_file import save
from model.sequences import CONTEXT, STEP_S
from model.world_model import WorldModel
from simulation.drives import Drives, drive_on, empty_drives
from simulation.edits import EDITS, WAITED_S, edited, shows
from simulation.manoeuvres import EXPERT, Part, parts, steering
from simulation.scenarios import SCENARIOS, Scene, UnknownName, condition, drawn, scene_seed
from simulation.world import AMID_M, World

ENLARGED = 3
EVERY = 2
"""A policy sees every second picture: samples are taken of these."""
CORRECTABLE_M, CORRECTABLE_RAD = 3.0, 0.7
"""Farther off the lane the expert's way back is none to learn from."""
SHOWN = 4
"""Instants in the picture."""
TOLD = 10
"""Steps from one figure that is told to the next."""


class TooEarly(ValueError):
    """An edit where the drive has hardly begun: says how far it must be under way."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be dreamt."""

    scenario: str
    what_if: str
    edit: str
    seconds: float
    at_s: float
    seed: int
    rig: str


@dataclass(frozen=True, slots=True)
class Dreamt:
    """What was made."""

    scenario: str
    region: str
    what_if: str
    edit: str
    from_s: float
    seconds: float
    psnr_db: dict[str, float]
    """Seconds dreamt -> likeness to the simulation under the same actions."""
    picture: str
    video: str
    samples: str
    frames: int
    """In the samples."""


def run_dream(asked: Asked, model: Path, out: Path, *, samples: bool, quick: bool, as_json: bool) -> None:
    """The command. Raises UnknownName, BadRig, BadManoeuvre, TooEarly, BadCheckpoint, BadSamples, OSError."""
    plan, rig, scene = parts(asked.what_if, asked.seconds), rig_named(asked.rig), _scene(asked)
    out.mkdir(parents=True, exist_ok=True)
    with Watcher(quiet=as_json) as watch:
        world_model = recipes.kept(model, (recipes.quick if quick else recipes.default)(), watch)
        watch("simulation", 0, 1, asked.scenario)
        twin, from_s = simulated(scene, rig, asked, plan)
        images = dreamt(world_model, rig, twin, watch)
        name = "-".join(p for p in (asked.scenario, asked.edit, _word(asked.what_if)) if p)
        watch("video", 0, 1, f"{name}.mp4")
        written = written_samples(images, twin, out / f"{name}.samples.safetensors", name) if samples else 0
        pictures = [_shown(images[k], twin.images[0, CONTEXT + k], asked, k) for k in range(len(images))]
        _film(out / f"{name}.mp4", pictures)
        _still(out / f"{name}.png", pictures)
    error = psnr(mse(images, twin.images[0, CONTEXT:]))
    told = Dreamt(
        scenario=asked.scenario,
        region=scene.region.name,
        what_if=asked.what_if,
        edit=asked.edit,
        from_s=round(from_s, 1),
        seconds=len(images) * STEP_S,
        psnr_db={f"{(k + 1) * STEP_S:.1f}": round(float(error[k]), 2) for k in _milestones(len(images))},
        picture=f"{name}.png",
        video=f"{name}.mp4",
        samples=f"{name}.samples.safetensors" if samples else "",
        frames=written,
    )
    typer.echo(json.dumps(asdict(told)) if as_json else _told(told, out))


def simulated(scene: Scene, rig: Rig, asked: Asked, plan: Sequence[Part]) -> tuple[Drives, float]:
    """One drive: CONTEXT real pictures, then what the simulation gives under the asked manoeuvres. Its motion is
    what the vehicle's dynamics make of them, and is what the dream is told. Also tells when the
    dream begins."""
    steps = max(round(asked.seconds / STEP_S), 1)
    out = empty_drives(1, CONTEXT + steps, rig)
    with World([scene], rig) as world:
        while not _begins(world, asked):
            world.step(world.expert().trajectory, STEP_S)
        from_s = world.time_s + STEP_S
        drive_on(world, steering([Part(EXPERT, STEP_S), *plan], world.time_s), out)
    return out, from_s


def _begins(world: World, asked: Asked) -> bool:
    """Whether it is time: at once, or where who was put into the vehicle's way shows."""
    late_s = world.time_s + STEP_S - asked.at_s
    return late_s > -1e-6 and (not asked.edit or late_s > WAITED_S or shows(world, asked.edit))


def dreamt(model: WorldModel, rig: Rig, twin: Drives, watch: Watcher) -> NDArray[np.uint8]:
    """Images [K, C, H, W, 3] from the first pictures of a drive and all of its actions."""
    dreamer = Dreamer(model, rig)
    dreamer.begin(twin.images[:, :CONTEXT], twin.actions[:, 0])
    images = []
    steps = twin.actions.shape[1] - 1
    for k in range(steps):
        images.append(dreamer.step(twin.actions[:, k + 1])[0])
        watch("dream", k + 1, steps, f"{(k + 1) * STEP_S:.1f} s")
    return np.stack(images)


def bad_dream(images: NDArray[np.uint8], twin: Drives, source: str) -> Samples:
    """Dreamt pictures [K, C, H, W, 3], and what the expert would do there: it knows the scene, the picture need
    not show it sharply. Raises BadSamples where the vehicle is nowhere near enough to the lane."""
    steps = np.arange(EVERY - 1, len(images), EVERY)
    rows = CONTEXT + steps
    near = (np.abs(twin.lateral_m[0, rows]) < CORRECTABLE_M) & (np.abs(twin.askew_rad[0, rows]) < CORRECTABLE_RAD)
    steps, rows = steps[near], rows[near]
    if not len(steps):
        raise BadSamples(
            f"{source}: nothing to learn from a vehicle this far off its lane; dream shorter or milder"
        )
    return samples_from_arrays(
        images[steps],
        speed_mps=twin.speed_mps[0, rows],
        yaw_rate_radps=twin.yaw_rate_radps[0, rows],
        command=twin.command[0, rows],
        target=twin.target[0, rows],
        source=f"dream-{source}",
    )


def written_samples(images: NDArray[np.uint8], twin: Drives, path: Path, source: str) -> int:
    """Writes `bad_dream` and returns its frames. Raises BadSamples, OSError."""
    samples = bad_dream(images, twin, source)
    save(samples, path)
    return len(samples)


def _scene(asked: Asked) -> Scene:
    chosen = condition(asked.scenario)
    scene = drawn(chosen, scene_seed("heldout", asked.seed, list(SCENARIOS).index(asked.scenario)))
    if not asked.edit:
        return scene
    if asked.edit not in EDITS:
        raise UnknownName(f"unknown edit {asked.edit!r}; known: {', '.join(EDITS)}")
    return edited(scene, asked.edit, _place_m(scene, asked))


def _place_m(scene: Scene, asked: Asked) -> float:
    """Where along the road the edit is: a little ahead of the vehicle at the time asked for. Raises TooEarly."""
    world = World([scene], None)
    start_m = float(world.s[0])
    while world.time_s < asked.at_s - 1e-6:
        world.step(world.expert().trajectory, STEP_S)
    place_m = float(world.front_s[0]) + EDITS[asked.edit].shows_m
    if place_m - start_m < AMID_M:
        raise TooEarly(
            f"with --at {asked.at_s:g} the edit {asked.edit!r} would be {place_m - start_m:.0f} m from where the "
            f"drive starts, and nothing happens within {AMID_M:g} m: use a later --at, or another --seed"
        )
    return place_m


def _word(what_if: str) -> str:
    return "-".join(part.partition(":")[0].strip() for part in what_if.split(","))


def _milestones(steps: int) -> list[int]:
    return sorted({0, *range(TOLD - 1, steps, TOLD), steps - 1})


def _shown(dream: Picture, real: Picture, asked: Asked, step: int) -> Picture:
    """One instant: the dream above the simulation."""
    rows = []
    edit = f" + {asked.edit}" if asked.edit else ""
    for what, views in (("dream", dream), ("simulation", real)):
        wide = _tiled(views).repeat(ENLARGED, 0).repeat(ENLARGED, 1)
        scene = f"{asked.scenario.replace('_', ' ')}{edit}, what if: {asked.what_if}"
        text = f"{what}: {scene}  |  {(step + 1) * STEP_S:.1f} s"
        rows += [caption(text, wide.shape[1]), wide]
    return np.concatenate(rows)


def _tiled(views: Picture) -> Picture:
    across = len(views) if len(views) <= ACROSS else len(views) // 2
    rows = [np.concatenate(list(views[i : i + across]), 1) for i in range(0, len(views), across)]
    return np.concatenate(rows)


def _film(path: Path, pictures: Sequence[Picture]) -> None:
    """A reader sees all of the file or none."""
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        write_video(partial, pictures, round(1 / STEP_S))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _still(path: Path, pictures: Sequence[Picture]) -> None:
    """A few instants, one below the other."""
    at = np.linspace(0, len(pictures) - 1, min(SHOWN, len(pictures))).round().astype(int)
    Image.fromarray(np.concatenate([pictures[k] for k in at])).save(path)


def _told(told: Dreamt, out: Path) -> str:
    likeness = ", ".join(f"{psnr_db:.1f} dB after {s} s" for s, psnr_db in told.psnr_db.items())
    lines = [
        f"{told.scenario} in {told.region}, from {told.from_s:g} s on, what if: {told.what_if}"
        + (f", with: {told.edit}" if told.edit else ""),
        f"like the simulation under the same actions: {likeness}",
        f"video {out / told.video}, picture {out / told.picture}",
    ]
    if told.samples:
        lines.append(f"{told.frames} frames to learn from: {out / told.samples}")
    return "\n".join(lines)
