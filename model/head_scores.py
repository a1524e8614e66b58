"""How much each head knows, against the best that could be said without looking."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.calibration import views
from model.checkpoint import Checkpoint
from model.data import Samples
from model.heads import HEADS, each
from model.heads.head import Classifier
from model.heads.motion import Motion
from model.labels import MOTION, OCCUPANCY, TAGS
from model.rig import Rig


@dataclass(frozen=True, slots=True)
class Skill:
    """Of one thing that a head tells: its loss, and that of the best constant answer, chosen with these very
    labels: their median, or their shares. The loss is the mean absolute error in the unit of the label, or the
    cross-entropy in nats."""

    cases: int
    loss: float
    constant: float

    @property
    def skill(self) -> float:
        """1 where nothing is wrong, 0 where the constant is as good, below 0 where it is better."""
        return 1 - self.loss / self.constant if self.constant else 0.0


def head_scores(checkpoint: Checkpoint, frames: Samples, rig: Rig) -> dict[str, Skill]:
    """The skill of every head with labels among these frames: `motion.speed_mps` and so on for each number,
    `tags.sign` for each tag that is there in some frame and not in others, `occupancy.body` for each class of cell
    against all others, and `risk`; what is said in words is scored elsewhere. Raises ValueError without a
    frame."""
    if not len(frames):
        raise ValueError("scores of heads need at least one frame")
    net = checkpoint.build()
    scored = {name: head for name, head in each(net.heads) if isinstance(head, Motion | Classifier)}
    outputs: dict[str, list[Tensor]] = {name: [] for name in scored}
    for view, _ in views(net, frames, rig):
        for name, parts in outputs.items():
            parts.append(view.heads[name])
    found: dict[str, Skill] = {}
    labels = {name: torch.from_numpy(np.ascontiguousarray(label)) for name, label in frames.labels.items()}
    for name, head in scored.items():
        if not all(label in labels for label in HEADS[name].labels):
            continue
        whole = torch.cat(outputs[name])
        if isinstance(head, Motion):
            found |= _motion(whole[..., 0].numpy(), labels["motion"].numpy())
        else:
            found |= _told(name, head.told(whole).double().numpy(), labels[name].numpy())
    return {name: skill for name, skill in found.items() if skill.cases}


def _motion(said: NDArray[np.float32], truth: NDArray[np.float32]) -> dict[str, Skill]:
    return {f"motion.{name}": _error(said[:, i], truth[:, i]) for i, name in enumerate(MOTION)}


def _told(name: str, said: NDArray[np.float64], truth: NDArray[np.int8]) -> dict[str, Skill]:
    """A yes or no of each tag, of each class of cell, or of the risk."""
    if name == "tags":
        return {f"tags.{tag}": _surprise(said[:, i], truth[:, i]) for i, tag in enumerate(TAGS)}
    if name == "occupancy":
        known = truth >= 0
        return {
            f"occupancy.{kind}": _surprise(said[known][:, i], (truth[known] == i).astype(np.int8))
            for i, kind in enumerate(OCCUPANCY)
        }
    return {name: _surprise(said, truth)}


def _error(said: NDArray[np.float32], truth: NDArray[np.float32]) -> Skill:
    known = ~np.isnan(truth)
    if not known.any():
        return Skill(0, 0.0, 0.0)
    constant = np.abs(truth[known] - np.median(truth[known])).mean()
    return Skill(int(known.sum()), float(np.abs(said[known] - truth[known]).mean()), float(constant))


def _surprise(said: NDArray[np.float64], truth: NDArray[np.int8]) -> Skill:
    """Cross-entropy of probabilities of a yes; no cases where the answer is always the same."""
    known = truth >= 0
    yes, p = truth[known] == 1, np.clip(said[known], 1e-7, 1 - 1e-7)
    if not known.any() or yes.all() or not yes.any():
        return Skill(0, 0.0, 0.0)
    share = yes.mean()
    constant = -share * np.log(share) - (1 - share) * np.log(1 - share)
    return Skill(len(yes), float(-np.where(yes, np.log(p), np.log(1 - p)).mean()), float(constant))
