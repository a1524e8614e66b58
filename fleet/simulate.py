"""`fleet simulate`: a scenario as a picture and a short video, driven by the expert."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import typer
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from fleet.console import Watcher
from model.policy import FOLLOW, LEFT, PLAN_PERIOD_S, RIGHT, STRAIGHT
from model.rig import THREE_CAMERAS, VAN, Rig, enlarged, rig_named
from simulation.encounters import ENCOUNTERS, Behaviour
from simulation.episode import Supervised
from simulation.expert import RULES
from simulation.hazards import CUT_IN, GIVE_WAY, PEDESTRIAN
from simulation.scenarios import SCENARIOS, Condition, Scene, condition, drawn, scene_seed
from simulation.traffic import FAR_M
from simulation.world import World

Picture = NDArray[np.uint8]
ENLARGED = 4
CAPTION_PX = 22
BEFORE_S = 6.0
"""A video begins so long before its most telling instant."""
SEARCHED_S = 90.0
"""For so long a drive is searched for it."""
CLOSE_M, WATCHED_S = 9.0, 12.0
"""Who is so near fills the picture; and how long one watches for that."""
COMMANDS = {FOLLOW: "follow", LEFT: "turn left", RIGHT: "turn right", STRAIGHT: "go straight on"}
ACROSS = 3
"""Pictures of more cameras go into another row."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What was made of one scenario."""

    scenario: str
    region: str
    rule: str
    """What the expert followed in the picture."""
    time_s: float
    """World time of the picture."""
    disengagements: int
    """Of the expert, while it was watched."""
    picture: str
    video: str


def run_simulate(
    name: str,
    *,
    seed: int,
    seconds: float,
    region: str,
    weather: str,
    time_of_day: str,
    fault: str,
    rig: str,
    out: Path,
    video: bool,
    as_json: bool,
) -> None:
    """The command. Raises UnknownName, BadRig and OSError."""
    names = list(SCENARIOS) if name == "all" else [name]
    chosen = [condition(n, region, weather, time_of_day, fault) for n in names]
    rigs = [rig_for(each, rig) for each in chosen]
    out.mkdir(parents=True, exist_ok=True)
    shown = []
    with Watcher(quiet=as_json) as watch:
        for each, eyes in zip(chosen, rigs, strict=True):
            watch.say(each.name)
            shown.append(
                show(
                    drawn(each, scene_seed("train", seed, list(SCENARIOS).index(each.name))),
                    eyes,
                    seconds,
                    out,
                    video=video,
                )
            )
    typer.echo(json.dumps([asdict(s) for s in shown]) if as_json else _told(shown))


def rig_for(chosen: Condition, name: str) -> Rig:
    """The named rig; without a name one that sees what happens, behind too where someone comes from there. Raises
    BadRig."""
    if name:
        return rig_named(name)
    roles = [role for encounter in chosen.encounters for role in ENCOUNTERS[encounter].roles]
    behind = any(role.behaviour in (Behaviour.CHASE, Behaviour.RUSH) for role in roles)
    return VAN if behind else THREE_CAMERAS


def show(scene: Scene, rig: Rig, seconds: float, out: Path, *, video: bool) -> Shown:
    """Drives a scene around its most telling instant, writes the picture, and a video if asked for."""
    at_s = telling_s(scene)
    name = scene.condition.name
    pictures, kept, rule, events = [], None, "", 0
    with World([scene], enlarged(rig, ENLARGED)) as world:
        supervised = Supervised(world)
        until_s = at_s + PLAN_PERIOD_S if not video else max(at_s - BEFORE_S, 0.0) + seconds
        while world.time_s < max(until_s, at_s + PLAN_PERIOD_S) - 1e-6:
            expert = world.expert()
            now = RULES[int(expert.rule[0])]
            telling = abs(world.time_s - at_s) < PLAN_PERIOD_S / 2
            if telling or (video and world.time_s >= at_s - BEFORE_S - 1e-6):
                pictures.append(frame(world, now))
            if telling:
                kept, rule = pictures[-1], now
            events += len(supervised.step(expert.trajectory).disengagements)
    assert kept is not None, "the telling instant is driven through"
    Image.fromarray(kept).save(out / f"{name}.png")
    film = out / f"{name}.mp4" if video else None
    if film:
        write_video(film, pictures)
    return Shown(name, scene.region.name, rule, at_s, events, f"{name}.png", film.name if film else "")


