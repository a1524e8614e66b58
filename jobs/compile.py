"""From a checkpoint to the graph that vehicles would run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec

from edge import compile as compiler
from jobs.documents import Compiled, Json, Trained
from jobs.naming import GRAPH
from jobs.samples import fetch, subset
from jobs.step import Work
from model.checkpoint import from_bytes
from model.export import export
from model.open_loop import observation
from model.policy import Observation
from model.rig import THREE_CAMERAS

CALIBRATION_FRAMES = 64
"""Real frames that calibrate, judge and time a graph."""

TIMINGS = 3
"""A latency above the gate's bound is measured again this often: other processes only ever add to it."""


def compile_model(work: Work) -> Compiled:
    """The step: the graph that would ship, as small and fast as parity allows, and what it costs."""
    trained, settings = work.input("train", Trained), work.context.settings
    source, path = work.scratch / "exported.onnx", work.scratch / GRAPH
    export(from_bytes(work.store.get(trained.checkpoint)), THREE_CAMERAS, source)
    seen = compiler.feeds(_calibration(work, trained), THREE_CAMERAS, compiler.patch_px(source))
    for _ in range(TIMINGS):
        made = compiler.compile_model(source, seen, path, hardware=settings.hardware, ways=settings.int8)
        if made.chosen.latency.p99_ms <= settings.gate.latency_ms:
            break
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


def _calibration(work: Work, trained: Trained) -> Observation:
    parts = fetch(work.store, trained.base_samples, Path(work.context.places.scratch) / "samples")
    return observation(subset(parts, CALIBRATION_FRAMES, work.context.settings.seed))


def _without_path(made: compiler.Compiled) -> Json:
    details: Json = msgspec.to_builtins(replace(made, path=Path()), enc_hook=str)
    return details
