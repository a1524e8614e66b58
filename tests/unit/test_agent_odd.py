"""ODD cells."""

from __future__ import annotations

import pytest

from streams.contracts.odd import LIGHT, SPEED, VISIBILITY, drive_side, odd_cell


@pytest.mark.parametrize(
    ("region", "side"),
    [
        ("gb", "left"),
        ("gb-sct", "left"),
        ("jp", "left"),
        ("us-ca", "right"),
        ("de", "right"),
        ("left_mph", "left"),
        ("right_kmh", "right"),
        ("unknown", "unknown"),
        ("", "unknown"),
    ],
)
def test_side_of_the_road(region: str, side: str) -> None:
    assert drive_side(region) == side


@pytest.mark.parametrize(
    ("light", "range_m", "speed_kmh", "cell"),
    [
        (90.0, 9000.0, 36.0, "left/day/clear/urban"),
        (10.0, 9000.0, 59.9, "left/night/clear/urban"),
        (24.9, 999.0, 60.0, "left/night/fog/rural"),
        (25.0, 1000.0, 90.0, "left/day/clear/highway"),
        (90.0, 50.0, -5.0, "left/day/fog/urban"),
    ],
)
def test_cell(light: float, range_m: float, speed_kmh: float, cell: str) -> None:
    assert odd_cell({LIGHT: light, VISIBILITY: range_m, SPEED: speed_kmh}, "gb") == cell


def test_what_is_not_known_is_said_to_be_unknown() -> None:
    assert odd_cell({}, "us") == "right/unknown/unknown/unknown"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_broken_sensor_knows_nothing(value: float) -> None:
    assert odd_cell({LIGHT: value, VISIBILITY: value, SPEED: value}, "us") == "right/unknown/unknown/unknown"
