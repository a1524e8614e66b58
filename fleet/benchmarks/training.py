"""How fast training goes: samples/s of our loop, of a plain PyTorch loop beside it, of two processes; utilisation
of a GPU where there is one. And that speed costs nothing: sharded and single training agree, stopped and whole
runs are the same bits."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from fleet.benchmarks.result import Bar, Measured
from fleet.benchmarks.training_peer import plain_seconds
from fleet.benchmarks.training_sharded import run
from fleet.console import Watcher
from fleet.sample_data import FromExpert, recorded
from fleet.train import overridden
from model.checkpoint import Checkpoint, load
from model.cost import accelerator, flops_per_sample, peak_flops
from model.data import Samples, concatenate
from model.recipes import recipe
from model.rig import THREE_CAMERAS
from model.run_folder import from_checkpoint
from model.shards import open_dataset, read_shard, write
from model.stream_data import Order, Stream
from model.training import initial
from registry.store import open_backend

LEAST_RATIO = 0.9
"""Of the plain loop's speed, which reads nothing, checks nothing and keeps nothing."""
WEIGHTS_DIFFER = 2e-3
"""As tests/unit/test_model_sharded.py has it, with its reasons."""
PROCESSES = 2
CPU_BATCH, CPU_PARTS = 16, 2
"""Of every recipe where there is no GPU: speeds per sample, in minutes instead of hours."""
STEPS_SHARDED = 8


def measure(seeds: list[int], scratch: Path, quick: bool) -> Measured:
    """For each recipe rounds in which both loops take the same steps, one after the other; then the sharded
    runs. Frames are the first seed's: what they show changes no speed."""
    shutil.rmtree(scratch, ignore_errors=True)
    names, rounds, steps = _plan(quick)
    with Watcher() as watch:
        url = dataset(scratch / "data", seeds[0], 400 if quick else 3_000, watch)
        speeds = {name: _speeds(name, url, scratch / name, rounds, steps, watch) for name in names}
        watch.say(f"{PROCESSES} processes")
        agreement = sharded(names[0], url, scratch / "sharded")
    return assess(speeds, agreement)


def _plan(quick: bool) -> tuple[list[str], int, int]:
    """Recipes, rounds, steps a round: what a GPU takes, a CPU does not."""
    if quick:
        return ["quick"], 3, 6
    return (["small", "base"], 7, 30) if accelerator() else (["tiny", "small"], 5, 5)


def dataset(folder: Path, seed: int, frames: int, watch: Watcher) -> str:
    """Some minutes of expert driving in shards."""
    source = FromExpert(frames, seed, THREE_CAMERAS.name, "base", "train")
    write(open_backend(str(folder)), recorded(source, THREE_CAMERAS, watch), THREE_CAMERAS, frames=256)
    return str(folder)


def _speeds(name: str, url: str, folder: Path, rounds: int, steps: int, watch: Watcher) -> dict[str, Any]:
    """Samples/s by round, our loop and the plain one in turn. The first step of each is not counted."""
    own = recipe(name).clone
    batch, parts = (own.batch, own.parts) if accelerator() else (CPU_BATCH, CPU_PARTS)
    settings = [f"steps={steps + 1}", f"batch={batch}", f"parts={parts}"]
    config = overridden(recipe(name).clone, settings)
    start = initial(recipe(name).network, 1)
    batches = _batches(url, settings, name, steps)
    ours, plain = list[float](), list[float]()
    for number in range(rounds):
        ends = run(name, url, folder / str(number), settings)
        ours.append(batch * steps / (ends[-1] - ends[0]))
        fastest = min(plain_seconds(start, THREE_CAMERAS, config, batches, n) for n in {1, config.threads})
        plain.append(batch * steps / fastest)
        watch(f"{name}: rounds", number + 1, rounds, f"{ours[-1]:.1f} and {plain[-1]:.1f} samples/s")
    flops = flops_per_sample(recipe(name).network, THREE_CAMERAS)
    peak = peak_flops(accelerator())
    return {
        "parameters": sum(tensor.numel() for tensor in start.weights.values()),
        "batch": batch,
        "gflop_per_sample": flops / 1e9,
        "samples_per_second": ours,
        "plain_samples_per_second": plain,
        "ratio": median(o / p for o, p in zip(ours, plain, strict=True)),
        "gflop_per_second": median(ours) * flops / 1e9,
        "mfu": median(ours) * flops / peak if peak else None,
        "checkpoint_seconds": _checkpoint_seconds(start, folder),
    }


def _batches(url: str, settings: list[str], name: str, count: int) -> list[Samples]:
    """The batches that our loop sees, made beforehand."""
    config = overridden(recipe(name).clone, settings)
    files = open_backend(url)
    found, history = open_dataset(files), recipe(name).network.history
    with Stream(
        Order(found, config, 1), lambda s: read_shard(files, s, found.rig), range(config.parts), history
    ) as stream:
        return [concatenate(stream.draw(step)) for step in range(count)]


