"""`fleet model score`: how well a model answers on recorded frames, and confidences that mean what they say."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import typer

from fleet.console import Watcher
from model.calibration import Calibration, calibrated, told
from model.checkpoint import Checkpoint, load, save
from model.data import Samples, concatenate
from model.head_scores import head_scores
from model.open_loop import evaluate
from model.rig import Rig
from model.shards import BadDataset, open_dataset, read_shard
from model.torch_policy import TorchPolicy
from registry.store import open_backend


@dataclass(frozen=True, slots=True)
class Asked:
    """On what to score."""

    dataset: str
    """Its URL, as `fleet model data` wrote it; of seeds that the model has not learnt from."""
    most: int
    """Frames, taken from the front."""
    calibrate: Path | None
    """Where to write the model with calibrated confidences."""


def run_score(path: Path, asked: Asked, *, as_json: bool) -> None:
    """The command. Raises BadCheckpoint, BadDataset, and what the store raises."""
    checkpoint = load(path)
    with Watcher(quiet=as_json) as watch:
        frames, rig = read(asked, watch)
        facts: dict[str, Any] = {
            "model": str(path),
            "dataset": asked.dataset,
            "frames": len(frames),
            "open_loop": asdict(evaluate(TorchPolicy(checkpoint, rig), frames)),
            "heads": {n: asdict(s) | {"skill": s.skill} for n, s in head_scores(checkpoint, frames, rig).items()},
        }
    if asked.calibrate is not None:
        cooled, temperatures, found = calibration(checkpoint, frames, rig)
        asked.calibrate.parent.mkdir(parents=True, exist_ok=True)
        facts |= {"calibrated": str(asked.calibrate), "sha256": save(cooled, asked.calibrate)}
        facts["calibration"] = {n: asdict(found[n]) if n in found else None for n in temperatures}
        facts["temperatures"] = temperatures
    typer.echo(json.dumps(facts) if as_json else _text(facts))


def read(asked: Asked, watch: Watcher) -> tuple[Samples, Rig]:
    """The dataset's first frames, and whose cameras saw them. Raises BadDataset."""
    files = open_backend(asked.dataset)
    dataset = open_dataset(files)
    parts, count = list[Samples](), 0
    for shard in dataset.shards:
        if count >= asked.most:
            break
        parts.append(read_shard(files, shard, dataset.rig).head(asked.most - count))
        count += len(parts[-1])
        watch("frames read", count, min(dataset.frames, asked.most), "")
    return concatenate(parts), dataset.rig


def calibration(
    checkpoint: Checkpoint, frames: Samples, rig: Rig
) -> tuple[Checkpoint, dict[str, float], dict[str, Calibration]]:
    """Temperatures fitted on the first half of the frames, what they change told of the second; a drive may lie
    on both sides. Raises BadDataset where there are not two frames."""
    if len(frames) < 2:
        raise BadDataset("calibration needs two frames: some to fit on, others to tell of")
    cut = len(frames) // 2
    cooled, temperatures = calibrated(checkpoint, frames.head(cut), rig)
    return cooled, temperatures, told(checkpoint, frames.take(slice(cut, None)), rig, temperatures)


def _text(facts: dict[str, Any]) -> str:
    lines = [f"{facts['model']} on {facts['frames']} frames of {facts['dataset']}", ""]
    lines += [f"  {name:28} {value:.3f}" for name, value in facts["open_loop"].items()]
    if facts["heads"]:
        lines += ["", "  head (0: no better than the best constant answer)"]
        lines += [
            f"  {name:28} {one['skill']:.2f} of {one['cases']} cases" for name, one in facts["heads"].items()
        ]
    for name, one in facts.get("calibration", {}).items():
        error = (
            f"error {one['error_before']:.3f}, then {one['error_after']:.3f}" if one else "no case in other drives"
        )
        lines.append(f"  {name}: temperature {facts['temperatures'][name]:.2f}; calibration: {error}")
    return "\n".join([*lines, *([f"  written to {facts['calibrated']}"] if "calibrated" in facts else [])])
