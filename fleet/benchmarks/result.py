"""What a benchmark gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

LEAST_SEEDS = 3
"""Fewer say nothing of how far a figure may be off."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One line under "What must hold": what was measured against what was asked."""

    id: str
    what: str
    value: float
    bar: str
    holds: bool


@dataclass(frozen=True, slots=True)
class Measured:
    """Results, bars, and a table for people (Markdown)."""

    results: dict[str, Any]
    bars: list[Bar]
    table: str = field(default="")
    pictures: dict[str, str] = field(default_factory=dict)
    """SVG by file name, written beside the table that shows them."""


def seeds_bar(seeds: int) -> Bar:
    """Enough of them."""
    return Bar("seeds", "seeds", seeds, f">= {LEAST_SEEDS}", seeds >= LEAST_SEEDS)
