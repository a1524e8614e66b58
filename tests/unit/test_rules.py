"""The table of rules: what it holds is whole, and its numbers are those of the Code."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.grammar import CAUSES, NONE
from model.rules import MPS_PER_MPH, RULES, Duty, Quantity, UnknownRule, rule, stopping_m

SPEEDS = st.floats(0, 60)


@pytest.mark.parametrize(
    ("mph", "thinking", "braking"),
    [(20, 6, 6), (30, 9, 14), (40, 12, 24), (50, 15, 38), (60, 18, 55), (70, 21, 75)],
)
def test_stopping_distances_are_rule_126s_table(mph: int, thinking: int, braking: int) -> None:
    assert [round(part) for part in stopping_m(mph * MPS_PER_MPH)] == [thinking, braking]


def test_two_seconds_at_thirty_miles_an_hour_are_a_way_of_27_metres() -> None:
    gap, wet = rule(126).quantities[:2]
    assert gap.metres(13.4) == pytest.approx(26.8)
    assert wet.metres(13.4) == pytest.approx(2 * 26.8), "doubled in the wet"
    assert rule(163).quantities[0].metres(5.0) == 1.5, "a length is as long at any speed"
    assert rule(124).quantities[0].metres(5.0) is None, "a speed is no way"


@given(SPEEDS, SPEEDS)
def test_who_is_faster_needs_more_road(slow: float, fast: float) -> None:
    slow, fast = sorted((slow, fast))
    for quantity in (Quantity(2, "s", ""), Quantity(2, "times", "")):
        low, high = quantity.metres(slow), quantity.metres(fast)
        assert low is not None and high is not None and 0 <= low <= high
    assert all(a <= b for a, b in zip(stopping_m(slow), stopping_m(fast), strict=True))


@given(SPEEDS)
def test_wet_doubles_and_ice_takes_ten_times(speed: float) -> None:
    dry = sum(stopping_m(speed))
    assert rule(227).quantities[0].metres(speed) == pytest.approx(2 * dry)
    assert rule(230).quantities[0].metres(speed) == pytest.approx(10 * dry)


def test_every_rule_asks_something_and_numbers_rise() -> None:
    assert list(RULES) == sorted(RULES)
    for number, row in RULES.items():
        assert row.number == number and row.duties and row.topic, number
        for duty in row.duties:
            text = row.text(duty)
            assert text and "{" not in text and text[0].islower() and not text.endswith("."), number


@pytest.mark.parametrize(("side", "from_where", "keep"), [(-1, "right", "left"), (1, "left", "right")])
def test_sides_are_mirrored_where_traffic_keeps_right(side: int, from_where: str, keep: str) -> None:
    assert f"traffic from the {from_where}" in rule(185).text(Duty.SHOULD, side)  # type: ignore[arg-type]
    assert f"keep to the {keep}" in rule(160).text(Duty.SHOULD, side)  # type: ignore[arg-type]
    assert rule(185).sided and not rule(171).sided
    assert rule(171).text(Duty.MUST, side) == rule(171).text(Duty.MUST)  # type: ignore[arg-type]


def test_what_the_table_has_not_is_refused() -> None:
    with pytest.raises(UnknownRule, match="no rule 999"):
        rule(999)
    with pytest.raises(UnknownRule, match="rule 171 has no should; it has must"):
        rule(171).text(Duty.SHOULD)


def test_causes_cite_what_the_table_says() -> None:
    for name, cause in CAUSES.items():
        assert cause.cites, name
        for number, duty, quantity in cause.cites:
            assert duty in rule(number).duties, name
            assert quantity == NONE or quantity in [q.words for q in rule(number).quantities], name
