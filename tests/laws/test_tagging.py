"""Tagging: stateless, total, and the tables mean what they say."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulation.episode import CAUSES
from streams.contracts.codec import Message, encode
from streams.contracts.drive import Trigger
from streams.contracts.odd import odd_cell
from streams.contracts.scenarios import Scenario
from streams.tagging import (
    ABS_ENGAGED,
    EMERGENCY_BRAKE,
    LANE_DEPARTURE,
    OBSTACLE_WARNING,
    RAIN,
    STABILITY_ENGAGED,
    TIME_GAP,
    Tagging,
    tag_all,
)
from tests.laws.stage_laws import check_any_batches, check_deterministic, check_dump_and_load, check_lanes
from tests.samples import DAYLIGHT, T0, event, in_batches, telemetry

NAMES = [*DAYLIGHT, RAIN, TIME_GAP, "Vehicle.Acceleration.Longitudinal", "Vehicle.AngularVelocity.Yaw", "x"]
signals = st.dictionaries(st.sampled_from(NAMES), st.floats(-1e12, 1e12))
causes = st.sampled_from(["", "lateral", "collision", "stop_sign", "pedestrian", "stuck", "never heard of"])
regions = st.sampled_from(["us-ca", "gb", "left_mph", "right_kmh", "", "atlantis"])


def tag(**changes: Any) -> Scenario:
    return Tagging().tag(event(1, **changes))


@given(signals, causes, regions, st.sampled_from(list(Trigger)))
def test_every_event_gets_a_cell_and_fits_the_wire(
    values: dict[str, float], cause: str, region: str, kind: Trigger
) -> None:
    found = tag(signals=values, cause=cause, region=region, kind=kind)
    assert len(found.cell.split("/")) == 4
    assert found.cell.split("/")[0] == found.odd["drive_side"]
    assert found.cell == odd_cell(values, region), "the cloud's cell is the vehicle's"
    assert encode(found)


@given(st.lists(st.tuples(signals, causes, regions, st.sampled_from(list(Trigger))), max_size=8))
def test_a_batch_is_tagged_as_its_events_are(rows: list[tuple[dict[str, float], str, str, Trigger]]) -> None:
    events = [
        event(i, signals=s, cause=cause, region=region, kind=kind)
        for i, (s, cause, region, kind) in enumerate(rows)
    ]
    assert tag_all(events) == [Tagging().tag(e) for e in events]


@given(st.lists(st.integers(0, 50), max_size=12), st.lists(st.integers(0, 4), min_size=1))
def test_laws(numbers: list[int], sizes: list[int]) -> None:
    messages: list[Message] = [*(event(n) for n in numbers), telemetry()]
    check_deterministic(Tagging(), Tagging(), in_batches(messages, sizes), T0)
    check_dump_and_load(Tagging(), in_batches(messages, sizes), T0)
    check_lanes(Tagging(), [in_batches(messages, sizes), in_batches(messages[::-1], [3])], T0)
    emits, _ = check_any_batches(Tagging(), messages, sizes, T0)
    assert [e.message for e in emits] == [Tagging().tag(event(n)) for n in numbers]


@pytest.mark.parametrize(
    ("changes", "cell"),
    [
        ({}, "right/day/clear/urban"),
        ({"region": "gb"}, "left/day/clear/urban"),
        ({"signals": DAYLIGHT | {"Vehicle.Exterior.LightIntensity": 3.0}}, "right/night/clear/urban"),
        ({"signals": DAYLIGHT | {"Vehicle.Exterior.Visibility": 80.0}}, "right/day/fog/urban"),
        ({"signals": DAYLIGHT | {"Vehicle.Speed": 75.0}}, "right/day/clear/rural"),
        ({"signals": DAYLIGHT | {"Vehicle.Speed": 130.0}}, "right/day/clear/highway"),
        ({"signals": {}, "region": "atlantis"}, "unknown/unknown/unknown/unknown"),
    ],
)
def test_cells(changes: dict[str, Any], cell: str) -> None:
    assert tag(**changes).cell == cell


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "takeover"),
        ({"cause": "pedestrian"}, "vulnerable_road_user"),
        ({"cause": "stop_sign"}, "stop_sign"),
        ({"cause": "red_light"}, "traffic_light"),
        ({"cause": "collision"}, "conflict"),
        ({"cause": "stuck"}, "stalled"),
        ({"cause": "cyclist"}, "vulnerable_road_user"),
        ({"cause": "right_of_way"}, "right_of_way"),
        ({"cause": "emergency"}, "emergency_vehicle"),
        ({"signals": {"Vehicle.Acceleration.Longitudinal": -3.5}}, "hard_brake"),
        ({"signals": {EMERGENCY_BRAKE: 1.0}}, "emergency_brake"),
        ({"signals": {ABS_ENGAGED: 1.0}}, "slippery"),
        ({"signals": {STABILITY_ENGAGED: 1.0}}, "slippery"),
        ({"signals": {OBSTACLE_WARNING: 1.0}}, "obstacle_ahead"),
        ({"signals": {LANE_DEPARTURE: 1.0}}, "lane_departure"),
        ({"signals": {TIME_GAP: 700.0}}, "tailgating"),
        ({"signals": {"Vehicle.Speed": 0.2}}, "standing"),
        ({"signals": {"Vehicle.Speed": 72.0, "Vehicle.AngularVelocity.Yaw": -15.0}}, "sharp_turn"),
        ({"signals": {"Vehicle.Exterior.LightIntensity": 2.0}}, "unlit"),
    ],
)
def test_scenario_tags(changes: dict[str, Any], expected: str) -> None:
    assert expected in tag(**changes).tags


@pytest.mark.parametrize("cause", CAUSES)
def test_every_cause_of_the_simulated_fleet_has_a_tag_of_its_own(cause: str) -> None:
    assert set(tag(cause=cause).tags) - {"takeover"}


def test_a_quiet_sample_has_no_scenario_tag() -> None:
    assert tag(kind=Trigger.SAMPLE, cause="").tags == []


@pytest.mark.parametrize(
    ("intensity", "word"), [(None, "unknown"), (0.0, "dry"), (5.0, "rain"), (59.9, "rain"), (60.0, "heavy_rain")]
)
def test_precipitation(intensity: float | None, word: str) -> None:
    signals = {} if intensity is None else {RAIN: intensity}
    assert tag(signals=signals).odd["precipitation"] == word
