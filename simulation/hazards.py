"""What a cast asks of a driver, as the expert's rules and numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulation.arrays import Floats, Ints
from simulation.traffic import FAR_M, idm, stopping

KEEP_LANE, CURVE, FOLLOW_LEAD, CUT_IN, STOP_SIGN, RED_LIGHT, PEDESTRIAN = range(7)
GIVE_WAY, CROSSING, OBSTRUCTED, ONCOMING, HOLD, PASS, LET_PASS, TAILGATED = range(7, 15)
RULES: tuple[str, ...] = (
    "keep lane",
    "slow for curve",
    "follow lead",
    "give way to cut-in",
    "stop at sign",
    "stop at light",
    "stop for pedestrian",
    "give way at junction",
    "give way at crossing",
    "stop for obstruction",
    "keep clear of oncoming",
    "wait to pass",
    "pass with room",
    "let emergency vehicle pass",
    "leave room when tailgated",
)
"""What a rule number means. The first seven are all that the first loop's conditions need."""
LIMIT_HEADWAY_S = 1.3
"""Headway of the expert on a dry road, as traffic.idm's; twice that on a wet one (Highway Code, rule 126)."""


@dataclass(frozen=True, slots=True)
class Hazards:
    """What of a cast may bind the speed of B vehicles, [B]; gaps in m from the bumper, FAR_M where absent."""

    give_way_gap: Floats
    crossing_gap: Floats
    body_gap: Floats
    body_v: Floats
    oncoming_gap: Floats
    oncoming_v: Floats
    hold_gap: Floats
    hold_v: Floats
    cap_mps: Floats
    cap_rule: Ints
    """The rule behind `cap_mps`, or KEEP_LANE."""
    headway_s: Floats

    def accelerations(self, v: Floats, limit: Floats, t_s: float, moved_m: Floats) -> list[Floats]:
        """What each rule from GIVE_WAY to HOLD, and the cap, would have a vehicle do, [B] each; inf where it does
        not apply, so that it cannot bind."""
        return [
            _there(self.give_way_gap, stopping(v, self.give_way_gap - moved_m - 1.0)),
            _there(self.crossing_gap, stopping(v, self.crossing_gap - moved_m - 1.0)),
            _there(self.body_gap, idm(v, limit, self.body_gap + self.body_v * t_s - moved_m, self.body_v)),
            _there(self.oncoming_gap, self._braking(v, t_s, moved_m)),
            _there(self.hold_gap, idm(v, limit, self.hold_gap + self.hold_v * t_s - moved_m, self.hold_v)),
            _there(self.cap_mps, np.clip((self.cap_mps - v) / 0.8, -2.0, 1.6)),
        ]

    def _braking(self, v: Floats, t_s: float, moved_m: Floats) -> Floats:
        """Towards someone who comes: steadily, the harder the sooner one would meet."""
        gap = self.oncoming_gap + self.oncoming_v * t_s - moved_m
        meets_s = np.maximum(gap, 0.1) / np.maximum(v - self.oncoming_v, 0.5)
        wanted = np.where(meets_s < 5.0, -4.0, np.where(meets_s < 7.0, -1.5, 1.6))
        return np.where(v < 0.3, np.minimum(wanted, 0.0), wanted)


def _there(gap: Floats, accel: Floats) -> Floats:
    return np.where(gap < FAR_M / 2, accel, np.inf)


@dataclass(frozen=True, slots=True)
class Swerve:
    """A shift of B vehicles' track: `shift_m` (to the left) between two places that move at `v`, over ramps."""

    from_s: Floats
    to_s: Floats
    v: Floats
    shift_m: Floats
    ramp_m: Floats

    def at(self, s: Floats, t_s: Floats | float) -> tuple[Floats, Floats]:
        """The shift at `s` [B, K] and time `t_s` from now (broadcast), and its slope along the road."""
        here = s - self.v[:, None] * t_s
        ramp, shift = self.ramp_m[:, None], self.shift_m[:, None]
        out = np.clip((here - self.from_s[:, None]) / ramp + 1.0, 0.0, 1.0)
        back = np.clip((here - self.to_s[:, None]) / ramp, 0.0, 1.0)
        share = _smooth(out) - _smooth(back)
        slope = (6 * out * (1 - out) - 6 * back * (1 - back)) / ramp
        return shift * share, shift * slope


def _smooth(u: Floats) -> Floats:
    return np.asarray(u * u * (3 - 2 * u))
