"""A long training run: on any number of processes, from data that streams, stopped and resumed to the same bits.

What a step does follows from the course and the step's number. A loss or gradient that is not finite is never
applied: the step is skipped, the weights stay as they were. After MOST_SKIPPED such steps in a row the run goes
back to its last checkpoint and passes over the batches that it saw since (as PaLM did for its spikes,
arXiv:2204.02311, section 5.1); after MOST_ROLLBACKS of those it ends, and says where the last good state lies."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.checkpoint import OPTIMIZER, Checkpoint, to_bytes
from model.config import NetworkConfig, TrainingConfig
from model.data import Samples
from model.gaps import with_gaps
from model.gradients import Descent
from model.ranks import ALONE, Ranks
from model.rig import Rig
from model.run_folder import Manifest, Standing, Told, drop_after, keep, newest, restore, to_checkpoint
from model.sharded import clip, gradient_norm, gradients, lesson, share_of
from model.training import (
    MOMENTS,
    CannotResume,
    NonFiniteLoss,
    adamw,
    check_fits,
    initial,
    learning_rate,
    seen_cameras,
)

MOST_SKIPPED = 3
MOST_ROLLBACKS = 3
Draw = Callable[[int], list[Samples]]
"""This process's parts of a batch (stream_data.Stream.draw)."""


class Interrupted(Exception):
    """The run was asked to stop. Nothing is lost: the same call goes on."""


@dataclass(frozen=True, slots=True)
class Course:
    """All that decides what comes out of a run."""

    network: NetworkConfig
    config: TrainingConfig
    rig: Rig
    data: str
    """Version of the dataset."""
    seed: int
    start: Checkpoint | None = None
    """Weights to begin with; None: drawn by the seed."""

    def facts(self) -> dict[str, Any]:
        """What a checkpoint says of its run. How many threads work on it changes nothing."""
        config = {k: v for k, v in asdict(self.config).items() if k not in {"threads", "keep_every"}}
        start = "" if self.start is None else hashlib.sha256(to_bytes(self.start.finished())).hexdigest()
        return {
            "network": asdict(self.network),
            "training": config,
            "rig": self.rig.name,
            "data": self.data,
            "seed": self.seed,
            "start": start,
        }


@dataclass(frozen=True, slots=True)
class Step:
    """What a step did."""

    done: int
    of: int
    loss: float
    rate: float
    gradient: float
    """Norm before it was scaled down."""
    applied: bool


@dataclass(frozen=True, slots=True)
class Watch:
    """Who looks on. None may block for long."""

    step: Callable[[Step], None] = lambda step: None
    told: Told = lambda text: None
    """What a person should know: damaged checkpoints, skipped steps, rollbacks."""
    stop: Callable[[], bool] = lambda: False
    """Asked after each step: whether to stop here."""


def train_long(
    course: Course, draw: Draw, folder: Path, ranks: Ranks = ALONE, watch: Watch = Watch()
) -> Checkpoint | None:
    """Trains to the end, from the newest whole checkpoint in `folder` where there is one, and returns the finished
    model in the first process, None in the others. All processes call it together. Raises Interrupted,
    NonFiniteLoss, CannotResume (a checkpoint of another run), BadCheckpoint, BadConfig, what `draw` raises,
    OSError."""
    run = _Run(course, draw, folder, ranks, watch)
    run.begin()
    with gradients(run.lesson, course.config, ranks) as descend:
        while run.at.step < course.config.steps:
            run.step(descend)
            if run.due():
                run.keep()
            elif run.stopped:
                run.keep(interim=True)
            if run.stopped and run.at.step < course.config.steps:
                raise Interrupted(
                    f"stopped after step {run.at.step} of {course.config.steps}; the same command goes on"
                )
    found = newest(folder, watch.told, ranks)
    return to_checkpoint(found[0]).finished() if found and ranks.first else None


