"""Where a run's things lie: below one folder, but for the store and MLflow where they have a URL of their own."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path

from jobs.context import Places
from registry.errors import Retry
from registry.store import Store


class Unreachable(OSError):
    """A part that is needed does not answer: says which and what to do."""


def places_below(home: Path, store: str = "", mlflow: str = "") -> Places:
    """Everything below one folder, but for what has a URL of its own."""
    home = home.resolve()
    return Places(
        store=store or str(home / "store"),
        clip_index=str(home / "clips.sqlite"),
        lineage=str(home / "lineage.sqlite"),
        mlflow=mlflow or f"sqlite:///{home / 'mlflow.sqlite'}",
        releases=str(home / "releases"),
        keys=str(home / "keys"),
        scratch=str(home / "scratch"),
    )


def check_reachable(places: Places) -> None:
    """Say now, not in the middle of a job, that the store or MLflow does not answer. Raises Unreachable."""
    try:
        Store(places.store).has("0" * 64)
    except Retry as error:
        raise Unreachable(f"the store {places.store} does not answer: {error}") from error
    except (ValueError, ImportError) as error:
        raise Unreachable(f"the store {places.store!r} cannot be used: {error}") from error
    if places.mlflow.startswith(("http://", "https://")):
        try:
            urllib.request.urlopen(f"{places.mlflow}/health", timeout=10).close()  # noqa: S310  http(s) by the line above
        except (urllib.error.URLError, TimeoutError) as error:
            raise Unreachable(
                f"MLflow does not answer at {places.mlflow}: start it (make services) or name another ({error})"
            ) from error
