"""Shared by all tests: one quick run of the wheel a session."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXPENSIVE = ("broker", "quick_run")
"""Fixtures of a session that take long to make."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """In several processes: the tests of an expensive fixture stay in one of them, and so do those of a file."""
    for item in items:
        used: list[str] = getattr(item, "fixturenames", [])
        group = next((name for name in EXPENSIVE if name in used), str(item.path))
        item.add_marker(pytest.mark.xdist_group(group))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Where nobody watches, a failure is told at once: a run that is ended by a limit says nothing more."""
    if report.failed and "CI" in os.environ and "PYTEST_XDIST_WORKER" not in os.environ:
        sys.stderr.write(f"\n{report.when} of {report.nodeid} failed:\n{report.longreprtext[-3000:]}\n")


@dataclass(frozen=True)
class QuickRun:
    """What `fleet demo --quick` left."""

    out: Path
    summary: dict[str, Any]
    stderr: str


def fleet(*words: str, timeout_s: float = 600, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does."""
    return subprocess.run(
        [sys.executable, "-c", "from fleet.cli import main; main()", *words],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "100", **environment},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def quick_demo(out: Path, *words: str) -> QuickRun:
    """`fleet demo --quick` with the session's seed; fails with what it said."""
    done = fleet("demo", "--quick", "--seed", "5", "--turns", "1", "--out", str(out), "--json", *words)
    assert done.returncode == 0, done.stderr[-4000:]
    return QuickRun(out, json.loads(done.stdout), done.stderr)


@pytest.fixture(scope="session")
def quick_run(tmp_path_factory: pytest.TempPathFactory) -> QuickRun:
    """One turn of the wheel, embedded."""
    return quick_demo(tmp_path_factory.mktemp("quick") / "run")
