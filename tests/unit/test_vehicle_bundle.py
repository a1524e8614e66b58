"""`fleet vehicle` drives with the newest release that the fleet kept."""

from __future__ import annotations

import json
from pathlib import Path

from fleet.vehicle import newest_bundle


def run_with(folder: Path, *releases: tuple[int, str]) -> Path:
    targets = folder / "releases" / "targets" / "cpu-x86-64"
    targets.mkdir(parents=True)
    for version, _ in releases:
        (targets / f"{'ab' * 32}.driver-{version}-r{version}.zip").write_bytes(b"bundle")
    states = [{"version": v, "state": s} for v, s in releases]
    (folder / "summary.json").write_text(json.dumps({"releases": states}))
    return folder


def test_the_highest_release_counter_counts_and_not_its_digits(tmp_path: Path) -> None:
    found = newest_bundle(run_with(tmp_path, (9, "complete"), (10, "complete"), (2, "complete")))
    assert found is not None
    assert found.name.endswith("-r10.zip")


def test_a_release_that_was_thrown_back_is_passed_over(tmp_path: Path) -> None:
    found = newest_bundle(run_with(tmp_path, (1, "complete"), (2, "halted")))
    assert found is not None
    assert found.name.endswith("-r1.zip")


def test_no_run_and_no_finished_run_give_none(tmp_path: Path) -> None:
    assert newest_bundle(tmp_path) is None
    assert newest_bundle(run_with(tmp_path, (1, "halted"))) is None
