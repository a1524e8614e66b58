"""Driving a policy in worlds with a safety driver, and recording the expert for a policy to learn from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from model.labels import room
from model.policy import PLAN_PERIOD_S, PLAN_POINTS, Memory, Observation, Plan, Policy, frames_seen
from model.rig import Rig
from simulation.arrays import Bools, Floats, Images, Ints, chance
from simulation.expert import Ahead, accelerations
from simulation.labels import LABELLERS
from simulation.labels.risk import risk
from simulation.scenarios import Scene
from simulation.world import Status, World

Cause = Literal[
    "lateral", "collision", "pedestrian", "stop_sign", "red_light", "stuck", "right_of_way", "cyclist", "emergency"
]
CAUSES: tuple[Cause, ...] = (
    "collision",
    "pedestrian",
    "right_of_way",
    "cyclist",
    "red_light",
    "stop_sign",
    "emergency",
    "lateral",
    "stuck",
)
"""In order of gravity: the first that holds names a disengagement."""
LATERAL_LIMIT_M, HEADING_LIMIT_RAD = 1.0, 0.6
TTC_LIMIT_S = 0.95
"""nuPlan's bound on time to collision (metrics_description.md)."""
STUCK_WINDOW = 40
"""Steps over which progress is compared: 8 s."""
STUCK_RATIO, STUCK_LEAST_M = 0.35, 15.0
"""Stuck: less than this share of the metres a reference driver had made here, where those are enough."""
STUCK_SLACK_M = 6.0
"""A stop this much too early is no failure: the reference driver stops there too."""
RECOVERY_LEAST_S, RECOVERY_MOST_S = 2.0, 12.0
RECOVERED_LATERAL_M, RECOVERED_HEADING_RAD, RECOVERED_TTC_S = 0.35, 0.08, 3.0


@dataclass(frozen=True, slots=True)
class Disengagement:
    """The safety driver took over."""

    vehicle: int
    """Index into the world's scenes."""
    cause: Cause
    time_s: float
    """World time at the end of the step in which it happened."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one supervised step brought."""

    engaged: Bools
    """[B], whether the policy drove during this step."""
    disengagements: list[Disengagement]
    metres: Floats
    """[B], driven engaged in this step; 0 where the safety driver drove."""
    seconds: Floats
    """[B], PLAN_PERIOD_S or 0 likewise."""


class Supervised:
    """A world whose vehicles a policy drives while a safety driver, the expert, watches each."""

    def __init__(self, world: World) -> None:
        count = len(world)
        self.world = world
        self.engaged = np.ones(count, bool)
        self.manual_s = np.zeros(count)
        self._reference_v = world.motion.speed.copy()
        self._expected_m = np.zeros((STUCK_WINDOW, count))
        self._driven_m = np.zeros((STUCK_WINDOW, count))
        self._tick = 0

    def step(self, trajectory: NDArray[np.float32]) -> Outcome:
        """Drives PLAN_PERIOD_S: engaged vehicles by `trajectory` [B, T, 2], the others by the expert.
        Raises ValueError as World.step does."""
        engaged, before = self.engaged.copy(), self.world.travelled_m.copy()
        plan = np.where(engaged[:, None, None], trajectory, self.world.expert().trajectory)
        self._expect()
        self.world.step(plan.astype(np.float32))
        metres = self.world.travelled_m - before
        self._driven_m[self._tick % STUCK_WINDOW] = metres
        self._tick += 1
        disengagements = self._judge(engaged)
        moved = np.where(engaged, metres, 0.0)
        return Outcome(engaged, disengagements, moved, np.where(engaged, PLAN_PERIOD_S, 0.0))

    def _judge(self, engaged: Bools) -> list[Disengagement]:
        status = self.world.status()
        failures = causes(status, self._stuck())
        failed = engaged & np.logical_or.reduce([failures[cause] for cause in CAUSES])
        self.manual_s = np.where(engaged, 0.0, self.manual_s + PLAN_PERIOD_S)
        done = ~engaged & (recovered(status, self.manual_s) | (self.manual_s >= RECOVERY_MOST_S))
        self.engaged = (engaged & ~failed) | done
        self._forget(failed | done)
        return [
            Disengagement(int(row), next(c for c in CAUSES if failures[c][row]), self.world.time_s)
            for row in np.flatnonzero(failed)
        ]

    def _expect(self) -> None:
        """Moves a reference speed as the expert would from here; it never stands where he would drive, so
        a policy that creeps or stands falls behind it."""
        w = self.world
        v = np.maximum(self._reference_v, w.motion.speed)
        ahead = Ahead(0.0, np.full(len(w), STUCK_SLACK_M), w.roads.at(w.roads.speed_cap, w.s))
        accel = accelerations(v, w.limit, w.obstacles(), ahead).min(0)
        self._reference_v = np.maximum(v + np.clip(accel, -6.0, 1.2) * PLAN_PERIOD_S, 0.0)
        self._expected_m[self._tick % STUCK_WINDOW] = self._reference_v * PLAN_PERIOD_S

    def _stuck(self) -> Bools:
        expected, driven = self._expected_m.sum(0), self._driven_m.sum(0)
        return np.asarray((expected > STUCK_LEAST_M) & (driven < STUCK_RATIO * expected))

    def _forget(self, rows: Bools) -> None:
        self._expected_m[:, rows], self._driven_m[:, rows] = 0.0, 0.0
        self._reference_v[rows] = self.world.motion.speed[rows]


