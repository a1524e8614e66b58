"""What `fleet model explain` looks at: a stored clip, a recorded drive or a simulated scenario, as one thing."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.agent.frame import Frame
from edge.agent.readings import speed_mps, yaw_rate_radps
from edge.drive_log import open_drive
from edge.sources.source import BadSource
from fleet.simulate import BEFORE_S, ENLARGED, telling_s
from model.grammar import Explanation
from model.policy import PLAN_PERIOD_S, Observation
from model.rig import ALL_ROUND, Rig, enlarged, rig_from_dict
from model.rules import Side
from registry.clip_frames import ClipFrames, read_clip
from simulation.labels.rule import reasons
from simulation.regions import REGIONS
from simulation.scenarios import SCENARIOS, condition, drawn, scene_seed
from simulation.world import World
from streams.contracts.clock import SECOND_NS

AFTER_S = 2.0
"""A simulated scenario goes on for so long after its most telling instant."""
MCAP = ".mcap"
MOST_FRAMES = 10_000
"""Of a recording, which is held in memory."""


class BadClip(ValueError):
    """Nothing that can be explained: names it, what is wrong and what to do."""


@dataclass(frozen=True, slots=True)
class Footage:
    """N frames of one vehicle, with what it sensed."""

    name: str
    rig: Rig
    seen: Observation
    """Of N frames; speed and yaw rate NaN where they are not known."""
    times_s: NDArray[np.float64]
    """[N], since the recording began, or the simulated drive."""
    at_s: float
    """The instant worth explaining."""
    side: Side
    """On which side traffic keeps, as of model.rules."""
    shown: NDArray[np.uint8] | None = None
    """[C, H, W, 3] of that instant in more pixels, for people; None where there are no more."""
    truth: tuple[Explanation, ...] = ()
    """[N] in simulation: what the expert would say."""
    warnings: list[str] = field(default_factory=list)


def open_footage(what: str, *, seed: int, region: str, weather: str, at_s: float | None) -> Footage:
    """A clip (MCAP as vehicles write it), a video, a comma2k19 segment folder, or a scenario by its name, which is
    driven by the expert and seen by ALL_ROUND. Raises BadClip, BadSource, Corrupt, Refused, BadRig."""
    path = Path(what)
    if not path.exists() and what in SCENARIOS:
        return _simulated(what, seed, region, weather, at_s)
    if not path.exists():
        raise BadClip(f"{what}: neither a file or folder, nor a scenario; scenarios: {', '.join(SCENARIOS)}")
    if region or weather:
        raise BadClip(f"{what}: --region and --weather are for scenarios; a recording has its own")
    return _clip(path) if path.suffix == MCAP else _drive(path)


def _clip(path: Path) -> Footage:
    frames = read_clip(path.read_bytes())
    if frames.rig is None:
        raise BadClip(f"{path}: the clip names no rig, so it is not known where its cameras look")
    rig = rig_from_dict(frames.rig)
    camera, shape = rig.cameras[0], frames.images.shape[2:4]
    if shape != (camera.height_px, camera.width_px):
        raise BadClip(f"{path}: images are {shape[1]}x{shape[0]} px, its rig {camera.width_px}x{camera.height_px}")
    region = frames.metadata.get("region", "")
    observation = Observation(frames.images, frames.speed_mps, frames.yaw_rate_radps, frames.command)
    times_s = (frames.times_ns - frames.times_ns[0]) / SECOND_NS
    return _footage(path.name, rig, observation, times_s, region, _event_s(frames, times_s), [])


def _event_s(frames: ClipFrames, times_s: NDArray[np.float64]) -> float:
    """When the event was that the clip is about; the middle where the clip does not say."""
    told = frames.metadata.get("trigger_ns", "")
    if not told.isdigit():
        return float(times_s[len(times_s) // 2])
    return float(np.clip((int(told) - int(frames.times_ns[0])) / SECOND_NS, times_s[0], times_s[-1]))


def _drive(path: Path) -> Footage:
    drive = open_drive(path)
    frames, problem = _whole(drive.frames())
    if drive.rig is None:
        raise BadClip(f"{path}: the recording has no images; {' '.join(drive.warnings)}")
    if not frames:
        raise BadClip(problem or f"{path}: not one frame in it")
    observation = Observation(
        np.stack([f.images for f in frames if f.images is not None]),
        np.array([speed_mps(f) for f in frames], np.float32),
        np.array([yaw_rate_radps(f) for f in frames], np.float32),
        np.array([f.command for f in frames], np.int64),
    )
    times_s = np.array([(f.time_ns - frames[0].time_ns) / SECOND_NS for f in frames])
    warnings = [*drive.warnings, *([problem] if problem else [])]
    return _footage(drive.name, drive.rig, observation, times_s, drive.region, times_s[-1] / 2, warnings)


def _whole(frames: Iterable[Frame]) -> tuple[list[Frame], str]:
    """The good frames, and why there are no more where the recording is damaged, or longer than is looked at."""
    good: list[Frame] = []
    try:
        good.extend(itertools.islice(frames, MOST_FRAMES + 1))
    except BadSource as error:
        return good, str(error)
    return good[:MOST_FRAMES], f"only the first {MOST_FRAMES} frames are looked at" * (len(good) > MOST_FRAMES)


def _footage(
    name: str,
    rig: Rig,
    seen: Observation,
    times_s: NDArray[np.float64],
    region: str,
    at_s: float,
    warnings: list[str],
) -> Footage:
    side: Side = REGIONS[region].side if region in REGIONS else 1 if region.startswith("us") else -1
    return Footage(name, rig, seen, times_s, at_s, side, warnings=warnings)


def _simulated(name: str, seed: int, region: str, weather: str, at_s: float | None) -> Footage:
    """A scenario driven by the expert, from a while before its most telling instant, or `at_s`, until after."""
    scene = drawn(condition(name, region, weather), scene_seed("heldout", seed, list(SCENARIOS).index(name)))
    telling = telling_s(scene) if at_s is None else at_s
    first_s = max(telling - BEFORE_S, 0.0)
    seen, truth, times_s, shown = [], [], [], None
    with World([scene], ALL_ROUND) as world, World([scene], enlarged(ALL_ROUND, ENLARGED)) as large:
        while world.time_s < telling + AFTER_S:
            if world.time_s >= first_s - 1e-6:
                seen.append(world.observe())
                truth.append(reasons(world)[0].said)
                times_s.append(world.time_s)
            if abs(world.time_s - telling) < PLAN_PERIOD_S / 2:
                shown = large.observe().images[0]
            for each in (world, large):
                each.step(each.expert().trajectory)
    whole = Observation(
        np.concatenate([o.images for o in seen]),
        np.concatenate([o.speed_mps for o in seen]),
        np.concatenate([o.yaw_rate_radps for o in seen]),
        np.concatenate([o.command for o in seen]),
    )
    return Footage(
        f"{name}, {scene.region.name}",
        ALL_ROUND,
        whole,
        np.array(times_s),
        telling,
        scene.region.side,
        shown,
        tuple(truth),
    )
