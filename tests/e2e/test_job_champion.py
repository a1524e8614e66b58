"""The champion's title moves last: only to what is released, and only from what it was compared with.

MLflow, the TUF repository, the store and the lineage are real; only the learning itself is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from jobs.context import JobContext
from jobs.launchers.local import run_inline
from jobs.runner import Worker, reopen
from jobs.step import Json, Step, Work
from registry.models import Models
from registry.releases import Releases
from streams.contracts.ids import digest
from streams.contracts.jobs import JobFinished, JobRequested
from tests.e2e.test_job_crash import context
from tests.job_steps import LIGHT


@dataclass
class Jobs:
    """Runs jobs on one set of registries; `before` is called as each step begins."""

    context: JobContext
    broken: str = ""
    """A step that cannot succeed."""
    before: Callable[[str], None] = lambda step: None

    @property
    def models(self) -> Models:
        return Models(self.context.places.mlflow, self.context.settings.model_name)

    def champion(self) -> str:
        champion = self.models.champion()
        return champion.id if champion else ""

    def released(self) -> int:
        return len(Releases(Path(self.context.places.releases), Path(self.context.places.keys)).all())

    def run(self, name: str, base: str) -> JobFinished:
        steps = [replace(s, run="tests.job_steps:broken") if s.name == self.broken else s for s in LIGHT["light"]]
        request = JobRequested(digest(name), "light", 1_700_000_000_000_000_000, base, "quick", ["c1"])
        return Worker(self.context, catalog={"light": steps}, launch=self._launch).run(
            request, lambda message: None
        )

    def _launch(self, step: Step, work: Work) -> Json:
        self.before(step.name)
        return run_inline(step, work)


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Jobs:
    """With a first champion."""
    jobs = Jobs(context(tmp_path_factory.mktemp("jobs")))
    first = jobs.run("first", "")
    assert first.verdict == "pass" and first.release is not None
    assert jobs.champion() == first.model_version == first.release.model_version
    return jobs


def test_what_cannot_be_signed_leaves_the_title_where_it_was(jobs: Jobs) -> None:
    base = jobs.champion()
    unsigned = replace(jobs, broken="sign").run("unsigned", base)
    assert unsigned.verdict == "error" and unsigned.release is None
    assert jobs.champion() == base
    after = jobs.run("after", base)
    assert after.verdict == "pass" and jobs.champion() == after.model_version


def test_what_was_compared_with_an_older_champion_is_not_published(jobs: Jobs) -> None:
    champion, released = jobs.champion(), jobs.released()
    late = jobs.run("late", "driver-99")
    assert late.verdict == "fail" and late.release is None
    assert "was not compared with what now drives" in late.reasons[0] and champion in late.reasons[0]
    assert (jobs.champion(), jobs.released()) == (champion, released)


def test_what_is_overtaken_while_it_is_signed_is_not_rolled_out(jobs: Jobs) -> None:
    """Published already, but a job that did not pass has no release to roll out."""
    base = jobs.champion()
    other = jobs.models.register(jobs.models.run(digest("other"), 0).id, digest("other"), {})

    def overtake(step: str) -> None:
        if step == "promote":
            jobs.models.promote(other, jobs.models.version(base))

    beaten = replace(jobs, before=overtake).run("beaten", base)
    assert beaten.verdict == "fail" and beaten.release is None
    assert f"the champion of driver is {other.id}" in beaten.reasons[0]
    assert jobs.champion() == other.id


def test_what_ends_in_an_error_behind_its_release_is_not_rolled_out(jobs: Jobs) -> None:
    base = jobs.champion()
    stuck = replace(jobs, broken="promote").run("stuck", base)
    assert stuck.verdict == "error" and stuck.release is None
    assert jobs.champion() == base
    assert reopen(jobs.context, digest("stuck"))
    done = jobs.run("stuck", base)
    assert done.verdict == "pass" and done.release is not None and jobs.champion() == done.model_version
