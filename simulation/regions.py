"""ONE table: what differs from one country's roads to another's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Rgb = tuple[int, int, int]

WHITE: Rgb = (228, 228, 224)
YELLOW: Rgb = (226, 178, 40)
ORANGE: Rgb = (232, 150, 60)


@dataclass(frozen=True, slots=True)
class Phases:
    """How long a light shows what, s: green, amber, red, then perhaps red and amber together."""

    green_s: float = 10.0
    amber_s: float = 3.0
    red_s: float = 11.0
    red_amber_s: float = 0.0

    @property
    def cycle_s(self) -> float:
        """From green to green."""
        return self.green_s + self.amber_s + self.red_s + self.red_amber_s


@dataclass(frozen=True, slots=True)
class Region:
    """The rules of the road that a camera can see."""

    name: str
    side: Literal[1, -1]
    """1 where traffic keeps right, -1 where it keeps left."""
    stop_sign: Literal["octagon", "triangle", "wedge", "disc", "paddle"]
    """Shape of the sign at which a vehicle must stop; the triangle stands on its tip, white with a red rim; so
    does the wedge, all red. A disc is white with a red rim and a bar; a paddle is a small red disc, held low."""
    limits_mps: tuple[float, ...]
    """Speed limits of the streets of this region."""
    centre_line: Rgb
    edge_line: Rgb
    phases: Phases = Phases()
    warning: Literal["diamond", "triangle"] = "diamond"
    """Shape of a sign that warns: a diamond is yellow, or orange at roadworks; a triangle white, rimmed in red."""
    crossing: Literal["diamond", "square", "beacon"] = "square"
    """What stands at a zebra crossing: a yellow diamond, a blue square, or a pole with an amber globe."""

    @property
    def unit(self) -> Literal["mph", "km/h"]:
        """Of the numbers on its speed limit signs."""
        return "mph" if "mph" in self.name or self.name in ("us", "uk", "held_signs") else "km/h"


REGIONS: dict[str, Region] = {
    region.name: region
    for region in (
        Region("right_mph", 1, "octagon", (8.94, 11.18), YELLOW, WHITE),
        Region("right_kmh", 1, "octagon", (8.33, 11.11), WHITE, WHITE),
        Region("left_mph", -1, "octagon", (8.94, 11.18), WHITE, WHITE),
        Region("right_triangle", 1, "triangle", (8.33, 11.11), WHITE, WHITE),
        Region("us", 1, "octagon", (8.94, 11.18), YELLOW, WHITE, Phases(10, 4, 12), "diamond", "diamond"),
        Region("uk", -1, "octagon", (8.94, 13.41), WHITE, WHITE, Phases(10, 3, 9, 2), "triangle", "beacon"),
        Region("de", 1, "octagon", (8.33, 13.89), WHITE, WHITE, Phases(10, 3, 10, 1), "triangle", "square"),
        Region("jp", -1, "wedge", (8.33, 11.11), WHITE, ORANGE, Phases(12, 3, 14), "diamond", "square"),
        Region("old_signs", 1, "disc", (8.33, 11.11), WHITE, WHITE, Phases(10, 3, 10, 1), "triangle", "square"),
        Region("held_signs", 1, "paddle", (8.94, 11.18), YELLOW, WHITE, Phases(10, 4, 12), "diamond", "diamond"),
    )
}
"""20, 25 and 30 mph, 30, 40 and 50 km/h: built-up streets (FHWA MUTCD 2B and 4D; UK TSRGD 2016; StVO; Vienna
Convention on Road Signs, B,2a and B,2b). The first four are what the first loop drives in; the others are whole
countries, and two sorts of sign that no camera of the fleet has seen."""
