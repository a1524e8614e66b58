"""A page says how much of the machine there was."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.benchmarks import machine


def stat(path: Path, idle: int, stolen: int) -> None:
    path.write_text(f"cpu  100 0 50 {idle} 0 0 10 {stolen} 7 0\ncpu0 1 2 3\n")


def test_the_share_of_the_time_that_others_had_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "STAT", tmp_path / "stat")
    stat(tmp_path / "stat", 1000, 20)
    begun = machine.this_machine()
    stat(tmp_path / "stat", 1075, 45)
    assert begun.told().endswith("1 min, 25% of its time stolen by other guests")


def test_where_a_system_does_not_tell_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "STAT", tmp_path / "none")
    assert machine.this_machine().told().endswith(" min")
