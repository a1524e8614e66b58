"""nuPlan's closed-loop score and bounds (motional/nuplan-devkit docs/metrics_description.md, the thresholds of
config/common/simulation_metric, the weights of closed_loop_nonreactive_agents_weighted_average.yaml).

Score = collisions · drivable · making progress · direction · (5·progress + 5·TTC + 4·speed limit + 2·comfort) / 16
"""

from __future__ import annotations

import numpy as np

from simulation.arrays import Bools, Floats
from simulation.scores import comfort
from simulation.scores.collisions import collisions
from simulation.scores.pdm import WRONG_WAY_M, WRONG_WAY_STEPS
from simulation.scores.terms import Scored, Term, combined, measured, recent_sum, share, stepped
from simulation.scores.time_to_collision import times_s
from simulation.scores.trace import CYCLIST, PEDESTRIAN, STATIC, STEP_S, VEHICLE, Trace

OVERHANG_M = 0.3
LEAST_TTC_S = 0.95
OVERSPEED_MPS = 2.23
"""Above the limit all the time, this costs the whole term: 5 mph."""
LEAST_PROGRESS = 0.2
"""Share of the expert's."""
PROGRESS_SLACK_M = 2.0
"""Progress below this counts as this much (the configuration's value; the description says 0.1 m); driving back
further than this counts as none."""
ALLOWED: tuple[tuple[tuple[int, ...], int], ...] = (((PEDESTRIAN, CYCLIST), 0), ((VEHICLE,), 0), ((STATIC,), 1))
"""Kinds of road users, and how many at-fault collisions with them are not yet the whole loss."""
MISS_M: dict[float, float] = {3.0: 6.0, 5.0: 8.0, 8.0: 16.0}
"""Horizon in s -> displacement from the expert beyond which a plan misses (planner_miss_rate_within_bound)."""


def no_collision(trace: Trace) -> Floats:
    """The product over groups of road users of 1 - collisions / (allowed + 1)."""
    crash, score = collisions(trace), np.ones(len(trace))
    for kinds, allowed in ALLOWED:
        counted = crash.drive[crash.at_fault & np.isin(crash.kind, kinds)]
        score *= np.maximum(1 - np.bincount(counted, minlength=len(trace)) / (allowed + 1), 0.0)
    return score


def drivable(trace: Trace) -> Floats:
    """No corner was ever OVERHANG_M or more beyond the drivable area."""
    return share((trace.place.overhang_m < OVERHANG_M).all(1))


def direction(trace: Trace) -> Floats:
    """Metres moved within a second against the direction of the lane that the vehicle is in."""
    moved = np.zeros_like(trace.place.s_m)
    moved[:, 1:] = np.diff(trace.place.s_m, axis=1)
    along = np.where(trace.place.wrong_way, -moved, moved)
    return stepped(-recent_sum(along, WRONG_WAY_STEPS).min(1), *WRONG_WAY_M)


def time_to_collision(trace: Trace) -> Floats:
    """Never less than LEAST_TTC_S."""
    return share((times_s(trace) >= LEAST_TTC_S).all(1))


def speed_limit(trace: Trace) -> Floats:
    """1 less the mean speed above the limit over OVERSPEED_MPS."""
    above = np.maximum(np.abs(trace.ego.speed_mps) - trace.place.limit_mps, 0.0)
    duration = STEP_S * (trace.steps - 1)
    return np.asarray(np.maximum(1 - above.sum(1) * STEP_S / (OVERSPEED_MPS * duration), 0.0))


def comfortable(trace: Trace) -> Floats:
    """Within the bounds of comfort."""
    return share(comfort.comfortable(trace.ego))


def progress_m(trace: Trace) -> Floats:
    """Metres along the route, below 0 for going back."""
    return np.asarray(trace.place.s_m[:, -1] - trace.place.s_m[:, 0])


PROGRESS, MAKING_PROGRESS = "progress", "making_progress"
NUPLAN: dict[str, Term] = {
    "no_collision": Term(no_collision),
    "drivable": Term(drivable),
    "direction": Term(direction),
    MAKING_PROGRESS: Term(progress_m),
    PROGRESS: Term(progress_m, 5.0),
    "time_to_collision": Term(time_to_collision, 5.0),
    "speed_limit": Term(speed_limit, 4.0),
    "comfort": Term(comfortable, 2.0),
}
"""The two entries of progress measure metres; `progress_ratio` makes the terms of them."""


def closed_loop(drive: Trace, expert: Trace) -> Scored:
    """nuPlan's closed-loop score of B drives against the expert's of the same scenes. Raises ValueError for
    another number of drives."""
    if len(drive) != len(expert):
        raise ValueError(f"{len(drive)} drives but {len(expert)} of the expert: one for each is needed")
    own = measured(NUPLAN, drive)
    ratio = progress_ratio(own[PROGRESS], progress_m(expert))
    return combined(NUPLAN, own | {PROGRESS: ratio, MAKING_PROGRESS: share(ratio >= LEAST_PROGRESS)})


def progress_ratio(own_m: Floats, expert_m: Floats) -> Floats:
    """Progress relative to the expert's, 0..1, [B]; 1 where neither moved."""
    ratio = np.maximum(own_m, PROGRESS_SLACK_M) / np.maximum(expert_m, PROGRESS_SLACK_M)
    return np.where(own_m < -PROGRESS_SLACK_M, 0.0, np.minimum(ratio, 1.0))


def missed(drive: Trace, expert: Trace) -> dict[float, Bools]:
    """Horizon in s -> whether each motion was ever further from the expert's within it, at full seconds, than
    MISS_M allows, [B]; only horizons that the traces reach."""
    steps = min(drive.steps, expert.steps)
    x = drive.ego.x_m[:, :steps] - expert.ego.x_m[:, :steps]
    y = drive.ego.y_m[:, :steps] - expert.ego.y_m[:, :steps]
    each_second = np.hypot(x, y)[:, :: round(1 / STEP_S)]
    reached = {s: limit for s, limit in MISS_M.items() if s < each_second.shape[1]}
    return {s: np.asarray((each_second[:, : int(s) + 1] > limit).any(1)) for s, limit in reached.items()}
