"""A checkpoint: one safetensors file, with the network's configuration in its header."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from model.config import BadConfig, NetworkConfig, network_from_json
from model.heads import HEADS
from model.network import Network
from model.tensor_file import BadTensorFile, decode, encode, read, write

FORMAT = "fleetwheel.checkpoint/1"
OPTIMIZER = "optimizer."
"""Before the names of the moments, in a file of both."""


class BadCheckpoint(ValueError):
    """A checkpoint that cannot be used: names the file and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Weights by parameter name; to resume from it, also where the run was."""

    network: NetworkConfig
    weights: dict[str, Tensor]
    step: int = 0
    """Steps of the current run that are done; 0 for a finished model."""
    optimizer: dict[str, Tensor] = field(default_factory=dict)
    """Moments by `<parameter>.exp_avg` and `.exp_avg_sq`; empty for a finished model."""

    def build(self) -> Network:
        """The network with these weights, in evaluation mode. Raises BadCheckpoint where they do not fit."""
        with torch.random.fork_rng(devices=[]):
            net = Network(self.network)
        try:
            net.load_state_dict(self.weights)
        except RuntimeError as error:
            raise BadCheckpoint(f"weights do not fit the network {self.network}: {error}") from error
        return net.eval()

    def finished(self) -> Checkpoint:
        """Only what is needed to drive or to start another run from."""
        return replace(self, step=0, optimizer={})

    def without_heads(self, but: Collection[str] = ()) -> Checkpoint:
        """What drives, and of the heads of model.heads only those named. Raises BadConfig for one that it has
        not."""
        absent = [name for name in but if name not in HEADS or not getattr(self.network, name)]
        if absent:
            raise BadConfig(f"network: there is no head {absent[0]!r} in it; it was not trained with one")
        gone = [name for name in HEADS if name not in but]
        network, prefixes = replace(self.network, **dict.fromkeys(gone, 0)), tuple(f"heads.{n}." for n in gone)
        weights = {name: tensor for name, tensor in self.weights.items() if not name.startswith(prefixes)}
        return replace(self.finished(), network=network, weights=weights)

    def shallower(self, depth: int) -> Checkpoint:
        """What drives from the exit after `depth` latent blocks: faster, and less sure. Raises BadConfig where
        that is no exit of this network."""
        if not self.network.exits or not 0 < depth <= self.network.latent_depth:
            exits = range(1, self.network.latent_depth + 1) if self.network.exits else ()
            raise BadConfig(f"network: no exit after {depth} blocks; it was taught to leave after {list(exits)}")
        gone = tuple(f"blocks.{at}." for at in range(depth, self.network.latent_depth))
        weights = {name: tensor for name, tensor in self.weights.items() if not name.startswith(gone)}
        return replace(self.finished(), network=replace(self.network, latent_depth=depth), weights=weights)


def to_bytes(checkpoint: Checkpoint) -> bytes:
    """The file's content; equal checkpoints give equal bytes."""
    tensors = checkpoint.weights | {OPTIMIZER + k: v for k, v in checkpoint.optimizer.items()}
    return encode(tensors, {"format": FORMAT, "network": checkpoint.network.to_json(), "step": checkpoint.step})


def save(checkpoint: Checkpoint, path: Path) -> str:
    """Writes the file so that a reader sees all of it or none, and returns its sha256 in hex."""
    return write(to_bytes(checkpoint), path)


def load(path: Path, sha256: str | None = None) -> Checkpoint:
    """Reads what `save` wrote. Raises BadCheckpoint for a file that is absent, cut short, of another format,
    not finite, or not of the given sha256."""
    try:
        return from_bytes(read(path, sha256))
    except (BadTensorFile, BadCheckpoint) as error:
        raise BadCheckpoint(f"checkpoint {path}: {error}") from error


def from_bytes(content: bytes) -> Checkpoint:
    """Reads what `to_bytes` gave. Raises BadCheckpoint."""
    try:
        tensors, header = decode(content, FORMAT)
        network, step = network_from_json(header["network"]), int(header["step"])
    except BadTensorFile as error:
        raise BadCheckpoint(str(error)) from error
    except (KeyError, TypeError, ValueError) as error:
        raise BadCheckpoint(f"header is not that of a checkpoint ({error})") from error
    weights = {k: v for k, v in tensors.items() if not k.startswith(OPTIMIZER)}
    optimizer = {k.removeprefix(OPTIMIZER): v for k, v in tensors.items() if k.startswith(OPTIMIZER)}
    return Checkpoint(network, weights, step, optimizer)
