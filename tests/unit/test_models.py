"""Runs and versions in MLflow: exactly one each, killed anywhere; the champion by compare-and-set."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from registry.errors import Conflict, Corrupt, Missing, Refused, Stop
from registry.models import Models

mlflow = pytest.importorskip("mlflow")


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One tracking database for the module: making one takes seconds."""
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    names = ("model.safetensors", "model.onnx")
    for name in names:
        (tmp_path / name).write_bytes(name.encode() * 1000)
    return {name: tmp_path / name for name in names}


_names = (f"driver{n}" for n in range(1000))


@pytest.fixture
def models(home: Path) -> Models:
    return models_at(home, next(_names))


def models_at(home: Path, name: str) -> Models:
    return Models(f"sqlite:///{home / 'mlflow.db'}", name)


ONE, TWO = "1" * 64, "2" * 64


def test_a_fingerprint_has_one_run(models: Models, home: Path) -> None:
    assert models.find_run(ONE) is None
    run = models.run(ONE, 1_000_000_000, {"dataset": "d1"})
    assert models_at(home, models.name).run(ONE, 2_000_000_000) == run
    assert models.run(TWO, 3_000_000_000).id != run.id
    assert run.tags == {"dataset": "d1"}


def test_a_run_keeps_what_is_logged_and_once_only(models: Models, files: dict[str, Path]) -> None:
    run_id = models.run(ONE, 0).id
    for _ in range(2):
        models.log(run_id, time_ns=5_000_000, params={"lr": 0.1}, metrics={"loss": 2.5}, tags={"verdict": "pass"})
        models.log_file(run_id, files["model.onnx"], "report")
    models.finish(run_id, ok=True, time_ns=9_000_000)
    run = models.find_run(ONE)
    assert run is not None
    assert (run.status, run.params, run.metrics, run.tags) == (
        "FINISHED",
        {"lr": "0.1"},
        {"loss": 2.5},
        {"verdict": "pass"},
    )
    client = mlflow.MlflowClient(models._uri)
    assert len(client.get_metric_history(run_id, "loss")) == 1
    with pytest.raises(Stop, match="lr"):
        models.log(run_id, time_ns=6_000_000, params={"lr": 0.2})
    with pytest.raises(Missing, match=r"nothing\.bin"):
        models.log_file(run_id, Path("nothing.bin"))


def test_a_version_has_its_files_and_its_lineage(models: Models, files: dict[str, Path], tmp_path: Path) -> None:
    run_id = models.run(ONE, 0).id
    version = models.register(run_id, ONE, files, {"dataset": "d1"})
    assert version.id == f"{models.name}-1"
    assert (version.run_id, version.fingerprint, version.tags) == (run_id, ONE, {"dataset": "d1"})
    assert models.register(run_id, ONE, {}) == version
    assert models.version(version.id) == version
    assert models.versions() == [version]
    path = models.fetch(version, "model.safetensors", tmp_path / "fetched")
    assert path.read_bytes() == files["model.safetensors"].read_bytes()
    with pytest.raises(Missing, match=r"other\.bin"):
        models.fetch(version, "other.bin", tmp_path)
    for unknown in (f"{models.name}-2", "another-1", "-", f"{models.name}-x"):
        with pytest.raises(Missing):
            models.version(unknown)


def test_changed_files_of_a_version_are_corrupt(
    models: Models, home: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    version = models.register(models.run(ONE, 0).id, ONE, files)
    (kept,) = (home / "artifacts").glob(f"**/{version.run_id}/**/model.onnx")
    kept.write_bytes(b"evil")
    with pytest.raises(Corrupt, match=r"model\.onnx"):
        models.fetch(version, "model.onnx", tmp_path / "fetched")
    assert not list((tmp_path / "fetched").rglob("model.onnx"))


def test_the_champion_changes_by_compare_and_set(models: Models, files: dict[str, Path]) -> None:
    first = models.register(models.run(ONE, 0).id, ONE, files)
    second = models.register(models.run(TWO, 0).id, TWO, files)
    assert models.champion() is None
    with pytest.raises(Conflict, match="is None"):
        models.promote(second, first)
    models.promote(first, None)
    models.promote(second, first)
    models.promote(second, first)
    assert models.champion() == second
    with pytest.raises(Conflict, match=second.id):
        models.promote(first, None)


@pytest.mark.parametrize("fingerprint", ["", "x", "1' OR '1'='1", "A" * 64])
def test_only_a_sha256_is_a_fingerprint(models: Models, fingerprint: str) -> None:
    for call in (models.find_run, models.find):
        with pytest.raises(Refused):
            call(fingerprint)


def test_only_plain_names_and_own_file_names(home: Path, models: Models, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="not a model name"):
        models_at(home, "a' OR 1=1")
    (tmp_path / "a.bin").write_bytes(b"a")
    with pytest.raises(Refused, match="must be named"):
        models.register(models.run(ONE, 0).id, ONE, {"b.bin": tmp_path / "a.bin"})


class Killed(BaseException):
    """Stands for kill -9: nothing in the code may catch it."""


CALLS = ("create_run", "log_artifact", "create_model_version", "set_registered_model_alias")


@pytest.fixture(params=[(call, when, n) for call in CALLS for when in ("before", "after") for n in (1, 2)])
def killer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ends the process at the n-th call to MLflow, before or after it took effect."""
    call, when, left = request.param
    original = getattr(mlflow.MlflowClient, call)

    def deadly(*args: Any, **kwargs: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0 and when == "before":
            raise Killed
        result = original(*args, **kwargs)
        if left == 0:
            raise Killed
        return result

    monkeypatch.setattr(mlflow.MlflowClient, call, deadly)
    yield
    monkeypatch.undo()


def _work(home: Path, name: str, files: dict[str, Path]) -> None:
    models = models_at(home, name)
    run = models.run(ONE, 0)
    models.log(run.id, time_ns=0, params={"lr": 1})
    version = models.register(run.id, ONE, files)
    models.promote(version, models.champion())
    models.finish(run.id, ok=True, time_ns=1)


@pytest.mark.usefixtures("killer")
def test_killed_anywhere_and_run_again_there_is_one_of_each(
    home: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    name = next(_names)
    for _ in range(3):
        try:
            _work(home, name, files)
        except Killed:
            continue
    models = models_at(home, name)
    client = mlflow.MlflowClient(models._uri)
    experiment = client.get_experiment_by_name(name)
    assert len(client.search_runs([experiment.experiment_id])) == 1
    (version,) = models.versions()
    assert models.champion() == version
    for file_name, path in files.items():
        assert models.fetch(version, file_name, tmp_path / "out").read_bytes() == path.read_bytes()


def test_a_process_killed_while_it_makes_the_database_leaves_no_broken_one(tmp_path: Path) -> None:
    script = (
        "import os, sys, sqlalchemy\n"
        "from registry.models import Models\n"
        "left = 60\n"
        "@sqlalchemy.event.listens_for(sqlalchemy.engine.Engine, 'before_cursor_execute')\n"
        "def deadly(*_):\n"
        "    global left\n"
        "    left -= 1\n"
        "    if left == 0: os._exit(9)\n"
        "Models('sqlite:///' + sys.argv[1], 'driver').run('1' * 64, 0)\n"
    )
    database = tmp_path / "mlflow.db"
    killed = subprocess.run([sys.executable, "-c", script, str(database)], check=False)
    assert killed.returncode == 9
    assert not database.exists()
    models = Models(f"sqlite:///{database}", "driver")
    assert models.run(ONE, 0).status == "RUNNING"
