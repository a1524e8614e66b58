"""What a head is, and what heads have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from model.config import NetworkConfig
from model.layers import Block, Scene


class Head(nn.Module):
    """Reads something from a scene beside how to drive. Built from a NetworkConfig, whose field of the head's name
    is its depth; may be left out of any export."""

    def forward(self, scene: Scene, ego: Tensor) -> Any:
        """Its output for a batch. `ego` [B, 2] is speed in m/s and yaw rate in rad/s, NaN where not known."""
        raise NotImplementedError

    def loss(self, output: Any, labels: Mapping[str, Tensor]) -> Tensor:
        """What it is trained to lower, a scalar: the mean over the frames whose label is there, 0 where none is.
        `labels` holds at least those of its row in HEADS, as of model.labels."""
        raise NotImplementedError


class Readout(nn.Module):
    """A few learnt queries that look at what they are given: [B, N, D] -> [B, Q, D]."""

    def __init__(self, config: NetworkConfig, queries: int, depth: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(queries, config.width))
        self.blocks = nn.ModuleList(Block(config.width, config.heads, True) for _ in range(depth))
        self.norm = nn.LayerNorm(config.width)

    def forward(self, seen: Tensor) -> Tensor:
        found = self.queries.expand(len(seen), -1, -1)
        for block in self.blocks:
            found = block(found, seen)
        out: Tensor = self.norm(found)
        return out


def known_mean(values: Tensor, known: Tensor) -> Tensor:
    """The mean of the values that are known; 0 where none is. What is not known must be finite all the same: its
    gradient is multiplied by 0."""
    return (values * known).sum() / known.sum().clamp(min=1)