def telling_s(scene: Scene) -> float:
    """When, in a drive by the expert, the scenario shows best: once its own rule has bound for a second, where who
    takes part is near; else where any rule about others binds, or its place is reached; else after BEFORE_S."""
    world, row = World([scene], None), scene.condition
    own = {CUT_IN} if row.cut_ins else {PEDESTRIAN} if row.pedestrians else set(range(CUT_IN, len(RULES)))
    held, mild, place, near = 0, None, None, list[tuple[float, float]]()
    while world.time_s < SEARCHED_S and (not near or world.time_s < near[0][1] + WATCHED_S):
        rule = int(world.expert().rule[0])
        held = held + 1 if rule >= GIVE_WAY else 0
        if near or held * PLAN_PERIOD_S >= 1.0:
            near.append((abs(_nearest_m(world) - CLOSE_M), world.time_s))
        if rule in own and not row.encounters:
            mild = world.time_s
            break
        if place is None and world.cast and world.cast.line_s[0] - world.front_s[0] < CLOSE_M:
            place = world.time_s
        world.step(world.expert().trajectory)
    best = min(near)[1] if near else None
    return next((t for t in (best, mild, place) if t is not None), BEFORE_S)


def _nearest_m(world: World) -> float:
    """From the front bumper to the nearest of the cast, or to a closed stretch of lane."""
    if world.cast is None:
        return SEARCHED_S
    bodies, front = world.cast.bodies(), world.front_s[0]
    away = np.abs(bodies.s[0] - front) - bodies.half_s[0]
    overtakes = np.append(world.cast.plays(Behaviour.CHASE, Behaviour.RUSH)[0], False)
    seen = bodies.there[0] & (np.abs(bodies.d[0] - world.d[0]) < 9.0) & (overtakes | (bodies.s[0] > front + 2.0))
    return float(np.where(seen, away, FAR_M).min())


def frame(world: World, rule: str) -> Picture:
    """What the vehicle's cameras see now, with a caption."""
    seen = world.observe()
    views = list(seen.images[0])
    across = len(views) if len(views) <= ACROSS else len(views) // 2
    rows = [np.concatenate(views[i : i + across], 1) for i in range(0, len(views), across)]
    picture = np.concatenate(rows, 0)
    return np.concatenate([caption(_words(world, int(seen.command[0]), rule), picture.shape[1]), picture])


def _words(world: World, command: int, rule: str) -> str:
    scene = world.scenes[0]
    place = f"{scene.condition.name.replace('_', ' ')}, {scene.region.name}"
    speed = f"{float(world.motion.speed[0]) * 3.6:.0f} km/h"
    return f"{place}  |  {world.time_s:.1f} s  {speed}  |  navigation: {COMMANDS[command]}  |  expert: {rule}"


def caption(text: str, width_px: int) -> Picture:
    """A line of text on black, [CAPTION_PX, W, 3]."""
    strip = Image.new("RGB", (width_px, CAPTION_PX))
    ImageDraw.Draw(strip).text((6, 4), textwrap.shorten(text, width_px // 6), fill=(235, 235, 235))
    return np.asarray(strip)


def write_video(path: Path, pictures: Sequence[Picture], rate: int = round(1 / PLAN_PERIOD_S)) -> None:
    """H.264 at `rate` pictures a second, with even sides as it needs them. Raises OSError."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(rate), options={"crf": "30"})
        assert isinstance(stream, VideoStream)
        height, width = (side - side % 2 for side in pictures[0].shape[:2])
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for packet in _packets(stream, [p[:height, :width] for p in pictures]):
            container.mux(packet)


def _packets(stream: VideoStream, pictures: Sequence[Picture]) -> Iterator[Any]:
    for picture in pictures:
        yield from stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24"))
    yield from stream.encode(None)


def _told(shown: Sequence[Shown]) -> str:
    lines = [f"{s.scenario:20} {s.region:12} {s.rule:28} {s.picture} {s.video}".rstrip() for s in shown]
    return "\n".join(lines)
