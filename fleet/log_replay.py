"""`fleet simulate replay`: a recorded drive as a world, driven in, and judged against what was recorded."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import typer
from PIL import Image

from fleet.console import Watcher
from fleet.logs import EGO, read_drive, read_tracks
from fleet.simulate import ENLARGED, Picture, frame, write_video
from fleet.vehicle import policy_in
from model.rig import THREE_CAMERAS, Rig, enlarged, rig_named
from simulation.examination import Drive, expert, seeing
from simulation.expert import RULES
from simulation.logs import BadLog, Log, log_of
from simulation.replay import Judged, drive_in, plans, recorded_plan, replayed
from simulation.scenarios import REPLAY, Scene, condition
from simulation.world import World

EXPERT, RECORDED = "expert", "recorded"


@dataclass(frozen=True, slots=True)
class Asked:
    """What to replay, and who drives."""

    log: Path
    tracks: Path | None
    from_s: float
    seconds: float
    reactive: bool
    driver: str
    """EXPERT, RECORDED (the recorded trajectory as the plan), or the file of a bundle or a checkpoint."""


def run_replay(
    asked: Asked,
    *,
    seed: int,
    region: str,
    weather: str,
    time_of_day: str,
    fault: str,
    rig: str,
    out: Path,
    video: bool,
    as_json: bool,
) -> None:
    """The command. Raises BadLog, BadSource, BadBundle, BadCheckpoint, BadRig, UnknownName, OSError."""
    where, eyes = condition(REPLAY.name, region, weather, time_of_day, fault), rig_named(rig or THREE_CAMERAS.name)
    scene = replayed(_read(asked), where, seed)
    drives = _driver(asked.driver, eyes)
    out.mkdir(parents=True, exist_ok=True)
    with Watcher(quiet=as_json) as watch:
        pictures = list[Picture]()
        with World([scene], enlarged(eyes, ENLARGED)) as viewer:
            watch.say(f"{asked.log}: {plans(scene.log) if scene.log else 0} plans")
            judged = drive_in(scene, drives, eyes, _watching(viewer, pictures, every=1 if video else 10))
    Image.fromarray(pictures[len(pictures) // 2]).save(out / "replay.png")
    if video:
        write_video(out / "replay.mp4", pictures)
    told = _object(asked, scene, judged) | {"picture": "replay.png", "video": "replay.mp4" if video else ""}
    typer.echo(json.dumps(told) if as_json else _told(told))


def _read(asked: Asked) -> Log:
    ego, others = read_drive(asked.log)
    others += [t for t in read_tracks(asked.tracks) if t.name != EGO] if asked.tracks else []
    return log_of(asked.log.name, ego, others, from_s=asked.from_s, seconds=asked.seconds, reactive=asked.reactive)


def _driver(name: str, rig: Rig) -> Drive:
    if name == EXPERT:
        return expert
    if name == RECORDED:
        return recorded_plan
    if not Path(name).is_file():
        raise BadLog(f"unknown driver {name!r}: {EXPERT}, {RECORDED}, or the file of a bundle or a checkpoint")
    return seeing(policy_in(Path(name), rig))()


def _watching(viewer: World, pictures: list[Picture], every: int) -> Callable[[World], None]:
    """Takes pictures of another world, large enough for people."""
    calls = [0]

    def look(world: World) -> None:
        if calls[0] % every == 0:
            viewer.restore(world.state())
            pictures.append(frame(viewer, RULES[int(viewer.expert().rule[0])]))
        calls[0] += 1

    return look


def _object(asked: Asked, scene: Scene, judged: Judged) -> dict[str, Any]:
    log = scene.log
    assert log, "a replayed scene has its log"
    away = judged.displacement_m
    return {
        "log": str(asked.log),
        "driver": asked.driver,
        "seconds": round(log.seconds, 1),
        "others": len(log.agents),
        "reactive": asked.reactive,
        "region": scene.region.name,
        "scores": _plain(judged.scores),
        "recorded": _plain(judged.recorded),
        "displacement_m": {
            "mean": round(float(away.mean()), 3),
            "final": round(float(away[-1]), 3),
            "largest": round(float(away.max()), 3),
        },
        "progress": round(judged.progress, 4),
        "failures": [asdict(failure) for failure in judged.failures],
    }


def _plain(scores: dict[str, float]) -> dict[str, float | None]:
    """As JSON has no NaN."""
    return {name: None if math.isnan(value) else round(value, 4) for name, value in scores.items()}


def _told(told: dict[str, Any]) -> str:
    others = f"{told['others']} others, {'reactive' if told['reactive'] else 'as recorded'}"
    lines = [f"{told['log']}: {told['seconds']} s, {others}, driven by {told['driver']}", ""]
    lines += [f"{'score':22}{'driven':>8}{'recorded':>10}"]
    shown = {"None": "-"}
    for name, value in told["scores"].items():
        own, theirs = (shown.get(str(v), v) for v in (value, told["recorded"][name]))
        lines.append(f"{name:22}{own:>8}{theirs:>10}")
    away = told["displacement_m"]
    lines += ["", f"progress {told['progress']:.3f} of the recorded drive's"]
    lines += [
        f"from where it was: {away['mean']} m in the mean, {away['largest']} m at most, {away['final']} m last"
    ]
    lines += [f"at {f['time_s']:.1f} s a safety driver would take over: {f['cause']}" for f in told["failures"]]
    return "\n".join([*lines, f"{told['picture']} {told['video']}".rstrip()])
