"""ONE table: what differs from one country's roads to another's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Rgb = tuple[int, int, int]

WHITE: Rgb = (228, 228, 224)
YELLOW: Rgb = (226, 178, 40)


@dataclass(frozen=True, slots=True)
class Region:
    """The rules of the road that a camera can see."""

    name: str
    side: Literal[1, -1]
    """1 where traffic keeps right, -1 where it keeps left."""
    stop_sign: Literal["octagon", "triangle"]
    """Shape of the sign at which a vehicle must stop; the triangle stands on its tip."""
    limits_mps: tuple[float, ...]
    """Speed limits of the streets of this region."""
    centre_line: Rgb
    edge_line: Rgb


REGIONS: dict[str, Region] = {
    region.name: region
    for region in (
        Region("right_mph", 1, "octagon", (8.94, 11.18), YELLOW, WHITE),
        Region("right_kmh", 1, "octagon", (8.33, 11.11), WHITE, WHITE),
        Region("left_mph", -1, "octagon", (8.94, 11.18), WHITE, WHITE),
        Region("right_triangle", 1, "triangle", (8.33, 11.11), WHITE, WHITE),
    )
}
"""20 and 25 mph, 30 and 40 km/h: built-up streets (FHWA MUTCD 2B; Vienna Convention on Road Signs, B,2a)."""
