"""ONE table: the labels that a world gives of an instant. What they mean stands in model/labels.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from simulation.labels.motion import motion
from simulation.labels.occupancy import occupancy
from simulation.labels.rule import look, words
from simulation.labels.tags import tags
from simulation.world import World

LABELLERS: Mapping[str, Callable[[World], NDArray[np.generic]]] = MappingProxyType(
    {"occupancy": occupancy, "tags": tags, "motion": motion, "words": words, "look": look}
)
"""Label -> what it is of each of the world's B vehicles now, [B, ...]. Pure. The risk is no label of an instant:
it takes a policy, and what comes of it (simulation/labels/risk.py)."""
