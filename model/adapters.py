"""Low-rank adapters (LoRA: Hu et al., arXiv:2106.09685): learning one, and adding it to its base.

An adapter adds up · down, a product of rank r, to weights of the base; a convolution's weight counts as
[out, in · height · width]. It is added to the weight, not beside the layer: whoever reads a weight reads the
adapted one, and a merged model computes bit for bit what was trained (docs/adr/0019)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from model.adapter_file import DOWN, UP, Adapter, BadAdapter, Base, WrongBase
from model.checkpoint import Checkpoint
from model.config import TrainingConfig
from model.data import Samples
from model.network import Network
from model.rig import Rig
from model.training import NO_HOOKS, Hooks, fine_tune, learnt

LARGEST_SHARE = 0.03
"""Of the base's parameters: what an adapter may have."""
_FROZEN, _LEARNT = ".parametrizations.weight.original", ".parametrizations.weight.0"
"""How torch names the two in an adapted layer."""


REPLAYED = 0.4
"""Of each batch, from what the base has learnt already: a few clips alone take away where it is nearly right."""


def adapting(steps: int, replay_share: float = REPLAYED) -> TrainingConfig:
    """How adapters are taught: few parameters take large steps, and what is kept small already need not decay."""
    warmup = min(20, steps // 4)
    return TrainingConfig(
        steps,
        batch=48,
        peak_rate=5e-3,
        warmup_steps=warmup,
        weight_decay=0.0,
        replay_share=replay_share,
        threads=1,
    )


def adapt(
    base: Base,
    name: str,
    replay: Samples,
    clips: Samples,
    rig: Rig,
    config: TrainingConfig,
    *,
    rank: int = 1,
    seed: int,
    hooks: Hooks = NO_HOOKS,
) -> Adapter:
    """Teaches an adapter what is in `clips`, as `training.fine_tune` teaches a whole model, some of each batch
    being `replay`: the base is frozen, and its heads are left out, as what drives is adapted. Raises as it does,
    and BadAdapter for a rank that gives more than LARGEST_SHARE of the base's parameters."""
    build, start = partial(adapted, rank=rank, seed=seed), base.checkpoint.without_heads()
    share = sum(p.numel() for _, p in learnt(build(start))) / base.parameters
    if not 0 < share <= LARGEST_SHARE:
        raise BadAdapter(
            f"rank {rank} is {share:.1%} of the base's parameters, not above 0 and up to {LARGEST_SHARE:.0%}"
        )
    tuned = fine_tune(start, replay, clips, rig, config, seed=seed, hooks=hooks, build=build)
    return Adapter(name, base.sha256, _parted(tuned.weights)[1])


def adapted(checkpoint: Checkpoint, rank: int, seed: int) -> Network:
    """A network that learns an adapter and nothing else: the checkpoint's weights are frozen. It begins as the
    checkpoint, bit for bit; or, for a checkpoint taken while an adapter was trained, where that was. Raises
    BadCheckpoint where the weights do not fit."""
    frozen, learnt = _parted(checkpoint.weights)
    net = replace(checkpoint, weights=frozen).build().requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in _layers(net):
            parametrize.register_parametrization(layer, "weight", _LowRank(layer.weight, rank))
    if learnt:
        net.load_state_dict(checkpoint.weights)
    return net


def merged(base: Base, adapters: Sequence[Adapter]) -> Checkpoint:
    """The base with adapters added, such as those of a region and of a vehicle type: a model like any other, to
    export and ship. Raises WrongBase, and BadAdapter for weights that the base has not."""
    weights = dict(base.checkpoint.weights)
    for adapter in adapters:
        if adapter.base_sha256 != base.sha256:
            raise WrongBase(
                f"adapter {adapter.name!r} belongs to base {adapter.base_sha256}, not to {base.sha256}: "
                "merge it with its own, or adapt this one"
            )
        for name in adapter.adapted:
            up, down = adapter.weights[name + UP], adapter.weights[name + DOWN]
            if name not in weights or weights[name].flatten(1).shape != (len(up), down.shape[1]):
                raise BadAdapter(f"adapter {adapter.name!r} changes {name}, which the base has not in that shape")
            weights[name] = _added(weights[name], up, down)
    return replace(base.checkpoint, weights=weights)


class _LowRank(nn.Module):
    """torch's parametrization of a weight: the frozen one in, the adapted one out."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        matrix = weight.flatten(1)
        self.up = nn.Parameter(torch.zeros(len(matrix), rank))
        self.down = nn.Parameter(torch.empty(rank, matrix.shape[1]))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        return _added(weight, self.up, self.down)


def _added(weight: Tensor, up: Tensor, down: Tensor) -> Tensor:
    return weight + (up @ down).view_as(weight)


def _layers(net: Network) -> list[nn.Linear | nn.Conv2d]:
    return [module for module in net.modules() if isinstance(module, nn.Linear | nn.Conv2d)]


def _parted(weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A checkpoint's weights without the adapter that was being trained, and that adapter's."""
    learnt = {n.replace(_LEARNT, ".weight"): w for n, w in weights.items() if _LEARNT in n}
    frozen = {n.replace(_FROZEN, ".weight"): w for n, w in weights.items() if _LEARNT not in n}
    return frozen, learnt
