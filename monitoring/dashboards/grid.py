"""Panels in rows on Grafana's grid of 24 columns: placed here, as the SDK places some outside of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.statetimeline import Panel as StateTimeline
from grafana_foundation_sdk.builders.timeseries import Panel as Timeseries
from grafana_foundation_sdk.models.dashboard import DataSourceRef, GridPos

COLUMNS, HEIGHT = 24, 8
SOURCE = DataSourceRef(type_val="prometheus", uid="prometheus")
Queries = Sequence[tuple[str, str]]
"""(PromQL, legend)."""


def timeseries(title: str, what: str, unit: str, queries: Queries) -> Any:  # noqa: ANN401
    """Lines over time."""
    return _filled(Timeseries().title(title).description(what).unit(unit).min(0), queries)


def states(title: str, what: str, queries: Queries) -> Any:  # noqa: ANN401
    """Bands over time, one for each series."""
    return _filled(StateTimeline().title(title).description(what), queries)


def _filled(panel: Any, queries: Queries) -> Any:  # noqa: ANN401  builders share no type
    panel.datasource(SOURCE)
    for number, (expr, legend) in enumerate(queries):
        panel.with_target(Dataquery().expr(expr).legend_format(legend).ref_id(chr(ord("A") + number)))
    return panel


def add_row(board: Dashboard, title: str, panels: Sequence[Any], top: int) -> int:
    """A row of panels side by side, at most three in a line; where the next row begins."""
    board.with_row(Row(title).grid_pos(GridPos(h=1, w=COLUMNS, x=0, y=top)))
    top += 1
    for first in range(0, len(panels), 3):
        line = panels[first : first + 3]
        width = COLUMNS // len(line)
        for place, panel in enumerate(line):
            board.with_panel(panel.grid_pos(GridPos(h=HEIGHT, w=width, x=place * width, y=top)))
        top += HEIGHT
    return top
