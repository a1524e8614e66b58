"""Time to collision with those ahead; with those beside the vehicle only where it is between lanes or in a
junction. Who was not ahead when first foreseen to be hit is left out from then on."""

from __future__ import annotations

import numpy as np

from simulation.arrays import Bools, Floats, Ints
from simulation.scores import boxes
from simulation.scores.collisions import (
    AHEAD_RAD,
    BEHIND_RAD,
    bearings,
    collisions,
    contacts,
    firsts,
    outside_lane,
)
from simulation.scores.trace import Trace

STOPPED_MPS = 5e-3
"""Who is slower than this has no time to collision."""
FORESIGHT = (0, 3, 6, 9)
"""NAVSIM looks this many steps ahead, within its window of 1 s (pdm_scorer.py)."""
HORIZON_S = 3.0
"""nuPlan looks this far ahead (time_to_collision_within_bound.py)."""


def foreseen(trace: Trace) -> Bools:
    """Whether the vehicle, going on with its speed and heading, would have hit someone within 1 s where they
    really were then, [B]: NAVSIM's time to collision. As there, who will be hit is ahead as seen from where the
    vehicle is now; so who catches up from behind can be. Raises ValueError for traces too short to look ahead."""
    starts = trace.steps - FORESIGHT[-1]
    if starts < 1:
        raise ValueError(f"{trace.steps} steps are too few: looking ahead takes {FORESIGHT[-1] + 1}")
    hits = np.concatenate([_hits(trace, starts, ahead) for ahead in FORESIGHT])
    drive, step, slot, seen_at = hits[np.lexsort((hits[:, 3], hits[:, 1]))].T
    first = firsts(trace, drive, seen_at, slot)
    drive, step, slot, seen_at = drive[first], step[first], slot[first], seen_at[first]
    bad = np.zeros(len(trace), bool)
    bad[drive[_matters(trace, drive, step, slot, seen_at)]] = True
    return bad


def times_s(trace: Trace) -> Floats:
    """Seconds to the first collision if all went on with their speeds and headings, [B, T], inf where there is
    none within HORIZON_S: nuPlan's, without its grid of 0.1 s. 0 at an at-fault collision; who was hit is left
    out afterwards."""
    ego, others = trace.ego, trace.others
    drive, step, slot = np.nonzero(_reachable(trace) & ~_hit_before(trace))
    keep = _matters(trace, drive, step, slot, step)
    drive, step, slot = drive[keep], step[keep], slot[keep]
    own = boxes.of_body(trace.body, *(c[drive, step] for c in (ego.x_m, ego.y_m, ego.heading_rad)))
    theirs = boxes.of_others(others).at(drive, step, slot)
    v, w = ego.speed_mps[drive, step], others.speed_mps[drive, step, slot]
    closing_x = w * np.cos(theirs.heading_rad) - v * np.cos(own.heading_rad)
    closing_y = w * np.sin(theirs.heading_rad) - v * np.sin(own.heading_rad)
    seconds = boxes.meeting_s(own, theirs, closing_x, closing_y)
    out = np.full(ego.x_m.shape, np.inf)
    np.minimum.at(out, (drive, step), np.where(seconds < HORIZON_S, seconds, np.inf))
    crash = collisions(trace)
    out[crash.drive[crash.at_fault], crash.step[crash.at_fault]] = 0.0
    return out


def _hits(trace: Trace, starts: int, ahead: int) -> Ints:
    """Foreseen contacts `ahead` steps after each of the first `starts` steps: [N, 4] of drive, step, slot and the
    step at which it would be."""
    ego, seconds = trace.ego, ahead * 0.1
    v, heading = ego.speed_mps[:, :starts], ego.heading_rad[:, :starts]
    x = ego.x_m[:, :starts] + v * np.cos(heading) * seconds
    y = ego.y_m[:, :starts] + v * np.sin(heading) * seconds
    own = boxes.of_body(trace.body, x, y, heading).at(..., None)
    theirs = boxes.of_others(trace.others).at(slice(None), slice(ahead, ahead + starts))
    near = (theirs.x_m - own.x_m) ** 2 + (theirs.y_m - own.y_m) ** 2 <= (own.radius_m + theirs.radius_m) ** 2
    near &= trace.others.present[:, ahead : ahead + starts] & (np.abs(v) >= STOPPED_MPS)[..., None]
    drive, step, slot = np.nonzero(near)
    sure = boxes.touch(own.at(drive, step, 0), theirs.at(drive, step, slot))
    return np.stack([drive, step, slot, step + ahead], 1)[sure]


def _matters(trace: Trace, drive: Ints, step: Ints, slot: Ints, seen_at: Ints) -> Bools:
    angle = bearings(trace, drive, step, slot, seen_at)
    sideways = (outside_lane(trace) | trace.place.junction)[drive, step]
    return np.asarray((angle < AHEAD_RAD) | (sideways & (angle <= BEHIND_RAD)))


def _reachable(trace: Trace) -> Bools:
    """Who might be met within HORIZON_S by a moving vehicle, [B, T, K]."""
    ego = boxes.of_body(trace.body, trace.ego.x_m, trace.ego.y_m, trace.ego.heading_rad).at(..., None)
    others, speed = boxes.of_others(trace.others), np.abs(trace.ego.speed_mps)[..., None]
    reach = ego.radius_m + others.radius_m + HORIZON_S * (speed + np.abs(trace.others.speed_mps))
    near = (others.x_m - ego.x_m) ** 2 + (others.y_m - ego.y_m) ** 2 <= reach**2
    return np.asarray(near & trace.others.present & (speed > STOPPED_MPS))


def _hit_before(trace: Trace) -> Bools:
    """Road users that were in contact at this step or, as the same ones, before, [B, T, K]."""
    contact, track = contacts(trace), trace.others.track
    seen = np.cumsum(contact, 1)
    fresh = np.ones_like(contact)
    fresh[:, 1:] = track[:, 1:] != track[:, :-1]
    base = np.maximum.accumulate(np.where(fresh, seen - contact, 0), 1)
    return np.asarray(seen > base)
