"""Runs and versions in a real MLflow server: what holds on SQLite holds there, files included."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.kafka import free_port
from fleet.services import Process, mlflow_part
from registry.errors import Conflict
from registry.models import Models

pytestmark = [pytest.mark.services, pytest.mark.slow]
ONE, TWO = "1" * 64, "2" * 64


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    part = mlflow_part(tmp_path, free_port())
    process = Process(part, tmp_path)
    try:
        process.wait_ready()
        yield part.url
    finally:
        process.stop()


def test_a_server_keeps_runs_versions_files_and_the_champion(server: str, tmp_path: Path) -> None:
    check_models(server, tmp_path)


def check_models(url: str, folder: Path) -> None:
    models, others = (Models(url, "driver-demo", locks=folder / "locks") for _ in range(2))
    run = models.run(ONE, 1_000_000_000, {"dataset": "d1"})
    assert others.run(ONE, 2_000_000_000) == run
    models.log(run.id, time_ns=5_000_000, params={"lr": 0.1}, metrics={"loss": 2.5})
    files = {name: folder / name for name in ("model.safetensors", "model.onnx")}
    for name, path in files.items():
        path.write_bytes(name.encode() * 100_000)
    version = models.register(run.id, ONE, files, {"verdict": "pass"})
    assert others.register(run.id, ONE, files) == version
    assert others.versions() == [version]
    for name, path in files.items():
        assert others.fetch(version, name, folder / "back").read_bytes() == path.read_bytes()
    models.promote(version, None)
    assert others.champion() == version
    other = others.register(others.run(TWO, 3_000_000_000).id, TWO, files)
    with pytest.raises(Conflict):
        others.promote(other, None)
