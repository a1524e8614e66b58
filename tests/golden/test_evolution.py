"""Every released message stays readable, and a change that breaks one is found before it is made."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streams.asyncapi import asyncapi
from streams.contracts.codec import type_of
from streams.evolution import breaks, refusals
from tests.golden.matrix import RELEASED, document, read, releases

FILES = sorted(RELEASED.glob("*/*.json"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_every_released_message_is_read_today(path: Path) -> None:
    message = read(path)
    assert type_of(message) == f"fleetwheel.{path.stem}"


def test_every_message_of_a_release_has_its_golden_file() -> None:
    for version in releases():
        told = {m["name"] for m in document(version)["components"]["messages"].values()}
        assert {f"fleetwheel.{p.stem}" for p in (RELEASED / version).glob("*.json")} == told


@pytest.mark.parametrize("version", releases())
def test_nothing_that_was_released_is_broken(version: str) -> None:
    assert breaks(document(version), asyncapi()) == []


def event(schemas: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = schemas["TriggerEvent"]
    return found


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a field goes": (lambda s: event(s)["properties"].pop("cause"), "TriggerEvent.cause is gone"),
    "a field is required": (lambda s: event(s)["required"].append("cause"), "TriggerEvent.cause is required"),
    "a type changes": (
        lambda s: event(s)["properties"]["sequence"].update(type="string"),
        "TriggerEvent.sequence: type was integer, is string",
    ),
    "a bound narrows": (
        lambda s: event(s)["properties"]["region"].update(maxLength=8),
        "TriggerEvent.region: maxLength 8",
    ),
    "a bound rises": (
        lambda s: event(s)["properties"]["sequence"].update(minimum=1),
        "TriggerEvent.sequence: minimum 1",
    ),
    "a value goes": (lambda s: s["RolloutState"]["enum"].remove("paused"), "RolloutState: 'paused' is no value"),
    "a part goes": (lambda s: s.pop("Pose"), "Pose is gone"),
    "an element narrows": (
        lambda s: s["Scenario"]["properties"]["tags"]["items"].update(maxLength=3),
        "Scenario.tags.items: maxLength 3",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_that_breaks_is_named(name: str) -> None:
    change, told = CHANGES[name]
    today = copy.deepcopy(asyncapi())
    change(today["components"]["schemas"])
    assert told in breaks(asyncapi(), today)


def test_a_message_that_goes_is_named() -> None:
    today = copy.deepcopy(asyncapi())
    del today["components"]["messages"]["Telemetry"]
    assert breaks(asyncapi(), today) == ["message telemetry.v1 is gone"]


def test_a_new_field_with_a_default_breaks_nothing_and_nobody_refuses_it() -> None:
    today = copy.deepcopy(asyncapi())
    event(today["components"]["schemas"])["properties"]["tyres"] = {"type": "integer", "default": 4}
    assert breaks(asyncapi(), today) == refusals(asyncapi(), today) == []


def test_a_new_value_breaks_nothing_but_old_readers_refuse_it() -> None:
    today = copy.deepcopy(asyncapi())
    today["components"]["schemas"]["RolloutState"]["enum"].append("dreaming")
    assert breaks(asyncapi(), today) == []
    assert refusals(asyncapi(), today) == ["RolloutState: 'dreaming' is no value"]
