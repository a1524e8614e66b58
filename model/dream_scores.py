"""What dreams are held against: the last picture again, the same flow on, and the latents of what really came."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from model.dreamer import Dreamer
from model.optical_flow import constant_flow
from model.rig import Rig
from model.sequences import CONTEXT, Sequences
from model.world_model import WorldModel, dream, view

AT_ONCE = 16
Pictures = NDArray[np.uint8]


def dreamt(model: WorldModel, rig: Rig, sequences: Sequences) -> Pictures:
    """What a world model gives for the pictures after the first CONTEXT: [N, K, C, H, W, 3]. Raises
    BadSequences."""
    dreamer, out = Dreamer(model, rig), np.empty_like(sequences.images[:, CONTEXT:])
    for some in _slices(len(sequences)):
        dreamer.begin(sequences.images[some, :CONTEXT], sequences.actions[some, 0])
        out[some] = dreamer.roll(sequences.actions[some, 1:])
    return out


def copied(sequences: Sequences) -> Pictures:
    """The last real picture again and again, [N, K, C, H, W, 3]."""
    again = sequences.images[:, CONTEXT - 1 : CONTEXT]
    return np.broadcast_to(again, sequences.images[:, CONTEXT:].shape)


def flowed(sequences: Sequences) -> Pictures:
    """What the flow between the two real pictures gives if it goes on, [N, K, C, H, W, 3]; it knows no actions."""
    steps, out = sequences.length - CONTEXT, np.empty_like(sequences.images[:, CONTEXT:])
    for some in _slices(len(sequences)):
        pair = torch.from_numpy(sequences.images[some, :CONTEXT]).movedim(-1, 3).float() / 255
        with torch.inference_mode():
            seen = constant_flow(pair[:, 0].flatten(0, 1), pair[:, 1].flatten(0, 1), steps)
        images = (seen.clamp(0, 1) * 255).round().to(torch.uint8)
        out[some] = (
            torch.unflatten(images, 0, pair.shape[:1] + pair.shape[2:3]).transpose(1, 2).movedim(-3, -1).numpy()
        )
    return out


def latent_errors(model: WorldModel, rig: Rig, sequences: Sequences) -> tuple[NDArray[np.float64], ...]:
    """Mean squared errors of latents (of unit mean square) against those of the real pictures at each step, [K]:
    of dreamt ones, and of the first ones kept."""
    seen, steps = view(rig), sequences.length - CONTEXT
    sums = np.zeros((2, steps))
    with torch.inference_mode():
        for some in _slices(len(sequences)):
            images, actions = torch.from_numpy(sequences.images[some]), torch.from_numpy(sequences.actions[some])
            first = model.encode(seen, images[:, :CONTEXT], actions[:, 0])
            for k, state in enumerate(dream(model, seen, images[:, :CONTEXT], actions)):
                real = model.encode(seen, images[:, k + 1 : k + 1 + CONTEXT], actions[:, k + 1])
                for row, latents in enumerate((state.latents, first)):
                    sums[row, k] += float((latents - real).square().mean()) * len(images)
    return tuple(sums / len(sequences))


def _slices(count: int) -> Iterator[slice]:
    for at in range(0, count, AT_ONCE):
        yield slice(at, at + AT_ONCE)
