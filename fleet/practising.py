"""`fleet model practise`: a model drives and learns from what its plans are worth."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import typer

from fleet.console import Watcher
from fleet.unfinished import unfinished
from jobs.practise import Ground, practise
from model import checkpoint
from model.adapter_file import load_base
from model.closed_loop import PractiseConfig, PractiseHooks, Round
from model.rig import THREE_CAMERAS
from simulation.scenarios import condition


def run_practise(
    path: Path, out: Path, rounds: int, conditions: str, vehicles: int, seed: int, *, as_json: bool
) -> None:
    """The command. Raises BadCheckpoint, UnknownName, NonFiniteLoss, OSError."""
    base, names = load_base(path), [name.strip() for name in conditions.split(",")]
    ground = Ground([condition(name) for name in names], THREE_CAMERAS, vehicles)
    run = unfinished(out, base.sha256, rounds, names, vehicles, seed)
    told: list[Round] = []
    with Watcher(quiet=as_json) as watch:

        def tell(done: Round) -> None:
            told.append(done)
            watch("rounds", done.number, done.of, f"reward {done.reward:.3f}, divergence {done.divergence:.3f}")

        hooks = PractiseHooks(tell, run.keep, run.left())
        better = practise(base.checkpoint, ground, PractiseConfig(rounds), seed=seed, hooks=hooks)
    sha256 = checkpoint.save(better, out)
    run.over()
    line = f"{out}: mean reward {told[0].reward:.3f} in round {told[0].number}, {told[-1].reward:.3f} in the last"
    document = {"model": str(out), "sha256": sha256, "rounds": [asdict(r) for r in told]}
    typer.echo(json.dumps(document) if as_json else line)
