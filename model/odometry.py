"""How the vehicle moved, read from two pictures: what tells whether a dream obeys the actions it was given.

Motions are tried: how badly would each explain the second picture from the first if all were flat road? A small
network, trained on real pictures alone, reads the motion from these errors."""

from __future__ import annotations

from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from model.geometry import Eyes, eyes, sample, sources
from model.rig import Rig
from model.sequences import BadSequences, Sequences, check

SHRUNK = 2
"""Pictures are compared at a half of their size: less noise, and less to do."""
SPEEDS_MPS = tuple(1.5 * k for k in range(12))
YAW_RATES_RADPS = tuple(0.15 * k for k in range(-4, 5))
UNITS = (5.0, 0.2)
"""Of what is learnt, m/s and rad/s: both vary by about one."""
STEPS, BATCH, PEAK_RATE, AT_ONCE = 600, 128, 3e-3, 32


class Odometry(nn.Module):
    """Pictures of one rig -> motion."""

    def __init__(self, rig: Rig) -> None:
        super().__init__()
        self._seen = eyes(rig, SHRUNK)
        tried = torch.tensor(list(product(SPEEDS_MPS, YAW_RATES_RADPS)))
        self._places = [_places(self._seen, action) for action in tried]
        errors = len(tried) * len(rig.cameras)
        self.tell = nn.Sequential(
            nn.LayerNorm(errors), nn.Linear(errors, 96), nn.ReLU(), nn.Dropout(0.1), nn.Linear(96, 2)
        )

    def errors(self, before: Tensor, now: Tensor) -> Tensor:
        """Of each motion that is tried and each camera, on a log scale, [B, E], from pictures [B, C, H, W, 3]."""
        first, second = (_shrunk(picture) for picture in (before, now))
        road = (self._seen.ground > 0).float()
        out = []
        for places, outside in self._places:
            there = road * (1 - outside)
            wrong = (sample(first, places.expand(len(now), -1, -1, -1, -1)) - second).abs() * there
            out.append(wrong.sum((2, 3, 4)) / (there.sum((1, 2, 3)) + 1))
        return torch.log(torch.stack(out, 1).flatten(1) + 0.5)

    def forward(self, errors: Tensor) -> Tensor:
        """Motion in UNITS, [B, 2]."""
        told: Tensor = self.tell(errors)
        return told


def train_odometry(sequences: Sequences, rig: Rig, pairs: int, seed: int) -> Odometry:
    """Learns from so many pairs of real pictures. Deterministic. Raises BadSequences."""
    check(sequences)
    rng = np.random.default_rng([seed, 5])
    drawn = sequences.draw(pairs, 2, list(range(len(rig.cameras))), rng)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = Odometry(rig).train()
        errors = _read(net, drawn.images)
        wanted = torch.from_numpy((drawn.actions[:, 0] / np.array(UNITS)).astype(np.float32))
        optimizer = torch.optim.AdamW(net.parameters(), PEAK_RATE, weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=STEPS)
        for _ in range(STEPS):
            rows = torch.from_numpy(rng.integers(pairs, size=BATCH))
            loss = F.smooth_l1_loss(net(errors[rows]), wanted[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return net.eval()


def read_motion(net: Odometry, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Speed in m/s and yaw rate in rad/s between pictures [N, T, C, H, W, 3]: [N, T - 1, 2]. Raises BadSequences
    for fewer than two pictures."""
    if images.ndim != 6 or images.shape[1] < 2:
        raise BadSequences(f"motion is read from two pictures or more, not from {list(images.shape)}")
    pairs = np.stack([images[:, :-1], images[:, 1:]], 2)
    with torch.inference_mode():
        motion = net(_read(net, pairs.reshape(-1, *pairs.shape[2:]))).double().numpy()
    return np.asarray((motion * UNITS).reshape(len(images), -1, 2))


def _read(net: Odometry, pairs: NDArray[np.uint8]) -> Tensor:
    """Errors of pairs of pictures [N, 2, C, H, W, 3], a few at a time."""
    parts = []
    with torch.no_grad():
        for at in range(0, len(pairs), AT_ONCE):
            some = torch.from_numpy(np.ascontiguousarray(pairs[at : at + AT_ONCE]))
            parts.append(net.errors(some[:, 0], some[:, 1]))
    return torch.cat(parts)


def _places(seen: Eyes, action: Tensor) -> tuple[Tensor, Tensor]:
    """Where flat road was before that motion, [1, C, h, w, 2], and what was outside, [C, 1, h, w]."""
    places, outside = sources(seen, seen.ground[None], action[None])
    return places, outside[0]


def _shrunk(pictures: Tensor) -> Tensor:
    """Grey and small, [B, C, 1, h, w], in grey levels."""
    grey = pictures.float().mean(-1)
    return F.avg_pool2d(grey, SHRUNK).unsqueeze(2)
