"""`fleet vehicle --log`: the agent over a recorded drive."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import msgspec
import typer

from edge.agent.bundles import MODEL, unpack
from edge.bundle import open_bundle
from edge.drive_log import DriveSummary, open_drive, run_drive
from edge.runtimes.onnx import OnnxPolicy
from jobs.context import Settings
from model.policy import Policy
from model.rig import Rig

HARDWARE = Settings().hardware
DEFAULT_RUN = Path("runs/demo")
FRESH = "freshly initialised (it has learnt nothing; make demo leaves a trained one)"


def run_vehicle(log: Path, out: Path | None, bundle: Path | None, *, as_json: bool) -> None:
    """The command; exit 1 where the recording could not be read to its end (what came before is told). Raises
    BadSource, BadBundle, OSError."""
    drive = open_drive(log)
    policy_for, name, version = policy_of(bundle)
    summary = run_drive(drive, policy_for, out, version)
    typer.echo(json.dumps(_object(summary, name)) if as_json else _told(summary, name))
    if summary.problem:
        raise Incomplete(summary.problem)


class Incomplete(RuntimeError):
    """Part of the recording could not be read."""


def policy_of(bundle: Path | None) -> tuple[Callable[[Rig], Policy], str, str]:
    """Who drives: the named bundle, else the newest of the demo's releases, else a fresh model."""
    if bundle is None:
        bundle = newest_bundle(DEFAULT_RUN)
    if bundle is None:
        graph = _fresh_graph()
        return lambda rig: OnnxPolicy(graph, rig), FRESH, "fresh"
    manifest = open_bundle(bundle, HARDWARE)
    with tempfile.TemporaryDirectory() as folder:
        unpack(bundle, Path(folder) / "slot", HARDWARE)
        graph = (Path(folder) / "slot" / MODEL).read_bytes()
    version = manifest.model_version
    return lambda rig: OnnxPolicy(graph, rig), f"{version} from {bundle}", version


def policy_in(path: Path, rig: Rig) -> Policy:
    """Of a checkpoint, or of a bundle as vehicles run it, whatever its name. Raises BadCheckpoint, BadBundle,
    BadRig, OSError."""
    if is_zipfile(path):
        return policy_of(path)[0](rig)
    from model.checkpoint import load  # noqa: PLC0415  torch, which a bundle does not need
    from model.torch_policy import TorchPolicy  # noqa: PLC0415

    return TorchPolicy(load(path), rig)


def newest_bundle(run: Path) -> Path | None:
    """The bundle of a run's newest release whose rollout is complete; None where there is no finished run."""
    try:
        releases = json.loads((run / "summary.json").read_bytes())["releases"]
    except (FileNotFoundError, ValueError, KeyError):
        return None
    for version in sorted((r["version"] for r in releases if r["state"] == "complete"), reverse=True):
        found = sorted((run / "releases" / "targets").rglob(f"*-r{version}.zip"))
        if found:
            return found[0]
    return None


def _fresh_graph() -> bytes:
    """An untrained network, exported."""
    from model.export import export  # noqa: PLC0415  torch, which a vehicle with a bundle does not need
    from model.recipes import recipe  # noqa: PLC0415
    from model.rig import THREE_CAMERAS  # noqa: PLC0415
    from model.training import initial  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / MODEL
        export(initial(recipe("demo").network, seed=0), THREE_CAMERAS, path)
        return path.read_bytes()


def _object(summary: DriveSummary, model: str) -> dict[str, Any]:
    fields = {k: v for k, v in asdict(summary).items() if k != "messages"}
    events = [msgspec.to_builtins(m) for m in summary.messages]
    return {**fields, "model": model, "clip_bytes": summary.clip_bytes, "messages": events}


def _told(summary: DriveSummary, model: str) -> str:
    km = "unknown (no motion signals)" if summary.km is None else f"{summary.km:.3f} km"
    events = ", ".join(f"{kind} {count}" for kind, count in summary.events.items()) or "none"
    lines = [
        f"drive      {summary.name}: {summary.frames} frames, {summary.seconds:.1f} s, {km}",
        f"model      {model if summary.policy else 'none ran: the recording has no images'}",
        f"events     {events}",
        f"hard brakes {summary.hard_brakes}",
        f"clips      {len(summary.clips)}, {summary.clip_bytes / 1e6:.2f} MB",
        *(f"  {c.kind:20} {c.bytes / 1e3:8.0f} kB  {c.path or c.clip_id}" for c in summary.clips),
        f"speed      {summary.frames_per_second:.0f} frames/s",
        *(f"note       {w}" for w in summary.warnings),
    ]
    return "\n".join(lines)
