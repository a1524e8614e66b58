"""Who goes first, and how much room is left: what a careful driver makes of a cast, as numbers to drive by.

Pure functions over B vehicles, but for one thing to remember: an overtaking that was begun is finished.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulation.arrays import Bools, Floats, Ints
from simulation.cast import Bodies, Cast, Ego
from simulation.dynamics import FRONT_M, REAR_M
from simulation.encounters import DOOR_M, Behaviour
from simulation.hazards import KEEP_LANE, LET_PASS, LIMIT_HEADWAY_S, PASS, TAILGATED, Hazards, Swerve
from simulation.places import HALF_WIDTH_M
from simulation.roads import Roads
from simulation.traffic import FAR_M, Lines

CAREFUL_S, STRICT_S = 1.0, -0.2
"""Time to spare between oneself and who has right of way: what the expert leaves, and the safety driver asks."""
BRAKES_MPS2 = 3.0
"""Who cannot stop with this any more goes on."""
PASSING_FROM_M = 30.0
"""An overtaking is thought of this far before it."""
TIGHT_M = 0.8
"""Nearer to a cyclist than this is too near: half of the Highway Code's 1.5 m (rule 163)."""
BLOCKED_M = 30.0
"""An emergency vehicle so near behind is held up by who does not draw aside."""
STEER_BACK_MPS = 0.5
PATIENCE_S = 6.0
"""For so long an emergency vehicle may be held up."""
RUSH_SEEN_M, DRIFT_SEEN_M = 60.0, 80.0


@dataclass(frozen=True, slots=True)
class Zone:
    """What is to be passed on the vehicle's lane, [B]; `from_s` is FAR_M where nothing is."""

    from_s: Floats
    to_s: Floats
    v: Floats
    out_m: Floats
    """Where the vehicle's middle has to be, from the middle of its lane outwards: negative, towards the others."""
    crosses: Bools
    """Whether the vehicle must get into the other lane for it."""

    @property
    def ramp_m(self) -> Floats:
        """Length over which to steer out, and back."""
        return np.asarray(10.0 + 3.5 * np.abs(self.out_m))

    @property
    def swerve_from_s(self) -> Floats:
        """Where the rear axle is aside in full."""
        return np.asarray(self.from_s - FRONT_M - 2.0)

    @property
    def swerve_to_s(self) -> Floats:
        """Until where it is."""
        return np.asarray(self.to_s + REAR_M + 2.0)


