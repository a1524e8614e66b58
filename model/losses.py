"""What the network is trained to lower."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from model.network import Output

OTHER_MODES_SHARE = 0.05
"""Share of the regression loss that goes to the modes that did not win, so that none dies (relaxed
winner-takes-all, Rupprecht et al., ICCV 2017)."""


class Losses(NamedTuple):
    """Each a scalar tensor; `total` is what is minimised."""

    total: Tensor
    trajectory: Tensor
    mode: Tensor


def imitation_loss(output: Output, target: Tensor) -> Losses:
    """Mean over the batch of the Laplace negative log-likelihood of the closest mode, plus the cross-entropy
    of naming it. `output.confidence` holds logits; `target` is [B, T, 2]. There are no sample weights: they
    decide how often a frame is drawn (model/data.py), which costs nothing for the frames that are not."""
    error = (output.modes - target.unsqueeze(1)).abs()
    winner = error.detach().sum((-1, -2)).argmin(1)
    modes = error.shape[1]
    share = F.one_hot(winner, modes) * (1 - OTHER_MODES_SHARE) + OTHER_MODES_SHARE / modes
    likelihood = (error / output.scale_m + torch.log(2 * output.scale_m)).mean((-1, -2))
    trajectory = (likelihood * share).sum(1).mean()
    mode = F.cross_entropy(output.confidence, winner)
    return Losses(trajectory + mode, trajectory, mode)
