"""ONE table: rules of Great Britain's Highway Code that an explanation may cite, in our own words.

A duty is `must` where the Code words it as law (MUST, MUST NOT) and `should` where it advises. A text names sides
as {near}, the side on which one drives, and {far}: so it reads as the Code does where traffic keeps left, and
mirrored where it keeps right. Other countries' codes have their own numbers; these are cited there by analogy.

What was checked: numbers, duties and quantities were read against public copies of the edition of 2022 and later
for rules 109, 124, 125, 126 (its table of stopping distances too), 146, 151, 160, 163, 167, 170, 175, 176, 180,
185, 195, 206, 219, 226, 227, 228, 230, 235, 239, 288 and 289; of earlier editions for 161, 166, 168, 171, 172,
178, 184 and 212. Rules 147, 152, 154, 162, 187, 204 and 205 are from memory. No sentence here is the Code's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Literal

Unit = Literal["s", "m", "mph", "times"]
Side = Literal[1, -1]
"""1 where traffic keeps right, -1 where it keeps left, as in simulation.regions."""
MPS_PER_MPH = 0.44704
M_PER_FOOT = 0.3048


class Duty(StrEnum):
    """What a rule asks of a driver."""

    MUST = "must"
    SHOULD = "should"


class UnknownRule(ValueError):
    """A number or a duty that the table does not have."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number that a rule names."""

    value: float
    unit: Unit
    of: str
    """What is so long, so far or so fast."""

    @property
    def words(self) -> str:
        """Such as "1.5 m"."""
        return f"{self.value:g} {self.unit}"

    def metres(self, speed_mps: float) -> float | None:
        """What it comes to on the road at a speed: a time as the way driven in it, a length as it is, a factor as
        so many times the stopping distance; None for a speed."""
        if self.unit == "times":
            return self.value * sum(stopping_m(speed_mps))
        return {"s": self.value * speed_mps, "m": self.value}.get(self.unit)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. A text is "" where the rule has no such duty."""

    number: int
    topic: str
    must: str = ""
    should: str = ""
    quantities: tuple[Quantity, ...] = ()

    @property
    def duties(self) -> tuple[Duty, ...]:
        """Which duties it has."""
        return tuple(duty for duty, text in ((Duty.MUST, self.must), (Duty.SHOULD, self.should)) if text)

    @property
    def sided(self) -> bool:
        """Whether it reads otherwise where traffic keeps to the other side."""
        return any("{" in text for text in (self.must, self.should))

    def text(self, duty: Duty, side: Side = -1) -> str:
        """What it asks. Raises UnknownRule where it has no such duty."""
        found = self.must if duty is Duty.MUST else self.should
        if not found:
            raise UnknownRule(f"rule {self.number} has no {duty}; it has {', '.join(self.duties)}")
        near, far = ("left", "right") if side < 0 else ("right", "left")
        return found.format(near=near, far=far)


_WET_GAP = Quantity(4, "s", "gap to who drives ahead, on a wet road")

_TABLE: tuple[Rule, ...] = (
    Rule(109, "signs and lights", must="do what light signals and signs that give orders say"),
    Rule(
        124,
        "speed limits",
        must="stay within the speed limit of the road and of the vehicle",
        quantities=(Quantity(30, "mph", "limit in built-up areas where no sign says otherwise"),),
    ),
    Rule(125, "speed for the conditions", should="drive slower than the limit for bends, for others and at night"),
    Rule(
        126,
        "stopping distances",
        should="keep a gap in which you can stop, and be able to stop in what you see to be clear",
        quantities=(
            Quantity(2, "s", "gap to who drives ahead"),
            _WET_GAP,
            Quantity(5, "m", "gap when standing in a tunnel"),
        ),
    ),
    Rule(146, "adapting to the road", should="expect the unexpected, and adjust your speed before you have to"),
    Rule(147, "consideration", should="be patient, and hold back for who pulls out into your way"),
    Rule(151, "slow traffic", should="close up in a queue, but never so far that you could not stop"),
    Rule(
        152,
        "residential streets",
        should="go slowly past parked cars, and look out for opening doors and for people between them",
        quantities=(Quantity(20, "mph", "limit of some of them"),),
    ),
    Rule(154, "country roads", should="be ready to meet walkers, riders and slow vehicles beyond every bend"),
    Rule(160, "where to drive", should="keep to the {near} but to overtake, to turn {far} or to pass what stands"),
    Rule(161, "mirrors", should="know from your mirrors what is behind and beside you"),
    Rule(162, "before overtaking", should="overtake only with enough clear road and a gap to return to"),
    Rule(
        163,
        "overtaking",
        should="wait for who comes towards you, then pass with plenty of room",
        quantities=(
            Quantity(1.5, "m", "room beside a cyclist at up to 30 mph; more when faster"),
            Quantity(2, "m", "room beside a horse, or beside who walks in the road"),
            Quantity(10, "mph", "speed below which to pass a horse"),
        ),
    ),
    Rule(166, "no overtaking in doubt", should="stay behind where you cannot see far enough: bends, crests"),
    Rule(
        167, "no overtaking in conflict", should="stay behind at junctions, crossings and where the road narrows"
    ),
    Rule(
        168,
        "being overtaken",
        should="let who is faster by: hold your course, ease off, and drop back when one pulls in before you",
        quantities=(Quantity(2, "s", "gap to drop back to"),),
    ),
    Rule(170, "junctions", should="look for those who are hard to see, and let people cross where you turn"),
    Rule(171, "stop signs", must="stop behind the line at a stop sign, and go when there is a safe gap"),
    Rule(172, "give way", must="give way to traffic on the main road where the line is broken"),
    Rule(
        175,
        "lights",
        must="stop behind the line unless the light is green; pass amber only where stopping would be dangerous",
    ),
    Rule(176, "red lights", must="stay behind the line while the light is red"),
    Rule(178, "room for cyclists at lights", must="stop at the first of two lines when the light is amber or red"),
    Rule(
        180,
        "turning across traffic",
        should="wait for a safe gap in what comes towards you, and do not cut the corner",
    ),
    Rule(184, "towards a roundabout", should="choose your lane and your speed early"),
    Rule(185, "roundabouts", should="give way to traffic from the {far} unless signs say otherwise"),
    Rule(187, "on a roundabout", should="watch for those who leave, and give cyclists room"),
    Rule(
        195,
        "zebra crossings",
        must="give way to who has stepped onto the crossing",
        should="give way to who waits to cross",
    ),
    Rule(204, "who is most at risk", should="look out above all for people on foot, on cycles and on horses"),
    Rule(205, "people at the roadside", should="expect people, children above all, to step into the road"),
    Rule(206, "people on foot", should="slow down for people about, and give way to who has begun to cross"),
    Rule(
        212,
        "passing riders",
        should="give cyclists and riders room and time, more of it in bad weather and at night",
    ),
    Rule(219, "emergency vehicles", should="make way for flashing lights where that is safe, and stop if need be"),
    Rule(
        226,
        "poor visibility",
        must="use headlights when you see badly",
        quantities=(Quantity(100, "m", "sight below which headlights are needed"),),
    ),
    Rule(
        227,
        "wet roads",
        should="keep well back: you need far longer to stop",
        quantities=(Quantity(2, "times", "the stopping distance of a dry road, at least"),),
    ),
    Rule(228, "snow and ice", should="stay at home unless the journey is needed"),
    Rule(
        230,
        "driving on snow and ice",
        should="keep far back, whatever was strewn",
        quantities=(Quantity(10, "times", "the stopping distance of a dry road, at worst"),),
    ),
    Rule(235, "fog", should="be able to stop in what you can see, and do not speed up for who is close behind"),
    Rule(239, "opening doors", must="look before you open a door, and hit nobody with it"),
    Rule(
        288,
        "roadworks",
        must="stay within the temporary limit",
        should="take care, use the lane that signs show, and stay out of what cones mark off",
    ),
    Rule(
        289,
        "roadworks on fast roads",
        must="pass a works vehicle on the side that it shows",
        should="expect closed lanes",
    ),
    Rule(
        290, "narrow lanes at roadworks", should="keep your distance where lanes are narrow or run against others"
    ),
)
RULES: Mapping[int, Rule] = MappingProxyType({rule.number: rule for rule in _TABLE})
"""By number, rising."""


def rule(number: int) -> Rule:
    """The rule of that number. Raises UnknownRule."""
    if number not in RULES:
        raise UnknownRule(f"no rule {number} in the table; it has {', '.join(map(str, RULES))}")
    return RULES[number]


def stopping_m(speed_mps: float) -> tuple[float, float]:
    """Thinking and braking distance on a dry road, m: a foot for each mph, and mph squared over twenty feet. Each
    rounded to a metre, they are rule 126's table (20 mph: 6 + 6 m, 30: 9 + 14, ... 70: 21 + 75)."""
    mph = speed_mps / MPS_PER_MPH
    return mph * M_PER_FOOT, mph**2 / 20 * M_PER_FOOT
