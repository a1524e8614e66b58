"""How a job's things are named in the model registry, and what is told of them there."""

from __future__ import annotations

from pathlib import Path

from jobs.documents import Checked, Evaluated, Tally, Trained
from jobs.step import Work
from registry.lineage import Kind, Lineage, Node
from registry.models import Models

CHECKPOINT, GRAPH = "checkpoint.safetensors", "model.onnx"
"""Files of a model version."""
BASE_SAMPLES = "fleetwheel.base_samples"
"""Tag of a model version: JSON list of the samples files it was cloned from."""

DATASET = "fleetwheel.dataset"
"""Tag of a model version: the dataset version it was taught from."""


def open_models(work: Work) -> Models:
    """The runs and versions that the job writes to."""
    return Models(work.context.places.mlflow, work.context.settings.model_name)


def figures(work: Work) -> dict[str, float]:
    """What is logged and signed: rates of the candidate by condition, and open-loop figures."""
    evaluated = work.input("evaluate", Evaluated)
    found = {f"open_loop_{name}": value for name, value in evaluated.candidate_open_loop.items()}
    for name, tally in evaluated.candidate.by_condition.items():
        found |= {f"{name}_{what}": value for what, value in _rates(tally).items()}
    return found


def made_from(work: Work) -> dict[str, list[str]]:
    """What a bundle says of its origin: kind -> ids."""
    run = {Kind.RUN.value: [work.input("train", Trained).run_id]}
    base = {Kind.MODEL.value: [work.request.base_model]} if work.request.base_model else {}
    dataset = {Kind.DATASET.value: [work.input("check", Checked).dataset]} if "check" in work.inputs else {}
    return run | base | dataset


def link(work: Work, edges: list[tuple[Node, Node]]) -> None:
    """Record (parent, child) edges of lineage; again is no change."""
    lineage = Lineage(Path(work.context.places.lineage))
    try:
        lineage.link_all(edges)
    finally:
        lineage.close()


def _rates(tally: Tally) -> dict[str, float]:
    count = tally.disengagements
    rates = {"per_km": count / tally.km, "per_hour": count / tally.hours} if tally.km and tally.hours else {}
    return {"km": tally.km, "hours": tally.hours, "disengagements": float(count), **rates}
