"""Closed-loop fine-tuning: a policy drives, and learns from what plans like its own would have been worth
(model/group_relative.py). Where it drives, and what a plan is worth, is given from outside. Deterministic for a
seed, and resumable."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.checkpoint import Checkpoint
from model.config import BadConfig, TrainingConfig
from model.group_relative import (
    BadGroups,
    Beliefs,
    Drawn,
    advantages,
    beliefs,
    divergence,
    draw,
    log_likelihood,
    surrogate,
    widths,
)
from model.network import Network, Output
from model.policy import Observation, Policy
from model.rig import Rig
from model.torch_policy import LARGEST_BATCH, TorchPolicy
from model.training import CannotResume, Keep, NonFiniteLoss, adamw, learning_rate, snapshot


class Met(Protocol):
    """What a policy met as it drove: N frames."""

    @property
    def observation(self) -> Observation:
        """Of the N frames."""

    def rewards(self, plans: NDArray[np.float32]) -> NDArray[np.float64]:
        """What plans [N, G, T, 2] would have been worth, [N, G], more being better."""


Drive = Callable[[Policy, int], Met]
"""Drives a policy in a round of this number, from 0. Deterministic in both."""


@dataclass(frozen=True, slots=True)
class PractiseConfig:
    """One run."""

    rounds: int
    """Times that the policy drives; each gives the frames that are learnt from next."""
    group: int = 8
    """Plans drawn for one frame."""
    updates: int = 16
    """Steps of the optimiser in a round."""
    batch: int = 48
    """Frames in each."""
    calm_share: float = 0.25
    """Of a batch: frames whose plans are all worth the same. They hold the policy where it is."""
    peak_rate: float = 1e-4
    clip: float = 0.2
    """A plan that became likelier or less likely by more than this share teaches nothing more in its round."""
    closeness: float = 0.1
    """Weight of the divergence from the policy that the run began with."""
    width: float = 1.0
    """Of departures, in predicted scales."""
    largest_gradient: float = 1.0

    def __post_init__(self) -> None:
        for name in ("rounds", "updates", "batch", "peak_rate", "clip", "width", "largest_gradient"):
            if not getattr(self, name) > 0:
                raise BadConfig(f"practise: {name} {getattr(self, name)} must be above 0")
        if self.group < 2:
            raise BadConfig(f"practise: group {self.group} must be at least 2: plans of a group are compared")
        if self.closeness < 0 or not 0 <= self.calm_share < 1:
            raise BadConfig("practise: closeness must not be negative, and calm_share be in 0..1")

    @property
    def optimiser(self) -> TrainingConfig:
        """Without decay of weights: there is nothing to forget but what imitation taught."""
        steps = self.rounds * self.updates
        return TrainingConfig(steps, self.batch, self.peak_rate, warmup_steps=self.updates, weight_decay=0.0)


@dataclass(frozen=True, slots=True)
class Round:
    """What a round brought."""

    number: int
    """From 1."""
    of: int
    frames: int
    reward: float
    """Mean over the drawn plans."""
    telling: float
    """Share of the frames whose plans are not all worth the same."""
    divergence: float
    """Of the policy from the one that the run began with, before the round's updates, nats."""


@dataclass(frozen=True, slots=True)
class PractiseHooks:
    """What a run reports, and where it goes on from."""

    told: Callable[[Round], None] | None = None
    keep: Keep | None = None
    """Called after each round."""
    resume: Checkpoint | None = None
    """What `keep` was last given by an earlier attempt at the same run."""


NO_HOOKS = PractiseHooks()


def practise(
    start: Checkpoint,
    drive: Drive,
    rig: Rig,
    config: PractiseConfig,
    *,
    seed: int,
    hooks: PractiseHooks = NO_HOOKS,
) -> Checkpoint:
    """The policy after `config.rounds`, its heads as they were. Raises BadGroups, NonFiniteLoss, CannotResume."""
    with _one_thread():
        return _practise(hooks.resume or start.finished(), start, drive, rig, config, seed, hooks)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Small networks gain nothing from threads within an operation, and no result must depend on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _practise(
    now: Checkpoint,
    start: Checkpoint,
    drive: Drive,
    rig: Rig,
    config: PractiseConfig,
    seed: int,
    hooks: PractiseHooks,
) -> Checkpoint:
    first, rest = divmod(now.step, config.updates)
    if rest or first > config.rounds:
        raise CannotResume(f"checkpoint is at step {now.step}, not after one of {config.rounds} rounds")
    net, reference, rays = now.build().train(), start.build(), torch.from_numpy(rig.rays(start.network.patch_px))
    net.heads.requires_grad_(False)
    optimizer = adamw(net, config.optimiser, now)
    for number in range(first, config.rounds):
        rng = np.random.default_rng([seed, number])
        met = drive(TorchPolicy(snapshot(net, optimizer, 0), rig), number)
        frames = Frames(met.observation, rays)
        if not len(met.observation.images):
            raise BadGroups(f"round {number + 1} met no frame: drive for longer")
        lesson = _lesson(frames, met, net, reference, config, rng)
        for step in range(config.updates):
            # Moments made of rounding errors are as large as others: where nothing is telling, nobody moves.
            rate = learning_rate(config.optimiser, number * config.updates + step) * bool(lesson.telling.any())
            for group in optimizer.param_groups:
                group["lr"] = rate
            _update(net, optimizer, frames, lesson, config, rng)
        if hooks.told:
            hooks.told(_round(number, lesson, config))
        if hooks.keep and number + 1 < config.rounds:
            hooks.keep(snapshot(net, optimizer, (number + 1) * config.updates))
    return snapshot(net, optimizer, 0).finished()