class Priority:
    """What B vehicles owe their casts."""

    def __init__(self, cast: Cast, roads: Roads, lines: Lines) -> None:
        self.cast, self.roads, self.lines = cast, roads, lines
        self.passing = np.zeros(len(cast.lane_d), bool)
        self.blocked_s = np.zeros(len(cast.lane_d))
        self.low, self.high = cast.lane_d.copy(), cast.lane_d.copy()
        """Least and greatest d, [B], at which the vehicle may drive."""
        wet = [scene.rain > 0 or scene.snow > 0 for scene in cast.scenes]
        self.wet = np.array(wet)

    def step(self, dt_s: float, ego: Ego) -> None:
        """Begins and ends overtakings, counts for how long an emergency vehicle is held up, and tells where the
        vehicle may drive: that narrows no faster than one steers back."""
        low, high = self._band(ego)
        self.low = np.minimum(low, self.low + STEER_BACK_MPS * dt_s)
        self.high = np.maximum(high, self.high - STEER_BACK_MPS * dt_s)
        zone = zone_of(self.cast)
        near = _relevant(zone, ego)
        begins = near & zone.crosses & self._free(zone, ego)
        self.passing = (self.passing | begins) & near & (ego.s < zone.swerve_to_s)
        aside = -self.cast.side * (ego.d - self.cast.lane_d) > self.cast.pull_m / 2
        behind = ego.s[:, None] - self.cast.s
        rush = self.cast.plays(Behaviour.RUSH) & (behind > 0) & (behind < BLOCKED_M)
        self.blocked_s = np.where(rush.any(1) & ~aside, self.blocked_s + dt_s, 0.0)

    @property
    def holds_up(self) -> Bools:
        """Whether an emergency vehicle has been held up for too long, [B]."""
        return self.blocked_s > PATIENCE_S

    def swerve(self, ego: Ego) -> Swerve:
        """How far aside the vehicle should drive, and where."""
        cast, zone = self.cast, zone_of(self.cast)
        active = _relevant(zone, ego) & (self.passing | ~zone.crosses)
        pull = self._pulls(ego)
        shift = np.where(active, -cast.side * zone.out_m, np.where(pull, -cast.side * cast.pull_m, 0.0))
        return Swerve(
            from_s=np.where(active, zone.swerve_from_s, -FAR_M),
            to_s=np.where(active, zone.swerve_to_s, 2 * FAR_M),
            v=np.where(active, zone.v, 0.0),
            shift_m=shift,
            ramp_m=np.where(active, zone.ramp_m, 1.0),
        )

    def _band(self, ego: Ego) -> tuple[Floats, Floats]:
        """Lateral places, least and greatest d, [B], at which the vehicle may drive here."""
        cast, zone = self.cast, zone_of(self.cast)
        out = np.where(_relevant(zone, ego), zone.out_m, 0.0)
        aside = np.where(cast.plays(Behaviour.RUSH, Behaviour.DRIFT).any(1), cast.pull_m, 0.0)
        ends = np.stack([cast.lane_d, cast.lane_d - cast.side * out, cast.lane_d - cast.side * aside])
        return ends.min(0), ends.max(0)

    def hazards(self, ego: Ego, limit: Floats) -> Hazards:
        """What binds the vehicle's speed."""
        cast, zone, front = self.cast, zone_of(self.cast), ego.s + FRONT_M
        line = cast.line_s - front
        can_stop = ego.v**2 < 2 * BRAKES_MPS2 * np.maximum(line, 0.1)
        yields = self.conflict(ego, CAREFUL_S) & (line > -0.5) & can_stop & (line < 80)
        people = cast.plays(Behaviour.WALK).any(1)
        holds = _relevant(zone, ego) & zone.crosses & ~self.passing & (front < zone.from_s)
        room = np.where(zone.v > 0.5, 8.0, zone.ramp_m)
        body_gap, body_v, meets_gap, meets_v = self._in_the_way(ego)
        cap, rule = self._cap(ego, limit, zone)
        return Hazards(
            give_way_gap=np.where(yields & ~people, line, FAR_M),
            crossing_gap=np.where(yields & people, line, FAR_M),
            body_gap=body_gap,
            body_v=body_v,
            oncoming_gap=meets_gap,
            oncoming_v=meets_v,
            hold_gap=np.where(holds, zone.from_s - front - room, FAR_M),
            hold_v=np.where(holds, zone.v, 0.0),
            cap_mps=cap,
            cap_rule=rule,
            headway_s=np.where(self.wet, 2 * LIMIT_HEADWAY_S, np.where(rule == TAILGATED, 2.0, LIMIT_HEADWAY_S)),
        )

    def conflict(self, ego: Ego, spare_s: float) -> Bools:
        """Whether someone with right of way over the vehicle needs the same place within `spare_s`, [B]."""
        return np.asarray(self.in_conflict(ego, spare_s).any(1))

    def in_conflict(self, ego: Ego, spare_s: float) -> Bools:
        """Who of the cast that is, [B, CAST]."""
        cast, front, v = self.cast, ego.s + FRONT_M, ego.v[:, None]
        enters, leaves, from_s, to_s = np.moveaxis(cast.zone, -1, 0)
        walks = cast.plays(Behaviour.WALK)
        mine = cast.on_path & cast.must_give_way[:, None] & (cast.plays(Behaviour.CROSS) | walks)
        mine &= np.isfinite(enters) & (cast.p < leaves)
        pace = np.maximum(np.where(walks, cast.wish, cast.v), 0.5)
        waits = walks & ~cast.started & (spare_s > 0)
        mine &= ~walks | waits | cast.started
        far = np.where(mine, np.minimum(from_s, FAR_M) - front[:, None], FAR_M)
        out = np.where(mine, np.minimum(to_s, FAR_M) + FRONT_M - front[:, None], FAR_M)
        cap = self.roads.at(self.roads.speed_cap, np.where(mine, np.minimum(from_s, FAR_M), 0.0))
        mine_in, mine_out = _takes_s(far, v, cap), _takes_s(out, v, cap)
        # Nobody slips past before people who are on their way.
        theirs_in = np.where(walks & (spare_s > 0), 0.0, (enters - cast.p) / pace)
        theirs_out = np.where(waits, FAR_M, (np.where(mine, leaves, 0.0) - cast.p) / pace)
        overlap = (mine_in - spare_s < theirs_out) & (mine_out + spare_s > theirs_in)
        return np.asarray(mine & overlap)

    def too_close(self, ego: Ego) -> Bools:
        """Whether the vehicle is beside a cyclist with too little room, [B]."""
        cast = self.cast
        middle = ego.s + (FRONT_M - REAR_M) / 2
        beside = np.abs(cast.s - middle[:, None]) < (FRONT_M + REAR_M + cast.size[..., 0]) / 2
        room = np.abs(cast.d - ego.d[:, None]) - cast.size[..., 1] / 2 - HALF_WIDTH_M
        return np.asarray((cast.plays(Behaviour.RIDE) & beside & (room < TIGHT_M)).any(1))

    def _free(self, zone: Zone, ego: Ego) -> Bools:
        """Whether an overtaking begun now would be over before anyone comes or a line is reached."""
        cast = self.cast
        cap = self.roads.at(self.roads.speed_cap, ego.s)
        pace = np.maximum(ego.v, np.minimum(cap, 6.5)) - 0.5
        takes = (zone.swerve_to_s + zone.ramp_m / 2 - ego.s) / np.maximum(pace - zone.v, 0.5)
        done = ego.s + pace * takes
        comes = cast.plays(Behaviour.MEET) & (cast.s > ego.s[:, None] - 3.0)
        near = cast.s - cast.size[..., 0] / 2 - (cast.wish * takes[:, None]) < done[:, None] + 14.0
        _, line_s, kind = self.lines.next(ego.s + FRONT_M)
        line = (kind != 0) & (line_s < done + 12.0)
        return np.asarray(~(comes & near).any(1) & ~line)

    def _pulls(self, ego: Ego) -> Bools:
        """Whether to draw aside: for who comes from behind in haste, or towards one in one's lane."""
        cast = self.cast
        behind = ego.s[:, None] - cast.s
        rush = cast.plays(Behaviour.RUSH) & (behind < RUSH_SEEN_M) & (behind > -10.0)
        own_d = cast.lane_d[:, None] - cast.side[:, None] * cast.out
        drift = cast.plays(Behaviour.DRIFT) & (np.abs(cast.d - own_d) > 0.3)
        drift &= (behind < 3.0) & (behind > -DRIFT_SEEN_M)
        return np.asarray((rush | drift).any(1))

    def _cap(self, ego: Ego, limit: Floats, zone: Zone) -> tuple[Floats, Ints]:
        """A speed not to exceed, and the rule that says so."""
        cast = self.cast
        narrow = _relevant(zone, ego) & (zone.v < 0.5) & (self.passing | ~zone.crosses)
        overtakes = _relevant(zone, ego) & (zone.v > 0.5) & self.passing
        tailed = cast.plays(Behaviour.CHASE) & (ego.s[:, None] - cast.s < 20.0)
        rush = cast.plays(Behaviour.RUSH).any(1) & self._pulls(ego)
        wet = np.where(self.wet, 0.85 * limit, FAR_M)
        cases = (
            (rush, np.full_like(limit, 3.0), LET_PASS),
            (narrow, np.full_like(limit, 6.0), PASS),
            (overtakes, limit, PASS),
            (tailed.any(1), 0.9 * limit, TAILGATED),
        )
        cap, rule = wet, np.full(len(limit), KEEP_LANE)
        for where, speed, number in reversed(cases):
            cap, rule = np.where(where, np.minimum(speed, wet), cap), np.where(where, number, rule)
        return cap, rule

    def _in_the_way(self, ego: Ego) -> tuple[Floats, Floats, Floats, Floats]:
        """Gap to, and speed of, the nearest body ahead on the vehicle's own track; and the same for who comes
        towards it there."""
        cast, bodies = self.cast, self.cast.bodies()
        gap, ahead, meets = self.on_track(ego, bodies)
        body_gap, body_v = _nearest(gap, np.maximum(bodies.v, 0.0), ahead)
        crossing = np.minimum(cast.contacts(ego)[1].min(1), FAR_M)
        nearer = crossing < body_gap
        body_gap, body_v = np.where(nearer, crossing, body_gap), np.where(nearer, 0.0, body_v)
        return body_gap, body_v, *_nearest(gap, bodies.v, meets)

    def on_track(self, ego: Ego, bodies: Bodies) -> tuple[Floats, Bools, Bools]:
        """The gap in m to every body of the cast; which of them are ahead on the vehicle's own track, and which
        come towards it there; [B, CAST + 1] each."""
        cast = self.cast
        track = cast.lane_d[:, None] + self.swerve(ego).at(bodies.s, 0.0)[0]
        gap = bodies.s - bodies.half_s - (ego.s + FRONT_M)[:, None]
        inside = np.abs(bodies.d - track) < bodies.half_d + HALF_WIDTH_M + 0.1
        inside &= ~_with_closed(cast.on_path & (cast.p < cast.zone[..., 1]))
        ahead = bodies.there & inside & (gap > -(2 * bodies.half_s + 2.0)) & (gap < 100.0)
        ahead &= ~_held_for(cast, bodies)
        meets = _with_closed(cast.plays(Behaviour.MEET, Behaviour.DRIFT)) & (bodies.v < -0.5)
        return gap, ahead & ~meets, ahead & meets


