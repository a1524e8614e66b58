"""Everyone else on the road: lead cars, oncoming cars, cars that cut in, pedestrians, lights.

Every road user lives in the road's Frenet coordinates and stays within reach of its vehicle: who falls
behind comes back ahead, so a world never empties.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from simulation.arrays import Bools, Floats, Ints, chance
from simulation.regions import Phases
from simulation.roads import PERIOD_M, Roads
from simulation.scenarios import LIGHT_LINE, LINES, STOP_LINE, Scene

CAR_LENGTH_M, CAR_WIDTH_M = 4.6, 1.9
LEAD, CUT_IN, ONCOMING = 0, 1, 2
"""Columns of the car arrays: one lead, one that cuts in, and from column 2 on the oncoming ones."""
CARS = 4
PEOPLE = 2
GREEN, AMBER, RED, RED_AMBER = range(4)
LIGHT_CYCLE_S = Phases().cycle_s
"""Of a light where a region says nothing else."""
CROSSING_SHARE = 0.45
"""Share of the people at the kerb who cross; the others stay there."""
FAR_M = 1e6
"""Where absent road users are kept."""

STOP_BRAKING = 2.0
"""Deceleration towards a line or a pedestrian, m/s²."""
STOP_EASING = 0.8
"""Speed per metre left over the last metres, 1/s."""

WAITING, MERGING = 0, 1
"""What a car that cuts in is doing; a pedestrian waits or (1) walks."""


def idm(v: Floats, desired: Floats, gap: Floats, front_v: Floats, headway_s: Floats | float = 1.3) -> Floats:
    """Acceleration of the Intelligent Driver Model (Treiber, Hennecke, Helbing, 2000), m/s², broadcast. Who
    is faster than desired brakes with 2.1 m/s² at most, as long as nobody is ahead."""
    gap = np.maximum(gap, 0.1)
    wished = 3.0 + np.maximum(v * headway_s + v * (v - front_v) / (2 * np.sqrt(1.6 * 2.0)), 0.0)
    free = 1 - (v / np.maximum(desired, 0.1)) ** 4
    return np.asarray(np.clip(1.6 * (np.maximum(free, -1.3) - (wished / gap) ** 2), -7.0, 1.6))


def stopping(v: Floats, gap: Floats) -> Floats:
    """Acceleration that comes to rest after `gap` metres: steady braking, let off over the last metres, where
    speed falls with the distance left. The two parts of the profile meet in speed and in deceleration."""
    meet = STOP_BRAKING / STOP_EASING**2
    steady = np.sqrt(2 * STOP_BRAKING * np.maximum(gap - meet / 2, 0.0))
    easing = gap < meet
    profile = np.where(easing, STOP_EASING * np.maximum(gap, 0.0), steady)
    braking = np.where(easing, STOP_EASING * profile, STOP_BRAKING * (gap < 60))
    return np.asarray(np.clip((profile - v) / 0.4 - braking, -7.0, 3.0))


class Lines:
    """Stop lines and lights of B scenes, numbered without end along each road."""

    def __init__(self, scenes: Sequence[Scene]) -> None:
        self.seed = np.array([scene.seed for scene in scenes])
        self.s = np.stack([scene.line_s_m for scene in scenes])
        self.kind = np.stack([scene.line_kind for scene in scenes])
        self._row = np.arange(len(self.s))
        phases = [scene.phases for scene in scenes]
        self._cycle = np.array([p.cycle_s for p in phases])
        self._amber = np.array([p.green_s for p in phases])
        self._red = np.array([p.green_s + p.amber_s for p in phases])
        self._red_amber = np.array([p.cycle_s - p.red_amber_s for p in phases])

    def next(self, s: Floats) -> tuple[Ints, Floats, Ints]:
        """The first line beyond `s`, [B]: its number, its s in m and its kind."""
        turn = np.floor(s / PERIOD_M).astype(np.int64)
        passed = (self.s <= (s - turn * PERIOD_M)[:, None]).sum(1)
        number = turn * LINES + passed
        return number, self.position(number), self.kind[self._row, number % LINES]

    def position(self, number: Ints) -> Floats:
        """s of line `number`, [B], m."""
        return np.asarray(self.s[self._row, number % LINES] + number // LINES * PERIOD_M)

    def kind_of(self, number: Ints) -> Ints:
        """Kind of line `number`, [B]."""
        return np.asarray(self.kind[self._row, number % LINES])

    def colour(self, number: Ints, time_s: float) -> Ints:
        """GREEN, AMBER, RED or RED_AMBER of the light at line `number`, [B]; meaningless at other lines."""
        phase = self.phase_s(number, time_s)
        stop = np.where(phase < self._red_amber, RED, RED_AMBER)
        return np.where(phase < self._amber, GREEN, np.where(phase < self._red, AMBER, stop))

    def phase_s(self, number: Ints, time_s: float) -> Floats:
        """Since the light at line `number` last turned green, [B], s."""
        return np.asarray((time_s + chance(self.seed, number, 11) * self._cycle) % self._cycle)

    def red_s(self, number: Ints, time_s: float) -> tuple[Floats, Floats]:
        """How long the light at line `number` has been red, and how long it will yet, [B], s; the first is
        negative before."""
        phase = self.phase_s(number, time_s)
        return phase - self._red, self._cycle - phase

    def must_stop(self, number: Ints, gap: Floats, v: Floats, time_s: float, stopped_at: Ints) -> Bools:
        """Whether line `number`, `gap` metres ahead of a car at `v`, asks it to stop, [B]. An amber light
        does while 2.8 m/s² suffices; a stop sign does until the car has stood there."""
        kind, colour = self.kind_of(number), self.colour(number, time_s)
        can_stop = v**2 < 2 * 2.8 * np.maximum(gap, 0.1)
        light = (kind == LIGHT_LINE) & ((colour >= RED) | ((colour == AMBER) & can_stop))
        return np.asarray(light | ((kind == STOP_LINE) & (stopped_at != number)))


class Traffic:
    """The road users around B vehicles."""

    def __init__(self, scenes: Sequence[Scene], roads: Roads, lines: Lines, ego_s: Floats) -> None:
        count = len(scenes)
        self.roads, self.lines = roads, lines
        self.seed = lines.seed
        self.side = np.array([float(scene.region.side) for scene in scenes])
        self.lane_m = np.array([scene.lane_width_m for scene in scenes])
        self.limit = np.array([scene.limit_mps for scene in scenes])
        self.lead_probability = np.array([scene.condition.lead_probability for scene in scenes])
        self.oncoming = np.array([scene.condition.oncoming for scene in scenes])
        self.has_cut_in = np.array([scene.condition.cut_ins > 0 for scene in scenes])
        self.people = np.array([scene.condition.pedestrians for scene in scenes])
        self.car_s = np.full((count, CARS), FAR_M)
        self.car_d = np.zeros((count, CARS))
        self.car_v = np.zeros((count, CARS))
        self.car_a = np.zeros((count, CARS))
        self.spawns = np.zeros((count, CARS), np.int64)
        self.lead_stopped_at = np.full(count, -1)
        self.lead_wait_s = chance(self.seed, 1) * 8.0
        self.spares_lead = True
        """The lead is pushed on instead of being touched: no recovery begins inside of it. False where it is to be
        seen who touches whom."""
        self.cut_phase = np.zeros(count, np.int64)
        self.cut_left_s = np.zeros(count)
        self.person_s = np.full((count, PEOPLE), FAR_M)
        self.person_d = np.zeros((count, PEOPLE))
        self.person_v = np.zeros((count, PEOPLE))
        self.person_walks = np.zeros((count, PEOPLE), bool)
        self.person_spawns = np.zeros((count, PEOPLE), np.int64)
        self._respawn(ego_s, 30.0)

    @property
    def lane_d(self) -> Floats:
        """Middle of the vehicle's lane, [B]."""
        return np.asarray(-self.side * self.lane_m / 2)

    def step(self, dt_s: float, time_s: float, ego_s: Floats, ego_v: Floats) -> None:
        """Moves everyone by `dt_s`."""
        self._drive_lead(dt_s, time_s)
        self._drive_cut_in(dt_s, ego_s, ego_v)
        self.car_v[:, ONCOMING:] = self._oncoming_speed()
        self.car_s += self.car_v * dt_s
        if self.spares_lead:
            self.car_s[:, LEAD] = np.maximum(self.car_s[:, LEAD], ego_s + 6.6)
        self._walk(dt_s, ego_s, ego_v)
        self.lead_wait_s -= dt_s
        self._respawn(ego_s, 45.0)

    def in_lane(self, car: int) -> Bools:
        """Whether that car is in the vehicle's lane, or on its way into it, [B]."""
        overlap = np.abs(self.car_d[:, car] - self.lane_d) < (self.lane_m + CAR_WIDTH_M) / 2 - 0.3
        return np.asarray((self.car_s[:, car] < FAR_M / 2) & overlap)

    def person_matters(self) -> Bools:
        """Whether a walking person is in the vehicle's lane or on the way there, [B, PEOPLE]."""
        beyond = (self.person_d - self.lane_d[:, None]) * np.sign(self.person_v)
        return np.asarray(self.person_walks & (beyond < self.lane_m[:, None] / 2 + 0.3))

    def _drive_lead(self, dt_s: float, time_s: float) -> None:
        s, v = self.car_s[:, LEAD], self.car_v[:, LEAD]
        front = s + CAR_LENGTH_M / 2
        number, line_s, _ = self.lines.next(front)
        gap = line_s - front
        stop = self.lines.must_stop(number, gap, v, time_s, self.lead_stopped_at)
        self.lead_stopped_at = np.where((gap < 3.0) & (v < 0.3), number, self.lead_stopped_at)
        accel = idm(v, self._lead_wish(time_s), np.full_like(v, FAR_M), v)
        accel = np.where(stop, np.minimum(accel, stopping(v, gap - 1.0)), accel)
        self._accelerate(LEAD, accel, dt_s)

    def _lead_wish(self, time_s: float) -> Floats:
        """A mood that changes every few seconds; now and then the lead stops for no visible reason."""
        block = np.floor(time_s / 5.0 + chance(self.seed, 2)).astype(np.int64)
        mood = chance(self.seed, block, 3)
        wish = np.where(mood < 0.08, 0.2, (0.55 + 0.5 * mood) * self.limit)
        return np.minimum(wish, self.roads.at(self.roads.speed_cap, self.car_s[:, LEAD]))

    def _drive_cut_in(self, dt_s: float, ego_s: Floats, ego_v: Floats) -> None:
        s, v = self.car_s[:, CUT_IN], self.car_v[:, CUT_IN]
        gap = s - CAR_LENGTH_M / 2 - ego_s - 3.8
        starts = 8.5 + 6.0 * chance(self.seed, self.spawns[:, CUT_IN], 4)
        merge = (self.cut_phase == WAITING) & (gap < starts) & (gap > 4.0) & (ego_v > 2.5)
        self.cut_phase = np.where(merge, MERGING, self.cut_phase)
        self.cut_left_s = np.where(merge, 7.0, self.cut_left_s - dt_s)
        offset = self.lane_d - self.car_d[:, CUT_IN]
        moving = self.cut_phase != WAITING
        self.car_d[:, CUT_IN] += np.where(moving, np.clip(offset, -1.7 * dt_s, 1.7 * dt_s), 0.0)
        cap = self.roads.at(self.roads.speed_cap, s)
        slow, hurry = 0.5 * self.limit, 1.5 * self.limit
        wish = np.minimum(np.where(moving & (self.cut_left_s < 0), hurry, slow), cap)
        ahead = np.where(self.car_s[:, LEAD] > s, self.car_s[:, LEAD] - s - CAR_LENGTH_M, FAR_M)
        self._accelerate(CUT_IN, idm(v, wish, ahead, self.car_v[:, LEAD]), dt_s)

    def _accelerate(self, car: int, accel: Floats, dt_s: float) -> None:
        self.car_a[:, car] = accel
        self.car_v[:, car] = np.maximum(self.car_v[:, car] + accel * dt_s, 0.0)

    def _oncoming_speed(self) -> Floats:
        mood = 0.7 + 0.3 * chance(self.seed[:, None], self.spawns[:, ONCOMING:], 5)
        cap = self.roads.at(self.roads.speed_cap, self.car_s[:, ONCOMING:])
        return np.asarray(-np.minimum(mood * self.limit[:, None], cap))

    def _walk(self, dt_s: float, ego_s: Floats, ego_v: Floats) -> None:
        distance = self.person_s - ego_s[:, None] - 3.8
        draw = chance(self.seed[:, None], self.person_spawns, [6, 7])
        arrival_s = distance / np.maximum(ego_v, 3.0)[:, None]
        starts = (arrival_s < 2.9 + 1.3 * draw) & (distance > 16.0) & (ego_v > 3.0)[:, None]
        starts &= chance(self.seed[:, None], self.person_spawns, [15, 16]) < CROSSING_SHARE
        self.person_walks |= starts
        self.person_d += np.where(self.person_walks, self.person_v, 0.0) * dt_s
        gone = np.abs(self.person_d) > self.lane_m[:, None] + 3.5
        self.person_walks &= ~gone

    def _respawn(self, ego_s: Floats, nearest_m: float) -> None:
        self._respawn_lead(ego_s, nearest_m)
        self._respawn_cut_in(ego_s)
        self._respawn_oncoming(ego_s)
        self._respawn_people(ego_s)

    def _respawn_lead(self, ego_s: Floats, nearest_m: float) -> None:
        """A lead that drove off, or was driven through, leaves a pause, then perhaps another joins far ahead."""
        gap = self.car_s[:, LEAD] - ego_s
        left = ((gap > 130.0) | (gap < -25.0)) & (gap < FAR_M / 2)
        due = (gap > FAR_M / 2) & (self.lead_wait_s < 0)
        if not (left | due).any():
            return
        pause_s = 4.0 + 8.0 * chance(self.seed, self.spawns[:, LEAD], 8)
        self.lead_wait_s = np.where(left, pause_s, self.lead_wait_s)
        self.car_s[left, LEAD] = FAR_M * 2
        self.spawns[due, LEAD] += 1
        comes = due & (chance(self.seed, self.spawns[:, LEAD], 9) < self.lead_probability)
        self.lead_wait_s = np.where(due & ~comes, 10.0, self.lead_wait_s)
        place = ego_s + nearest_m + 30.0 * chance(self.seed, self.spawns[:, LEAD], 10)
        self._place(LEAD, comes, place, self.lane_d, 0.8 * self.limit)

    def _respawn_cut_in(self, ego_s: Floats) -> None:
        gap = self.car_s[:, CUT_IN] - ego_s
        gone = self.has_cut_in & ((gap > 110.0) | (gap < -8.0))
        if not gone.any():
            return
        self.spawns[gone, CUT_IN] += 1
        self.cut_phase[gone] = WAITING
        place = ego_s + 45.0 + 50.0 * chance(self.seed, self.spawns[:, CUT_IN], 12)
        shoulder = self.lane_d - self.side * (self.lane_m / 2 + 1.3)
        self._place(CUT_IN, gone, place, shoulder, 0.5 * self.limit)

    def _respawn_oncoming(self, ego_s: Floats) -> None:
        for car in range(ONCOMING, CARS):
            gap = self.car_s[:, car] - ego_s
            gone = ((gap < -25.0) | (gap > FAR_M / 2)) & (self.oncoming > car - ONCOMING)
            if not gone.any():
                continue
            self.spawns[gone, car] += 1
            place = ego_s + 100.0 + 120.0 * chance(self.seed, self.spawns[:, car], 13, car)
            self._place(car, gone, place, -self.lane_d, -0.8 * self.limit)

    def _respawn_people(self, ego_s: Floats) -> None:
        for person in range(PEOPLE):
            gone = (self.person_s[:, person] - ego_s < -6.0) | (self.person_s[:, person] > FAR_M / 2)
            gone &= self.people > person
            if not gone.any():
                continue
            self.person_spawns[gone, person] += 1
            draw = [chance(self.seed, self.person_spawns[:, person], 14, person, i) for i in range(3)]
            place = ego_s + 60.0 + (person + draw[0]) * 50.0
            from_side = np.where(draw[1] < 0.6, -self.side, self.side)
            self.person_s[:, person] = np.where(gone, place, self.person_s[:, person])
            kerb = from_side * (self.lane_m + 1.0)
            self.person_d[:, person] = np.where(gone, kerb, self.person_d[:, person])
            pace = -from_side * (1.2 + 0.6 * draw[2])
            self.person_v[:, person] = np.where(gone, pace, self.person_v[:, person])
            self.person_walks[:, person] &= ~gone

    def _place(self, car: int, where: Bools, s: Floats, d: Floats, v: Floats) -> None:
        self.car_s[:, car] = np.where(where, s, self.car_s[:, car])
        self.car_d[:, car] = np.where(where, d, self.car_d[:, car])
        self.car_v[:, car] = np.where(where, v, self.car_v[:, car])
        self.car_a[:, car] = np.where(where, 0.0, self.car_a[:, car])
