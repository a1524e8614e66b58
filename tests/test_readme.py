"""The README is true: its commands exist, its tree is the tree, its links lead somewhere."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from fleet.cli import app
from tests.conftest import fleet

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", TEXT, re.S)


def shell_lines() -> list[str]:
    lines = [line for kind, block in BLOCKS if kind == "sh" for line in block.splitlines()]
    return [line.split("  #")[0].split(" #")[0].strip() for line in lines if line.strip()]


@pytest.mark.parametrize("line", [x for x in shell_lines() if x.startswith("fleet ")])
def test_fleet_commands_of_the_readme_exist_with_their_options(line: str) -> None:
    words = shlex.split(line)[1:]
    command = command_of(words)
    help_text = fleet(*command, "--help", timeout_s=60).stdout
    assert "Usage" in help_text
    for option in (w for w in words if w.startswith("--")):
        assert option in help_text, option


def command_of(words: list[str]) -> list[str]:
    """The words that name a command: the others are its arguments."""
    group: object = get_command(app)
    for number, word in enumerate(words):
        found = group.commands.get(word) if isinstance(group, TyperGroup) else None
        if found is None:
            return words[:number]
        group = found
    return words


def test_make_targets_of_the_readme_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"\bmake ([a-z]+)", TEXT))
    assert named
    assert named <= targets, named - targets


def test_the_tree_of_the_readme_is_the_tree() -> None:
    block = next(b for kind, b in BLOCKS if kind == "text" and b.startswith("streams/"))
    parent = ""
    named = set()
    for line in block.splitlines():
        name = line.split()[0]
        if line.startswith("  "):
            assert (ROOT / parent / name).exists(), parent + name
        else:
            parent = name
            named.add(name.rstrip("/"))
            assert (ROOT / name).is_dir(), name
    packages = {p.parent.name for p in ROOT.glob("*/__init__.py")}
    assert packages <= named, packages - named


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert target.startswith("http") or (ROOT / target).exists(), target


def test_the_figures_of_the_results_stand_where_the_readme_points() -> None:
    result = json.loads((ROOT / "docs" / "results" / "flywheel.json").read_text())
    assert not result["quick"]
    for arm, turns in result["results"]["pooled"]["all unseen"].items():
        for r in turns:
            told = f"{r['rate_per_km']:.2f} [{r['rate_low']:.2f}, {r['rate_high']:.2f}]"
            assert told in TEXT, (arm, told)


def test_decisions_are_numbered_and_titled() -> None:
    numbers = [p.name[:4] for p in sorted((ROOT / "docs" / "adr").glob("*.md"))]
    assert numbers == [f"{n:04d}" for n in range(1, len(numbers) + 1)]
