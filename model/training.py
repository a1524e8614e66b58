"""Behaviour cloning and fine-tuning. Deterministic for a seed, and resumable."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.checkpoint import Checkpoint
from model.config import NetworkConfig, TrainingConfig
from model.data import BadSamples, Mixture, Samples, balanced
from model.gaps import check_gaps, with_gaps
from model.gradients import descending, parted
from model.heads import untaught
from model.losses import joint_loss
from model.network import Network
from model.rig import Rig
from model.slowing import pull_away, slowed

Progress = Callable[[int, int, float], None]
"""Called after each step with (steps done, steps in all, loss). Must not block for long."""
Keep = Callable[[Checkpoint], None]
"""Called with a checkpoint to resume from, every `keep_every` steps."""
Build = Callable[[Checkpoint], Network]
"""Makes the network that learns of what a run starts or goes on from. Parameters that require no gradient are left
as they are."""

MOMENTS = ("exp_avg", "exp_avg_sq")
"""What AdamW remembers of each parameter."""


class NonFiniteLoss(ArithmeticError):
    """The loss became NaN or infinite: the run is worthless from here on and must not be retried as is."""


class CannotResume(ValueError):
    """The checkpoint to resume from is not one of this run."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """What a run reports, and where it goes on from."""

    progress: Progress | None = None
    keep: Keep | None = None
    keep_every: int = 100
    resume: Checkpoint | None = None
    """What `keep` was last given by an earlier attempt at the same run."""


NO_HOOKS = Hooks()


def train(
    samples: Samples,
    rig: Rig,
    network: NetworkConfig,
    config: TrainingConfig,
    *,
    seed: int,
    hooks: Hooks = NO_HOOKS,
) -> Checkpoint:
    """Clones the behaviour in `samples` from scratch. Raises NonFiniteLoss, CannotResume, BadSamples."""
    return train_on_rigs([(samples, rig)], network, config, seed=seed, hooks=hooks)


def train_on_rigs(
    parts: Sequence[tuple[Samples, Rig]],
    network: NetworkConfig,
    config: TrainingConfig,
    *,
    seed: int,
    hooks: Hooks = NO_HOOKS,
) -> Checkpoint:
    """One network for several rigs: each step learns from one of them, in turn. Raises as `train`."""
    check_fits(network, config, *(samples for samples, _ in parts))
    start = hooks.resume or initial(network, seed)
    whole = [(balanced(samples, config.balance),) for samples, _ in parts]
    mixtures = [Mixture(part, (1.0,), config.batch, seed, network.history) for part in whole]
    rigs = [rig for _, rig in parts]
    return _optimise(start, lambda step: mixtures[step % len(mixtures)].draw(step), rigs, config, seed, hooks)


def initial(network: NetworkConfig, seed: int) -> Checkpoint:
    """A freshly initialised model: it drives badly, but it drives."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Checkpoint(network, dict(Network(network).state_dict()))


def fine_tune(
    checkpoint: Checkpoint,
    base: Samples,
    clips: Samples,
    rig: Rig,
    config: TrainingConfig,
    *,
    seed: int,
    hooks: Hooks = NO_HOOKS,
    build: Build = Checkpoint.build,
) -> Checkpoint:
    """Teaches a finished model what is in `clips`, `config.replay_share` of each batch being replayed from
    `base` so that it does not forget. `build` says what of it learns (model/adapters.py); the checkpoint that is
    given back is of the network that it made. Raises as `train`."""
    network, shares = checkpoint.network, (config.replay_share, 1 - config.replay_share)
    check_fits(network, config, *(part for part, share in zip((base, clips), shares, strict=True) if share))
    parts = (balanced(base, config.balance), balanced(clips, config.balance))
    mixture = Mixture(parts, shares, config.batch, seed, network.history)
    driver = pull_away(base)

    def draw(step: int) -> Samples:
        return slowed(mixture.draw(step), config.slowed_share, driver, np.random.default_rng([seed, step, 2]))

    return _optimise(hooks.resume or checkpoint.finished(), draw, [rig], config, seed, hooks, build)


def check_fits(network: NetworkConfig, config: TrainingConfig, *parts: Samples) -> None:
    """Raises BadSamples where these could not teach what the network asks for, BadConfig where the gaps could
    not."""
    check_gaps(network, config.gaps, *parts)
    missing = untaught(network, [name for part in parts for name in part.labels])
    if missing:
        raise BadSamples(f"heads without labels to learn from: {missing}; leave them out, or label the samples")


