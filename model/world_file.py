"""A world model on disk: one tensor file with its configuration in the header."""

from __future__ import annotations

from pathlib import Path

import torch

from model.checkpoint import BadCheckpoint
from model.tensor_file import decode, encode, read, write
from model.world_model import WorldModel, world_from_json

FORMAT = "fleetwheel.world/1"


def save_world(model: WorldModel, path: Path) -> None:
    """Writes the file so that a reader sees all of it or none."""
    write(encode(model.state_dict(), {"format": FORMAT, "world": model.config.to_json()}), path)


def load_world(path: Path) -> WorldModel:
    """Reads what `save_world` wrote. Raises BadCheckpoint for a file that is absent, cut short, of another format
    or not finite."""
    try:
        tensors, header = decode(read(path), FORMAT)
        with torch.random.fork_rng(devices=[]):
            model = WorldModel(world_from_json(header["world"]))
        model.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise BadCheckpoint(f"{path} is not a world model that can be used: {error}") from error
    return model.eval()
