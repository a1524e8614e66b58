"""What the network is trained to lower."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from model.heads import HEADS, each
from model.network import Network, Output, View

ALTERNATIVES_WEIGHT = 0.3
"""Of the other modes' loss against that of the first: they must not cost it much of the network."""
CLOSE_M = 0.5
"""Mean displacement that counts as close when confidence is shared out."""
HANDICAP_M = 0.25
"""What an alternative must be closer by to be as confident as the first mode: ties are no reason to leave it."""
EXITS_WEIGHT = 0.3
"""Of the mean loss of the earlier exits: they must not cost the last one much of the network."""


class Losses(NamedTuple):
    """Each a scalar tensor; `total` is what is minimised."""

    total: Tensor
    trajectory: Tensor
    alternatives: Tensor
    mode: Tensor


def imitation_loss(output: Output, target: Tensor) -> Losses:
    """Means over the batch of: the Laplace negative log-likelihood of the first mode, which so becomes the
    median of what may be driven; that of the closest other mode (winner takes all), so that these become the
    alternatives; and the cross-entropy of the confidences against a softmin of the modes' displacements.

    The first mode wins wherever nothing is certain: a policy that always drives the likeliest of several
    sharp modes brakes late for what it half sees. `output.confidence` holds logits; `target` is [B, T, 2].
    There are no sample weights: they decide how often a frame is drawn (model/data.py), which costs nothing
    for the frames that are not."""
    error = (output.modes - target.unsqueeze(1)).abs()
    likelihood = (error / output.scale_m + torch.log(2 * output.scale_m)).mean((-1, -2))
    displacement = error.detach().sum(-1).mean(-1)
    handicap = HANDICAP_M * torch.arange(displacement.shape[1], device=displacement.device).clamp(max=1)
    trajectory = likelihood[:, 0].mean()
    alternatives = _closest(likelihood[:, 1:], displacement[:, 1:])
    close = torch.softmax(-(displacement + handicap) / CLOSE_M, 1)
    mode = -(close * torch.log_softmax(output.confidence, 1)).sum(1).mean()
    return Losses(trajectory + ALTERNATIVES_WEIGHT * (alternatives + mode), trajectory, alternatives, mode)


def _closest(likelihood: Tensor, displacement: Tensor) -> Tensor:
    if not likelihood.shape[1]:
        return likelihood.new_zeros(())
    return likelihood.gather(1, displacement.argmin(1, keepdim=True)).mean()


def joint_loss(net: Network, view: View, target: Tensor, labels: Mapping[str, Tensor]) -> Tensor:
    """The loss of imitation, that of every earlier exit by EXITS_WEIGHT in all, and that of every head whose
    labels are given by its weight in HEADS. A scalar."""
    total = imitation_loss(view.output, target).total
    for output in view.exits:
        total = total + EXITS_WEIGHT / len(view.exits) * imitation_loss(output, target).total
    for name, head in each(net.heads):
        if all(label in labels for label in HEADS[name].labels):
            total = total + HEADS[name].weight * head.loss(view.heads[name], labels)
    return total
