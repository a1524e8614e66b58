"""What the language benchmark learns from and examines with: labelled drives, instants, counterfactuals."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jobs.recorded import from_recording
from model.data import Samples
from model.grammar import CAUSE_AT, Explanation
from model.heads import HEADS
from model.policy import PLAN_PERIOD_S, Observation
from model.rig import ALL_ROUND, Rig
from simulation.arrays import Floats, Images, Ints, chance
from simulation.cast import ABSENT
from simulation.counterfactuals import FIXED, MOVING, instant, opened, without
from simulation.episode import Takes, record_expert
from simulation.faults import FAULTS
from simulation.labels.rule import Reason, Thing, reasons
from simulation.scenarios import LINES, SCENARIOS, Scene, scenes
from simulation.traffic import CARS, FAR_M
from simulation.world import World

RIG = ALL_ROUND
MIX = dict.fromkeys((name for name in SCENARIOS if name not in FAULTS), 1.0)
"""Every scenario alike, but for those whose cameras do not work."""
LEARNT = MIX | {
    "pedestrians": 3.0, "overtaking_cyclist": 3.0, "zebra_crossing": 2.0, "unprotected_turn": 2.0,
    "town_route": 2.0, "roadworks": 2.0,
}  # fmt: skip
"""What is learnt from: more of where a cause is small, and short."""
HELD_STEPS = 5
"""A rule is followed for a second before and after it is asked about: which one binds is no matter of chance."""
EVIDENT_PX = 2.0
"""A cause is learnt and asked about if some camera shows a ball around it of this radius ..."""
OPEN_SHARE = 0.5
"""... and a door, if it is open by so much."""
OPENED = 0.25
"""Share of the signs and lights that are taken away where is learnt: a crossing road alone asks for nothing."""
CLEAR_SHARE = 0.25
"""Of the instants at which nothing calls for anything so many are learnt from: there are enough."""
BATCH = 48
Progress = Callable[[int, int], None]
"""Called with (done, of)."""


@dataclass(frozen=True, slots=True)
class Case:
    """One question: what one vehicle sees at an instant, and what it would see without the cause."""

    scenario: str
    images: Images
    """[C, H, W, 3]."""
    speed_mps: float
    yaw_rate_radps: float
    command: int
    truth: Explanation
    look: NDArray[np.float32]
    """[LOOKS, 4], as of the label."""
    without: Images | None
    """The same instant without the cause; None where that cannot be taken away."""
    then: Explanation | None
    """What the expert would say there."""
    beside: Images | None
    """The same instant without somebody who is not the cause; None where there is nobody."""


def taught(seed: int, count: int, seconds: float, every: int, progress: Progress) -> Samples:
    """Perturbed expert driving in `count` scenes, labelled, one instant in `every`: where a camera shows the
    cause, and once more without it."""
    recorded = record_expert(
        [_partly_opened(scene) for scene in scenes(LEARNT, count, seed, "train")],
        RIG,
        seconds,
        seed,
        labels=HEADS["language"].labels,
        every=every,
        takes=Takes(2, _told),
        progress=lambda share: progress(round(share * count), count),
        batch=BATCH,
    )
    samples = from_recording(recorded, "language")
    samples.weight[:] = _weights(
        recorded.labels["words"][:, CAUSE_AT].astype(np.int64), recorded.vehicle, recorded.time_s
    )
    return samples


def _told(world: World) -> Iterator[Ints]:
    """What can be told from what is seen; then the same instant without who was the cause, where what is to be
    said then can be told. Who learns both cannot go by what else is there."""
    found = reasons(world)
    shown, drawn = _evident(world, found), chance(world.noise_seed, round(10 * world.time_s), 601)
    yield shown[[found[row].said.cause != "clear" or drawn[row] < CLEAR_SHARE for row in shown]]
    movers: list[tuple[Thing, ...]] = [()] * len(found)
    for row in shown:
        movers[row] = found[row].things if {thing.kind for thing in found[row].things} <= MOVING else ()
    if not any(movers):
        return
    with without(world, movers):
        shown = _evident(world, reasons(world))
        yield shown[[bool(movers[row]) for row in shown]]


def _evident(world: World, found: Sequence[Reason]) -> Ints:
    return np.flatnonzero([evident(world, row, reason) for row, reason in enumerate(found)])


def _partly_opened(scene: Scene) -> Scene:
    return opened(scene, chance(scene.seed, 600, np.arange(LINES)) < OPENED)


def _weights(cause: Ints, vehicle: Ints, time_s: Floats) -> NDArray[np.float32]:
    """The inverse root of how often a cause comes up, and of an instant without its cause that of the instant with
    it: else a road on which somebody crosses now and then would say so by itself."""
    _, first, instants = np.unique(np.stack([vehicle, time_s], 1), axis=0, return_index=True, return_inverse=True)
    told = cause[first[instants.ravel()]]
    weight = 1 / np.sqrt(np.bincount(cause)[told])
    return np.asarray(weight / weight.mean(), np.float32)


def held_out(seed: int, count: int, seconds: float, progress: Progress) -> list[Case]:
    """One question of each of `count` scenes that no training saw, where there is one to ask: of the causes that
    come up in the drive one is drawn, and then an instant of it."""
    drawn_scenes = scenes(MIX, count, seed, "heldout")
    steps, found = round(seconds / PLAN_PERIOD_S), list[Case]()
    for start in range(0, count, BATCH):
        part = drawn_scenes[start : start + BATCH]
        chosen = _chosen(part, seed, steps, np.random.default_rng([seed, start]))
        world = World(part, None, seed)
        for step in range(steps):
            rows = np.flatnonzero(chosen == step)
            if len(rows):
                found += _cases(world, rows, np.random.default_rng([seed, start, step]))
            world.step(world.expert().trajectory)
        progress(min(start + BATCH, count), count)
    return found


def _chosen(part: Sequence[Scene], seed: int, steps: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """For each scene the step to ask about, -1 where none is telling."""
    world, told, shown = World(part, None, seed), list[list[tuple[str, str]]](), list[list[bool]]()
    for _ in range(steps):
        found = reasons(world)
        told.append([(reason.said.cause, reason.said.rule) for reason in found])
        shown.append([evident(world, row, reason) for row, reason in enumerate(found)])
        world.step(world.expert().trajectory)
    rows = zip(zip(*told, strict=True), zip(*shown, strict=True), strict=True)
    return np.array([_drawn(_telling(*row), rng) for row in rows], np.int64)


def _telling(told: Sequence[tuple[str, str]], shown: Sequence[bool]) -> dict[str, list[int]]:
    """Cause -> the steps of a drive at which it is shown, amid HELD_STEPS of the same either way."""
    found: dict[str, list[int]] = {}
    for step in range(HELD_STEPS, len(told) - HELD_STEPS):
        if shown[step] and len(set(told[step - HELD_STEPS : step + HELD_STEPS + 1])) == 1:
            found.setdefault(told[step][0], []).append(step)
    return found


def _drawn(telling: dict[str, list[int]], rng: np.random.Generator) -> int:
    if not telling:
        return -1
    causes = list(telling)
    steps = telling[causes[rng.integers(len(causes))]]
    return steps[rng.integers(len(steps))]


def evident(world: World, row: int, reason: Reason, rig: Rig = RIG) -> bool:
    """Whether a camera shows what the reason is about; what is nowhere is evident everywhere."""
    if reason.said.cause == "door" and world.cast is not None:
        return bool(world.cast.opened[row].max() > OPEN_SHARE)
    balls = reason.look[~np.isnan(reason.look[:, 0])]
    return not len(balls) or any(_radius_px(ball, rig) > EVIDENT_PX for ball in balls)


def _radius_px(ball: NDArray[np.float32], rig: Rig) -> float:
    """The largest radius with which a camera shows a ball whose middle it sees; 0 where none does."""
    found = 0.0
    for camera in rig.cameras:
        offset = ball[:3] - [camera.x_m, camera.y_m, camera.z_m]
        forward, left, up = _turned(offset, camera.yaw_rad, camera.pitch_rad)
        if forward < 0.5:
            continue
        u, v = abs(left) / forward * camera.focal_px, abs(up) / forward * camera.focal_px
        if u < camera.width_px / 2 and v < camera.height_px / 2:
            found = max(found, float(ball[3]) / forward * camera.focal_px)
    return found


def _turned(offset: NDArray[np.floating], yaw: float, pitch: float) -> tuple[float, float, float]:
    """An offset in the vehicle frame as a camera sees it: forward, left and up."""
    x = offset[0] * np.cos(yaw) + offset[1] * np.sin(yaw)
    y = -offset[0] * np.sin(yaw) + offset[1] * np.cos(yaw)
    return (
        float(x * np.cos(pitch) + offset[2] * np.sin(pitch)),
        float(y),
        float(-x * np.sin(pitch) + offset[2] * np.cos(pitch)),
    )


def _cases(world: World, rows: NDArray[np.int64], rng: np.random.Generator) -> Iterator[Case]:
    told = [reasons_of for row, reasons_of in enumerate(reasons(world)) if row in set(rows.tolist())]
    seen, _ = _seen(world, rows, [()] * len(rows))
    removable = [bool(r.things) and not {t.kind for t in r.things} & FIXED for r in told]
    gone, then = _seen(world, rows, [r.things if ok else () for r, ok in zip(told, removable, strict=True)])
    others = [_somebody_else(world, int(row), r.things, rng) for row, r in zip(rows, told, strict=True)]
    spared, still = _seen(world, rows, others)
    for i, row in enumerate(rows):
        unchanged = bool(others[i]) and still[i].said == told[i].said
        yield Case(
            scenario=world.scenes[row].condition.name,
            images=seen.images[i],
            speed_mps=float(seen.speed_mps[i]),
            yaw_rate_radps=float(seen.yaw_rate_radps[i]),
            command=int(seen.command[i]),
            truth=told[i].said,
            look=told[i].look,
            without=gone.images[i] if removable[i] else None,
            then=then[i].said if removable[i] else None,
            beside=spared.images[i] if unchanged else None,
        )


def _seen(
    world: World, rows: NDArray[np.int64], away: Sequence[Sequence[Thing]]
) -> tuple[Observation, list[Reason]]:
    with instant(world, rows, RIG, away) as twin:
        return twin.observe(), reasons(twin)


def _somebody_else(world: World, row: int, cause: Sequence[Thing], rng: np.random.Generator) -> tuple[Thing, ...]:
    """One road user near the vehicle that is not of the cause; nobody where there is none."""
    near = np.abs(world.traffic.car_s[row] - world.s[row]) < 60.0
    others = [Thing("car", column) for column in range(CARS) if near[column]]
    if world.cast is not None:
        here = (world.cast.behaviour[row] != ABSENT) & world.cast.visible[row] & (world.cast.s[row] < FAR_M / 2)
        others += [Thing("cast", int(column)) for column in np.flatnonzero(here)]
    left = [thing for thing in others if thing not in cause]
    return (left[rng.integers(len(left))],) if left else ()
