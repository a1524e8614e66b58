"""What the network is trained to lower."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from model.network import Output

OTHER_MODES_SHARE = 0.05
"""Share of the regression loss that goes to all modes alike, so that none dies (relaxed winner-takes-all,
Rupprecht et al., ICCV 2017)."""


class Losses(NamedTuple):
    """Each a scalar tensor; `total` is what is minimised."""

    total: Tensor
    trajectory: Tensor
    mode: Tensor


def imitation_loss(output: Output, target: Tensor) -> Losses:
    """One step of expectation maximisation of a mixture of Laplace distributions, mean over the batch: each
    mode answers for a target by its posterior probability, learns the target by that share (negative
    log-likelihood per coordinate) and learns to name that share (cross-entropy). Unlike winner-takes-all, a
    mode that is confident and close enough keeps the target, so that modes split only where they must.

    `output.confidence` holds logits; `target` is [B, T, 2]. There are no sample weights: they decide how
    often a frame is drawn (model/data.py), which costs nothing for the frames that are not."""
    error = (output.modes - target.unsqueeze(1)).abs()
    density = error / output.scale_m + torch.log(2 * output.scale_m)
    prior = torch.log_softmax(output.confidence, 1)
    answers = torch.softmax(prior - density.sum((-1, -2)), 1).detach()
    share = answers * (1 - OTHER_MODES_SHARE) + OTHER_MODES_SHARE / answers.shape[1]
    trajectory = (density.mean((-1, -2)) * share).sum(1).mean()
    mode = -(answers * prior).sum(1).mean()
    return Losses(trajectory + mode, trajectory, mode)
