"""Past disengagements as data: a scene, and the commands that led to a little before; so each is driven again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct

from model.policy import PLAN_PERIOD_S
from simulation.arrays import Floats
from simulation.scenarios import drawn
from simulation.suites import Course, Row

LEAD_S = 5.0
"""So long before the disengagement a replay hands over."""
REPLAY_S = 12.0
"""For so long it goes on."""
FORMAT = "fleetwheel.regressions/1"


class BadRegressions(ValueError):
    """A file of regressions that cannot be used: says which and why."""


class Regression(Struct, frozen=True):
    """One disengagement."""

    row: Row
    scene_seed: int
    cause: str
    time_s: float
    """World time at which the safety driver took over."""
    commands: list[tuple[float, float]]
    """Acceleration and curvature of each plan's period, from the scene's beginning to LEAD_S before."""


class _File(Struct, frozen=True):
    format: str
    regressions: list[Regression]


def regression(row: Row, scene_seed: int, cause: str, time_s: float, commands: Floats) -> Regression:
    """The disengagement at `time_s` of a drive that had `commands` [steps, 2]."""
    kept = max(round((time_s - LEAD_S) / PLAN_PERIOD_S), 0)
    pairs = [(float(accel), float(curvature)) for accel, curvature in commands[:kept]]
    return Regression(row, scene_seed, cause, time_s, pairs)


def replay(past: Regression) -> Course:
    """The course that leads there again. Raises UnknownName for a row that there is no more."""
    before = np.array(past.commands).reshape(-1, 2, 1)
    return Course((drawn(past.row.condition(), past.scene_seed),), REPLAY_S, before)


def of_each_cause(found: Sequence[Regression], most: int) -> list[Regression]:
    """At most so many, causes in turn, so that the frequent ones leave room for the others."""
    kinds: dict[str, list[Regression]] = {}
    for one in found:
        kinds.setdefault(one.cause, []).append(one)
    longest = max(map(len, kinds.values()), default=0)
    turns = [kind[i] for i in range(longest) for _, kind in sorted(kinds.items()) if i < len(kind)]
    return turns[:most]


def joined(past: Sequence[Regression], new: Sequence[Regression]) -> list[Regression]:
    """Past ones, and of the new those whose cause is not known of their scene: where another model fails there
    too, a little earlier or later, it is the same lesson."""
    known: dict[tuple[Row, int, str], Regression] = {}
    for one in (*past, *new):
        known.setdefault((one.row, one.scene_seed, one.cause), one)
    return list(known.values())


def to_bytes(found: Sequence[Regression]) -> bytes:
    """A file's content, JSON."""
    return msgspec.json.encode(_File(FORMAT, list(found)))


def load(path: Path) -> list[Regression]:
    """Reads a file of what `to_bytes` gave. Raises BadRegressions."""
    try:
        file = msgspec.json.decode(path.read_bytes(), type=_File)
    except (OSError, msgspec.DecodeError) as error:
        raise BadRegressions(f"regressions {path} cannot be read: {error}") from error
    if file.format != FORMAT:
        raise BadRegressions(f"regressions {path} are of format {file.format!r}, not {FORMAT!r}")
    return file.regressions
