"""A training step on as much hardware as there is: parameters, gradients and moments sharded over all processes.

FSDP2 (torch.distributed.fsdp.fully_shard) holds each transformer block, and all the rest together, in shards; a
block is gathered when it is needed. A batch is worked on in parts, of which each process has its share: how many
processes there are changes the order in which gradients are added, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.utils.checkpoint import checkpoint

from model.config import BadConfig, TrainingConfig
from model.data import Samples
from model.gradients import Descent, Loss, descending
from model.network import Network
from model.ranks import Ranks
from model.training import batch_loss

FLOAT32 = MixedPrecisionPolicy()
BFLOAT16 = MixedPrecisionPolicy(
    param_dtype=torch.bfloat16, reduce_dtype=torch.float32, output_dtype=torch.float32, cast_forward_inputs=True
)
"""Of the blocks: their products in bfloat16, gradients summed in float32. What they are given and give stays
float32: waypoints are metres to the centimetre, bfloat16 has three digits."""


class Lesson(nn.Module):
    """The network with its loss as one module: sharding gathers parameters for one forward, and the loss may ask
    any head."""

    def __init__(self, net: Network) -> None:
        super().__init__()
        self.net = net

    def forward(self, rays: Tensor, cameras: list[int], batch: Samples) -> Tensor:
        """See `training.batch_loss`."""
        return batch_loss(self.net, rays, cameras, batch)


def lesson(net: Network, config: TrainingConfig, ranks: Ranks) -> Lesson:
    """The network made ready to be trained by these processes, in place. Each gives the same weights."""
    net.to(ranks.device)
    gpu = ranks.device.type == "cuda"
    for block in blocks(net):
        if config.recompute:
            recomputed(block)
        if config.compiled and gpu:
            block.compile()
    whole = Lesson(net).train()
    if ranks.mesh is not None:
        shard(whole, ranks.mesh, BFLOAT16 if config.bf16 and gpu else FLOAT32)
    return whole


def blocks(net: Network) -> list[nn.Module]:
    """The repeated parts, which hold nearly all parameters of a large network."""
    return [*net.token_blocks, *net.blocks]


def recomputed(block: nn.Module) -> None:
    """The block keeps what it was given, and works the rest out again for its gradients."""
    forward = block.forward

    # Not a partial: torch.compile takes one for a built-in and leaves the block as it is, without a word.
    def again(*inputs: Tensor | None) -> object:
        return checkpoint(forward, *inputs, use_reentrant=False)

    block.forward = again


def shard(whole: Lesson, mesh: DeviceMesh, policy: MixedPrecisionPolicy) -> None:
    """Shards the parameters over the mesh, in place. Gradients are added up, not averaged: each part's loss is
    already its share of the batch's."""
    for block in blocks(whole.net):
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(whole, mesh=mesh)
    for module in whole.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
            # Processes may differ in which labels their frames have, and so in which heads learn.
            module.set_reduce_scatter_unused_params(True)


def share_of(ranks: Ranks, parts: int) -> range:
    """The parts of a batch that this process works on. Raises BadConfig where they cannot be shared evenly."""
    if parts % ranks.world:
        raise BadConfig(
            f"training: {parts} parts of a batch cannot be shared by {ranks.world} processes: "
            f"set parts to a multiple of {ranks.world}"
        )
    each = parts // ranks.world
    return range(ranks.rank * each, (ranks.rank + 1) * each)


@contextmanager
def gradients(whole: Lesson, config: TrainingConfig, ranks: Ranks) -> Iterator[Descent]:
    """How the gradients of this process's parts of a batch are worked out; it returns what they add to the
    loss."""
    if ranks.mesh is None:
        with descending(config.threads) as descend:
            yield descend
    else:
        yield partial(_accumulate, whole, config.batch)


def _accumulate(
    whole: Lesson, batch: int, loss: Loss, parts: Sequence[Samples], parameters: Sequence[Tensor]
) -> float:
    """Sharded: gradients are added in this process, and over all of them after its last part."""
    total: Tensor | float = 0.0
    for parameter in parameters:
        parameter.grad = None
    for number, part in enumerate(parts):
        if isinstance(whole, FSDPModule):
            whole.set_requires_gradient_sync(number == len(parts) - 1)
        value = loss(part) * (len(part) / batch)
        torch.autograd.backward(value)
        total = total + value.detach()
    return float(total)


def gradient_norm(parameters: Iterable[Tensor]) -> Tensor:
    """The norm of all gradients together, over all processes."""
    norm = get_total_norm([p.grad for p in parameters if p.grad is not None])
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def clip(parameters: Iterable[Tensor], largest: float, norm: Tensor) -> None:
    """Scales gradients of that norm down to `largest`."""
    clip_grads_with_norm_(parameters, largest, norm)
