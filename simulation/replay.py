"""Driving in a recorded drive, and judging that against what was recorded.

The recorded trajectory is the yardstick: `retraced` drives it, the vehicle being where its log says at every
instant (nuPlan's perfect tracking), and gives a trace like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from model.policy import PLAN_PERIOD_S, PLAN_POINTS, PLAN_STEP_S
from model.rig import Rig
from simulation.arrays import Bools, Floats, in_frame
from simulation.episode import CAUSES, causes
from simulation.examination import LEAST_ROUTE_M, LOST_M, Drive
from simulation.logs import GRID_S, Log
from simulation.roads import Roads
from simulation.scenarios import HOUSE, Condition, Scene, drawn
from simulation.scores import carla, nuplan, pdm
from simulation.scores.recording import RecordedWorld, trace_of
from simulation.scores.trace import Trace, windows
from simulation.world import World

LEAST_LIMIT_MPS, LIMIT_SHARE = 8.0, 1.1
"""Nobody recorded the limit: it is taken to be a tenth above the fastest that was driven."""
HOUSE_CLEAR_M, CLEAR_M = 10.0, 4.0
"""What stands beside the road keeps so far from where anybody drove."""
WINDOW_STRIDE = 10
"""PDM windows begin every second."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What a safety driver would have taken over for."""

    time_s: float
    cause: str


@dataclass(frozen=True, slots=True)
class Judged:
    """A drive in a log's world beside the recorded one."""

    scores: dict[str, float]
    """0..1; NaN where it could not be judged."""
    recorded: dict[str, float]
    """Those of the recorded drive itself."""
    displacement_m: Floats
    """[T], from where the log was at the same instant."""
    progress: float
    """Metres along the road over the log's."""
    failures: list[Failure]


def replayed(log: Log, condition: Condition, seed: int) -> Scene:
    """The scene in which a log is replayed: its road, its others, and what a condition draws beside them."""
    scene = drawn(condition, seed)
    limit = max(LEAST_LIMIT_MPS, LIMIT_SHARE * float(log.speed_mps.max()))
    scene = replace(scene, log=log, limit_mps=limit)
    return replace(scene, roadside=scene.roadside.take(_clear(scene, log)))


def _clear(scene: Scene, log: Log) -> Bools:
    """Which things beside the road stand where nobody drove."""
    line = log.centre_line(scene.lane_d_m)
    roads = Roads(scene.amplitude_rad[None], scene.phase_rad[None], None, [line])
    side, there = scene.roadside, log.agents.there
    x, y, _ = (z[0] for z in roads.pose(side.s_m[None], side.d_m[None]))
    ways_x = np.concatenate([line[:, 0], log.agents.x_m[there]])
    ways_y = np.concatenate([line[:, 1], log.agents.y_m[there]])
    away = np.array([np.hypot(ways_x - a, ways_y - b).min() for a, b in zip(x, y, strict=True)])
    return np.asarray(away > np.where(side.kind == HOUSE, HOUSE_CLEAR_M, CLEAR_M))


class RetracedWorld(RecordedWorld):
    """A world whose vehicles are where their logs say, whatever they are told. Raises ValueError for a scene
    without a log."""

    def __init__(self, scenes: Sequence[Scene], rig: Rig | None = None, seed: int = 0) -> None:
        if not all(scene.log for scene in scenes):
            raise ValueError("only a scene with a log can be retraced")
        super().__init__(scenes, rig, seed)

    def _move(self, accel: Floats, curvature: Floats) -> Floats:
        before, step = np.stack([self.motion.x, self.motion.y]), round(self.time_s / GRID_S) + 1
        for row, scene in enumerate(self.scenes):
            assert scene.log, "checked when it was made"
            self.motion.put(row, scene.log, min(step, len(scene.log.x_m) - 1))
        return np.asarray(np.hypot(self.motion.x - before[0], self.motion.y - before[1]))


