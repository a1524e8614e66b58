"""ONE table: what a frame may be labelled with beside the plan. Values only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from model.grammar import SLOTS, VOCABULARY
from model.policy import PLAN_PERIOD_S, PLAN_POINTS, PLAN_STEP_S

MOTION = ("speed_mps", "yaw_rate_radps", "lateral_m", "heading_rad")
"""How the vehicle moves, and where it is: to the left of the middle of its lane, and turned against the road."""
OCCUPANCY = ("off_road", "road", "body", "person")
"""What takes up a cell; the later wins. Bodies are vehicles and closed lanes, persons also cyclists."""
GRID_CELLS = (16, 16)
"""From behind to ahead, and from right to left."""
CELL_M = (4.0, 2.0)
GRID_FROM_M = (-8.0, -16.0)
"""The nearest corner of the first cell, in the vehicle frame."""
TAGS = (
    "sign", "triangle", "light", "red", "lead", "oncoming", "pedestrian", "cut_in",
    "night", "fog", "rain", "snow", "left_hand",
    "drifter", "cyclist", "zebra", "ambulance", "roadworks", "roundabout", "turn", "door", "red_light",
)  # fmt: skip
"""What may be in view: objects, circumstances, and what happens at a place (the last nine)."""
RISK_STEPS = round(PLAN_POINTS * PLAN_STEP_S / PLAN_PERIOD_S)
"""Instants, PLAN_PERIOD_S apart, within which a disengagement was a risk: as far as a plan reaches."""
LOOKS = 3
"""Balls that a frame may say to look at: what its explanation is about."""

Labels = Mapping[str, NDArray[np.generic]]


class BadLabels(ValueError):
    """Labels that cannot be learnt from: says which and why."""


@dataclass(frozen=True, slots=True)
class Label:
    """What one frame is labelled with. Where a label is absent it is NaN, or -1 if it is a whole number."""

    shape: tuple[int, ...]
    dtype: type[np.signedinteger | np.floating]
    classes: int = 0
    """Of whole numbers: they are 0 to this less 1."""

    @property
    def absent(self) -> float:
        """What stands for no label."""
        return -1 if issubclass(self.dtype, np.integer) else np.nan


LABELS: Mapping[str, Label] = MappingProxyType(
    {
        "occupancy": Label(GRID_CELLS, np.int8, len(OCCUPANCY)),
        "tags": Label((len(TAGS),), np.int8, 2),
        "motion": Label((len(MOTION),), np.float32),
        "risk": Label((), np.int8, 2),
        "words": Label((len(SLOTS),), np.int64, len(VOCABULARY)),
        "look": Label((LOOKS, 4), np.float32),
    }
)
"""`words`: ids of model.grammar. `look`: x forward, y left, z up and radius in m, in the vehicle frame; the balls
that there are come first."""


def check_labels(labels: Labels, count: int) -> None:
    """Raises BadLabels unless these are known labels of `count` frames, each of its shape and in its range."""
    for name, array in labels.items():
        if name not in LABELS:
            raise BadLabels(f"unknown label {name!r}; known: {', '.join(LABELS)}")
        label = LABELS[name]
        if array.shape != (count, *label.shape) or array.dtype != label.dtype:
            wanted = f"{np.dtype(label.dtype)} {[count, *label.shape]}"
            raise BadLabels(f"label {name} is {array.dtype} {list(array.shape)}, must be {wanted}")
        bad = np.flatnonzero(_wrong(array, label).reshape(count, -1).any(1))
        if len(bad):
            raise BadLabels(f"label {name} must be {_range(label)}: {len(bad)} are not, first frame {bad[0]}")


def joined(parts: Sequence[Labels], counts: Sequence[int]) -> dict[str, NDArray[np.generic]]:
    """The labels of several parts, of so many frames each, as those of one; absent where a part has none."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {n: np.concatenate([_given(n, p, c) for p, c in zip(parts, counts, strict=True)]) for n in names}


def room(names: Sequence[str], count: int) -> dict[str, NDArray[np.generic]]:
    """Absent labels of these names for so many frames, to be filled in. Raises KeyError for an unknown name."""
    return {name: _given(name, {}, count) for name in names}


def _given(name: str, part: Labels, count: int) -> NDArray[np.generic]:
    label = LABELS[name]
    return part[name] if name in part else np.full((count, *label.shape), label.absent, label.dtype)


def _wrong(array: NDArray[np.generic], label: Label) -> NDArray[np.bool_]:
    if not label.classes:
        return np.asarray(np.isinf(array))
    number = array.astype(np.int64)
    return np.asarray((number < -1) | (number >= label.classes))


def _range(label: Label) -> str:
    if label.classes:
        return f"0 to {label.classes - 1}, or -1 where there is none"
    return "finite, or NaN where there is none"
