"""A policy examined on a course, against the expert on the same one.

Three drives from the same beginnings. *Supervised*: a safety driver takes over; it gives disengagements. *Alone*:
nobody takes over, which is how CARLA's and nuPlan's scores and RSS judge a route. *Windows*: from instants of the
expert's own drive, the policy drives NAVSIM's 4 s; PDMS and EPDMS compare it with what the expert did there, so
that every policy is asked the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from model.policy import PLAN_PERIOD_S, PLAN_POINTS, PLAN_STEP_S, Memory, Policy, frames_seen
from model.rig import Rig
from simulation.arrays import Floats
from simulation.episode import Disengagement, Supervised, now_ns
from simulation.scores import carla, nuplan, pdm, rss, tracking
from simulation.scores.recording import RecordedWorld, trace_of
from simulation.scores.trace import STEP_S, Ego, Trace, apply, joined
from simulation.suites import Course
from simulation.world import State, World

FIRST_WINDOW, WINDOW_EVERY, WARMING_PLANS = 8, 25, 2
"""In plans: 1.6 s give comfort its history, windows begin every 5 s, and for 0.4 s before one a driver looks on:
who remembers has something to remember."""
STEPS_A_PLAN = round(PLAN_PERIOD_S / STEP_S)
WINDOW_PLANS = pdm.HORIZON_STEPS // STEPS_A_PLAN
LOST_M = 8.0
"""Who is so far beside the lane has left the route: it ends there. CARLA allows 30 m, in towns full of roads."""
LEAST_ROUTE_M = 20.0
Drive = Callable[[World], NDArray[np.float32]]
"""What is wanted of a world now: trajectories [B, T, 2]."""
Driver = Callable[[], Drive]
"""Takes a seat: each drive has a Drive of its own, which may remember what it saw."""


@dataclass(frozen=True, slots=True)
class Marks:
    """What a driver got on a course of E vehicles."""

    scores: dict[str, Floats]
    """[E] each, 0..1; NaN where a vehicle could not be judged."""
    km: Floats
    """[E], driven engaged, as are `hours`."""
    hours: Floats
    causes: tuple[Counter[str], ...]
    """[E], disengagements."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A disengagement, and what the vehicle had been told to do until then."""

    event: Disengagement
    commands: Floats
    """[steps, 2], of its own, from the scene's beginning."""


@dataclass(frozen=True, slots=True)
class Reference:
    """The expert on a course: what policies are held against. One for all of them."""

    course: Course
    begin: State
    windows: tuple[State, ...]
    pieces: tuple[Trace, ...]
    """The expert's own drive from each window."""
    trace: Trace
    marks: Marks


@dataclass(frozen=True, slots=True)
class Examined:
    """A policy on a course."""

    marks: Marks
    failures: list[Failure] = field(default_factory=list)


def refer(course: Course) -> Reference:
    """The expert's drive, and where its windows begin. Needs no camera."""
    marks, _ = watched(course, expert)
    begin = beginning(course)
    recorded, states = RecordedWorld(course.scenes, None), list[State]()
    recorded.restore(begin)
    starts = range(FIRST_WINDOW, course.steps - WINDOW_PLANS + 1, WINDOW_EVERY)
    before: list[Ego] = []
    for step in range(course.steps):
        plan = expert(recorded)
        if step + WARMING_PLANS in starts:
            states.append(recorded.state())
        if step + 1 in starts:
            before.append(_planned(recorded, plan))
        recorded.step(plan)
    trace = trace_of(recorded, np.full(len(recorded), LEAST_ROUTE_M))
    trace = replace(trace, route_m=np.maximum(nuplan.progress_m(trace), LEAST_ROUTE_M))
    pieces = tuple(_piece(trace, start, planned) for start, planned in zip(starts, before, strict=True))
    scores = _scores(trace, pieces, trace, pieces)
    return Reference(course, begin, tuple(states), pieces, trace, replace(marks, scores=scores))


def expert(world: World) -> NDArray[np.float32]:
    """Drives as the expert does."""
    return world.expert().trajectory


def beginning(course: Course) -> State:
    """How a course's world is where the drive begins."""
    world = World(course.scenes, None)
    for command in course.before:
        world.obey(command)
    return world.state()


def seeing(policy: Policy) -> Driver:
    """Drives as the policy wants to, from what it sees and, on one drive, remembers."""

    def seat() -> Drive:
        memory, frames = Memory(), frames_seen(policy)
        return lambda world: policy.plan(memory.recall(world.observe(), now_ns(world), frames)).best

    return seat


def examine(driver: Driver, reference: Reference, rig: Rig | None = None, *, whole: bool = True) -> Examined:
    """What a driver gets on a course through the cameras of a rig; without `whole` it does not drive alone, and is
    told only what the other drives give."""
    course = reference.course
    marks, failures = watched(course, driver(), rig)
    with RecordedWorld(course.scenes, rig) as world:
        trace = alone(world, reference, driver()) if whole else None
        starts = zip(reference.windows, reference.pieces, strict=True)
        pieces = tuple(_window(world, driver(), *start) for start in starts)
    return Examined(replace(marks, scores=_scores(trace, pieces, reference.trace, reference.pieces)), failures)


