"""Confidences that mean what they say: one temperature for each, fitted on frames that were held back.

Guo et al., "On Calibration of Modern Neural Networks" (ICML 2017). Dividing logits by a temperature does not
change which is the largest, so neither what is driven nor which class is told; and as every confidence comes out
of a linear layer, the temperature goes into that layer's weights: networks, checkpoints and graphs stay as they
are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.checkpoint import Checkpoint
from model.data import Samples
from model.heads import HEADS, each
from model.heads.head import Classifier
from model.network import Network, View
from model.open_loop import calibration_error
from model.rig import Rig

MODES = "modes"
"""The name of the trajectories' confidences, beside those of heads."""
COLDEST, HOTTEST = 0.05, 20.0
MOST_CASES = 100_000
"""More say nothing new about one number."""
BATCH = 128


@dataclass(frozen=True, slots=True)
class Calibration:
    """What one temperature does, on the frames that it was fitted on or on others."""

    temperature: float
    cases: int
    error_before: float
    """Expected calibration error of the most confident answer being right."""
    error_after: float


@dataclass(frozen=True, slots=True)
class Cases:
    """N answers: logits [N, K], and which of the K was right [N]."""

    logits: NDArray[np.float64]
    right: NDArray[np.int64]


def calibrated(checkpoint: Checkpoint, held_back: Samples, rig: Rig) -> tuple[Checkpoint, dict[str, float]]:
    """The model with calibrated confidences, and the temperature of each: of the modes, and of every head that
    tells classes apart and has labels among the frames. Raises ValueError without a frame."""
    net = checkpoint.build()
    temperatures = {name: temperature(cases) for name, cases in collect(net, held_back, rig).items()}
    with torch.no_grad():
        for name, value in temperatures.items():
            _cool(net, name, value)
    return replace(checkpoint.finished(), weights=dict(net.state_dict())), temperatures


def told(
    checkpoint: Checkpoint, frames: Samples, rig: Rig, temperatures: dict[str, float]
) -> dict[str, Calibration]:
    """What these temperatures would change of a model that has not got them yet, on frames that it has not
    seen."""
    found = collect(checkpoint.build(), frames, rig)
    return {
        name: Calibration(t, len(found[name].right), error(found[name]), error(found[name], t))
        for name, t in temperatures.items()
        if name in found
    }


def temperature(cases: Cases) -> float:
    """The one that makes the right answers likeliest, between COLDEST and HOTTEST. The likelihood has one peak
    over the inverse temperature, so its logarithm is halved in on by golden sections."""
    low, high = np.log(COLDEST), np.log(HOTTEST)
    share = (np.sqrt(5) - 1) / 2
    for _ in range(40):
        left, right = high - share * (high - low), low + share * (high - low)
        if _surprise(cases, np.exp(left)) < _surprise(cases, np.exp(right)):
            high = right
        else:
            low = left
    return float(np.exp((low + high) / 2))


def error(cases: Cases, temperature: float = 1.0) -> float:
    """Expected calibration error of the likeliest answer, at a temperature."""
    probability = np.exp(_log_probability(cases.logits / temperature))
    return calibration_error(probability.max(1), probability.argmax(1) == cases.right)


def collect(net: Network, frames: Samples, rig: Rig) -> dict[str, Cases]:
    """What a network answers on all frames, MOST_CASES evenly spread of them for each name."""
    if not len(frames):
        raise ValueError("calibration needs at least one frame")
    every = [_cases(net, view, part) for view, part in views(net, frames, rig)]
    whole = {name: [torch.cat(t) for t in zip(*(e[name] for e in every), strict=True)] for name in every[0]}
    return {name: _thinned(*pair) for name, pair in whole.items() if len(pair[1])}


def views(net: Network, frames: Samples, rig: Rig) -> Iterator[tuple[View, Samples]]:
    """What a network makes of frames, batch by batch."""
    rays = torch.from_numpy(rig.rays(net.config.patch_px))
    for at in range(0, len(frames), BATCH):
        part = frames.with_history(slice(at, at + BATCH), net.config.history)
        given = [part.images, part.speed_mps, part.yaw_rate_radps, part.command]
        images, speed, yaw_rate, command = (torch.from_numpy(np.ascontiguousarray(a)) for a in given)
        past = None if part.past is None else torch.from_numpy(part.past)
        with torch.inference_mode():
            yield net.study(images, rays, speed, yaw_rate, command, past), part


def _cases(net: Network, view: View, part: Samples) -> dict[str, tuple[Tensor, Tensor]]:
    target = torch.from_numpy(part.target)
    nearest = (view.output.modes - target[:, None]).norm(dim=-1).mean(-1).argmin(1)
    found = {MODES: (view.output.confidence, nearest)}
    labels = {name: torch.from_numpy(label) for name, label in part.labels.items()}
    for name, head in each(net.heads):
        if isinstance(head, Classifier) and all(label in labels for label in HEADS[name].labels):
            found[name] = head.cases(view.heads[name], labels)
    return found


def _thinned(logits: Tensor, right: Tensor) -> Cases:
    step = -(-len(right) // MOST_CASES)
    return Cases(logits[::step].double().numpy(), right[::step].numpy())


def _cool(net: Network, name: str, value: float) -> None:
    """Divides the logits of that name by a temperature."""
    last = net.mode[-1] if name == MODES else net.heads[name].out
    assert isinstance(last, nn.Linear), "confidences come out of a linear layer"
    rows = slice(0, 1) if name == MODES else slice(None)  # a mode's first output is its confidence
    last.weight[rows] /= value
    last.bias[rows] /= value


def _surprise(cases: Cases, temperature: float) -> float:
    rows = np.arange(len(cases.right))
    return float(-_log_probability(cases.logits / temperature)[rows, cases.right].mean())


def _log_probability(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = logits - logits.max(1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)))
