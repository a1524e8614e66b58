"""Events once they are tagged and scored."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from streams.contracts.drive import TriggerEvent
from streams.contracts.types import Name, NonNegative, Share, Text


class Novelty(Struct, frozen=True, gc=False):
    """How unlike the fleet's recent past an event is, within its cell."""

    distance: NonNegative = 0.0
    """Mean cosine distance to the k nearest prototypes."""
    p_value: Share = 1.0
    """Conformal: the chance of a distance this large among recent events."""
    novel: bool = False
    explanation: Text = ""


class Scenario(Struct, frozen=True, gc=False, tag="fleetwheel.scenario.v1", tag_field="type"):
    """A trigger event with its ODD tags (ISO 34503), scenario tags and novelty."""

    event: TriggerEvent
    cell: Name
    """ODD cell: the values of the tags that exposure is counted by, joined."""
    odd: Annotated[dict[Name, Name], Meta(max_length=32)] = {}
    tags: Annotated[list[Name], Meta(max_length=32)] = []
    novelty: Novelty = Novelty()