def causes(status: Status, stuck: Bools) -> dict[Cause, Bools]:
    """Which causes of a disengagement hold, each [B]."""
    off = np.abs(status.lateral_error_m) > LATERAL_LIMIT_M
    askew = np.abs(status.heading_error_rad) > HEADING_LIMIT_RAD
    return {
        "lateral": off | askew,
        "collision": status.ttc_s < TTC_LIMIT_S,
        "pedestrian": status.person_ttc_s < TTC_LIMIT_S,
        "stop_sign": status.missed_stop,
        "red_light": status.ran_red,
        "right_of_way": status.took_way,
        "cyclist": status.too_close,
        "emergency": status.holds_up,
        "stuck": stuck,
    }


def recovered(status: Status, manual_s: Floats) -> Bools:
    """Whether a policy may have the vehicle back, [B]."""
    straight = (np.abs(status.lateral_error_m) < RECOVERED_LATERAL_M) & (
        np.abs(status.heading_error_rad) < RECOVERED_HEADING_RAD
    )
    clear = np.minimum(status.ttc_s, status.person_ttc_s) > RECOVERED_TTC_S
    return np.asarray((manual_s >= RECOVERY_LEAST_S) & straight & clear)


@dataclass
class Exposure:
    """Engaged driving and what went wrong in it."""

    km: float = 0.0
    hours: float = 0.0
    disengagements: Counter[str] = field(default_factory=Counter)

    @property
    def count(self) -> int:
        """Disengagements of every cause."""
        return sum(self.disengagements.values())

    def __add__(self, other: Exposure) -> Exposure:
        return Exposure(self.km + other.km, self.hours + other.hours, self.disengagements + other.disengagements)


@dataclass(frozen=True)
class EpisodeResult:
    """A policy's driving, by condition."""

    by_condition: dict[str, Exposure]
    disengagements: list[Disengagement]

    def pooled(self, conditions: Sequence[str] | None = None) -> Exposure:
        """The sum over some conditions, or all."""
        chosen = self.by_condition if conditions is None else conditions
        return sum((self.by_condition[name] for name in chosen if name in self.by_condition), Exposure())


Frame = Callable[[World, Observation, Plan, Outcome], None]
"""Called after each step with what was seen and planned before it, and what came of it."""


def drive(
    policy: Policy,
    scenes: Sequence[Scene],
    rig: Rig,
    seconds: float,
    seed: int,
    *,
    on_frame: Frame | None = None,
    progress: Callable[[float], None] | None = None,
    batch: int = 64,
) -> EpisodeResult:
    """Drives every scene for `seconds`, at most `batch` at a time. `progress` gets the share done, 0..1."""
    exposure: dict[str, Exposure] = {}
    events: list[Disengagement] = []
    steps = round(seconds / PLAN_PERIOD_S)
    for start in range(0, len(scenes), batch):
        part = scenes[start : start + batch]
        with World(part, rig, seed) as world:
            supervised, memory = Supervised(world), Memory()
            for i in range(steps):
                observation = memory.recall(world.observe(), now_ns(world), frames_seen(policy))
                plan = policy.plan(observation)
                outcome = supervised.step(plan.best)
                _count(exposure, part, outcome)
                events += [Disengagement(start + e.vehicle, e.cause, e.time_s) for e in outcome.disengagements]
                if on_frame:
                    on_frame(world, observation, plan, outcome)
                if progress:
                    progress((start * steps + (i + 1) * len(part)) / (len(scenes) * steps))
    return EpisodeResult(exposure, events)


def now_ns(world: World) -> int:
    """World time since its start."""
    return round(world.time_s * 1e9)


