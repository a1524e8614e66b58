"""Conditions of campaigns: what is refused and why, and what they say."""

from __future__ import annotations

import math
import re

import pytest

from edge.agent.expressions import BadExpression, Expression, check_expression, values_of
from streams.contracts.odd import LIGHT, SPEED, VISIBILITY

VALUES = values_of(
    {SPEED: 50.0, LIGHT: 5.0, VISIBILITY: 200.0, "Vehicle.Unheard.Of": 1.0},
    "gb",
    {"novelty": 0.95, "uncertainty": math.nan, "engaged": True, "takeover": False, "cause": ""},
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Vehicle.Speed > 30.0 && novelty > 0.9", True),
        ("Vehicle.Speed > 60.0", False),
        ("cell == 'left/night/fog/urban'", True),
        ("region in ['de', 'fr']", False),
        ("illumination == 'night' && (visibility == 'fog' || takeover)", True),
        ("engaged ? novelty > 0.99 : true", False),
        ("cause.startsWith('stop')", False),
        ("'fog' == visibility && speed_band in ['urban', 'rural']", True),
        ("cause == 'illumination'", False),
        # What is not known decides nothing by itself, and nothing where the rest decides.
        ("Vehicle.Acceleration.Longitudinal < -3.0", None),
        ("uncertainty > 0.5", None),
        ("Vehicle.Acceleration.Longitudinal < -3.0 || Vehicle.Speed > 30.0", True),
        ("Vehicle.Acceleration.Longitudinal < -3.0 && Vehicle.Speed > 60.0", False),
    ],
)
def test_a_condition_over_what_the_vehicle_knows(text: str, says: bool | None) -> None:
    assert Expression(text).holds(VALUES) is says


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "0 characters"),
        ("true" + " || true" * 200, "1604 characters"),
        ("Vehicle.Sped > 30.0", "undeclared reference to 'Vehicle.Sped'"),
        ("Vehicle.Speed > 30", "decimal point here: 30.0"),
        ("Vehicle.Speed > 'fast'", "no matching overload"),
        ("Vehicle.Speed", "it is a double, not a condition"),
        ("Vehicle.Speed > ", "1:17: Syntax error"),
        ("[1, 2].all(x, x > 0)", "all() at character 8"),
        ("[1.0].exists (x, x > 0.0)", "exists() at character 7"),
        ("cell.matches('(a+)+$')", "matches()"),
        ("has(Vehicle.Speed)", "has() at character 1"),
        ("system('rm -rf /') == ''", "system()"),
        ("novelty > 0.5 // why", "'//' at character 15"),
        ("[[1.0]] == [[1.0]]", "has no place"),
        ("(" * 60 + "true" + ")" * 60, "recursion limit"),
        ("novelty\x00 > 0.5", "has no place"),
        ("nóvelty > 0.5", "has no place"),
    ],
)
def test_what_is_no_condition_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(BadExpression) as refused:
        check_expression(text)
    assert why in str(refused.value)
    assert "INVALID_ARGUMENT" not in str(refused.value)


def test_equal_values_give_equal_answers_and_change_nothing() -> None:
    condition, before = Expression("novelty > 0.9"), dict(VALUES)
    assert [condition.holds(VALUES) for _ in range(3)] == [True] * 3
    assert before == VALUES


def test_signals_that_are_not_listed_or_not_finite_are_not_known() -> None:
    assert "Vehicle.Unheard.Of" not in VALUES and "uncertainty" not in VALUES
    assert SPEED not in values_of({SPEED: math.inf}, "gb", {})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("illumination == 'knight'", "illumination at character 1 is never 'knight': it is day, night or unknown"),
        ('takeover && "mist" != visibility', "visibility at character 13 is never 'mist'"),
        ("speed_band in ['urban', 'town']", "never 'town': it is urban, rural, highway or unknown"),
    ],
)
def test_a_word_that_no_cell_has_is_refused_where_a_campaign_is_written(text: str, why: str) -> None:
    with pytest.raises(BadExpression, match=re.escape(why)):
        check_expression(text)
    assert Expression(text).holds(VALUES) is not None, "a vehicle takes it: it may know fewer words"
