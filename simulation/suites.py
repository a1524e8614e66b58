"""ONE table: what a policy is examined in, and which seeds that may be known to whoever made it.

Three disjoint splits of seeds (scenarios.scene_seed): policies learn in `train`; whatever is searched, chosen or
tuned is so in `fleet`; figures are told of `heldout`, where nothing is ever searched, chosen or tuned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import msgspec
import numpy as np
from msgspec import Struct

from model.policy import PLAN_PERIOD_S
from simulation.arrays import Floats
from simulation.scenarios import Condition, Scene, Split, condition, drawn, scene_seed

Use = Literal["learning", "tuning", "reporting"]
SPLITS: dict[Use, Split] = {"learning": "train", "tuning": "fleet", "reporting": "heldout"}
"""Which seeds are for what."""
Source = Literal["table", "disengagements", "search"]


class Row(Struct, frozen=True):
    """A scenario somewhere: names of simulation.scenarios' tables, "" for the scenario's own."""

    scenario: str
    region: str = ""
    weather: str = ""
    time_of_day: str = ""
    fault: str = ""

    @property
    def name(self) -> str:
        """The names with slashes between."""
        return "/".join(part for part in msgspec.structs.astuple(self) if part)

    def condition(self) -> Condition:
        """What its scenes are drawn from, under the row's name. Raises UnknownName."""
        found = condition(self.scenario, self.region, self.weather, self.time_of_day, self.fault)
        return replace(found, name=self.name)


@dataclass(frozen=True, slots=True)
class Suite:
    """One part of an examination."""

    name: str
    what: str
    source: Source
    rows: tuple[Row, ...]
    """Drawn evenly; of a searched suite, what the search may begin from."""


ENCOUNTERED = (
    "cut_in",
    "tailgating",
    "oncoming_in_lane",
    "overtaking_cyclist",
    "zebra_crossing",
    "emergency_vehicle",
    "roadworks",
    "roundabout",
    "unprotected_turn",
    "opening_door",
    "red_light",
    "unseen_sign",
)
"""The scenarios of the product, in its own order."""
MET_AHEAD = tuple(name for name in ENCOUNTERED[1:-1] if name not in ("tailgating", "emergency_vehicle"))
"""Those with a cast that the cameras ahead can see."""
ABROAD = ("us", "uk", "de", "jp")
SUITES: dict[str, Suite] = {
    suite.name: suite
    for suite in (
        Suite("base", "the first loop's ordinary driving", "table", (Row("base"),)),
        Suite("regions", "ordinary driving in whole countries", "table", tuple(Row("base", r) for r in ABROAD)),
        Suite("long-tail", "every encounter, in turn", "table", tuple(map(Row, ENCOUNTERED))),
        Suite(
            "regressions",
            "every disengagement of an earlier model, driven again from a little before",
            "disengagements",
            (Row("base"), *map(Row, ENCOUNTERED)),
        ),
        Suite(
            "adversarial",
            "encounters whose parameters were searched so that the policy fails and the expert does not",
            "search",
            tuple(map(Row, MET_AHEAD)),
        ),
    )
}
"""Regressions happened with tuning seeds, and adversaries are searched with them; an adversary is then met with
reporting seeds."""


@dataclass(frozen=True, slots=True)
class Course:
    """Scenes that are driven in lock step, and from where."""

    scenes: tuple[Scene, ...]
    seconds: float
    before: Floats
    """[steps, 2, B]: commands (World.obey) that lead to where the drive begins; none, to begin with the scenes."""

    @property
    def steps(self) -> int:
        """Plans that a drive of it takes."""
        return round(self.seconds / PLAN_PERIOD_S)


def courses(suite: Suite, use: Use, seed: int, count: int, seconds: float, batch: int = 32) -> list[Course]:
    """`count` scenes of a suite's rows in turn, at most `batch` to a course."""
    number = list(SUITES).index(suite.name)
    found = [
        drawn(suite.rows[i % len(suite.rows)].condition(), scene_seed(SPLITS[use], seed, 100_000 * number + i))
        for i in range(count)
    ]
    return [course(found[at : at + batch], seconds) for at in range(0, count, batch)]


def course(scenes: Sequence[Scene], seconds: float) -> Course:
    """Scenes from their beginning."""
    return Course(tuple(scenes), seconds, np.zeros((0, 2, len(scenes))))
