"""The training steps on a real store and a real MLflow: killed on its way, a run goes on and stays one run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from jobs.context import Settings
from jobs.documents import Checked, Labelled, Recorded
from jobs.label import ClipLabels, pack
from jobs.naming import BASE_SAMPLES, CHECKPOINT, GRAPH, open_models
from jobs.step import Work
from jobs.train import clone, fine_tune
from model import checkpoint as checkpoints
from model.samples_file import save
from registry.datasets import DatasetClip, make_dataset, save_dataset
from registry.errors import Refused
from tests.unit.model_samples import some_samples
from tests.unit.test_job_clips import Fleet, clip_bytes


class Killed(Exception):
    """Stands for the end of the process."""


def recorded(fleet: Fleet, folder: Path) -> Recorded:
    save(some_samples(200), folder / "base.safetensors")
    return Recorded([fleet.store.put_file(folder / "base.safetensors").sha256], 200, 0.3)


def killed_after(work: Work, done: int) -> Work:
    """The same work, killed when that many steps of training are done."""

    def progress(at: int, of: int, what: str) -> None:
        if what.startswith("loss") and at == done:
            raise Killed

    return replace(work, progress=progress)


def learn_inputs(fleet: Fleet) -> dict[str, msgspec.Struct]:
    clips, labels = [], {}
    for i in range(2):
        data = clip_bytes(f"c{i}", i)
        clips.append(DatasetClip(f"c{i}", fleet.store.put(data).sha256, f"v{i}"))
        labels[f"c{i}"] = ClipLabels(np.ones((20, 8, 2), np.float32), np.ones(20, bool))
    dataset = save_dataset(fleet.store, make_dataset(clips))
    kept = fleet.store.put(pack(labels)).sha256
    return {"label": Labelled(kept, "", 2, 40, 40), "check": Checked(dataset, 2, 2, {}, {}, "pass", [])}


def test_cloning_and_teaching_go_on_where_they_were_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.train.KEEP_EVERY", 5)
    fleet = Fleet(tmp_path)
    fleet.context = msgspec.structs.replace(
        fleet.context,
        places=msgspec.structs.replace(fleet.context.places, mlflow=f"sqlite:///{tmp_path}/mlflow.db"),
        settings=Settings(replay_frames=100),
    )
    work = fleet.work([], record=recorded(fleet, tmp_path))
    whole = clone(work)
    models = open_models(work)
    run = models.find_run(work.fingerprint)
    assert run is not None
    assert (run.id, run.params["recipe"], run.params["frames"]) == (whole.run_id, "quick", "200")
    files = {
        CHECKPOINT: fleet.store.get_file(whole.checkpoint, tmp_path / CHECKPOINT),
        GRAPH: _file(tmp_path / GRAPH),
    }
    base = models.register(run.id, work.fingerprint, files, {BASE_SAMPLES: json.dumps(whole.base_samples)})

    inputs = {n: msgspec.to_builtins(d) for n, d in learn_inputs(fleet).items()}
    request = msgspec.structs.replace(fleet.work(["c0", "c1"]).request, base_model=base.id)
    there = Work(request, fleet.context, inputs, work.now_ns, key="one")
    with pytest.raises(Killed):
        fine_tune(killed_after(there, 17))
    seen: list[int] = []
    taught = fine_tune(
        replace(there, progress=lambda at, of, what: seen.append(at) if what.startswith("loss") else None)
    )
    assert seen == [16, 17, 18, 19, 20]  # of 20; the 15th is where it was kept
    again = fine_tune(Work(request, fleet.context, inputs, work.now_ns, key="two"))  # never killed
    assert taught == again  # to the byte: the checkpoint is named by its content
    assert taught.checkpoint != whole.checkpoint
    assert (taught.frames, taught.champion_graph) == (40, base.files[GRAPH])
    client, experiment = models._client()
    assert len(client.search_runs([experiment])) == 2  # one each
    assert checkpoints.from_bytes(fleet.store.get(taught.checkpoint)).step == 0

    bare = models.register(models.run("b" * 64, 0).id, "b" * 64, files)
    unknown = msgspec.structs.replace(request, base_model=bare.id)
    with pytest.raises(Refused, match="does not say what it was cloned from"):
        fine_tune(Work(unknown, fleet.context, inputs, work.now_ns))


def _file(path: Path) -> Path:
    path.write_bytes(b"graph")
    return path
