"""CARLA's driving score (carla-simulator/leaderboard statistics_manager.py; Bench2Drive's is the same): the share
of the route that was completed, times a penalty for each infraction, times the share of the way driven in lanes.

Left out: its penalty for driving slower than traffic, which Bench2Drive does not use either.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from simulation.arrays import Floats, Ints
from simulation.scores.collisions import collisions
from simulation.scores.terms import Scored
from simulation.scores.trace import CYCLIST, PEDESTRIAN, STATIC, STEP_S, VEHICLE, Trace

PENALTY: dict[str, float] = {
    "pedestrian": 0.5,
    "vehicle": 0.6,
    "static": 0.65,
    "red_light": 0.7,
    "stop_sign": 0.8,
    "timeout": 0.7,
    "no_yield_to_emergency": 0.7,
}
"""What one infraction leaves of a route's score."""
HIT: dict[str, tuple[int, ...]] = {
    "pedestrian": (PEDESTRIAN,),
    "vehicle": (VEHICLE, CYCLIST),
    "static": (STATIC,),
}
MOVING_MPS = 0.1
"""Who is slower was hit and did not hit (CollisionTest.EPSILON)."""


def infractions(trace: Trace) -> dict[str, Ints]:
    """How often each drive did what PENALTY names, [B] each. Collisions count whoever is at fault, once for each
    road user."""
    crash, events = collisions(trace), trace.events
    moving = crash.ego_mps >= MOVING_MPS
    counts = {
        name: np.bincount(crash.drive[moving & np.isin(crash.kind, kinds)], minlength=len(trace))
        for name, kinds in HIT.items()
    }
    counts |= {"red_light": events.ran_red.sum(1), "stop_sign": events.missed_stop.sum(1)}
    counts |= {"timeout": events.timeout.sum(1), "no_yield_to_emergency": events.no_yield.sum(1)}
    return counts


def completion(trace: Trace) -> Floats:
    """Share of the route that was driven, 0..1, [B]."""
    furthest = trace.place.s_m.max(1) - trace.place.s_m[:, 0]
    return np.asarray(np.clip(furthest / trace.route_m, 0.0, 1.0))


def in_lanes(trace: Trace) -> Floats:
    """Share of the metres driven that were inside of the route's lanes, 0..1, [B]; 1 where none were driven."""
    metres = np.abs(trace.ego.speed_mps) * STEP_S
    outside = trace.place.wrong_way & ~trace.place.junction
    return np.asarray(1 - (metres * outside).sum(1) / np.maximum(metres.sum(1), 1e-9))


def driving_score(completed: Floats, counts: Mapping[str, Ints | int]) -> Floats:
    """The score of routes, 0..1: `completed` share times PENALTY to the power of each count. Raises KeyError for
    an infraction that PENALTY does not name."""
    score = np.asarray(completed, float)
    for name, count in counts.items():
        score = np.multiply(score, PENALTY[name] ** np.asarray(count))
    return score


def routes(trace: Trace) -> Scored:
    """The driving score of each drive as a route, with what it is made of."""
    done, lanes = completion(trace), in_lanes(trace)
    penalty = driving_score(np.ones(len(trace)), infractions(trace)) * lanes
    return Scored({"completion": done, "penalty": penalty, "in_lanes": lanes}, done * penalty)