def zone_of(cast: Cast) -> Zone:
    """What there is to pass."""
    whom = cast.plays(Behaviour.RIDE, Behaviour.DOOR)
    half = cast.size[..., 0] / 2
    from_s = np.minimum(cast.closed[:, 0], np.where(whom, cast.s - half, FAR_M).min(1))
    to_s = np.where(cast.closed[:, 1] < FAR_M / 2, cast.closed[:, 1], np.where(whom, cast.s + half, -FAR_M).max(1))
    door = np.where(cast.plays(Behaviour.DOOR), DOOR_M, 0.0)
    edge = np.where(whom, cast.out - cast.size[..., 1] / 2 - door, FAR_M).min(1)
    inner = np.where(cast.closed[:, 1] < FAR_M / 2, 0.35 - cast.lane_m / 2, edge)
    there = cast.passing_m > 0
    out = np.where(there, inner - cast.passing_m - HALF_WIDTH_M, 0.0)
    return Zone(
        from_s=np.where(there, from_s, FAR_M),
        to_s=np.where(there, to_s, FAR_M),
        v=np.where(cast.plays(Behaviour.RIDE), cast.v, 0.0).max(1),
        out_m=np.minimum(out, 0.0),
        crosses=out - HALF_WIDTH_M < -cast.lane_m / 2 - 0.25,
    )


