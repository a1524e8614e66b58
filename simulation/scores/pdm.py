"""PDM scores of NAVSIM (autonomousvision/navsim docs/metrics.md, pdm_scorer.py): PDMS of its first version, EPDMS
of its second, over 4 s at 10 Hz.

PDMS = NC · DAC · (5·TTC + 5·EP + 2·C) / 12
EPDMS = NC · DAC · DDC · TLC · (5·EP + 5·TTC + 2·LK + 2·HC + 2·EC) / 16

In EPDMS a term that the expert also failed (0) counts as 1. Progress is relative to the expert's. A trace scored
here is either what was driven, cut by `trace.windows`, or what `tracking.follow` makes of a plan.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from simulation.arrays import Floats
from simulation.scores import comfort
from simulation.scores.collisions import collisions
from simulation.scores.terms import Scored, Term, combined, gates, measured, recent_sum, share, stepped
from simulation.scores.time_to_collision import foreseen
from simulation.scores.trace import STATIC, Trace

HORIZON_STEPS = 40
"""4 s; a trace of it has one step more."""
HISTORY_STEPS = 15
"""1.5 s before, that comfort looks back on."""
LEAST_PROGRESS_M = 5.0
"""Where nobody comes further, progress is not asked for."""
WRONG_WAY_M = (2.0, 6.0)
"""Metres within WRONG_WAY_STEPS off the route's lanes below which all is well, and below which half is."""
WRONG_WAY_STEPS = 10
LANE_M = 0.5
LANE_STEPS = 20
"""So many steps in a row further than LANE_M from the lane's middle are a failure."""


def no_collision(trace: Trace) -> Floats:
    """NC: 0 after an at-fault collision with a road user, a half after one with an object only."""
    crash, score = collisions(trace), np.ones(len(trace))
    at = crash.at_fault
    np.minimum.at(score, crash.drive[at], np.where(crash.kind[at] == STATIC, 0.5, 0.0))
    return score


def drivable(trace: Trace) -> Floats:
    """DAC: no corner ever left the drivable area."""
    return share((trace.place.overhang_m <= 0).all(1))


def direction(trace: Trace) -> Floats:
    """DDC: metres moved outside of the route's lanes within a second, junctions aside."""
    moved = np.zeros_like(trace.ego.x_m)
    moved[:, 1:] = np.hypot(*np.diff(_centre(trace), axis=-1))
    against = np.where(trace.place.wrong_way & ~trace.place.junction, moved, 0.0)
    return stepped(recent_sum(against, WRONG_WAY_STEPS).max(1), *WRONG_WAY_M)


def lights(trace: Trace) -> Floats:
    """TLC: no red light was passed."""
    return share(~trace.events.ran_red.any(1))


def time_to_collision(trace: Trace) -> Floats:
    """TTC: nobody ahead would have been hit within a second."""
    return share(~foreseen(trace))


def lane_keeping(trace: Trace) -> Floats:
    """LK: never 2 s on end further than half a metre from the lane's middle. A junction neither counts nor ends
    such a stretch."""
    off, run = np.abs(trace.place.d_m) > LANE_M, np.zeros(len(trace))
    longest = run
    for step in range(trace.steps):
        run = np.where(trace.place.junction[:, step], run, np.where(off[:, step], run + 1, 0))
        longest = np.maximum(longest, run)
    return share(longest < LANE_STEPS)


def comfort_of_drive(trace: Trace) -> Floats:
    """C: within the bounds of comfort, by itself."""
    return share(comfort.comfortable(trace.ego))


def history_comfort(trace: Trace) -> Floats:
    """HC: within them together with what was driven before."""
    return share(comfort.comfortable(comfort.after(trace.history, trace.ego)))


def extended_comfort(trace: Trace) -> Floats:
    """EC: the plan of the frame before would have felt alike; NaN where there is none."""
    before = trace.planned_before
    if before is None:
        return np.full(len(trace), np.nan)
    overlap = before.x_m.shape[1]
    now = type(before)(*(getattr(trace.ego, name)[:, :overlap] for name in before.__slots__))
    return share(comfort.steady(now, before))


def progress_m(trace: Trace) -> Floats:
    """Metres along the route, 0 for going back."""
    return np.maximum(trace.place.s_m[:, -1] - trace.place.s_m[:, 0], 0.0)


EP = "progress"
PDMS: dict[str, Term] = {
    "no_collision": Term(no_collision),
    "drivable": Term(drivable),
    "time_to_collision": Term(time_to_collision, 5.0),
    EP: Term(progress_m, 5.0),
    "comfort": Term(comfort_of_drive, 2.0),
}
EPDMS: dict[str, Term] = {
    "no_collision": Term(no_collision),
    "drivable": Term(drivable),
    "direction": Term(direction),
    "lights": Term(lights),
    EP: Term(progress_m, 5.0),
    "time_to_collision": Term(time_to_collision, 5.0),
    "lane_keeping": Term(lane_keeping, 2.0),
    "history_comfort": Term(history_comfort, 2.0),
    "extended_comfort": Term(extended_comfort, 2.0),
}
"""EP's entries measure metres; `relative_progress` makes the term of them."""


def pdms(drive: Trace, expert: Trace) -> Scored:
    """The PDM score of B drives against the expert's of the same scenes. Raises ValueError for another number of
    drives."""
    own, theirs = _measured(PDMS, drive, expert)
    return combined(PDMS, own | {EP: relative_progress(PDMS, own, theirs)})


def epdms(drive: Trace, expert: Trace) -> Scored:
    """The extended PDM score likewise."""
    own, theirs = _measured(EPDMS, drive, expert)
    progress = relative_progress(EPDMS, own, theirs)
    forgiven = {name: np.where(theirs[name] == 0, 1.0, own[name]) for name in own}
    return combined(EPDMS, forgiven | {EP: progress})


def relative_progress(
    table: Mapping[str, Term], own: Mapping[str, Floats], theirs: Mapping[str, Floats]
) -> Floats:
    """EP, [B]: metres over the most that either made without breaking a rule; 1 where those are few."""
    most = np.maximum(own[EP] * gates(table, own), theirs[EP] * gates(table, theirs))
    return np.where(most > LEAST_PROGRESS_M, np.clip(own[EP] / np.maximum(most, LEAST_PROGRESS_M), 0.0, 1.0), 1.0)


def _measured(
    table: Mapping[str, Term], drive: Trace, expert: Trace
) -> tuple[dict[str, Floats], dict[str, Floats]]:
    if len(drive) != len(expert):
        raise ValueError(f"{len(drive)} drives but {len(expert)} of the expert: one for each is needed")
    return measured(table, drive), measured(table, expert)


def _centre(trace: Trace) -> Floats:
    """Of the boxes, [2, B, T]."""
    forward, heading = trace.body.centre_m, trace.ego.heading_rad
    return np.stack([trace.ego.x_m + forward * np.cos(heading), trace.ego.y_m + forward * np.sin(heading)])