def recorded_plan(world: World) -> NDArray[np.float32]:
    """What the logs did next, as trajectories [B, T, 2] from where the vehicles are; straight on beyond a log's
    end. Raises ValueError for a scene without a log."""
    at = np.asarray(world.time_s + PLAN_STEP_S * np.arange(1, PLAN_POINTS + 1), np.float64)
    places = []
    for scene in world.scenes:
        if scene.log is None:
            raise ValueError("a drawn scene has no recorded plan")
        places.append(_places(scene.log, at))
    m = world.motion
    dx, dy = (np.stack(z) - own[:, None] for z, own in zip(zip(*places, strict=True), (m.x, m.y), strict=True))
    return np.stack(in_frame(dx, dy, m.heading[:, None]), -1).astype(np.float32)


def _places(log: Log, time_s: Floats) -> tuple[Floats, Floats]:
    grid = np.arange(len(log.x_m)) * GRID_S
    beyond = np.maximum(time_s - grid[-1], 0.0) * log.speed_mps[-1]
    x = np.interp(time_s, grid, log.x_m) + beyond * np.cos(log.heading_rad[-1])
    y = np.interp(time_s, grid, log.y_m) + beyond * np.sin(log.heading_rad[-1])
    return x, y


def plans(log: Log) -> int:
    """For how many plans a log lasts."""
    return int(log.seconds / PLAN_PERIOD_S + 1e-6)


def retraced(scene: Scene) -> Trace:
    """The recorded drive of a scene."""
    world = RetracedWorld([scene])
    stand = np.zeros((1, PLAN_POINTS, 2), np.float32)
    for _ in range(plans(_log(scene))):
        world.step(stand)
    trace = trace_of(world, np.full(1, LEAST_ROUTE_M))
    return replace(trace, route_m=np.maximum(nuplan.progress_m(trace), LEAST_ROUTE_M))


def drive_in(
    scene: Scene, drives: Drive, rig: Rig | None = None, on_plan: Callable[[World], None] | None = None
) -> Judged:
    """Drives a log's scene to its end, nobody taking over, and judges it. `on_plan` sees each plan's world."""
    log, failures, held = _log(scene), list[Failure](), set[str]()
    yardstick = retraced(scene)
    stand = np.zeros((1, PLAN_POINTS, 2), np.float32)
    with RecordedWorld([scene], rig) as world:
        lost = False
        for _ in range(plans(log)):
            if on_plan:
                on_plan(world)
            status = world.status()
            lost |= bool(np.abs(status.lateral_error_m[0]) > LOST_M)
            world.step(stand if lost else drives(world))
            found = causes(world.status(), np.zeros(1, bool))
            now: set[str] = {cause for cause in CAUSES if found[cause][0]}
            failures += [Failure(world.time_s, cause) for cause in CAUSES if cause in now - held]
            held = now
        trace = trace_of(world, yardstick.route_m)
    return judged(trace, yardstick, failures)


def judged(trace: Trace, yardstick: Trace, failures: list[Failure]) -> Judged:
    """A drive beside the recorded one, of as many steps."""
    made, whole = (float(nuplan.progress_m(t)[0]) for t in (trace, yardstick))
    away = np.hypot(trace.ego.x_m - yardstick.ego.x_m, trace.ego.y_m - yardstick.ego.y_m)[0]
    return Judged(
        _scores(trace, yardstick), _scores(yardstick, yardstick), away, made / max(whole, 1e-9), failures
    )


def _scores(trace: Trace, yardstick: Trace) -> dict[str, float]:
    """Means over windows of 4 s, each against what was recorded in the same seconds; and over the whole."""
    own, theirs = (windows(t, pdm.HORIZON_STEPS + 1, WINDOW_STRIDE, pdm.HISTORY_STEPS) for t in (trace, yardstick))
    parts = pdm.pdms(own, theirs)
    found = {"pdms": parts.score, **parts.terms, "epdms": pdm.epdms(own, theirs).score}
    found |= {"nuplan": nuplan.closed_loop(trace, yardstick).score, "driving_score": carla.routes(trace).score}
    return {name: float(np.mean(values)) for name, values in found.items()}


def _log(scene: Scene) -> Log:
    if scene.log is None:
        raise ValueError("this scene replays no log")
    return scene.log
