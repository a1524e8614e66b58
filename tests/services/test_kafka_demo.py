"""The same loop with every message over a real broker, clips in S3 and learning in an MLflow server: the same
turns, nothing lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from fleet.kafka import NativeKafka, free_port
from fleet.services import Process, mlflow_part, s3_part
from registry.models import Models
from registry.store import Store
from tests.conftest import QuickRun, quick_demo

pytestmark = [pytest.mark.services, pytest.mark.slow]


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """An S3 and an MLflow server; the demo's options for them."""
    s3, environment = s3_part(tmp_path, free_port())
    mlflow = mlflow_part(tmp_path, free_port())
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with ExitStack() as open_:
        started = [Process(part, tmp_path) for part in (s3, mlflow)]
        for process in started:
            open_.callback(process.stop)
        for process in started:
            process.wait_ready()
        yield {"--store": "s3://fleetwheel/clips", "--mlflow": mlflow.url}


def test_the_wheel_turns_alike_over_the_real_parts(
    broker: NativeKafka, parts: dict[str, str], quick_run: QuickRun, tmp_path: Path
) -> None:
    words = [word for pair in parts.items() for word in pair]
    over, embedded = (
        quick_demo(tmp_path / "run", "--kafka", broker.bootstrap, *words).summary,
        quick_run.summary,
    )
    assert [unnamed(t) for t in over["turns"]] == [unnamed(t) for t in embedded["turns"]]
    # The model's name is the run's own there: a clip names the model that drove, and who gets a release first is
    # drawn by its name, so that the drives in which it is watched may offer other clips.
    chosen = {name: n for name, n in embedded["clips"].items() if name not in ("recorded", "bytes")}
    assert over["clips"].items() >= chosen.items()
    assert over["clips"]["lost"] == 0
    assert [j["verdict"] for j in over["jobs"]] == [j["verdict"] for j in embedded["jobs"]]
    # Later jobs are named after what they start from.
    assert over["jobs"][0]["fingerprint"] == embedded["jobs"][0]["fingerprint"]
    assert not (tmp_path / "run" / "store").exists()
    assert not (tmp_path / "run" / "mlflow.sqlite").exists()
    name = over["turns"][0]["model_version"].rpartition("-")[0]
    assert len(Models(parts["--mlflow"], name).versions()) == len(over["jobs"])
    run = name.removeprefix("driver-")
    jobs = Store(f"{parts['--store']}/{run}").documents("jobs")
    assert any(over["jobs"][0]["fingerprint"] in job for job in jobs)


def unnamed(turn: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in turn.items() if key != "model_version"}
