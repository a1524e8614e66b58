"""`fleet model adapt` and `fleet model merge`: adapters learnt, and added to their base."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from fleet.console import Watcher
from fleet.sample_data import BadChoice
from fleet.unfinished import unfinished
from jobs.recorded import from_folder, from_recording
from model import adapter_file, checkpoint
from model.adapter_file import load_base
from model.adapters import REPLAYED, adapt, adapting, merged
from model.data import Samples
from model.export import export
from model.rig import THREE_CAMERAS, Rig, rig_named
from model.samples_file import to_bytes
from model.training import Hooks
from simulation.episode import record_expert
from simulation.scenarios import BASE, condition, drawn, scene_seed
from streams.contracts.ids import sha256_hex

KEEP_EVERY = 25
"""Steps that a stopped run loses at most."""
DRIVE_S = 10.0


@dataclass(frozen=True, slots=True)
class Asked:
    """What `fleet model adapt` was asked for."""

    name: str
    region: str
    clips: Path | None
    drives: int
    steps: int
    rank: int
    seed: int
    rig: str = THREE_CAMERAS.name
    """Whose cameras what is learnt from was seen by."""
    home: tuple[str, ...] = ()
    """Regions that the base knows: what it does there is to stay."""


def run_adapt(path: Path, asked: Asked, out: Path, *, as_json: bool) -> None:
    """The command. Raises BadCheckpoint, BadChoice, BadSamples, BadRig, UnknownName, BadAdapter,
    NonFiniteLoss, OSError."""
    base, rig = load_base(path), rig_named(asked.rig)
    with Watcher(quiet=as_json) as watch:
        samples = _samples(asked, rig, watch)
        known = region_samples(asked.home, asked.drives, asked.seed, rig, watch) if asked.home else samples
        # Of every frame: a run goes on only with what it began with.
        learnt = [sha256_hex(to_bytes(some)) for some in ((samples, known) if asked.home else (samples,))]
        run = unfinished(out, base.sha256, asked.name, asked.steps, asked.rank, asked.seed, *learnt)
        hooks = Hooks(
            lambda done, of, loss: watch("steps", done, of, f"loss {loss:.3f}"), run.keep, KEEP_EVERY, run.left()
        )
        adapter = adapt(
            base,
            asked.name,
            known,
            samples,
            rig,
            adapting(asked.steps, REPLAYED if asked.home else 0.0),
            rank=asked.rank,
            seed=asked.seed,
            hooks=hooks,
        )
    sha256 = adapter_file.save(adapter, out)
    run.over()
    share = adapter.parameters / base.parameters
    told: dict[str, object] = {
        "adapter": str(out),
        "name": adapter.name,
        "sha256": sha256,
        "base_sha256": base.sha256,
    }
    told |= {"parameters": adapter.parameters, "share": share, "frames": len(samples)}
    line = f"{out}: {adapter.parameters} parameters, {share:.1%} of the base's; learnt from {len(samples)} frames"
    typer.echo(json.dumps(told) if as_json else line)


def _samples(asked: Asked, rig: Rig, watch: Watcher) -> Samples:
    if (asked.clips is None) == (not asked.region):
        raise BadChoice("say what to learn from: --region NAME or --clips FOLDER, one of them")
    if asked.clips is not None:
        return from_folder(asked.clips, lambda done, of, what: watch("clips", done, of, what), rig)
    return region_samples((asked.region,), asked.drives, asked.seed, rig, watch)


def region_samples(regions: Sequence[str], drives: int, seed: int, rig: Rig, watch: Watcher) -> Samples:
    """What the expert does in so many drives of regions in turn, each a clip. Raises UnknownName."""
    where, what = [condition(BASE, region) for region in regions], ", ".join(regions)
    scenes = [drawn(where[n % len(where)], scene_seed("train", seed, n)) for n in range(drives)]
    recorded = record_expert(
        scenes,
        rig,
        DRIVE_S,
        seed,
        progress=lambda share: watch(what, round(100 * share), 100, "drives"),
    )
    return from_recording(recorded, [f"{regions[v % len(regions)]}-{seed}-{v}" for v in recorded.vehicle])


def run_merge(
    path: Path, adapters: Sequence[Path], out: Path, onnx: Path | None, rig: str, *, as_json: bool
) -> None:
    """The command; an export is for one rig. Raises BadCheckpoint, BadAdapter, BadRig, WrongBase, ExportMismatch,
    OSError."""
    eyes = rig_named(rig)
    found = [adapter_file.load(each) for each in adapters]
    whole = merged(load_base(path), found)
    out.parent.mkdir(parents=True, exist_ok=True)
    told: dict[str, object] = {
        "model": str(out),
        "sha256": checkpoint.save(whole, out),
        "adapters": [a.name for a in found],
    }
    if onnx:
        onnx.parent.mkdir(parents=True, exist_ok=True)
        told |= {"onnx": str(onnx), "export_error": export(whole, eyes, onnx)}
    line = f"{out}: the base with {', '.join(a.name for a in found)}" + (f"; {onnx}" if onnx else "")
    typer.echo(json.dumps(told) if as_json else line)
