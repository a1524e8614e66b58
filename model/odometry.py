"""How the vehicle moved, read from two pictures: what tells whether a dream obeys the actions it was given.

It is trained on real pictures alone, and knows nothing of the geometry that the world model is built on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from model.network import SPEED_UNIT_MPS, YAW_RATE_UNIT_RADPS
from model.sequences import BadSequences, Sequences, check

BATCH, PEAK_RATE, LARGEST_BATCH = 64, 2e-3, 256
UNITS = (SPEED_UNIT_MPS, YAW_RATE_UNIT_RADPS / 5)
"""Of what is learnt: both vary by about one."""


class Odometry(nn.Module):
    """Two pictures of C cameras -> motion between them; made for one rig."""

    def __init__(self, cameras: int, height_px: int, width_px: int, width: int = 24) -> None:
        super().__init__()
        self.look = nn.Sequential(
            nn.Conv2d(6, width, 6, stride=4, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(2 * width, 2 * width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(2 * width, 2 * width, 3, stride=2, padding=1),
            nn.ReLU(),
        )
        cells = -(-height_px // 16) * -(-width_px // 16)
        self.tell = nn.Sequential(
            nn.Linear(cameras * cells * 2 * width, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 2)
        )

    def forward(self, before: Tensor, now: Tensor) -> Tensor:
        """Motion in UNITS [B, 2] from pictures [B, C, H, W, 3], uint8."""
        pair = torch.cat([before, now], -1).movedim(-1, 2).float() / 64 - 2
        change = torch.cat([pair[:, :, 3:], (pair[:, :, 3:] - pair[:, :, :3]) * 2], 2)
        seen = self.look(change.flatten(0, 1)).flatten(1).unflatten(0, before.shape[:2])
        out: Tensor = self.tell(seen.flatten(1))
        return out


def train_odometry(
    sequences: Sequences, steps: int, seed: int, progress: Callable[[int, int], None] | None = None
) -> Odometry:
    """Learns from pairs of real pictures. Deterministic. Raises BadSequences."""
    check(sequences)
    _, _, cameras, height, width, _ = sequences.images.shape
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = Odometry(cameras, height, width).train()
        optimizer = torch.optim.AdamW(net.parameters(), PEAK_RATE, weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=steps)
        for step in range(steps):
            rng = np.random.default_rng([seed, step, 5])
            pairs = sequences.draw(BATCH, 2, list(range(cameras)), rng)
            images = torch.from_numpy(pairs.images)
            loss = F.smooth_l1_loss(net(images[:, 0], images[:, 1]), _scaled(pairs.actions[:, 0]))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            if progress:
                progress(step + 1, steps)
    return net.eval()


def read_motion(net: Odometry, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Speed in m/s and yaw rate in rad/s between pictures [N, T, C, H, W, 3]: [N, T - 1, 2]. Raises BadSequences
    for fewer than two pictures."""
    if images.ndim != 6 or images.shape[1] < 2:
        raise BadSequences(f"motion is read from two pictures or more, not from {list(images.shape)}")
    seen = torch.from_numpy(images)
    before, now = seen[:, :-1].flatten(0, 1), seen[:, 1:].flatten(0, 1)
    with torch.inference_mode():
        parts = [
            net(before[at : at + LARGEST_BATCH], now[at : at + LARGEST_BATCH])
            for at in range(0, len(now), LARGEST_BATCH)
        ]
    motion = torch.cat(parts).double().numpy() * UNITS
    return np.asarray(motion.reshape(len(images), -1, 2))


def _scaled(actions: NDArray[np.float32]) -> Tensor:
    return torch.from_numpy((actions / np.array(UNITS)).astype(np.float32))
