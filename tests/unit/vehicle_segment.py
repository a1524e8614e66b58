"""A made-up comma2k19 segment, so that its importer is tested without the data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

SECONDS = 12.0


def segment(folder: Path, speed_mps: float = 20.0, brake_at_s: float | None = None) -> Path:
    """Twelve seconds northwards from 37.72 N 122.47 W; braking at 5 m/s² for 1.5 s from `brake_at_s`."""
    t, can_t = 100 + np.arange(0, SECONDS, 0.05), 100 + np.arange(0, SECONDS, 0.012)
    lat, lon = np.radians(37.72), np.radians(-122.47)
    north = np.array([-np.sin(lat) * np.cos(lon), -np.sin(lat) * np.sin(lon), np.cos(lat)])
    up = np.array([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])
    start = 6_378_137.0 / np.sqrt(1 - 0.00669438 * np.sin(lat) ** 2) * up * [1, 1, 1 - 0.00669438]
    velocity = _speeds(t, speed_mps, brake_at_s)
    way = np.concatenate([[0], np.cumsum(np.diff(t) * (velocity[1:] + velocity[:-1]) / 2)])
    save(folder / "global_pose/frame_times", t)
    save(folder / "global_pose/frame_positions", start + way[:, None] * north)
    save(folder / "global_pose/frame_velocities", velocity[:, None] * north)
    save(folder / "global_pose/frame_orientations", np.tile(_quaternion(north, up), (len(t), 1)))
    save(folder / "global_pose/frame_gps_times", np.stack([np.full(len(t), 2012.0), 404_106.0 + t - t[0]], 1))
    can = _speeds(can_t, speed_mps, brake_at_s)
    for name, value in {"speed": can[:, None], "steering_angle": np.zeros(len(can_t))}.items():
        save(folder / "processed_log/CAN" / name / "t", can_t)
        save(folder / "processed_log/CAN" / name / "value", value)
    save(folder / "processed_log/CAN/wheel_speed/t", can_t)
    save(folder / "processed_log/CAN/wheel_speed/value", np.tile(can[:, None], (1, 4)))
    return folder


def save(path: Path, array: Any) -> None:
    """NumPy without the extension, as the data set has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.save(file, np.asarray(array))


def _speeds(t: Any, speed_mps: float, brake_at_s: float | None) -> Any:
    if brake_at_s is None:
        return np.full(len(t), speed_mps)
    return speed_mps - 5.0 * np.clip(t - t[0] - brake_at_s, 0, 1.5)


def _quaternion(forward: Any, up: Any) -> Any:
    """w x y z of the frame forward, right, down."""
    matrix = np.stack([forward, np.cross(forward, up), -up], 1)
    w = np.sqrt(max(1 + np.trace(matrix), 1e-12)) / 2
    x, y, z = (matrix[2, 1] - matrix[1, 2], matrix[0, 2] - matrix[2, 0], matrix[1, 0] - matrix[0, 1])
    return np.array([w, x / (4 * w), y / (4 * w), z / (4 * w)])
