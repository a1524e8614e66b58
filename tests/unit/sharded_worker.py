"""What each of the two processes of tests/unit/test_model_sharded.py does; torchrun starts them. Its results lie
in the folder it is given: model files, gradients, facts.json."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.distributed.tensor import DTensor

from model.checkpoint import save
from model.config import TrainingConfig
from model.data import Samples
from model.gradients import parted
from model.long_run import Course, Draw, Interrupted, Step, Watch, train_long
from model.ranks import Ranks, joined
from model.recipes import quick
from model.rig import THREE_CAMERAS
from model.sharded import BFLOAT16, FLOAT32, Lesson, gradients, shard, share_of
from model.training import initial
from tests.unit.model_samples import some_samples

NETWORK = replace(quick().network, token_depth=1, width=36, heads=2)
"""Its first dimensions do not divide evenly by two everywhere."""
CONFIG = TrainingConfig(steps=8, batch=16, warmup_steps=2, camera_dropout=0.3, keep_every=4, parts=4)
COURSE = Course(NETWORK, CONFIG, THREE_CAMERAS, "data", seed=1)
SAMPLES = some_samples(160)
RAYS = torch.from_numpy(THREE_CAMERAS.rays(NETWORK.patch_px))
STOPPED_AT = 3


def draw_for(ranks: Ranks) -> Draw:
    """The parts of batch k that are this process's."""
    mine = share_of(ranks, CONFIG.parts)

    def draw(number: int) -> list[Samples]:
        batch = SAMPLES.take(slice(16 * number % 160, 16 * number % 160 + 16))
        return [parted(batch, CONFIG.parts)[part] for part in mine]

    return draw


def train(folder: Path, ranks: Ranks, watch: Watch | None = None) -> list[float]:
    """To the end; the losses by step. The first process saves the model."""
    losses: list[float] = []
    end = train_long(COURSE, draw_for(ranks), folder, ranks, watch or Watch(step=lambda s: losses.append(s.loss)))
    if end is not None:
        save(end, folder.parent / f"{folder.name}.safetensors")
    return losses


def stopped(folder: Path, ranks: Ranks, after: int = STOPPED_AT) -> None:
    """Only the second process is asked to stop: both do."""
    steps: list[Step] = []
    asked = Watch(step=steps.append, stop=lambda: ranks.rank == 1 and len(steps) + 1 >= after)
    try:
        train(folder, ranks, asked)
    except Interrupted:
        return
    raise AssertionError("it went on")


def first_gradients(ranks: Ranks, policy: MixedPrecisionPolicy = FLOAT32) -> dict[str, Tensor]:
    """Of the first batch, before any step: whole, in every process."""
    whole = Lesson(initial(NETWORK, 1).build()).train()
    if ranks.mesh is not None:
        shard(whole, ranks.mesh, policy)
        assert all(isinstance(p, DTensor) and p.dtype == torch.float32 for p in whole.parameters())
    parameters = list(whole.parameters())
    with gradients(whole, CONFIG, ranks) as descend:
        descend(partial(whole, RAYS, [0, 1, 2]), draw_for(ranks)(0), parameters)
    found = {}
    for name, parameter in whole.named_parameters():
        assert parameter.grad is not None
        found[name] = parameter.grad.full_tensor() if isinstance(parameter.grad, DTensor) else parameter.grad
    return found


def main(folder: Path) -> None:
    """All that needs two processes, in one start of them."""
    torch.set_num_threads(1)
    facts: dict[str, object] = {}
    with joined() as ranks:
        facts["losses"] = train(folder / "whole", ranks)
        stopped(folder / "resumed", ranks)
        if ranks.first:
            shutil.copytree(folder / "resumed", folder / "handed-on")
        train(folder / "resumed", ranks)
        train(folder / "taken-over", ranks)
        for name, policy in (("float32", FLOAT32), ("bfloat16", BFLOAT16)):
            found = first_gradients(ranks, policy)
            if ranks.first:
                save_file(found, folder / f"gradients-{name}.safetensors")
        if ranks.first:
            (folder / "facts.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
