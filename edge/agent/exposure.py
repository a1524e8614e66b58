"""What a vehicle drove since its last report: distance and time by ODD cell, disengagements by cause."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from edge.agent.frame import Frame
from edge.agent.readings import MAX_GAP_S, speed_mps
from streams.contracts.clock import SECOND_NS
from streams.contracts.drive import Exposure
from streams.contracts.odd import odd_cell

DRIVER = "driver"
"""The cause of a takeover that nobody gave a reason for."""


@dataclass(slots=True)
class _Cell:
    engaged_m: float = 0.0
    engaged_s: float = 0.0
    manual_m: float = 0.0
    manual_s: float = 0.0
    disengagements: dict[str, int] = field(default_factory=dict)


class Meter:
    """Adds up frames. The time between two frames belongs to the cell and the driver of the earlier one."""

    def __init__(self, region: str, max_cells: int = 64) -> None:
        self._region, self._max_cells = region, max_cells
        self._cells: dict[str, _Cell] = {}
        self._last: Frame | None = None
        self._last_speed = math.nan
        self._last_cell = ""
        self._latencies_ms: list[float] = []
        self._watts_sum, self._watts_count = 0.0, 0

    def add(self, frame: Frame) -> None:
        """Counts the time since the last frame; nothing over a gap. Distance only where speed is known."""
        last, last_speed = self._last, self._last_speed
        speed = speed_mps(frame)
        if last is not None:
            passed_s = (frame.time_ns - last.time_ns) / SECOND_NS
            if passed_s <= MAX_GAP_S:
                way_m = passed_s * abs(last_speed + speed) / 2
                self._drove(last, passed_s, way_m if math.isfinite(way_m) else 0.0)
            if last.engaged and not frame.engaged:
                self._disengaged(frame.takeover_cause or DRIVER)
        if frame.latency_ms is not None:
            self._latencies_ms.append(frame.latency_ms)
        if frame.watts is not None:
            self._watts_sum, self._watts_count = self._watts_sum + frame.watts, self._watts_count + 1
        self._last, self._last_speed, self._last_cell = frame, speed, odd_cell(frame.signals, self._region)

    def end_drive(self) -> None:
        """The next frame starts anew."""
        self._last = None

    def latency_ms(self) -> tuple[float, float]:
        """p50 and p99 (nearest rank) since the last report; 0 without any."""
        ordered = sorted(self._latencies_ms)
        if not ordered:
            return 0.0, 0.0
        return ordered[(len(ordered) - 1) // 2], ordered[math.ceil(0.99 * len(ordered)) - 1]

    def watts(self) -> float:
        """Mean since the last report; 0 without any."""
        return self._watts_sum / self._watts_count if self._watts_count else 0.0

    def take(self) -> list[Exposure]:
        """The exposures since the last call, by cell in order of name."""
        taken = [
            Exposure(name, c.engaged_m, c.engaged_s, c.manual_m, c.manual_s, c.disengagements)
            for name, c in sorted(self._cells.items())
        ]
        self._cells, self._latencies_ms = {}, []
        self._watts_sum, self._watts_count = 0.0, 0
        return taken

    @property
    def full(self) -> bool:
        """As many cells as one report holds: report now."""
        return len(self._cells) >= self._max_cells

    def _drove(self, frame: Frame, passed_s: float, way_m: float) -> None:
        cell = self._cells.setdefault(self._last_cell, _Cell())
        if frame.engaged:
            cell.engaged_s += passed_s
            cell.engaged_m += way_m
        else:
            cell.manual_s += passed_s
            cell.manual_m += way_m

    def _disengaged(self, cause: str) -> None:
        counts = self._cells.setdefault(self._last_cell, _Cell()).disengagements
        counts[cause] = counts.get(cause, 0) + 1
