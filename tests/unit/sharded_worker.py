"""What each of the two processes of tests/unit/test_model_sharded.py does; torchrun starts them. Its results lie in the
folder it is given: model files and facts.json."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch.distributed.tensor import DTensor

from model.checkpoint import save
from model.config import BadConfig, TrainingConfig
from model.data import Samples
from model.gradients import parted
from model.long_run import Course, Draw, Interrupted, Step, Watch, train_long
from model.ranks import Ranks, joined
from model.recipes import quick
from model.rig import THREE_CAMERAS
from model.sharded import BFLOAT16, FLOAT32, Lesson, gradient_norm, shard, share_of
from model.training import initial
from tests.unit.model_samples import some_samples

NETWORK = replace(quick().network, token_depth=1, width=36, heads=2)
"""Its first dimensions do not divide evenly by two everywhere."""
CONFIG = TrainingConfig(steps=8, batch=16, warmup_steps=2, camera_dropout=0.3, keep_every=4, parts=4)
COURSE = Course(NETWORK, CONFIG, THREE_CAMERAS, "data", seed=1)
SAMPLES = some_samples(160)
STOPPED_AT = 3


def draw_for(ranks: Ranks) -> Draw:
    """The parts of batch k that are this process's."""
    mine = share_of(ranks, CONFIG.parts)

    def draw(number: int) -> list[Samples]:
        batch = SAMPLES.take(slice(16 * number % 160, 16 * number % 160 + 16))
        return [parted(batch, CONFIG.parts)[part] for part in mine]

    return draw


def train(folder: Path, ranks: Ranks, watch: Watch = Watch(), name: str = "") -> None:
    """To the end; the first process saves the model."""
    end = train_long(COURSE, draw_for(ranks), folder, ranks, watch)
    if end is not None:
        save(end, folder.parent / f"{name or folder.name}.safetensors")


def stopped(folder: Path, ranks: Ranks, after: int = STOPPED_AT) -> None:
    """Only the second process is asked to stop: both do."""
    steps: list[Step] = []
    asked = Watch(step=steps.append, stop=lambda: ranks.rank == 1 and len(steps) + 1 >= after)
    try:
        train(folder, ranks, asked)
    except Interrupted:
        return
    raise AssertionError("it went on")


def policies(ranks: Ranks) -> dict[str, float]:
    """Gradient norms of one batch in float32 and with blocks in bfloat16."""
    assert ranks.mesh is not None
    rays = torch.from_numpy(THREE_CAMERAS.rays(NETWORK.patch_px))
    found = {}
    for name, policy in (("float32", FLOAT32), ("bfloat16", BFLOAT16)):
        whole = Lesson(initial(NETWORK, 1).build()).train()
        shard(whole, ranks.mesh, policy)
        assert all(isinstance(p, DTensor) and p.dtype == torch.float32 for p in whole.parameters())
        whole(rays, [0, 1, 2], SAMPLES.head(16)).backward()
        found[name] = float(gradient_norm(whole.parameters()))
    return found


def main(folder: Path) -> None:
    """All that needs two processes, in one start of them."""
    torch.set_num_threads(1)
    facts: dict[str, object] = {}
    with joined() as ranks:
        train(folder / "whole", ranks)
        stopped(folder / "resumed", ranks)
        if ranks.first:
            shutil.copytree(folder / "resumed", folder / "handed-on")
        train(folder / "resumed", ranks)
        train(folder / "taken-over", ranks)
        facts = policies(ranks) | {"world": ranks.world}
        try:
            share_of(ranks, 3)
        except BadConfig as error:
            facts["refused"] = str(error)
        if ranks.first:
            (folder / "facts.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
