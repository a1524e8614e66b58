"""`fleet model examine`: a model in closed loop on the suites, beside the expert; what failed is driven again."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import typer

from fleet.console import Watcher
from fleet.suite_figures import pooled, suites_table
from fleet.vehicle import policy_in
from model.policy import Policy
from model.rig import THREE_CAMERAS, Rig, rig_named
from registry.backends import write_atomically
from simulation import regressions
from simulation.examination import Examined, Failure, Marks, examine, refer, seeing
from simulation.regressions import Regression, regression, replay
from simulation.suites import SUITES, Course, courses

REGRESSIONS = "regressions"


class BadExamination(ValueError):
    """What cannot be examined: says what there is."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What to drive."""

    suites: tuple[str, ...] = ("base", "long-tail")
    """Of simulation.suites, those that come from its table."""
    scenes: int = 12
    seconds: float = 30.0
    seed: int = 1
    rig: str = THREE_CAMERAS.name
    regressions: Path | None = None
    """Disengagements to drive again; what fails now is added to them."""


def run_examine(path: Path, asked: Asked, *, as_json: bool) -> None:
    """The command, in worlds of tuning seeds: whatever is chosen by it, `fleet benchmark driving` reports. Raises
    BadExamination, BadRegressions, BadCheckpoint, BadBundle, BadRig, UnknownName for a past disengagement of a
    scenario that there is no more, OSError."""
    check(asked)
    past: Sequence[Regression] = _past(asked)
    rig = rig_named(asked.rig)
    policy = policy_in(path, rig)
    found: dict[str, Any] = {}
    failures: list[Regression] = []
    with Watcher(quiet=as_json) as watch:
        for name, driven in _driven(asked, past).items():
            watch.say(f"{name}: {sum(len(c.scenes) for c in driven)} scenes")
            found[name], own = on_suite(policy, driven, rig)
            if name != REGRESSIONS:
                failures += failed(name, driven, own)
    past, all_known = regressions.joined(past, []), regressions.joined(past, failures)
    if asked.regressions is not None:
        write_atomically(asked.regressions, [regressions.to_bytes(all_known)])
    figures, new = pooled({"": {"suites": found}}), len(all_known) - len(past)
    counts = {"failed": len(failures), "new": new, "replayed": len(past)}
    facts = {"model": str(path), "seed": asked.seed, "suites": figures} | counts
    typer.echo(json.dumps(facts) if as_json else _text(figures, counts, asked))


def check(asked: Asked) -> None:
    """Raises BadExamination for suites that there are not, or that need more than a table."""
    known = [suite.name for suite in SUITES.values() if suite.source == "table"]
    if unknown := [name for name in asked.suites if name not in known]:
        raise BadExamination(f"no suite {unknown[0]!r}; there are {', '.join(known)}, and --regressions FILE")


def on_suite(policy: Policy, driven: Sequence[Course], rig: Rig) -> tuple[dict[str, Any], list[Examined]]:
    """What both drivers got on a suite's courses, and the policy's drives."""
    references = [refer(each) for each in driven]
    own = [examine(seeing(policy), reference, rig) for reference in references]
    return {"expert": told([r.marks for r in references]), "policy": told([e.marks for e in own])}, own


def told(marks: Sequence[Marks]) -> dict[str, Any]:
    """A driver's marks on a suite's courses, vehicle by vehicle."""
    if not marks:
        return {"scores": {}, "km": 0.0, "hours": 0.0, "causes": {}}
    causes = sum((cause for m in marks for cause in m.causes), Counter[str]())
    return {
        "scores": {name: np.concatenate([m.scores[name] for m in marks]).tolist() for name in marks[0].scores},
        "km": float(sum(m.km.sum() for m in marks)),
        "hours": float(sum(m.hours.sum() for m in marks)),
        "causes": dict(sorted(causes.items())),
    }


def failed(name: str, driven: Sequence[Course], own: Sequence[Examined]) -> list[Regression]:
    """The disengagements of a suite's drives, to be driven again."""
    return [one for course, e in zip(driven, own, strict=True) for one in regressions_of(name, course, e.failures)]


def regressions_of(name: str, course: Course, failures: Sequence[Failure]) -> list[Regression]:
    """Failures on a course of a suite, by its rows."""
    rows, found = {row.name: row for row in SUITES[name].rows}, list[Regression]()
    for failure in failures:
        scene, event = course.scenes[failure.event.vehicle], failure.event
        found.append(
            regression(rows[scene.condition.name], scene.seed, event.cause, event.time_s, failure.commands)
        )
    return found


def _past(asked: Asked) -> list[Regression]:
    file = asked.regressions
    return regressions.load(file) if file is not None and file.exists() else []


def _driven(asked: Asked, past: Sequence[Regression]) -> dict[str, list[Course]]:
    driven = {n: courses(SUITES[n], "tuning", asked.seed, asked.scenes, asked.seconds) for n in asked.suites}
    return driven | ({REGRESSIONS: [replay(one) for one in past]} if past else {})


def _text(figures: dict[str, Any], counts: dict[str, int], asked: Asked) -> str:
    told = f"{counts['failed']} disengagements in the suites"
    if asked.regressions is not None:
        told += (
            f"; {counts['new']} new ones are kept in {asked.regressions}, {counts['replayed']} were driven again"
        )
    return "\n".join([suites_table(figures), "", told])
