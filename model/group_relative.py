"""Group-relative policy optimisation (GRPO: Shao et al., arXiv:2402.03300, section 4.1) of plans.

For one observation a group of plans is drawn from the policy: a mode by its confidence, and a departure from it,
as wide as the mode's predicted scale. Each plan is rewarded; its advantage is what it got beyond its group's mean.
No value network is needed, and no gradient of the world.

A departure is one number along the road and one across: how much further the plan is at its horizon, growing with
the square of time as under one more acceleration. Waypoints that strayed each by itself would be driven by nobody.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from model.network import Output
from model.policy import PLAN_POINTS

SHAPE = (torch.arange(1, PLAN_POINTS + 1) / PLAN_POINTS) ** 2
"""[T], how much of a departure each waypoint takes."""
LEAST_SPREAD = 0.05
"""Groups whose rewards differ by less (standard deviation) are not blown up to the size of others: a difference
that hardly matters must not teach as much as one between safe and unsafe (arXiv:2505.17659, section 3.4)."""


class BadGroups(ValueError):
    """Rewards from which nothing can be learnt: says what is wrong with them."""


class Drawn(NamedTuple):
    """Plans drawn for N frames, G each."""

    mode: Tensor
    """[N, G], int64."""
    reach_m: Tensor
    """[N, G, 2], how far they get along SHAPE."""
    plan: Tensor
    """[N, G, T, 2]."""


class Beliefs(NamedTuple):
    """What plans are drawn from, for N frames."""

    log_mode: Tensor
    """[N, M], logarithms of the modes' probabilities."""
    reach_m: Tensor
    """[N, M, 2], how far the modes get along SHAPE."""
    modes: Tensor
    """[N, M, T, 2]."""


def beliefs(output: Output) -> Beliefs:
    """Of a network's output, confidences being logits."""
    return Beliefs(torch.log_softmax(output.confidence, 1), reach(output.modes), output.modes)


def reach(plans: Tensor) -> Tensor:
    """How far plans [..., T, 2] get along SHAPE, by least squares, [..., 2] m."""
    return (plans * SHAPE[:, None]).sum(-2) / SHAPE.square().sum()


def widths(output: Output, width: float) -> Tensor:
    """Laplace scales of departures, [N, M, 2] m: `width` times those predicted for the last waypoint. They stay
    the same throughout a run: a scale tells how sure the network is, and is no means of being rewarded."""
    return width * output.scale_m[:, :, -1].detach()


def draw(source: Beliefs, width_m: Tensor, group: int, rng: np.random.Generator) -> Drawn:
    """A group of plans for each frame."""
    frames = len(source.log_mode)
    edges = source.log_mode.double().exp().cumsum(1)
    picks = torch.from_numpy(rng.random((frames, group))) * edges[:, -1:]
    mode = torch.searchsorted(edges, picks, right=True).clamp(max=edges.shape[1] - 1)
    noise = torch.from_numpy(rng.laplace(size=(frames, group, 2)).astype(np.float32))
    departure_m = noise * _of_modes(width_m, mode)
    plan = _of_modes(source.modes, mode) + SHAPE[:, None] * departure_m.unsqueeze(2)
    return Drawn(mode, _of_modes(source.reach_m, mode) + departure_m, plan)


def log_likelihood(source: Beliefs, width_m: Tensor, mode: Tensor, reach_m: Tensor) -> Tensor:
    """Of plans drawn for N frames, [N, G]."""
    width = _of_modes(width_m, mode)
    off = (reach_m - _of_modes(source.reach_m, mode)).abs() / width
    return source.log_mode.gather(1, mode) - (off + torch.log(2 * width)).sum(-1)


def divergence(reference: Beliefs, now: Beliefs, width_m: Tensor) -> Tensor:
    """Kullback-Leibler divergence of what is believed now from the reference, [N], nats: of the modes'
    probabilities, and of each mode's Laplace densities, which for equal scales b at a distance d is exp(-d/b) +
    d/b - 1."""
    apart = (now.reach_m - reference.reach_m).abs() / width_m
    within = (torch.exp(-apart) + apart - 1).sum(-1)
    return (reference.log_mode.exp() * (reference.log_mode - now.log_mode + within)).sum(1)


def advantages(rewards: Tensor, least_spread: float = LEAST_SPREAD) -> Tensor:
    """Rewards [N, G] beyond their group's mean, over its standard deviation or `least_spread`, whichever is more;
    they sum to 0 in each group. Raises BadGroups without a group, for groups of one, and for rewards that are not
    finite."""
    if rewards.ndim != 2 or rewards.shape[0] < 1 or rewards.shape[1] < 2:
        raise BadGroups(f"rewards are {list(rewards.shape)}: [frames, plans] needs a frame and two plans at least")
    bad = torch.nonzero(~torch.isfinite(rewards)).tolist()
    if bad:
        raise BadGroups(f"{len(bad)} rewards are not finite, first that of frame {bad[0][0]}, plan {bad[0][1]}")
    beyond = rewards - rewards.mean(1, keepdim=True)
    return beyond / beyond.square().mean(1, keepdim=True).sqrt().clamp(min=least_spread)


def surrogate(now: Tensor, before: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """What is maximised (PPO: Schulman et al., arXiv:1707.06347, equation 7): the mean over plans [N, G] of how
    much likelier they are now than when they were drawn, times their advantage; beyond `clip` nothing more is
    gained. `now` and `before` are log-likelihoods."""
    ratio = torch.exp(now - before)
    return torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage).mean()


def _of_modes(values: Tensor, mode: Tensor) -> Tensor:
    """values [N, M, ...] at modes [N, G]."""
    return values[torch.arange(len(values))[:, None], mode]
