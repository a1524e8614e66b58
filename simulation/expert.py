"""The privileged expert: it knows the whole scene, and says which rule it follows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.policy import PLAN_POINTS, PLAN_STEP_S
from simulation.arrays import Bools, Floats, Ints, in_frame
from simulation.hazards import HOLD, KEEP_LANE, LIMIT_HEADWAY_S, RULES, Hazards, Swerve
from simulation.roads import Roads
from simulation.traffic import FAR_M, idm, stopping

__all__ = ["RULES"]
SUBSTEPS = 2
"""Steps of the forecast per waypoint."""


@dataclass(frozen=True, slots=True)
class ExpertPlan:
    """What the expert does next with each of B vehicles."""

    trajectory: NDArray[np.float32]
    """[B, T, 2], as Plan.best."""
    rule: Ints
    """[B], index into RULES: what binds its speed now."""


@dataclass(frozen=True, slots=True)
class Obstacles:
    """What may bind the speed of B vehicles; distances in m from the front bumper, FAR_M where absent."""

    lead_gap: Floats
    lead_v: Floats
    cut_in_gap: Floats
    cut_in_v: Floats
    sign_gap: Floats
    light_gap: Floats
    person_gap: Floats
    hazards: Hazards | None = None
    """Of the cast, in worlds that have one."""


@dataclass(frozen=True, slots=True)
class Driver:
    """Where B vehicles are on their roads, [B] each: the expert's starting point."""

    s: Floats
    d: Floats
    heading_error: Floats
    v: Floats
    limit: Floats
    """Speed limit."""
    lane_d: Floats
    """Middle of the lane."""


@dataclass(frozen=True, slots=True)
class Ahead:
    """An instant of a forecast."""

    t_s: float
    moved_m: Floats
    curve_mps: Floats
    """The fastest comfortable speed there."""


def accelerations(v: Floats, limit: Floats, o: Obstacles, ahead: Ahead) -> Floats:
    """What each rule would have a vehicle at speed `v` do, [R, B], m/s²: the first seven of RULES, then Hazards'.
    Others are forecast at constant speed, lines and people as standing."""
    t, moved, more = ahead.t_s, ahead.moved_m, o.hazards
    headway = more.headway_s if more else LIMIT_HEADWAY_S
    return np.stack(
        [
            np.clip(1.6 * (1 - (v / limit) ** 4), -3.0, 1.6),
            np.clip((ahead.curve_mps - v) / 0.5, -3.0, 1.6),
            idm(v, limit, o.lead_gap + o.lead_v * t - moved, o.lead_v, headway),
            idm(v, limit, o.cut_in_gap + o.cut_in_v * t - moved, o.cut_in_v, headway),
            stopping(v, o.sign_gap - moved - 1.0),
            stopping(v, o.light_gap - moved - 1.0),
            stopping(v, o.person_gap - moved - 3.0),
            *(more.accelerations(v, limit, t, moved) if more else ()),
        ]
    )


def plan(roads: Roads, driver: Driver, obstacles: Obstacles, swerve: Swerve | None = None) -> ExpertPlan:
    """The expert's plan."""
    travelled, rule = forecast(roads, driver, obstacles)
    return ExpertPlan(_path(roads, driver, travelled, swerve), rule)


def forecast(roads: Roads, driver: Driver, obstacles: Obstacles) -> tuple[Floats, Ints]:
    """Metres travelled at each waypoint, [B, T], and the rule that binds now, [B]."""
    dt, s, v = PLAN_STEP_S / SUBSTEPS, driver.s, driver.v
    travelled = np.empty((len(s), PLAN_POINTS))
    moved, rule = np.zeros_like(s), np.zeros(len(s), np.int64)
    for k in range(PLAN_POINTS * SUBSTEPS):
        ahead = Ahead(k * dt, moved, roads.at(roads.speed_cap, s + moved))
        accels = accelerations(v, driver.limit, obstacles, ahead)
        accel = accels.min(0)
        if k == 0:
            rule = np.where(accel < accels[KEEP_LANE] - 0.2, accels.argmin(0), KEEP_LANE)
            if obstacles.hazards:
                # What a cap or a swerve is for is the rule, unless something else binds more.
                mild = (rule == KEEP_LANE) | (rule == HOLD + 1)
                rule = np.where(mild, obstacles.hazards.cap_rule, rule)
        following = np.maximum(v + accel * dt, 0.0)
        moved = moved + (v + following) / 2 * dt
        v = following
        travelled[:, k // SUBSTEPS] = moved
    return travelled, rule


def _path(roads: Roads, driver: Driver, travelled: Floats, swerve: Swerve | None) -> NDArray[np.float32]:
    """Back to the middle of the lane along a cubic that leaves with the vehicle's own heading."""
    length = np.maximum(1.6 * driver.v, 7.0)[:, None]
    u = np.minimum(travelled / length, 1.0)
    offset = (driver.d - driver.lane_d)[:, None]
    slope = np.tan(np.clip(driver.heading_error, -0.7, 0.7))[:, None]
    track = driver.lane_d[:, None]
    if swerve:
        now, leaning = swerve.at(driver.s[:, None], 0.0)
        time_s = PLAN_STEP_S * np.arange(1, PLAN_POINTS + 1, dtype=float)
        offset, slope = offset - now, slope - leaning
        track = track + swerve.at(driver.s[:, None] + travelled, time_s)[0]
    slope = slope * length
    shape = offset * (2 * u**3 - 3 * u**2 + 1) + slope * (u**3 - 2 * u**2 + u)
    x, y, heading = roads.pose(driver.s, driver.d)
    px, py, _ = roads.pose(driver.s[:, None] + travelled, track + shape)
    way = in_frame(px - x[:, None], py - y[:, None], (heading + driver.heading_error)[:, None])
    return np.stack(way, -1).astype(np.float32)


def present(gap: Floats, where: Bools) -> Floats:
    """`gap` where something is there, FAR_M elsewhere."""
    return np.where(where, gap, FAR_M)
