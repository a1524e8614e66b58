"""Virtual vehicles: a supervised simulated world, seen as each vehicle's own frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge.agent.frame import KMH, Frame
from model.policy import Observation, Plan
from streams.contracts.clock import SECOND_NS
from streams.contracts.drive import Pose
from streams.contracts.odd import ACCELERATION, LIGHT, SPEED, STEERING_ANGLE, VISIBILITY, YAW_RATE

Floats = NDArray[np.floating[Any]]
METRES_PER_DEGREE = 111_320.0
"""Simulated roads lie about 0 N 0 E, where a degree is this long both ways."""
CLEAR_M = 20_000.0
KOSCHMIEDER = 3.0
"""Visibility times extinction coefficient, at 5 % contrast (WMO-No. 8, 9.1)."""
STEERING_RATIO = 15.0
"""Steering wheel angle over road wheel angle, of a common car."""


class Region(Protocol):
    """What is read of simulation.regions.Region."""

    @property
    def name(self) -> str: ...


class Scene(Protocol):
    """What is read of simulation.scenarios.Scene."""

    @property
    def region(self) -> Region: ...
    @property
    def fog_per_m(self) -> float: ...
    @property
    def darkness(self) -> float: ...


class Status(Protocol):
    """What is read of simulation.world.Status, each [B]."""

    @property
    def x_m(self) -> Floats: ...
    @property
    def y_m(self) -> Floats: ...
    @property
    def heading_rad(self) -> Floats: ...
    @property
    def accel_mps2(self) -> Floats: ...
    @property
    def steering_rad(self) -> Floats: ...


class Expert(Protocol):
    """What is read of simulation.expert.ExpertPlan."""

    @property
    def trajectory(self) -> NDArray[np.float32]: ...
    @property
    def rule(self) -> NDArray[np.integer[Any]]: ...


class World(Protocol):
    """What is read of simulation.world.World: the present instant, before it steps on."""

    @property
    def scenes(self) -> Sequence[Scene]: ...
    @property
    def time_s(self) -> float: ...
    def status(self) -> Status: ...
    def expert(self) -> Expert: ...


def world_frames(
    world: World,
    observation: Observation,
    plan: Plan | None,
    engaged: NDArray[np.bool_],
    causes: Mapping[int, str],
    *,
    cameras: tuple[str, ...],
    rules: Sequence[str],
    start_ns: int,
    model_versions: Sequence[str],
    latency_ms: float | None = None,
    watts: float | None = None,
) -> list[Frame]:
    """This instant as B frames, one per vehicle. Call it before the world steps on. `causes` are the takeovers of
    the step before: vehicle -> cause; `start_ns` is the UTC time at which the world began; `rules` names the
    expert's rule numbers."""
    status, expert = world.status(), world.expert()
    time_ns = start_ns + round(world.time_s * SECOND_NS)
    best, scale = (plan.best, plan.best_scale_m) if plan else (None, None)
    signals = _signals(world, status, observation)
    poses = _poses(status)
    return [
        Frame(
            time_ns=time_ns,
            signals=signals[row],
            images=observation.images[row],
            cameras=cameras,
            command=int(observation.command[row]),
            engaged=bool(engaged[row]),
            takeover_cause=causes.get(row, ""),
            model_version=model_versions[row],
            plan_m=None if best is None else best[row],
            scale_m=None if scale is None else scale[row],
            embedding=plan.embedding[row] if plan else None,
            driver_plan_m=expert.trajectory[row],
            driver_rule=rules[int(expert.rule[row])],
            pose=poses[row],
            latency_ms=latency_ms,
            watts=watts,
        )
        for row in range(len(world.scenes))
    ]


def light_percent(darkness: float) -> float:
    """VSS light intensity, % of full daylight."""
    return 100.0 * (1.0 - darkness)


def visibility_m(fog_per_m: float) -> float:
    """Meteorological optical range of an extinction coefficient, m."""
    return min(KOSCHMIEDER / fog_per_m, CLEAR_M) if fog_per_m > 0 else CLEAR_M


def _signals(world: World, status: Status, observation: Observation) -> list[dict[str, float]]:
    columns = {
        SPEED: observation.speed_mps * KMH,
        YAW_RATE: np.degrees(observation.yaw_rate_radps),
        ACCELERATION: status.accel_mps2,
        STEERING_ANGLE: np.degrees(status.steering_rad) * STEERING_RATIO,
    }
    rows = np.stack(list(columns.values()), 1).astype(float).round(4).tolist()
    weather = [
        {LIGHT: light_percent(scene.darkness), VISIBILITY: visibility_m(scene.fog_per_m)} for scene in world.scenes
    ]
    return [dict(zip(columns, row, strict=True)) | around for row, around in zip(rows, weather, strict=True)]


def _poses(status: Status) -> list[Pose]:
    degrees = np.stack([status.y_m, status.x_m], 1) / METRES_PER_DEGREE
    headings = status.heading_rad.tolist()
    return [Pose(lat, lon, heading) for (lat, lon), heading in zip(degrees.tolist(), headings, strict=True)]