def _count(exposure: dict[str, Exposure], scenes: Sequence[Scene], outcome: Outcome) -> None:
    for row, scene in enumerate(scenes):
        own = exposure.setdefault(scene.condition.name, Exposure())
        own.km += float(outcome.metres[row]) / 1000
        own.hours += float(outcome.seconds[row]) / 3600
    for event in outcome.disengagements:
        exposure[scenes[event.vehicle].condition.name].disengagements[event.cause] += 1


@dataclass(frozen=True, slots=True)
class Perturbation:
    """How far the driven action strays from the expert's, so that recoveries are seen."""

    start_lateral_m: float = 0.8
    start_heading_rad: float = 0.10
    start_speed: tuple[float, float] = (0.3, 1.2)
    """Range of factors on the starting speed."""
    share: float = 0.45
    """Share of the time with a disturbance."""
    block_s: float = 1.2
    """Length of one disturbance."""
    curvature_per_m: float = 0.022
    """Largest added curvature."""
    speed: tuple[float, float] = (0.5, 1.35)
    """Range of factors on the planned distances."""


@dataclass(frozen=True, slots=True)
class Recording:
    """N frames of expert driving: instant by instant, within each take by take and vehicle by vehicle."""

    images: Images
    """uint8 [N, C, H, W, 3]."""
    speed_mps: NDArray[np.float32]
    yaw_rate_radps: NDArray[np.float32]
    command: Ints
    target: NDArray[np.float32]
    """[N, T, 2]: the expert's trajectory from the (disturbed) state of the frame."""
    rule: Ints
    """[N], index into simulation.expert.RULES."""
    condition: tuple[str, ...]
    vehicle: Ints
    """[N], index into the scenes."""
    time_s: Floats
    metres: float
    """Driven in all."""
    before: Ints
    """[N], the frame of the same vehicle PLAN_PERIOD_S earlier; -1 where there is none, and of all where not every
    vehicle is taken each time."""
    labels: dict[str, NDArray[np.generic]]
    """Of model.labels, [N, ...] each."""


@dataclass(frozen=True, slots=True)
class Takes:
    """What is recorded of an instant: at most `most` frames of each vehicle."""

    most: int
    of: Callable[[World], Iterator[Ints]]
    """Yields rows, each time to be recorded as the world is then: it may be another one in between."""


ALL = Takes(1, lambda world: iter((np.arange(len(world)),)))
"""Every vehicle, once."""


def record_expert(
    scenes: Sequence[Scene],
    rig: Rig,
    seconds: float,
    seed: int,
    *,
    perturb: Perturbation | None = Perturbation(),
    labels: Sequence[str] = (),
    every: int = 1,
    takes: Takes = ALL,
    progress: Callable[[float], None] | None = None,
    batch: int = 64,
) -> Recording:
    """Records each `every`th frame (of 5 Hz) of `seconds` in each scene, or what is taken of it, with some
    `labels` of simulation.labels. Allocates all arrays first, for as many takes as there may be: what is not used
    of them is never touched. Raises KeyError for a label that is none of an instant."""
    steps, chained = round(seconds / PLAN_PERIOD_S), every == 1 and takes is ALL
    out = _room(scenes, rig, takes.most * len(range(0, steps, every)), labels)
    metres, at = 0.0, 0
    for start in range(0, len(scenes), batch):
        part = scenes[start : start + batch]
        with World(part, rig, seed) as world:
            if perturb:
                disturb_start(world, perturb)
            for step in range(steps):
                if step % every == 0:
                    for rows in takes.of(world):
                        _record(out, at, world, world.observe(rows), start, rows, chained=chained)
                        at += len(rows)
                world.step(disturbed(world, perturb) if perturb else world.expert().trajectory)
                if progress:
                    progress((start * steps + (step + 1) * len(part)) / (len(scenes) * steps))
            metres += float(world.travelled_m.sum())
    return _recorded(out, at, scenes, metres)


