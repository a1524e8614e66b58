"""The end of a job's run in MLflow, a model version for a candidate that passed, and who is the champion."""

from __future__ import annotations

import json

from jobs.documents import Checked, Compiled, Promoted, Registered, Trained, Verdict
from jobs.naming import BASE_SAMPLES, CHECKPOINT, DATASET, GRAPH, figures, link, open_models
from jobs.step import Work
from registry.datasets import load_dataset
from registry.errors import Conflict
from registry.lineage import Kind, Node
from registry.models import Models, ModelVersion


def register(work: Work) -> Registered:
    """The step: the run's end in MLflow and, for a candidate that passed, a version. One that was not compared
    with what now drives ends here, before anything is published."""
    gate, trained = work.input("gate", Verdict), work.input("train", Trained)
    models = open_models(work)
    time_ns = work.request.time_ns
    models.log(trained.run_id, time_ns=time_ns, metrics=figures(work), tags={"verdict": gate.verdict})
    reasons = gate.reasons if gate.verdict == "fail" else []
    version = None if reasons else _version(work, models, trained)
    if version is not None:
        reasons = _overtaken(work, models.champion(), version)
        _link_version(work, trained.run_id, version.id)
    models.finish(trained.run_id, ok=True, time_ns=work.now_ns)
    return Registered("fail" if reasons else "pass", reasons, version.id if version else "")


def promote(work: Work) -> Promoted:
    """The step: make the version the champion if the one it was compared with still is. It comes last: the title
    must never lie with what has no release."""
    models, base = open_models(work), work.request.base_model
    version = models.version(work.input("register", Registered).model_version)
    try:
        models.promote(version, models.version(base) if base else None)
    except Conflict as error:
        return Promoted("fail", [_not_compared(version, str(error))])
    return Promoted("pass", [])


def step_down(models: Models, halted: str, previous: str) -> bool:
    """Make the previous version (by id) the champion again after the rollout of `halted` was halted. False where
    another one has taken its place meanwhile. Raises Missing."""
    try:
        models.promote(models.version(previous), models.version(halted))
    except Conflict:
        return False
    return True


def _version(work: Work, models: Models, trained: Trained) -> ModelVersion:
    compiled = work.input("compile", Compiled)
    files = {
        CHECKPOINT: work.store.get_file(trained.checkpoint, work.scratch / CHECKPOINT),
        GRAPH: work.store.get_file(compiled.graph, work.scratch / GRAPH),
    }
    tags = {
        BASE_SAMPLES: json.dumps(trained.base_samples),
        "base_model": work.request.base_model,
        "recipe": work.request.recipe,
    }
    if "check" in work.inputs:
        tags[DATASET] = work.input("check", Checked).dataset
    return models.register(trained.run_id, work.fingerprint, files, tags)


def _overtaken(work: Work, champion: ModelVersion | None, version: ModelVersion) -> list[str]:
    """Why the version could not become the champion now; [] where it could, or is."""
    found, base = champion.id if champion else "", work.request.base_model
    if found in (base, version.id):
        return []
    return [_not_compared(version, f"the champion is {found or 'none'}, not {base or 'none'}")]


def _not_compared(version: ModelVersion, why: str) -> str:
    return f"{version.id} was not compared with what now drives: {why}"


def _link_version(work: Work, run_id: str, version: str) -> None:
    run = Node(Kind.RUN, run_id)
    edges = [(run, Node(Kind.MODEL, version))]
    if work.request.base_model:
        edges.append((Node(Kind.MODEL, work.request.base_model), run))
    if "check" in work.inputs:
        dataset = load_dataset(work.store, work.input("check", Checked).dataset)
        made = Node(Kind.DATASET, dataset.version)
        edges += [(Node(Kind.CLIP, c.clip_id), made) for c in dataset.clips]
        edges += [(Node(Kind.DATASET, parent), made) for parent in dataset.parents]
        edges.append((made, run))
    link(work, edges)
