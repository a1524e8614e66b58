"""A worker that is killed everywhere still ends with one run, one model version and one release.

MLflow, the TUF repository, the store and the lineage are real; only the learning itself is left out.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobs.context import JobContext, Places
from jobs.record import JobRecord
from jobs.register import step_down
from registry.errors import Missing
from registry.lineage import Kind, Lineage, Node
from registry.models import Models
from registry.releases import Releases
from registry.store import Store
from streams.contracts.ids import digest
from streams.contracts.jobs import JobRequested
from tests.job_steps import LIGHT

ROOT = Path(__file__).resolve().parent.parent.parent
STEPS = [step.name for step in LIGHT["light"]]
REQUEST = JobRequested(digest("crash"), "light", 1_700_000_000_000_000_000, "", "quick", ["c1"])

WORKER = """
import os, signal, sys
from pathlib import Path
from jobs.launchers.local import run_inline, run_step
from jobs.runner import Worker
from tests.e2e.test_job_crash import REQUEST, context
from tests.job_steps import LIGHT

writes = 0
def kill_at(event, arguments):
    global writes
    changes = event in ("os.rename", "os.remove", "os.mkdir", "sqlite3.connect") or (
        event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR))
    writes += changes
    if changes and writes == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

inline = sys.argv[2] != "processes"
if inline:
    sys.addaudithook(kill_at)
launch = run_inline if inline else run_step
Worker(context(Path(sys.argv[1])), catalog=LIGHT, launch=launch).run(REQUEST, lambda message: None)
"""


def context(folder: Path) -> JobContext:
    places = Places(
        store=str(folder / "store"),
        clip_index=str(folder / "clips.db"),
        lineage=str(folder / "lineage.db"),
        mlflow=f"sqlite:///{folder}/mlflow.db",
        releases=str(folder / "releases"),
        keys=str(folder / "keys"),
        scratch=str(folder / "scratch"),
    )
    return JobContext(places, retry_seconds=0.1)


def worker(folder: Path, how: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", WORKER, str(folder), how], cwd=ROOT)


def check_one_of_each(folder: Path) -> None:
    """What the issue asks for, read from the registries themselves."""
    there = context(folder)
    finished = JobRecord(Store(there.places.store), REQUEST.fingerprint).finished()
    assert finished is not None
    assert finished.verdict == "pass", finished.reasons
    models = Models(there.places.mlflow, there.settings.model_name)
    (version,) = models.versions()
    assert (version.id, version.fingerprint) == (finished.model_version, REQUEST.fingerprint)
    assert models.champion() == version
    run = models.find_run(REQUEST.fingerprint)
    assert run is not None
    assert (run.id, run.status) == (finished.run_id, "FINISHED")
    assert run.metrics["night_per_km"] == 1.2
    client, experiment = models._client()
    assert len(client.search_runs([experiment])) == 1
    (published,) = Releases(Path(there.places.releases), Path(there.places.keys)).all()
    assert published.release == finished.release
    assert published.card.fingerprint == REQUEST.fingerprint
    assert len(list((Path(there.places.releases) / "targets").rglob("*.zip"))) == 1
    lineage = Lineage(Path(there.places.lineage))
    assert lineage.ancestors(Node(Kind.RELEASE, str(published.release.version))) == [
        Node(Kind.RUN, run.id),
        Node(Kind.MODEL, version.id),
        Node(Kind.BUNDLE, published.release.sha256),
    ]


@pytest.mark.slow
def test_killed_from_outside_as_each_step_ends(tmp_path: Path) -> None:
    """kill -9 at the moment a step's document is there; the step's process goes with its worker."""
    record = JobRecord(Store(context(tmp_path).places.store), REQUEST.fingerprint)
    for name in STEPS:
        process = worker(tmp_path, "processes")
        while record.step(name) is None and process.poll() is None:
            time.sleep(0.005)
        process.kill()
        process.wait()
    assert worker(tmp_path, "processes").wait() == 0
    check_one_of_each(tmp_path)


@pytest.mark.slow
def test_killed_from_inside_among_its_writes(tmp_path: Path) -> None:
    """kill -9 at the n-th write since its start, for n in no order, until it is through."""
    rng = random.Random(3)
    killed = 0
    while killed < 9 and worker(tmp_path, str(rng.randint(2, 40))).wait() != 0:
        killed += 1
    assert killed >= 3
    assert worker(tmp_path, "0").wait() == 0
    check_one_of_each(tmp_path)
    check_stepping_down(tmp_path)


def check_stepping_down(folder: Path) -> None:
    """A champion whose rollout was halted gives way to the one before, unless that has happened already."""
    models = Models(context(folder).places.mlflow, context(folder).settings.model_name)
    (first,) = models.versions()
    run = models.run(digest("second"), REQUEST.time_ns)
    second = models.register(run.id, digest("second"), {})
    models.promote(second, first)
    assert step_down(models, second.id, first.id)
    assert models.champion() == first
    third = models.register(models.run(digest("third"), 0).id, digest("third"), {})
    models.promote(third, first)
    assert not step_down(models, second.id, first.id)


def test_a_job_that_nobody_began_has_no_record(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert JobRecord(store, REQUEST.fingerprint).finished() is None
    with pytest.raises(Missing):
        store.read(f"jobs/{REQUEST.fingerprint}/finished")
