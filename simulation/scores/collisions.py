"""Who was hit, and whose fault it was, as nuPlan and NAVSIM tell it (motional/nuplan-devkit
no_ego_at_fault_collisions.py; autonomousvision/navsim pdm_scorer.py): each road user counts once, at its first
contact. At fault is who drives into somebody that stands or with the front bumper, and who is hit at the side
outside of a lane; not who stands, or is hit from behind."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulation.arrays import Bools, Floats, Ints, in_frame
from simulation.scores import boxes
from simulation.scores.trace import STATIC, Trace

STOPPED_MPS = 0.05
AHEAD_RAD, BEHIND_RAD = np.deg2rad(30.0), np.deg2rad(150.0)
"""Bearings seen from the rear axle below which something is ahead, and above which it is behind."""


@dataclass(frozen=True, slots=True)
class Collisions:
    """N first contacts, by drive and time."""

    drive: Ints
    """[N], row of the trace."""
    step: Ints
    kind: Ints
    """VEHICLE, PEDESTRIAN, CYCLIST or STATIC."""
    at_fault: Bools
    ego_mps: Floats
    """The vehicle's own speed, 0 or more."""


def collisions(trace: Trace) -> Collisions:
    """Every road user's first contact with the vehicle."""
    hits = np.argwhere(contacts(trace))
    drive, step, slot = hits[firsts(trace, hits[:, 0], hits[:, 1], hits[:, 2])].T
    kind = trace.others.kind[drive, step, slot]
    return Collisions(
        drive, step, kind, _at_fault(trace, drive, step, slot), np.abs(trace.ego.speed_mps[drive, step])
    )


def contacts(trace: Trace) -> Bools:
    """Whether the vehicle's box touches each other one, [B, T, K]."""
    ego = boxes.of_body(trace.body, trace.ego.x_m, trace.ego.y_m, trace.ego.heading_rad).at(..., None)
    others = boxes.of_others(trace.others)
    near = trace.others.present & (
        (others.x_m - ego.x_m) ** 2 + (others.y_m - ego.y_m) ** 2 <= (ego.radius_m + others.radius_m) ** 2
    )
    drive, step, slot = np.nonzero(near)
    near[drive, step, slot] = boxes.touch(ego.at(drive, step, 0), others.at(drive, step, slot))
    return near


def firsts(trace: Trace, drive: Ints, step: Ints, slot: Ints) -> Ints:
    """Which of these events [N], given in the order in which they happen, are the first of their drive and road
    user; ascending."""
    track = trace.others.track[drive, step, slot]
    _, first = np.unique(np.stack([drive, slot, track], 1), axis=0, return_index=True)
    return np.sort(first).astype(np.int64)


def bearings(trace: Trace, drive: Ints, step: Ints, slot: Ints, seen_at: Ints) -> Floats:
    """Angles [N] between the vehicle's heading at `step` and the direction from its rear axle to a road user's
    centre at `seen_at`, 0..pi."""
    ego, others = trace.ego, trace.others
    dx = others.x_m[drive, seen_at, slot] - ego.x_m[drive, step]
    dy = others.y_m[drive, seen_at, slot] - ego.y_m[drive, step]
    along, across = in_frame(dx, dy, ego.heading_rad[drive, step])
    return np.abs(np.arctan2(across, along))


def outside_lane(trace: Trace) -> Bools:
    """Whether the vehicle is in several lanes or partly beyond the drivable area, [B, T]."""
    return trace.place.several_lanes | (trace.place.overhang_m > 0)


def _at_fault(trace: Trace, drive: Ints, step: Ints, slot: Ints) -> Bools:
    ego, others = trace.ego, trace.others
    standing = np.abs(ego.speed_mps[drive, step]) <= STOPPED_MPS
    other_stands = (others.kind[drive, step, slot] == STATIC) | (
        np.abs(others.speed_mps[drive, step, slot]) <= STOPPED_MPS
    )
    behind = bearings(trace, drive, step, slot, step) > BEHIND_RAD
    pose = (ego.x_m[drive, step], ego.y_m[drive, step], ego.heading_rad[drive, step])
    frontal = boxes.touch(boxes.front_edges(trace.body, *pose), boxes.of_others(others).at(drive, step, slot))
    lateral = outside_lane(trace)[drive, step]
    return np.asarray(~standing & (other_stands | (~behind & (frontal | lateral))))