def watched(course: Course, drives: Drive, rig: Rig | None = None) -> tuple[Marks, list[Failure]]:
    """A drive under a safety driver: its marks but for the scores, and each disengagement."""
    with World(course.scenes, rig) as world:
        world.restore(beginning(course))
        return _supervised(world, drives, course)


def _supervised(world: World, drives: Drive, course: Course) -> tuple[Marks, list[Failure]]:
    driver, count = Supervised(world), len(world)
    km, hours, causes = np.zeros(count), np.zeros(count), tuple(Counter[str]() for _ in range(count))
    commands, events = list(course.before), list[tuple[int, Disengagement]]()
    for _ in range(course.steps):
        outcome = driver.step(drives(world))
        commands.append(world.commanded)
        km, hours = km + outcome.metres / 1e3, hours + outcome.seconds / 3600
        events += [(len(commands), event) for event in outcome.disengagements]
    for _, event in events:
        causes[event.vehicle][event.cause] += 1
    failures = [Failure(event, np.stack(commands[:until])[..., event.vehicle]) for until, event in events]
    return Marks({}, km, hours, causes), failures


def alone(world: RecordedWorld, reference: Reference, drives: Drive) -> Trace:
    """Drives on from the reference's beginning; who leaves the route stands from then on."""
    world.restore(reference.begin)
    lost = np.zeros(len(world), bool)
    stand = np.zeros((PLAN_POINTS, 2), np.float32)
    for _ in range(reference.course.steps):
        lost |= np.abs(world.status().lateral_error_m) > LOST_M
        world.step(np.where(lost[:, None, None], stand, drives(world)))
    return trace_of(world, reference.trace.route_m)


def _window(world: RecordedWorld, drives: Drive, begin: State, experts: Trace) -> Trace:
    """The expert drives up to the window, while the driver looks on; then it drives."""
    world.restore(begin)
    wanted = drives(world)
    for _ in range(WARMING_PLANS - 1):
        world.step(expert(world))
        wanted = drives(world)
    before = _planned(world, wanted)
    world.step(expert(world))
    for _ in range(WINDOW_PLANS):
        world.step(drives(world))
    trace = _cut(trace_of(world, experts.route_m), WARMING_PLANS * STEPS_A_PLAN)
    return replace(trace, history=experts.history, planned_before=before)


def _planned(world: World, plan: NDArray[np.float32]) -> Ego:
    """Where a plan of this frame would lead to, from the next frame on."""
    now = world.status()
    start = tracking.State(now.x_m, now.y_m, now.heading_rad, now.speed_mps, now.accel_mps2, now.steering_rad)
    steps = round(PLAN_POINTS * PLAN_STEP_S / STEP_S)
    led = tracking.follow(tracking.poses(plan.astype(np.float64), start, PLAN_STEP_S, steps), start)
    return apply(led, lambda column: column[:, STEPS_A_PLAN:])


def _piece(trace: Trace, start: int, before: Ego) -> Trace:
    """The expert's steps of a window that begins there, with its history and what it had planned before."""
    history = apply(
        trace.ego, lambda column: column[:, start * STEPS_A_PLAN - pdm.HISTORY_STEPS : start * STEPS_A_PLAN]
    )
    return replace(_cut(trace, start * STEPS_A_PLAN), history=history, planned_before=before)


def _cut(trace: Trace, start: int) -> Trace:
    """The steps of a window from `start` on."""

    def now(column: NDArray[np.generic]) -> NDArray[np.generic]:
        return column[:, start : start + pdm.HORIZON_STEPS + 1]

    return Trace(
        apply(trace.ego, now),
        apply(trace.others, now),
        apply(trace.place, now),
        apply(trace.events, now),
        trace.route_m,
        trace.body,
    )


def _scores(
    trace: Trace | None, pieces: tuple[Trace, ...], route: Trace, experts: tuple[Trace, ...]
) -> dict[str, Floats]:
    """Every score, [E] each, against the expert's route and windows; a vehicle's PDMS is the mean over its own."""
    count, scores = len(route), dict[str, Floats]()
    if trace is not None:
        scores |= {"driving_score": carla.routes(trace).score, "nuplan": nuplan.closed_loop(trace, route).score}
        scores |= rss.shares(trace)
    if not pieces:
        return scores | {name: np.full(count, np.nan) for name in ("pdms", "epdms")}
    own, theirs = joined(pieces), joined(experts)
    for name, of in (("pdms", pdm.pdms), ("epdms", pdm.epdms)):
        scores[name] = of(own, theirs).score.reshape(len(pieces), count).mean(0)
    return scores
