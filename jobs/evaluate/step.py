"""The evaluate step: what vehicles would run, against what they run, on the same frames and worlds."""

from __future__ import annotations

from pathlib import Path

from jobs.documents import Checked, Compiled, Driven, Evaluated, Labelled, Trained
from jobs.evaluate.closed_loop import drive_all, plan_shards, tallies
from jobs.evaluate.open_loop import open_loop
from jobs.label import unpack
from jobs.samples import from_clips
from jobs.step import Work, no_progress
from model.data import BadSamples, Samples
from registry.datasets import VALIDATION, load_dataset


def evaluate(work: Work) -> Evaluated:
    """The step. The champion's driving on the same worlds is taken from the store where it was driven before."""
    candidate, champion = work.input("compile", Compiled).graph, work.input("train", Trained).champion_graph
    budget, code = work.context.settings.budget, work.context.code
    graphs = [g for g in (champion, candidate) if g]
    shards = [s for g in graphs for s in plan_shards(g, budget, code)]
    results = drive_all(work.context.places.store, shards, work.scratch, work.context.processes, work.progress)
    frames = _validation(work)
    return Evaluated(
        candidate=Driven(candidate, tallies(results, candidate)),
        champion=Driven(champion, tallies(results, champion)) if champion else None,
        candidate_open_loop=_open_loop(work, candidate, frames),
        champion_open_loop=_open_loop(work, champion, frames),
    )


def _validation(work: Work) -> Samples | None:
    """Labelled frames of clips whose vehicles the training never saw; None where there is none."""
    if "check" not in work.inputs:
        return None
    clips = load_dataset(work.store, work.input("check", Checked).dataset).split(VALIDATION)
    labels = unpack(work.store.get(work.input("label", Labelled).labels))
    try:
        return from_clips(work.store, clips, labels, no_progress, work.context.settings.budget.open_loop_frames)
    except BadSamples:
        return None


def _open_loop(work: Work, graph: str, frames: Samples | None) -> dict[str, float]:
    if not graph or frames is None:
        return {}
    path: Path = work.scratch / f"{graph}.onnx"
    if not path.exists():
        work.store.get_file(graph, path)
    return open_loop(path, frames)
