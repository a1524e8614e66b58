"""Runs and model versions, kept in MLflow: one run and one version for each fingerprint, and one champion."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.backends import locked, sync_folder
from registry.errors import Conflict, Corrupt, Missing, Refused, Retry, Stop
from registry.store import object_key
from streams.contracts.ids import digest, sha256_hex

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION = "champion"
"""The alias of the version that drives."""
_FINGERPRINT = "fleetwheel.fingerprint"
_FILE = "fleetwheel.sha256."
"""Tag of a version: this prefix and a file's name -> the file's sha256."""
_FOLDER = "model"
_PARTS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")


@dataclass(frozen=True, slots=True)
class Run:
    """A learning run."""

    id: str
    fingerprint: str
    status: str
    """MLflow's: RUNNING, FINISHED, FAILED."""
    params: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A registered model."""

    name: str
    number: int
    run_id: str
    fingerprint: str
    files: dict[str, str]
    """File name -> sha256."""
    tags: dict[str, str]

    @property
    def id(self) -> str:
        """How the fleet names it: "driver-3"."""
        return f"{self.name}-{self.number}"


class Models:
    """The runs and versions of one model at an MLflow tracking URI (sqlite:///… or http(s)://…).

    On SQLite the files lie in `artifacts` (a folder; default: beside the database), elsewhere where the server
    puts them. "Exactly one" and compare-and-set hold between all processes that share `locks` (a folder; default:
    beside the database); for a server that several machines write to, share it or let one worker have a job.
    Importing MLflow takes seconds, so it happens at the first call. Errors: Retry (busy, unreachable), Conflict
    (champion), Missing, Corrupt (files), Refused (names), Stop (anything else MLflow refuses).
    """

    def __init__(
        self, tracking_uri: str, name: str, artifacts: Path | None = None, locks: Path | None = None
    ) -> None:
        if not name or not _PARTS.issuperset(name):
            raise Refused(f"{name!r} is not a model name: letters, digits, - and _")
        self._uri, self.name = tracking_uri, name
        self._database = _sqlite_path(tracking_uri)
        home = self._database.parent if self._database else Path(tempfile.gettempdir()) / "fleetwheel"
        self._artifacts = artifacts or (home / "artifacts" if self._database else None)
        self._lock = (locks or home / ".locks") / f"{digest(tracking_uri)[:16]}.lock"
        self._connected: tuple[MlflowClient, str] | None = None

    def run(self, fingerprint: str, time_ns: int, tags: Mapping[str, str] | None = None) -> Run:
        """The run of a fingerprint; made at `time_ns` with these tags where there is none yet."""
        object_key(fingerprint)
        with locked(self._lock), _translated():
            client, experiment = self._client()
            if found := self.find_run(fingerprint):
                return found
            all_tags = {
                **(tags or {}),
                _FINGERPRINT: fingerprint,
                "mlflow.runName": f"{self.name}-{fingerprint[:8]}",
            }
            return _run(client.create_run(experiment, start_time=time_ns // 1_000_000, tags=all_tags))

    def find_run(self, fingerprint: str) -> Run | None:
        """The run of a fingerprint, None where there is none."""
        object_key(fingerprint)
        with _translated():
            client, experiment = self._client()
            wanted = f"tags.`{_FINGERPRINT}` = '{fingerprint}'"
            runs = client.search_runs([experiment], wanted, max_results=1, order_by=["attributes.start_time ASC"])
        return _run(runs[0]) if runs else None

    def log(
        self,
        run_id: str,
        *,
        time_ns: int,
        params: Mapping[str, object] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
        step: int = 0,
    ) -> None:
        """Write to a run. Again with the same values, time and step is no change; a parameter never changes."""
        with _translated():
            from mlflow.entities import Metric, Param, RunTag  # noqa: PLC0415

            time_ms = time_ns // 1_000_000
            self._client()[0].log_batch(
                run_id,
                [Metric(key, float(value), time_ms, step) for key, value in (metrics or {}).items()],
                [Param(key, str(value)) for key, value in (params or {}).items()],
                [RunTag(key, value) for key, value in (tags or {}).items()],
            )

    def log_file(self, run_id: str, path: Path, folder: str = "") -> None:
        """Keep a file with a run, replacing one of the same name."""
        if not path.is_file():
            raise Missing(f"{path} does not exist")
        with _translated():
            self._client()[0].log_artifact(run_id, str(path), folder or None)

    def finish(self, run_id: str, *, ok: bool, time_ns: int) -> None:
        """Close a run."""
        with _translated():
            status = "FINISHED" if ok else "FAILED"
            self._client()[0].set_terminated(run_id, status, end_time=time_ns // 1_000_000)

    def register(
        self, run_id: str, fingerprint: str, files: Mapping[str, Path], tags: Mapping[str, str] | None = None
    ) -> ModelVersion:
        """The version of a fingerprint; made from these files where there is none yet.

        `files`: name -> file (checkpoint, ONNX); they are kept with the run first. `tags`: lineage and evaluation.
        Killed at any point and called again, it ends with one version that has all its files.
        """
        object_key(fingerprint)
        with locked(self._lock), _translated():
            if found := self.find(fingerprint):
                return found
            client, _ = self._client()
            hashes = {f"{_FILE}{name}": self._keep(run_id, name, path) for name, path in sorted(files.items())}
            source = f"{client.get_run(run_id).info.artifact_uri}/{_FOLDER}"
            all_tags = {**(tags or {}), **hashes, _FINGERPRINT: fingerprint}
            return _version(client.create_model_version(self.name, source, run_id, tags=all_tags))

    def find(self, fingerprint: str) -> ModelVersion | None:
        """The version of a fingerprint, None where there is none."""
        object_key(fingerprint)
        return next(iter(self._search(f" and tags.`{_FINGERPRINT}` = '{fingerprint}'")), None)

    def version(self, id_: str) -> ModelVersion:
        """The version of an id ("driver-3"). Raises Missing."""
        name, _, number = id_.rpartition("-")
        found = self._search(f" and version_number = {number}") if number.isdecimal() and name == self.name else []
        if not found:
            raise Missing(f"there is no model version {id_!r}")
        return found[0]

    def versions(self) -> list[ModelVersion]:
        """All versions, oldest first."""
        return self._search("")

    def champion(self) -> ModelVersion | None:
        """The version that drives, None before the first one."""
        with _translated():
            client, _ = self._client()
            number = client.get_registered_model(self.name).aliases.get(CHAMPION)
            return None if number is None else _version(client.get_model_version(self.name, str(number)))

    def promote(self, version: ModelVersion, expected: ModelVersion | None) -> None:
        """Make a version the champion if the champion is still `expected` (None: if there is none).

        Raises Conflict where it is another one; is no change where it is this version already.
        """
        with locked(self._lock), _translated():
            champion = self.champion()
            if champion is not None and champion.id == version.id:
                return
            found, wanted = (v.id if v else None for v in (champion, expected))
            if found != wanted:
                raise Conflict(f"the champion of {self.name} is {found}, not {wanted}")
            self._client()[0].set_registered_model_alias(self.name, CHAMPION, str(version.number))

    def fetch(self, version: ModelVersion, name: str, folder: Path) -> Path:
        """A version's file, written below `folder`, its hash checked. Raises Missing, Corrupt."""
        if name not in version.files:
            raise Missing(f"{version.id} has no file {name!r}; it has {sorted(version.files)}")
        folder.mkdir(parents=True, exist_ok=True)
        with _translated():
            path = Path(self._client()[0].download_artifacts(version.run_id, f"{_FOLDER}/{name}", str(folder)))
        if (found := sha256_hex(path.read_bytes())) != version.files[name]:
            path.unlink()
            raise Corrupt(f"{name} of {version.id} has sha256 {found}, not {version.files[name]}")
        return path

    def _search(self, condition: str) -> list[ModelVersion]:
        with _translated():
            found = self._client()[0].search_model_versions(f"name = '{self.name}'{condition}", max_results=10_000)
        return sorted((_version(v) for v in found), key=lambda v: v.number)

    def _keep(self, run_id: str, name: str, path: Path) -> str:
        if path.name != name:
            raise Refused(f"the file {path} must be named {name!r}: MLflow keeps a file's own name")
        self.log_file(run_id, path, _FOLDER)
        return sha256_hex(path.read_bytes())

    def _client(self) -> tuple[MlflowClient, str]:
        """The client and the experiment; database, experiment and model are made where there are none."""
        if self._connected is None:
            client = _quiet_client(self._uri, self._database)
            self._connected = client, _experiment(client, self.name, self._artifacts)
            _ensure_model(client, self.name)
        return self._connected


QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_DISABLE_SCHEMA_CHECK_NOTICE": "true",
    # A command's result goes to stdout, and nothing else.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}
"""MLflow's own settings, unless they are set."""


def _quiet_client(uri: str, database: Path | None) -> MlflowClient:
    for variable, value in QUIET.items():
        os.environ.setdefault(variable, value)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    from mlflow import MlflowClient  # noqa: PLC0415  takes seconds

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    if database is not None and not database.exists():
        _make_database(database)
    return MlflowClient(uri, uri)


def _make_database(database: Path) -> None:
    """MLflow migrates for seconds; killed meanwhile it would leave a broken file. So: aside, then rename."""
    from mlflow import MlflowClient  # noqa: PLC0415

    aside = database.with_name(f".{database.name}.new")
    with locked(database.with_name(f".{database.name}.lock")):
        if database.exists():
            return
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        MlflowClient(f"sqlite:///{aside / database.name}").search_experiments(max_results=1)
        (aside / database.name).replace(database)
        aside.rmdir()
        sync_folder(database.parent)


def _experiment(client: MlflowClient, name: str, artifacts: Path | None) -> str:
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    location = artifacts.absolute().as_uri() if artifacts else None
    if (found := client.get_experiment_by_name(name)) is None:
        try:
            return str(client.create_experiment(name, artifact_location=location))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)
    assert found is not None
    return str(found.experiment_id)