def record_policy(
    policy: Policy,
    scenes: Sequence[Scene],
    rig: Rig,
    seconds: float,
    seed: int,
    *,
    labels: Sequence[str] = (),
    every: int = 1,
    progress: Callable[[float], None] | None = None,
    batch: int = 64,
) -> Recording:
    """Records each `every`th frame of a policy's supervised driving: what the expert would have driven from where
    the policy got itself to (DAgger: Ross et al., AISTATS 2011), some `labels` of simulation.labels, and the risk
    that it ran. Raises as record_expert."""
    steps = round(seconds / PLAN_PERIOD_S)
    out = _room(scenes, rig, len(range(0, steps, every)), labels)
    risks, metres, at = list[NDArray[np.int8]](), 0.0, 0
    for start in range(0, len(scenes), batch):
        with World(scenes[start : start + batch], rig, seed) as world:
            supervised, memory = Supervised(world), Memory()
            engaged, failed = np.zeros((2, steps, len(world)), bool)
            for step in range(steps):
                seen = memory.recall(world.observe(), now_ns(world), frames_seen(policy))
                if step % every == 0:
                    _record(out, at, world, seen, start, np.arange(len(world)), chained=every == 1)
                    at += len(world)
                outcome = supervised.step(policy.plan(seen).best)
                engaged[step] = outcome.engaged
                failed[step, [event.vehicle for event in outcome.disengagements]] = True
                if progress:
                    progress(at / len(out.images))
            risks.append(risk(engaged, failed)[::every].ravel())
            metres += float(world.travelled_m.sum())
    told = _recorded(out, at, scenes, metres)
    return replace(told, labels=told.labels | {"risk": np.concatenate(risks)})


def _room(scenes: Sequence[Scene], rig: Rig, frames: int, labels: Sequence[str]) -> Recording:
    """For so many frames of each scene."""
    n, camera = frames * len(scenes), rig.cameras[0]
    unknown = [name for name in labels if name not in LABELLERS]
    if unknown:
        raise KeyError(f"no label {unknown[0]!r} of an instant; known: {list(LABELLERS)}")
    return Recording(
        images=np.empty((n, len(rig.cameras), camera.height_px, camera.width_px, 3), np.uint8),
        speed_mps=np.empty(n, np.float32),
        yaw_rate_radps=np.empty(n, np.float32),
        command=np.empty(n, np.int64),
        target=np.empty((n, PLAN_POINTS, 2), np.float32),
        rule=np.empty(n, np.int64),
        condition=(),
        vehicle=np.empty(n, np.int64),
        time_s=np.empty(n),
        metres=0.0,
        before=np.empty(n, np.int64),
        labels=room(labels, n),
    )


def _recorded(out: Recording, count: int, scenes: Sequence[Scene], metres: float) -> Recording:
    """The first `count` frames, as no more came."""
    names = [scene.condition.name for scene in scenes]
    whole = [f.name for f in fields(out) if isinstance(getattr(out, f.name), np.ndarray)]
    return replace(
        out,
        **{name: getattr(out, name)[:count] for name in whole},
        labels={name: label[:count] for name, label in out.labels.items()},
        condition=tuple(names[vehicle] for vehicle in out.vehicle[:count]),
        metres=metres,
    )


def _record(
    out: Recording, at: int, world: World, seen: Observation, first: int, rows: Ints, *, chained: bool
) -> None:
    """Some of the world's vehicles; frames that are not of all of them, or further apart, are no history of one
    another."""
    to, expert = slice(at, at + len(rows)), world.expert()
    out.images[to], out.speed_mps[to] = seen.images[rows], seen.speed_mps[rows]
    out.yaw_rate_radps[to], out.command[to] = seen.yaw_rate_radps[rows], seen.command[rows]
    out.target[to], out.rule[to] = expert.trajectory[rows], expert.rule[rows]
    out.vehicle[to], out.time_s[to] = first + rows, world.time_s
    out.before[to] = np.arange(at, at + len(rows)) - len(rows) if chained and world.time_s > 0 else -1
    for name, label in out.labels.items():
        label[to] = LABELLERS[name](world)[rows]


def disturb_start(world: World, p: Perturbation) -> None:
    """Puts vehicles beside where they would start."""
    draw = [chance(world.noise_seed, 200, i) for i in range(3)]
    low, high = p.start_speed
    world.displace(
        (2 * draw[0] - 1) * p.start_lateral_m,
        (2 * draw[1] - 1) * p.start_heading_rad,
        low + (high - low) * draw[2],
    )


def disturbed(world: World, p: Perturbation) -> NDArray[np.float32]:
    """The expert's trajectory, bent and stretched while a disturbance lasts and the vehicle is in lane."""
    trajectory = world.expert().trajectory
    block = np.floor(world.time_s / p.block_s + chance(world.noise_seed, 201)).astype(np.int64)
    draw = [chance(world.noise_seed, block, 202, i) for i in range(4)]
    low, high = p.speed
    stretch = np.where(draw[1] < p.share, low + (high - low) * draw[3], 1.0)
    inside = np.abs(world.d - world.lane_d) < 1.0
    bend = np.where((draw[0] < p.share) & inside, (2 * draw[2] - 1) * p.curvature_per_m, 0.0)
    moved = trajectory * stretch[:, None, None].astype(np.float32)
    moved[..., 1] += (bend[:, None] * moved[..., 0] ** 2 / 2).astype(np.float32)
    return moved
