"""From a checkpoint to the graph that vehicles would run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

from edge import compile as compiler
from jobs.documents import Checked, Compiled, Json, Labelled, Trained
from jobs.label import unpack
from jobs.naming import GRAPH
from jobs.samples import fetch, from_clips, subset
from jobs.step import Work
from model.checkpoint import from_bytes
from model.data import Samples, concatenate
from model.export import export
from model.open_loop import observation
from model.policy import Observation
from model.rig import THREE_CAMERAS
from registry.datasets import load_dataset

FRAMES = 512
"""Real frames that calibrate, judge and time a graph; half of them from clips where there are any, because they
show what the base recordings lack: night, fog, other regions."""
CLIPS = 32
"""Clips that are read for it: few, because reading takes longer than judging."""


def compile_model(work: Work) -> Compiled:
    """The step: the graph that would ship, as small and fast as parity allows, and what it costs."""
    trained, settings = work.input("train", Trained), work.context.settings
    source, path = work.scratch / "exported.onnx", work.scratch / GRAPH
    export(from_bytes(work.store.get(trained.checkpoint)), THREE_CAMERAS, source)
    instants = compiler.history(source)
    frames = _frames(work, trained, instants)
    seen = compiler.feeds(frames, THREE_CAMERAS, compiler.patch_px(source), instants)
    made = compiler.compile_model(source, seen, path, hardware=settings.hardware, ways=settings.int8)
    return Compiled(
        graph=work.store.put_file(path).sha256,
        bytes=path.stat().st_size,
        runtime=f"{made.runtime}, {made.kind}",
        parity_max_error=made.chosen.parity.plan_m.largest,
        latency_ms_p50=made.chosen.latency.p50_ms,
        latency_ms_p99=made.chosen.latency.p99_ms,
        watts=made.watts.value,
        watts_source=made.watts.source,
        details=_without_path(made),
    )


def _frames(work: Work, trained: Trained, instants: int) -> Observation:
    settings = work.context.settings
    base = fetch(work.store, trained.base_samples, Path(work.context.places.scratch) / "samples")
    clips = [_clip_frames(work)] if "check" in work.inputs else []
    share = FRAMES // (1 + len(clips))
    parts = (base, *([c] for c in clips))
    return observation(concatenate([subset(p, share, settings.seed, instants) for p in parts]))


def _clip_frames(work: Work) -> Samples:
    """Frames of some of the clips that it was taught from, spread evenly over them."""
    clips = load_dataset(work.store, work.input("check", Checked).dataset).clips
    labels = unpack(work.store.get(work.input("label", Labelled).labels))
    labelled = [c for c in clips if c.clip_id in labels and labels[c.clip_id].valid.any()]
    chosen = np.unique(np.linspace(0, len(labelled) - 1, CLIPS).astype(int))
    return from_clips(work.store, [labelled[i] for i in chosen], labels, work.progress)


def _without_path(made: compiler.Compiled) -> Json:
    details: Json = msgspec.to_builtins(replace(made, path=Path()), enc_hook=str)
    return details