class _Run:
    """The state that moves."""

    def __init__(self, course: Course, draw: Draw, folder: Path, ranks: Ranks, watch: Watch) -> None:
        self._course, self._draw, self._folder, self._ranks, self._watch = course, draw, folder, ranks, watch
        start = course.start or initial(course.network, course.seed)
        self.lesson = lesson(start.build(), course.config, ranks)
        self._net = self.lesson.net
        self._parameters = list(self._net.parameters())
        self._optimizer = adamw(self._net, course.config, Checkpoint(course.network, {}))
        for parameter in self._parameters:
            step = torch.zeros((), device=parameter.device)
            moments = {moment: torch.zeros_like(parameter, requires_grad=False) for moment in MOMENTS}
            self._optimizer.state[parameter] = {"step": step} | moments
        self._rays = torch.from_numpy(course.rig.rays(course.network.patch_px)).to(ranks.device)
        self._facts = course.facts()
        self.at = Standing()
        self.stopped = False

    def begin(self) -> None:
        """From the newest checkpoint; without one, the state before the first step is kept: there is then always a
        last good state, and that it can be written is known before hours have been spent."""
        found = newest(self._folder, self._watch.told, self._ranks)
        if found is None:
            self.keep()
            return
        path, manifest = found
        _check_same(path, manifest.course, self._facts)
        self._return_to(path, manifest.standing)
        if self.at.step:
            self._watch.told(f"going on from {path}, step {self.at.step} of {self._course.config.steps}")

    def step(self, descend: Descent) -> None:
        """One step of the optimiser, or one that is skipped."""
        config, number = self._course.config, self.at.step + self.at.shift
        rate = learning_rate(config, self.at.step)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        rng = np.random.default_rng([self._course.seed, number, 1])
        cameras = seen_cameras(len(self._rays), config.camera_dropout, rng)
        own = descend(partial(self.lesson, self._rays, cameras), self._parts(number), self._parameters)
        loss, stops = self._ranks.sum([own, float(self._watch.stop())])
        norm = gradient_norm(self._parameters)
        good = math.isfinite(loss) and math.isfinite(float(norm))
        if good:
            clip(self._parameters, config.largest_gradient, norm)
            self._optimizer.step()
        self.at = replace(
            self.at,
            step=self.at.step + 1,
            applied=self.at.applied + good,
            skipped=0 if good else self.at.skipped + 1,
        )
        self.stopped = stops > 0
        self._watch.step(Step(self.at.step, config.steps, loss, rate, float(norm), good))
        if not good:
            self._skipped(loss, float(norm))

    def _parts(self, number: int) -> list[Samples]:
        """This process's parts of a batch, with their gaps: whatever the number of processes, the same. Raises
        BadSamples, BadConfig where the network could not learn from them."""
        network, config = self._course.network, self._course.config
        parts = []
        for lane, part in zip(share_of(self._ranks, config.parts), self._draw(number), strict=True):
            check_fits(network, config, part)
            rng = np.random.default_rng([self._course.seed, number, 3, lane])
            parts.append(with_gaps(part, config.gaps, network.history, rng))
        return parts

    def due(self) -> bool:
        """Whether a checkpoint is to be kept here. Only where the last step was good: it may be gone back to."""
        config = self._course.config
        return self.at.step == config.steps or (self.at.step % config.keep_every == 0 and not self.at.skipped)

    def keep(self, interim: bool = False) -> None:
        """Write where the run is."""
        manifest = Manifest(self._course.network, self.at, self._facts, interim)
        keep(self._folder, self._tensors(), manifest, self._ranks)

    def _skipped(self, loss: float, norm: float) -> None:
        at = f"step {self.at.step} of {self._course.config.steps}"
        self._watch.told(f"{at}: loss {loss}, gradient {norm}: skipped, the weights stay as they were")
        if self.at.skipped < MOST_SKIPPED:
            return
        found = newest(self._folder, self._watch.told, self._ranks, interim=False)
        if found is None or self.at.rollbacks >= MOST_ROLLBACKS:
            last = found[0] if found else "lost"
            raise NonFiniteLoss(
                f"{at}: the loss was not finite {MOST_SKIPPED} times in a row, "
                f"after {self.at.rollbacks} rollbacks: lower peak_rate or check the targets. "
                f"The last good state is {last}"
            )
        path, manifest = found
        seen = self.at.step + self.at.shift
        rollbacks = self.at.rollbacks + 1
        self._return_to(path, manifest.standing)
        drop_after(path, self._ranks)
        self.at = replace(self.at, shift=seen - self.at.step, rollbacks=rollbacks)
        self._watch.told(
            f"{at}: not finite {MOST_SKIPPED} times in a row: back to {path}, on with batches not yet seen"
        )

    def _return_to(self, path: Path, standing: Standing) -> None:
        restore(path, self._tensors(), self._ranks)
        for parameter in self._parameters:
            self._optimizer.state[parameter]["step"].fill_(standing.applied)
        self.at = standing

    def _tensors(self) -> dict[str, Tensor]:
        """Weights and moments, whole or this process's shards, by the names of model/checkpoint.py."""
        moments = {
            f"{OPTIMIZER}{name}.{moment}": self._optimizer.state[parameter][moment]
            for name, parameter in self._net.named_parameters()
            for moment in MOMENTS
        }
        return dict(self._net.state_dict()) | moments


def _check_same(path: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raises CannotResume with what differs."""
    if not found:
        raise CannotResume(f"checkpoint {path} is of no run: start from it as a file (fleet model convert)")
    differing = [
        f"{group}{'.' + key if key else ''} was {before!r}, is {after!r}"
        for group in wanted
        for key, before, after in _differences(found.get(group), wanted[group])
    ]
    if differing:
        raise CannotResume(
            f"checkpoint {path} is of another run: {'; '.join(differing)}. Train into another folder"
        )


def _differences(found: object, wanted: object) -> list[tuple[str, object, object]]:
    """JSON has no tuples: what was read back is compared as it was written."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        keys = dict.fromkeys([*found, *wanted])
        return [(k, found.get(k), wanted.get(k)) for k in keys if found.get(k) != wanted.get(k)]
    return [] if found == wanted else [("", found, wanted)]
