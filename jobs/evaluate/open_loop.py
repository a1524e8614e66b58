"""How far plans are from what was driven, on validation clips; secondary to driving."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from edge.runtimes.onnx import OnnxPolicy
from model.data import Samples
from model.open_loop import evaluate
from model.rig import THREE_CAMERAS


def open_loop(graph: Path, samples: Samples) -> dict[str, float]:
    """Open-loop figures (model.open_loop.OpenLoop) of an ONNX file; {} without frames."""
    if not len(samples):
        return {}
    return {k: float(v) for k, v in asdict(evaluate(OnnxPolicy(graph, THREE_CAMERAS), samples)).items()}
