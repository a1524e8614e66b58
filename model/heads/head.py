"""What a head is, and what heads have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from model.config import NetworkConfig
from model.layers import Block, Scene

Output = TypeVar("Output")


class Head(nn.Module, Generic[Output]):
    """Reads something from a scene beside how to drive. Built from a NetworkConfig, whose field of the head's name
    is its depth; may be left out of any export."""

    def forward(self, scene: Scene, ego: Tensor) -> Output:
        """Its output for a batch. `ego` [B, 2] is speed in m/s and yaw rate in rad/s, NaN where not known."""
        raise NotImplementedError

    def told(self, output: Output) -> Tensor:
        """What an exported graph gives for this output: the output itself, unless a head says otherwise."""
        assert isinstance(output, Tensor), "a head whose output is no tensor says what of it is exported"
        return output

    def loss(self, output: Output, labels: Mapping[str, Tensor]) -> Tensor:
        """What it is trained to lower, a scalar: the mean over the frames whose label is there, 0 where none is.
        `labels` holds at least those of its row in HEADS, as of model.labels."""
        raise NotImplementedError


class Classifier(Head[Tensor]):
    """A head that tells classes apart with a confidence: its last layer, `out`, gives their logits, and dividing
    its weights by a temperature divides these (model/calibration.py)."""

    out: nn.Linear

    def cases(self, output: Tensor, labels: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """What was to be told where a label is there: logits [K, classes], and which class it was, int64 [K]."""
        raise NotImplementedError

    def loss(self, output: Tensor, labels: Mapping[str, Tensor]) -> Tensor:
        """The cross-entropy, by default of all cases alike."""
        logits, truth = self.cases(output, labels)
        return nn.functional.cross_entropy(logits, truth, reduction="sum") / max(len(truth), 1)


class Readout(nn.Module):
    """A few learnt queries that look at what they are given: [B, N, D] -> [B, Q, D]."""

    def __init__(self, config: NetworkConfig, queries: int, depth: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(queries, config.width))
        self.blocks = nn.ModuleList(Block(config.width, config.heads, True) for _ in range(depth))
        self.norm = nn.LayerNorm(config.width)

    def forward(self, tokens: Tensor, seen: Tensor | None) -> Tensor:
        """`seen` [B, N] as of Scene."""
        found = self.queries.expand(tokens.shape[0], -1, -1)
        for block in self.blocks:
            found = block(found, tokens, seen)
        out: Tensor = self.norm(found)
        return out


def known_mean(values: Tensor, known: Tensor) -> Tensor:
    """The mean of the values that are known; 0 where none is. What is not known must be finite all the same: its
    gradient is multiplied by 0."""
    return (values * known).sum() / known.sum().clamp(min=1)


def binary(logit: Tensor) -> Tensor:
    """The logit of a yes, [...], as logits of no and yes, [..., 2]."""
    return torch.stack([torch.zeros_like(logit), logit], -1)