def _checkpoint_seconds(start: Checkpoint, folder: Path) -> float:
    """To write weights and moments, synced to the disk."""
    moments = {f"{name}.{m}": t.clone() for name, t in start.weights.items() for m in ("exp_avg", "exp_avg_sq")}
    begun = time.perf_counter()
    from_checkpoint(Checkpoint(start.network, start.weights, 1, moments), folder / "converted")
    return time.perf_counter() - begun


def sharded(name: str, url: str, folder: Path) -> dict[str, float]:
    """One process, two, and two that are stopped half-way: how far apart the models are, and how fast two are."""
    config = recipe(name).clone
    batch = min(config.batch, 32)
    settings = [f"steps={STEPS_SHARDED}", f"batch={batch}", f"parts={PROCESSES}", "warmup_steps=2"]
    alone = run(name, url, folder / "alone", settings)
    two = _torchrun(name, url, folder, settings)
    models = {each: load(folder / each / "model.safetensors") for each in ("alone", "two", "stopped")}
    start = initial(recipe(name).network, 1)
    same = (folder / "two" / "model.safetensors").read_bytes() == (
        folder / "stopped" / "model.safetensors"
    ).read_bytes()
    return {
        "weights_differ": apart(models["alone"], models["two"], start),
        "resumed_differ": 0.0 if same else max(apart(models["two"], models["stopped"], start), 1e-12),
        "alone_samples_per_second": batch / median(b - a for a, b in pairwise(alone)),
        "two_samples_per_second": batch / median(b - a for a, b in pairwise(two)),
    }


def apart(one: Checkpoint, other: Checkpoint, start: Checkpoint) -> float:
    """Norm of the difference of two models over that of what training changed."""
    difference = sum(float((one.weights[n] - other.weights[n]).square().sum()) for n in one.weights)
    change = sum(float((one.weights[n] - start.weights[n]).square().sum()) for n in one.weights)
    return float((difference / change) ** 0.5)


def _torchrun(name: str, url: str, folder: Path, settings: list[str]) -> list[float]:
    """Two runs of several processes, one stopped half-way; the ends of the steps of the whole one."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(PROCESSES)]
    words = ["-m", "fleet.benchmarks.training_sharded", name, url, str(folder), str(STEPS_SHARDED // 2), *settings]
    # Processes that share a machine's cores must not each take all of them; and two cannot share one GPU.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([*torchrun, *words], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ShardedRunFailed(f"{PROCESSES} processes ended with {done.returncode}: {done.stderr[-2000:]}")
    ends: list[float] = json.loads((folder / "two" / "ends.json").read_text())
    return ends


class ShardedRunFailed(RuntimeError):
    """A process of the sharded run failed: says what it said."""


def assess(speeds: dict[str, dict[str, Any]], agreement: dict[str, float]) -> Measured:
    """Bars and table."""
    bars = [
        Bar(
            f"ratio-{name}",
            f"{name}: samples/s over those of a plain PyTorch loop, median of rounds",
            found["ratio"],
            f">= {LEAST_RATIO}",
            found["ratio"] >= LEAST_RATIO,
        )
        for name, found in speeds.items()
    ]
    differ, resumed = agreement["weights_differ"], agreement["resumed_differ"]
    bars += [
        Bar(
            "sharded",
            "two processes against one: difference of weights",
            differ,
            f"<= {WEIGHTS_DIFFER}",
            differ <= WEIGHTS_DIFFER,
        ),
        Bar("resumed", "stopped and resumed against whole: difference of weights", resumed, "= 0", resumed == 0),
    ]
    return Measured(
        {"recipes": speeds, "sharded": agreement, "gpu": accelerator() or None}, bars, _table(speeds, agreement)
    )


def _table(speeds: dict[str, dict[str, Any]], agreement: dict[str, float]) -> str:
    rows = [
        "| recipe | parameters | GFLOP/sample | samples/s | plain loop | ratio | GFLOP/s | MFU | checkpoint, s |",
        "|" + "---|" * 9,
    ]
    for name, s in speeds.items():
        mfu = f"{s['mfu']:.1%}" if s["mfu"] is not None else "no GPU"
        ours, plain = median(s["samples_per_second"]), median(s["plain_samples_per_second"])
        rows.append(
            f"| {name} | {s['parameters']:,} | {s['gflop_per_sample']:.3g} | {ours:.3g} | {plain:.3g} | "
            f"{s['ratio']:.2f} | {s['gflop_per_second']:.3g} | {mfu} | {s['checkpoint_seconds']:.2g} |"
        )
    two, one = agreement["two_samples_per_second"], agreement["alone_samples_per_second"]
    note = (
        "Medians of rounds in which both loops take the same steps in turn; the plain one with one thread or "
        f"with as many as ours, whichever is faster. Sharded over {PROCESSES} processes (gloo, CPU): {two:.3g} "
        f"samples/s, where one process with as many threads makes {one:.3g}."
    )
    return "\n".join([*rows, "", note])
