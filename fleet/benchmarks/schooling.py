"""How a benchmark comes to a policy: the expert recorded with disturbances, cloned, then corrected where it errs.

Cloning alone teaches what to do on the expert's road; driving the pupil and noting what the expert would have done
there (DAgger: Ross, Gordon, Bagnell, AISTATS 2011) teaches it to come back. All of it with learning seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from jobs.recorded import from_recording
from model.checkpoint import Checkpoint
from model.config import NetworkConfig, TrainingConfig
from model.data import Samples, concatenate
from model.policy import PLAN_PERIOD_S
from model.rig import Rig
from model.torch_policy import TorchPolicy
from model.training import Hooks, fine_tune, train
from simulation.episode import record_expert, record_policy
from simulation.lessons import lessons
from simulation.scenarios import Scene

BATCH = 32
"""Scenes that are rendered side by side: more take memory and no less time."""
Report = Callable[[str, int, int, str], None]
"""(what, done, of, detail)."""


@dataclass(frozen=True, slots=True)
class Schooling:
    """How much a pupil is taught. Everything else follows from a seed."""

    network: NetworkConfig
    scenes: int
    """In which the expert is recorded ..."""
    corrected: tuple[int, ...]
    """... and the pupil is, for each round of corrections."""
    seconds: float
    every: int
    """Each so many frames of 5 Hz are kept: neighbours tell little new."""
    clone: TrainingConfig
    correct: TrainingConfig
    """Of each round; its replay share is the expert's part of a batch."""
    kept: int
    """Checkpoints kept of the cloning."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A pupil at some time of its schooling."""

    name: str
    samples: int
    """Frames that it has been shown, repetitions counted."""
    checkpoint: Checkpoint


def taught(schooling: Schooling, rig: Rig, seed: int, report: Report) -> Iterator[Stage]:
    """The pupil's stages, the last of which is the finished one."""
    kept: list[Stage] = []
    base = expert_samples(schooling, rig, seed, report)
    clone = schooling.clone

    def keep(checkpoint: Checkpoint) -> None:
        kept.append(Stage("cloning", checkpoint.step * clone.batch, checkpoint.finished()))

    hooks = Hooks(_telling(report, "cloning"), keep, max(clone.steps // schooling.kept, 1))
    pupil = train(base, rig, schooling.network, clone, seed=seed, hooks=hooks)
    yield from kept
    seen = clone.steps * clone.batch
    yield Stage("cloned", seen, pupil)
    corrections: list[Samples] = []
    for number, count in enumerate(schooling.corrected, 1):
        corrections.append(corrected_samples(schooling, pupil, rig, count, seed + 1000 * number, report))
        told = Hooks(_telling(report, f"correcting, round {number}"))
        found = concatenate(corrections) if len(corrections) > 1 else corrections[0]
        pupil = fine_tune(pupil, base, found, rig, schooling.correct, seed=seed + number, hooks=told)
        seen += schooling.correct.steps * schooling.correct.batch
        yield Stage(f"corrected {number}", seen, pupil)


def expert_samples(schooling: Schooling, rig: Rig, seed: int, report: Report) -> Samples:
    """Disturbed driving of the expert."""
    scenes = lessons(schooling.scenes, seed)
    told = _recording(report, "recording the expert", scenes, schooling)
    return from_recording(
        record_expert(scenes, rig, schooling.seconds, seed, every=schooling.every, progress=told, batch=BATCH),
        f"expert-{seed}",
    )


def corrected_samples(
    schooling: Schooling, pupil: Checkpoint, rig: Rig, count: int, seed: int, report: Report
) -> Samples:
    """The expert's answers where the pupil drives by itself."""
    scenes, policy = lessons(count, seed), TorchPolicy(pupil, rig)
    told = _recording(report, "recording the pupil", scenes, schooling)
    return from_recording(
        record_policy(
            policy, scenes, rig, schooling.seconds, seed, every=schooling.every, progress=told, batch=BATCH
        ),
        f"pupil-{seed}",
    )


def _telling(report: Report, what: str) -> Callable[[int, int, float], None]:
    return lambda done, of, loss: report(what, done, of, f"loss {loss:.2f}")


def _recording(report: Report, what: str, scenes: Sequence[Scene], s: Schooling) -> Callable[[float], None]:
    frames = len(scenes) * len(range(0, round(s.seconds / PLAN_PERIOD_S), s.every))
    return lambda share: report(what, round(share * frames), frames, "frames")