def _ensure_model(client: MlflowClient, name: str) -> None:
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    try:
        client.get_registered_model(name)
    except MlflowException:
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise


@contextmanager
def _translated() -> Iterator[None]:
    """MLflow's errors as the registry's."""
    try:
        yield
    except Exception as error:
        code = getattr(error, "error_code", None)
        if code is None:
            raise
        kind = {
            "RESOURCE_DOES_NOT_EXIST": Missing,
            "TEMPORARILY_UNAVAILABLE": Retry,
            "INTERNAL_ERROR": Retry,
            "REQUEST_LIMIT_EXCEEDED": Retry,
        }.get(str(code), Stop)
        raise kind(f"MLflow: {error}") from error


def _run(run: Any) -> Run:  # noqa: ANN401  MLflow's own class
    tags = {k: v for k, v in run.data.tags.items() if not k.startswith("mlflow.") and k != _FINGERPRINT}
    fingerprint = run.data.tags[_FINGERPRINT]
    return Run(run.info.run_id, fingerprint, run.info.status, dict(run.data.params), dict(run.data.metrics), tags)


def _version(version: Any) -> ModelVersion:  # noqa: ANN401  MLflow's own class
    tags = dict(version.tags)
    files = {k.removeprefix(_FILE): tags.pop(k) for k in sorted(tags) if k.startswith(_FILE)}
    fingerprint = tags.pop(_FINGERPRINT, "")
    return ModelVersion(version.name, int(version.version), version.run_id, fingerprint, files, tags)


def _sqlite_path(uri: str) -> Path | None:
    return Path(uri.removeprefix("sqlite:///")).absolute() if uri.startswith("sqlite:///") else None
