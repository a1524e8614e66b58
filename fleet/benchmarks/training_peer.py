"""The training benchmark's other contender: the loop that anyone would write first, over batches held in
memory."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch

from model.checkpoint import Checkpoint
from model.config import TrainingConfig
from model.data import Samples
from model.rig import Rig
from model.training import adamw, batch_loss, learning_rate, seen_cameras


def plain_seconds(
    start: Checkpoint, rig: Rig, config: TrainingConfig, batches: Sequence[Samples], threads: int
) -> float:
    """Seconds that a plain PyTorch loop takes for one step on each of these batches: forward, backward, clip,
    AdamW, in one process, with so many threads within an operation. No data is read, nothing is checked, no
    checkpoint is written. A step before the first makes what is made once: gradients and moments."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    net = start.build().train().to(device)
    optimizer = adamw(net, config, Checkpoint(start.network, {}))
    rays = torch.from_numpy(rig.rays(start.network.patch_px)).to(device)
    begun = 0.0
    for step, batch in enumerate((batches[0], *batches)):
        begun = time.perf_counter() if step == 1 else begun
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step)
        cameras = seen_cameras(len(rays), config.camera_dropout, np.random.default_rng([0, step, 1]))
        optimizer.zero_grad()
        torch.autograd.backward(batch_loss(net, rays, cameras, batch))
        torch.nn.utils.clip_grad_norm_(net.parameters(), config.largest_gradient)
        optimizer.step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - begun
    torch.set_num_threads(before)
    return seconds