def _relevant(zone: Zone, ego: Ego) -> Bools:
    begin = zone.swerve_from_s - zone.ramp_m - PASSING_FROM_M
    return np.asarray((ego.s > begin) & (ego.s < zone.swerve_to_s + zone.ramp_m) & (zone.out_m < 0))


def _held_for(cast: Cast, bodies: Bodies) -> Bools:
    """Bodies that `hold` already speaks of."""
    zone = zone_of(cast)
    inside = (bodies.s > zone.from_s[:, None] - 0.5) & (bodies.s < zone.to_s[:, None] + 0.5)
    return np.asarray(inside & (bodies.v > -0.5) & (cast.passing_m > 0)[:, None])


def _with_closed(cells: Bools) -> Bools:
    """[B, CAST] as [B, CAST + 1], false for the closed stretch."""
    return np.concatenate([cells, np.zeros((len(cells), 1), bool)], 1)


def _takes_s(metres: Floats, v: Floats, cap: Floats) -> Floats:
    """Seconds for so many metres when accelerating gently from `v` towards `cap`."""
    end = np.maximum(np.minimum(np.sqrt(v**2 + 2.0 * np.maximum(metres, 0.0)), cap), 0.5)
    return np.asarray(np.maximum(metres, 0.0) / np.maximum((v + end) / 2, 0.5))


def _nearest(gap: Floats, v: Floats, where: Bools) -> tuple[Floats, Floats]:
    gaps = np.where(where, gap, FAR_M)
    at = gaps.argmin(1)
    rows = np.arange(len(gaps))
    return gaps[rows, at], np.where(where.any(1), v[rows, at], 0.0)