@dataclass(frozen=True, slots=True)
class Frames:
    """What was observed, as a network takes it."""

    observation: Observation
    rays: Tensor

    def seen(self, net: Network, rows: NDArray[np.int64]) -> Output:
        """What the network gives for some of the frames."""
        some = self.observation.take(rows)
        images, past = some.stacked(net.config.history)
        signals = (some.speed_mps, some.yaw_rate_radps, some.command)
        output: Output = net(
            torch.from_numpy(images),
            self.rays,
            *(torch.from_numpy(signal) for signal in signals),
            torch.from_numpy(past) if net.config.history > 1 else None,
        )
        return output

    def all_seen(self, net: Network) -> Output:
        """Likewise for all of them, without gradients."""
        rows = np.arange(len(self.observation.images))
        with torch.no_grad():
            parts = [self.seen(net, rows[at : at + LARGEST_BATCH]) for at in range(0, len(rows), LARGEST_BATCH)]
        return Output(*(torch.cat(field) for field in zip(*parts, strict=True)))


class _Lesson(NamedTuple):
    """A round's plans for N frames, and what they teach."""

    drawn: Drawn
    before: Tensor
    """[N, G], log-likelihoods when they were drawn."""
    rewards: Tensor
    advantage: Tensor
    """[N, G]."""
    reference: Beliefs
    width_m: Tensor
    """[N, M, 2]."""
    apart: float
    """Mean divergence from the reference."""

    @property
    def telling(self) -> NDArray[np.bool_]:
        """[N], whether a frame's plans are not all worth the same."""
        return np.asarray(self.advantage.any(1).numpy())


def _lesson(
    frames: Frames, met: Met, net: Network, reference: Network, config: PractiseConfig, rng: np.random.Generator
) -> _Lesson:
    first = frames.all_seen(reference)
    width_m, was, now = widths(first, config.width), beliefs(first), beliefs(frames.all_seen(net))
    drawn = draw(now, width_m, config.group, rng)
    rewards = torch.from_numpy(np.asarray(met.rewards(drawn.plan.numpy()), np.float32))
    return _Lesson(
        drawn,
        log_likelihood(now, width_m, drawn.mode, drawn.reach_m),
        rewards,
        advantages(rewards),
        was,
        width_m,
        float(divergence(was, now, width_m).mean()),
    )


def _update(
    net: Network,
    optimizer: torch.optim.Optimizer,
    frames: Frames,
    lesson: _Lesson,
    config: PractiseConfig,
    rng: np.random.Generator,
) -> None:
    rows = _rows(lesson.telling, config, rng)
    at = torch.from_numpy(rows)
    now, width_m = beliefs(frames.seen(net, rows)), lesson.width_m[at]
    likelihood = log_likelihood(now, width_m, lesson.drawn.mode[at], lesson.drawn.reach_m[at])
    gain = surrogate(likelihood, lesson.before[at], lesson.advantage[at], config.clip)
    loss = config.closeness * divergence(Beliefs(*(b[at] for b in lesson.reference)), now, width_m).mean() - gain
    if not math.isfinite(float(loss.detach())):
        raise NonFiniteLoss(f"loss of practising is {float(loss.detach())}: lower peak_rate")
    optimizer.zero_grad()
    torch.autograd.backward(loss)
    torch.nn.utils.clip_grad_norm_(net.parameters(), config.largest_gradient)
    optimizer.step()


def _rows(telling: NDArray[np.bool_], config: PractiseConfig, rng: np.random.Generator) -> NDArray[np.int64]:
    """The frames of a batch, drawn with replacement: telling ones but for a share; of one sort where there is no
    other."""
    calm = round(config.batch * config.calm_share) if telling.any() else config.batch
    calm = calm if not telling.all() else 0
    return np.concatenate(
        [rng.choice(np.flatnonzero(~telling), calm), rng.choice(np.flatnonzero(telling), config.batch - calm)]
    ).astype(np.int64)


def _round(number: int, lesson: _Lesson, config: PractiseConfig) -> Round:
    return Round(
        number + 1,
        config.rounds,
        len(lesson.rewards),
        float(lesson.rewards.mean()),
        float(lesson.telling.mean()),
        lesson.apart,
    )
