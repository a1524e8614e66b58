"""What a benchmark gives back."""

from __future__ import annotations

from collections.abc import Mapping
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


def interval(figure: Mapping[str, float | None], digits: int = 2, sign: str = "") -> str:
    """`value`, `low` and `high` as 0.97 [0.95, 0.99]; without bounds the value alone, without a value a dash."""
    value, low, high = (figure.get(key) for key in ("value", "low", "high"))
    form = f"{sign}.{digits}f"
    if value is None:
        return "–"
    return f"{value:{form}}" if low is None or high is None else f"{value:{form}} [{low:{form}}, {high:{form}}]"
