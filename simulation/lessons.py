"""ONE table: what a policy is taught in, so that it has met whatever may come; always with learning seeds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from simulation.scenarios import Scene, drawn, scene_seed, shares
from simulation.suites import ABROAD, ENCOUNTERED, SPLITS, Row

LESSONS: dict[Row, float] = (
    {Row("base"): 0.32}
    | {Row("base", region): 0.03 for region in ABROAD}
    | {Row("base", weather=sky): 0.015 for sky in ("fog", "rain", "snow")}
    | {Row("base", time_of_day=time): 0.0175 for time in ("dusk", "night")}
    | {Row(name): 0.04 for name in ENCOUNTERED}
)
"""Row -> share of the scenes. Ordinary driving is most of driving; no other row is drawn so often that a policy
could do well by that alone."""


def lessons(count: int, seed: int, rows: Mapping[Row, float] = LESSONS) -> list[Scene]:
    """`count` scenes in the proportions of the rows, mixed, so that any part of them is like the whole."""
    split = SPLITS["learning"]
    names = [
        row for row, number in zip(rows, shares(list(rows.values()), count), strict=True) for _ in range(number)
    ]
    order = np.random.default_rng(scene_seed(split, seed, -2)).permutation(len(names))
    return [drawn(names[place].condition(), scene_seed(split, seed, i)) for i, place in enumerate(order)]
