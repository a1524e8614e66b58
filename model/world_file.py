"""A world model on disk: one safetensors file with its configuration in the header. Nothing is unpickled."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as encode

from model.checkpoint import BadCheckpoint
from model.config import BadConfig
from model.world_model import WorldModel, world_from_json

FORMAT = "fleetwheel.world/1"
_HEADER = "fleetwheel"


def save_world(model: WorldModel, path: Path) -> None:
    """Writes the file so that a reader sees all of it or none."""
    header = json.dumps({"format": FORMAT, "world": model.config.to_json()}, sort_keys=True)
    tensors = {name: tensor.detach().contiguous() for name, tensor in sorted(model.state_dict().items())}
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(encode(tensors, {_HEADER: header}))
    partial.replace(path)


def load_world(path: Path) -> WorldModel:
    """Reads what `save_world` wrote. Raises BadCheckpoint for a file that is absent, cut short, of another format
    or not finite."""
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {})[_HEADER])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if header["format"] != FORMAT:
            raise ValueError(f"format is {header['format']!r}, not {FORMAT!r}")
        with torch.random.fork_rng(devices=[]):
            model = WorldModel(world_from_json(header["world"]))
        model.load_state_dict(tensors)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError, BadConfig) as error:
        raise BadCheckpoint(f"{path} is not a world model that can be used: {error}") from error
    bad = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if bad:
        raise BadCheckpoint(f"{path}: {bad[0]} and {len(bad) - 1} other tensors are not finite")
    return model.eval()