def _optimise(
    start: Checkpoint,
    draw: Callable[[int], Samples],
    rigs: Sequence[Rig],
    config: TrainingConfig,
    seed: int,
    hooks: Hooks,
    build: Build = Checkpoint.build,
) -> Checkpoint:
    """`draw` gives a batch of rig number `step` modulo their number."""
    if start.step > config.steps:
        raise CannotResume(f"checkpoint is at step {start.step} of a run of {config.steps} steps")
    net = build(start).train()
    optimizer = adamw(net, config, start)
    every_rays = [torch.from_numpy(rig.rays(net.config.patch_px)) for rig in rigs]
    parameters = [p for _, p in learnt(net)]
    with descending(config.threads) as descend:
        for step in range(start.step, config.steps):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(config, step)
            rays = every_rays[step % len(rigs)]
            cameras = seen_cameras(len(rays), config.camera_dropout, np.random.default_rng([seed, step, 1]))
            drawn = np.random.default_rng([seed, step, 3])
            batch = with_gaps(draw(step), config.gaps, net.config.history, drawn)
            parts = parted(batch, config.parts)
            loss = descend(partial(batch_loss, net, rays, cameras), parts, parameters)
            torch.nn.utils.clip_grad_norm_(parameters, config.largest_gradient)
            optimizer.step()
            _report(hooks, net, optimizer, (step + 1, config.steps), loss)
    return snapshot(net, optimizer, config.steps).finished()


def learnt(net: Network) -> list[tuple[str, Tensor]]:
    """The parameters that learn, by name."""
    return [(name, parameter) for name, parameter in net.named_parameters() if parameter.requires_grad]


def learning_rate(config: TrainingConfig, step: int) -> float:
    """Linear warm-up, then half a cosine down to zero at the last step."""
    if step < config.warmup_steps:
        return config.peak_rate * (step + 1) / (config.warmup_steps + 1)
    done = (step - config.warmup_steps) / max(config.steps - config.warmup_steps, 1)
    return config.peak_rate * 0.5 * (1 + math.cos(math.pi * done))


def seen_cameras(count: int, dropout: float, rng: np.random.Generator) -> list[int]:
    """The cameras a batch is seen with: all, or with probability `dropout` all but one."""
    lost = int(rng.integers(count)) if count > 1 and rng.random() < dropout else -1
    return [camera for camera in range(count) if camera != lost]


def batch_loss(net: Network, rays: Tensor, cameras: list[int], batch: Samples) -> Tensor:
    """What is minimised: a scalar, the mean over the frames. Works on the device that `rays` [C, P, 6] are on."""

    def there(array: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(array).to(rays.device, non_blocking=True)

    images = there(batch.images)
    if len(cameras) < len(rays):
        kept = [age * len(rays) + camera for age in range(net.config.history) for camera in cameras]
        images, rays = images[:, kept], rays[cameras]
    past = None if batch.past is None else there(batch.past)
    view = net.study(images, rays, there(batch.speed_mps), there(batch.yaw_rate_radps), there(batch.command), past)
    labels = {name: there(label) for name, label in batch.labels.items()}
    return joint_loss(net, view, there(batch.target), labels)


def _report(
    hooks: Hooks, net: Network, optimizer: torch.optim.Optimizer, at: tuple[int, int], loss: float
) -> None:
    done, steps = at
    if not math.isfinite(loss):
        raise NonFiniteLoss(f"loss is {loss} after {done} of {steps} steps: lower peak_rate, or check the targets")
    if hooks.progress is not None:
        hooks.progress(done, steps, loss)
    if hooks.keep is not None and done % hooks.keep_every == 0 and done < steps:
        hooks.keep(snapshot(net, optimizer, done))


def adamw(net: Network, config: TrainingConfig, start: Checkpoint) -> torch.optim.AdamW:
    """AdamW, where the checkpoint left it; biases, norms and learnt tokens are not decayed: of these no other than
    a matrix is named `weight`. Raises CannotResume."""
    named = dict(learnt(net))
    matrices = [p for name, p in named.items() if p.ndim > 1 and name.endswith("weight")]
    others = [p for name, p in named.items() if p.ndim < 2 or not name.endswith("weight")]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=config.peak_rate, betas=(0.9, 0.98), fused=True)
    if not start.step:
        return optimizer
    wanted = {f"{name}.{moment}" for name in named for moment in MOMENTS}
    if set(start.optimizer) != wanted:
        raise CannotResume(f"checkpoint at step {start.step} has no optimiser state: start the run again")
    for name, parameter in named.items():
        moments = {moment: start.optimizer[f"{name}.{moment}"].clone() for moment in MOMENTS}
        optimizer.state[parameter] = {"step": torch.tensor(float(start.step))} | moments
    return optimizer


def snapshot(net: Network, optimizer: torch.optim.Optimizer, step: int) -> Checkpoint:
    weights = {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}
    moments = {
        f"{name}.{moment}": optimizer.state[parameter][moment].clone()
        for name, parameter in learnt(net)
        if optimizer.state[parameter]
        for moment in MOMENTS
    }
    return replace(Checkpoint(net.config, weights), step=step, optimizer=moments)


def mean_loss(checkpoint: Checkpoint, samples: Samples, rig: Rig, batch: int = 256) -> float:
    """What training minimises, over frames that it need not have seen. Raises BadSamples where there is none."""
    if not len(samples):
        raise BadSamples("a loss needs at least one frame")
    net, rays = checkpoint.build(), torch.from_numpy(rig.rays(checkpoint.network.patch_px))
    cameras, total = list(range(len(rays))), 0.0
    with torch.inference_mode():
        for at in range(0, len(samples), batch):
            some = samples.take(slice(at, at + batch))
            total += float(batch_loss(net, rays, cameras, some)) * len(some)
    return total / len(samples)
