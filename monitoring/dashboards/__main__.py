"""Write the boards' JSON: `python -m monitoring.dashboards`, or `make dashboards`."""

from __future__ import annotations

from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from monitoring.dashboards.fleet import board

BOARDS = {"fleet.json": board}
FOLDER = Path(__file__).parent


def boards() -> dict[str, str]:
    """File name -> JSON, as Grafana loads it."""
    return {n: JSONEncoder(sort_keys=True, indent=1).encode(make().build()) + "\n" for n, make in BOARDS.items()}


if __name__ == "__main__":
    for name, text in boards().items():
        (FOLDER / name).write_text(text)
