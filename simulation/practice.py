"""What a policy meets as it drives under a safety driver, and what other plans would have been worth there.

Each plan is driven to its end from the state in which it was made, in the world itself, where others react; then
the expert drives on, so that what a plan leads into counts as well. The expert alone, from the same state, is what
it is held against. The worth is made of the terms of PDMS (scores/pdm.py), and of gates for what PDMS leaves out
and a safety driver does not: lights, stop signs, and standing where others drive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.policy import PLAN_PERIOD_S, PLAN_POINTS, PLAN_STEP_S, Memory, Observation, Policy, frames_seen
from model.rig import Rig
from simulation.arrays import Floats, in_frame
from simulation.episode import Supervised, now_ns
from simulation.scenarios import Scene
from simulation.scores import pdm
from simulation.scores.recording import RecordedWorld, trace_of
from simulation.scores.terms import Term, combined, measured, share
from simulation.scores.trace import STEP_S, Trace

PLANS = round(PLAN_POINTS * PLAN_STEP_S / PLAN_PERIOD_S)
"""Periods that a plan lasts."""
PERIODS = round(pdm.HORIZON_STEPS * STEP_S / PLAN_PERIOD_S)
"""Periods that are judged, NAVSIM's 4 s."""


def stops(trace: Trace) -> Floats:
    """No stop sign was passed without having stopped, [B]."""
    return share(~trace.events.missed_stop.any(1))


WORTH: dict[str, Term] = pdm.PDMS | {"lights": Term(pdm.lights), "stops": Term(stops)}
"""ONE table: what a plan is worth."""
LEAST_PROGRESS = 0.2
"""Of the expert's, below which a plan is worth nothing: nuPlan's bound (ego_is_making_progress). Who stands where
others drive breaks no rule of PDMS."""


@dataclass(frozen=True, slots=True)
class Meeting:
    """F frames of each of B vehicles: N = F · B, the vehicles of one instant after another."""

    scenes: tuple[Scene, ...]
    seed: int
    commands: Floats
    """[steps, 2, B], with which the vehicles were driven."""
    at: tuple[int, ...]
    """[F], rising: after how many of these each frame is."""
    observation: Observation

    def rewards(self, plans: NDArray[np.float32]) -> Floats:
        """What plans [N, G, T, 2] would have been worth, [N, G] in 0..1."""
        vehicles, (_, group, *rest) = len(self.scenes), plans.shape
        of_frames = plans.reshape(len(self.at), vehicles, group, *rest)
        # Copies of a scene unfold alike: G blocks of them for the plans, and one for the expert.
        world, done = RecordedWorld(self.scenes * (group + 1), None, self.seed), 0
        out = np.empty((len(self.at), vehicles, group))
        for number, (at, frame) in enumerate(zip(self.at, of_frames, strict=True)):
            for command in self.commands[done:at]:
                world.obey(np.tile(command, group + 1))
            state, done = world.state(), at
            world.restore(state)
            blocks = np.swapaxes(frame, 0, 1).reshape(-1, *rest)
            out[number] = worth_of(_followed(world, blocks), vehicles, group)
            world.restore(state)
        return out.reshape(-1, group)


def meet(policy: Policy, scenes: Sequence[Scene], rig: Rig, seconds: float, seed: int, every: int = 5) -> Meeting:
    """Drives a policy through all scenes at once. Every `every`-th instant at which it plans is a frame. Raises
    ValueError without scenes and for too short a time."""
    steps = round(seconds / PLAN_PERIOD_S)
    if steps < 1:
        raise ValueError(f"{seconds} s are too few: a policy plans every {PLAN_PERIOD_S} s")
    seen, commands = list[Observation](), list[Floats]()
    with RecordedWorld(scenes, rig, seed) as world:
        supervised, memory = Supervised(world), Memory()
        for step in range(steps):
            observation = memory.recall(world.observe(), now_ns(world), frames_seen(policy))
            supervised.step(policy.plan(observation).best)
            commands.append(world.commanded)
            if step % every == 0:
                seen.append(observation)
    return Meeting(tuple(scenes), seed, np.stack(commands), tuple(range(0, steps, every)), _joined(seen))


def _joined(seen: Sequence[Observation]) -> Observation:
    """The vehicles of several instants as those of one. Where one instant has less of a past than another, it is
    black and not known."""
    reach = max(len(o.past) for o in seen)
    past = tuple(
        _joined([o.past[age] if age < len(o.past) else _nothing(o) for o in seen]) for age in range(reach)
    )
    return Observation(
        np.concatenate([o.images for o in seen]),
        np.concatenate([o.speed_mps for o in seen]),
        np.concatenate([o.yaw_rate_radps for o in seen]),
        np.concatenate([o.command for o in seen]),
        past,
    )


def _nothing(now: Observation) -> Observation:
    unknown = np.full_like(now.speed_mps, np.nan)
    return Observation(np.zeros_like(now.images), unknown, unknown, now.command)


def _followed(world: RecordedWorld, plans: NDArray[np.float32]) -> Trace:
    """Drives the first vehicles of a world by plans [P, T, 2] made now, as long as these last; and all others, and
    afterwards all, by the expert."""
    start, count = world.status(), len(plans)
    cos, sin = np.cos(start.heading_rad[:count, None]), np.sin(start.heading_rad[:count, None])
    x = start.x_m[:count, None] + cos * plans[..., 0] - sin * plans[..., 1]
    y = start.y_m[:count, None] + sin * plans[..., 0] + cos * plans[..., 1]
    way = np.stack([np.column_stack([start.x_m[:count], x]), np.column_stack([start.y_m[:count], y])], -1)
    for period in range(PERIODS):
        trajectory = world.expert().trajectory
        if period < PLANS:
            now = world.status()
            ahead = _later(way, period * PLAN_PERIOD_S)
            trajectory = trajectory.copy()
            trajectory[:count] = _seen_from(ahead, now.x_m[:count], now.y_m[:count], now.heading_rad[:count])
        world.step(trajectory)
    return trace_of(world, np.ones(len(world)))


def _later(way: Floats, passed_s: float) -> Floats:
    """Waypoints [P, T, 2] of a plan that is `passed_s` old, of its way [P, T + 1, 2] from where it was made.
    Beyond its end it goes on as it ended."""
    at = passed_s / PLAN_STEP_S + np.arange(1, PLAN_POINTS + 1)
    low = np.minimum(at.astype(int), PLAN_POINTS - 1)
    return np.asarray(way[:, low] + (at - low)[:, None] * (way[:, low + 1] - way[:, low]))


def _seen_from(points: Floats, x_m: Floats, y_m: Floats, heading_rad: Floats) -> NDArray[np.float32]:
    """World points [P, T, 2] in the frames of P vehicles."""
    seen = in_frame(points[..., 0] - x_m[:, None], points[..., 1] - y_m[:, None], heading_rad[:, None])
    return np.stack(seen, -1).astype(np.float32)


def worth_of(trace: Trace, vehicles: int, group: int) -> Floats:
    """[B, G], of a trace whose first G · B drives are of plans, the last B the expert's."""
    terms = measured(WORTH, trace)
    own = {name: values[:-vehicles] for name, values in terms.items()}
    theirs = {name: np.tile(values[-vehicles:], group) for name, values in terms.items()}
    progress = pdm.relative_progress(WORTH, own, theirs)
    score = combined(WORTH, own | {pdm.EP: progress}).score * (progress >= LEAST_PROGRESS)
    return np.asarray(score.reshape(group, vehicles).T)
