"""Where a vehicle gets that follows planned poses: an LQR tracker on a kinematic bicycle, all plans at once.

NAVSIM's tracker and constants, which are nuPlan's (autonomousvision/navsim batch_lqr.py, batch_lqr_utils.py,
batch_kinematic_bicycle.py): speed and curvature of the plan by regularised least squares, one LQR step over a
horizon of 1 s with the acceleration and the steering rate held, first-order lags of the actuators, Euler steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from simulation.arrays import Floats, wrap
from simulation.scores.trace import CAR, STEP_S, Body, Ego


@dataclass(frozen=True, slots=True)
class Tracker:
    """Weights and lags."""

    horizon: int = 10
    """Steps looked ahead."""
    speed_error: float = 10.0
    accel_effort: float = 1.0
    lateral_error: float = 1.0
    heading_error: float = 10.0
    steering_effort: float = 1.0
    """Of the steering rate; the steering angle itself costs nothing."""
    jerk_penalty: float = 1e-4
    curvature_rate_penalty: float = 1e-2
    curvature_penalty: float = 1e-10
    """Of the first curvature alone: a plan that stands has none."""
    stopping_mps: float = 0.2
    """Below this speed, planned and driven, a plain proportional controller takes over."""
    stopping_gain: float = 0.5
    accel_lag_s: float = 0.2
    steering_lag_s: float = 0.05
    most_steering_rad: float = np.pi / 3


TRACKER = Tracker()


@dataclass(frozen=True, slots=True)
class State:
    """P vehicles at one instant, each [P]: rear axle, heading, speed, acceleration, angle of the front wheels."""

    x_m: Floats
    y_m: Floats
    heading_rad: Floats
    speed_mps: Floats
    accel_mps2: Floats
    steering_rad: Floats


def poses(plan: Floats, start: State, period_s: float, steps: int) -> Floats:
    """World poses [P, steps + 1, 3] at 10 Hz of waypoints [P, N, 2] in the vehicle's frame, `period_s` apart, the
    first after one period: straight from one to the next, headed along the chords; where a chord is shorter than
    a decimetre, the heading stays. Raises ValueError for a plan that ends before `steps` steps."""
    count = plan.shape[1]
    if steps * STEP_S > count * period_s + 1e-9:
        raise ValueError(f"a plan of {count} points, {period_s} s apart, ends before {steps * STEP_S:.1f} s")
    path = np.concatenate([np.zeros_like(plan[:, :1]), plan], 1)
    heading = np.zeros(path.shape[:2])
    for i in range(1, count + 1):
        dx, dy = (path[:, min(i + 1, count)] - path[:, i - 1]).T
        turned = heading[:, i - 1] + wrap(np.arctan2(dy, dx) - heading[:, i - 1])
        heading[:, i] = np.where(np.hypot(dx, dy) > 0.1, turned, heading[:, i - 1])
    when = np.arange(steps + 1) * STEP_S / period_s
    low = np.minimum(when.astype(int), count - 1)
    share = when - low
    local = np.concatenate([path, heading[..., None]], -1)
    local = local[:, low] * (1 - share)[:, None] + local[:, low + 1] * share[:, None]
    c, s = np.cos(start.heading_rad)[:, None], np.sin(start.heading_rad)[:, None]
    x = start.x_m[:, None] + c * local[..., 0] - s * local[..., 1]
    y = start.y_m[:, None] + s * local[..., 0] + c * local[..., 1]
    return np.stack([x, y, start.heading_rad[:, None] + local[..., 2]], -1)


def follow(planned: Floats, start: State, body: Body = CAR, tracker: Tracker = TRACKER) -> Ego:
    """The motion [P, T] of vehicles that track poses [P, T, 3] (x, y, heading; T > 3, 10 Hz) from `start`. Raises
    ValueError for another shape or values that are not finite."""
    if planned.ndim != 3 or planned.shape[1] < 4 or planned.shape[2] != 3:
        raise ValueError(f"planned poses are {planned.shape}, must be [P, T, 3] with T > 3")
    if not np.isfinite(planned).all():
        raise ValueError("planned poses are not finite")
    speed, curvature = profiles(planned, tracker)
    state, states = start, [start]
    for step in range(planned.shape[1] - 1):
        accel, steering_rate = _commands(state, planned[:, step], speed, curvature, step, body, tracker)
        state = _advance(state, accel, steering_rate, body, tracker)
        states.append(state)
    return _motion(states, body)


def profiles(planned: Floats, tracker: Tracker = TRACKER) -> tuple[Floats, Floats]:
    """Speeds and curvatures [P, T - 1] that explain poses [P, T, 3] best, with little jerk and little turning of
    the wheel."""
    moved, heading = np.diff(planned[..., :2], axis=1), planned[:, :-1, 2]
    forward = moved[..., 0] * np.cos(heading) + moved[..., 1] * np.sin(heading)
    count = forward.shape[1]
    # A speed profile is its first value and its rates: their sums, times dt, are the way driven. What is across
    # the heading is orthogonal to all of it, so one matrix serves every plan.
    sums = np.tri(count) * STEP_S**2
    sums[:, 0] = STEP_S
    jerk = np.zeros((count - 2, count))
    rows = np.arange(count - 2)
    jerk[rows, rows + 1], jerk[rows, rows + 2] = -1.0, 1.0
    solve = np.linalg.solve(sums.T @ sums + tracker.jerk_penalty * jerk.T @ jerk, sums.T)
    speed = _profile(forward @ solve.T)
    turned = wrap(np.diff(planned[..., 2], axis=1))
    turns = np.tri(count) * (speed * STEP_S**2)[..., None]
    turns[..., 0] = speed * STEP_S
    penalty = np.full(count, tracker.curvature_rate_penalty)
    penalty[0] = tracker.curvature_penalty
    normal = np.swapaxes(turns, 1, 2)
    fitted = np.linalg.solve(normal @ turns + np.diag(penalty), normal @ turned[..., None])[..., 0]
    return speed, _profile(fitted)


def _profile(first_and_rates: ArrayLike) -> Floats:
    values = np.array(first_and_rates, np.float64)
    values[:, 1:] *= STEP_S
    return np.cumsum(values, 1)


def _commands(
    state: State, pose: Floats, speed: Floats, curvature: Floats, step: int, body: Body, tracker: Tracker
) -> tuple[Floats, Floats]:
    """Acceleration and steering rate, [P] each."""
    last = speed.shape[1] - 1
    wanted, v = speed[:, min(step + tracker.horizon, last)], state.speed_mps
    stopping = (wanted <= tracker.stopping_mps) & (v <= tracker.stopping_mps)
    ahead_s = tracker.horizon * STEP_S
    gain = ahead_s * tracker.speed_error / (ahead_s**2 * tracker.speed_error + tracker.accel_effort)
    accel = np.where(stopping, tracker.stopping_gain, gain) * (wanted - v)
    bends = curvature[:, np.minimum(step + np.arange(tracker.horizon), last)]
    return accel, np.where(stopping, 0.0, _steer(state, pose, accel, bends, body, tracker))


def _steer(state: State, pose: Floats, accel: Floats, bends: Floats, body: Body, tracker: Tracker) -> Floats:
    """The steering rate that minimises the squared errors at the horizon's end: errors there are those of no
    steering plus the rate times what a rate of 1 does."""
    dx, dy, heading = state.x_m - pose[:, 0], state.y_m - pose[:, 1], pose[:, 2]
    off, askew = dy * np.cos(heading) - dx * np.sin(heading), wrap(state.heading_rad - heading)
    wheel = state.steering_rad
    off_1, askew_1, wheel_1 = np.zeros_like(off), np.zeros_like(off), 0.0
    for k in range(tracker.horizon):
        metres = (state.speed_mps + accel * k * STEP_S) * STEP_S
        off, askew = off + metres * askew, askew + metres * (wheel / body.wheelbase_m - bends[:, k])
        off_1, askew_1 = off_1 + metres * askew_1, askew_1 + metres * wheel_1 / body.wheelbase_m
        wheel_1 += STEP_S
    pull = tracker.lateral_error * off_1 * off + tracker.heading_error * askew_1 * wrap(askew)
    cost = tracker.lateral_error * off_1**2 + tracker.heading_error * askew_1**2 + tracker.steering_effort
    return np.asarray(-pull / cost)


def _advance(state: State, accel: Floats, steering_rate: Floats, body: Body, tracker: Tracker) -> State:
    """One Euler step of the bicycle behind its lagging actuators."""
    reached = state.accel_mps2 + STEP_S / (STEP_S + tracker.accel_lag_s) * (accel - state.accel_mps2)
    turned = STEP_S / (STEP_S + tracker.steering_lag_s) * STEP_S * steering_rate
    limit, metres = tracker.most_steering_rad, state.speed_mps * STEP_S
    return replace(
        state,
        x_m=state.x_m + metres * np.cos(state.heading_rad),
        y_m=state.y_m + metres * np.sin(state.heading_rad),
        heading_rad=state.heading_rad + metres * np.tan(state.steering_rad) / body.wheelbase_m,
        speed_mps=state.speed_mps + reached * STEP_S,
        accel_mps2=reached,
        steering_rad=np.clip(state.steering_rad + turned, -limit, limit),
    )


def _motion(states: list[State], body: Body) -> Ego:
    def column(name: str) -> Floats:
        return np.stack([getattr(state, name) for state in states], 1)

    speed = column("speed_mps")
    yaw_rate = speed * np.tan(column("steering_rad")) / body.wheelbase_m
    return Ego(column("x_m"), column("y_m"), column("heading_rad"), speed, column("accel_mps2"), yaw_rate)
