"""When a vehicle speaks: one table of rules, one law for all of them. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from streams.contracts.clock import SECOND_NS
from streams.contracts.drive import Trigger
from streams.contracts.ids import bucket


class Reading(NamedTuple):
    """What the rules look at, once a frame. NaN: not known; no rule fires on it or re-arms by it."""

    takeover: float = 0.0
    """1 on the frame where the driver took over."""
    acceleration_mps2: float = math.nan
    disagreement: float = math.nan
    """Hindsight miss of the plan that ends now, as its rank among this vehicle's recent ones; 0 for one that the
    policy expected."""
    uncertainty: float = math.nan
    """Predicted scale, as its rank."""
    novelty: float = math.nan
    """Distance of the embedding to the vehicle's past, as its rank."""
    sampled: float = 0.0
    """1 on the first frame of a period that the lot fell on, if the one before was driven too."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Fires when `value` rises above `fires_above`, not again before it fell below `rearms_below`, and not
    within `min_interval_s` of the last time."""

    kind: Trigger
    value: Callable[[Reading], float]
    fires_above: float
    rearms_below: float
    min_interval_s: float = 0.0
    looks_back_s: float = 0.0
    """What happened lies this far before the frame that shows it."""


RULES: tuple[Rule, ...] = (
    # In order of worth: where windows overlap, the earlier row stands.
    Rule(Trigger.DISENGAGEMENT, lambda r: r.takeover, 0.5, 0.5),
    Rule(Trigger.HARD_BRAKE, lambda r: -r.acceleration_mps2, 3.5, 2.0, min_interval_s=5.0),
    Rule(
        Trigger.SHADOW_DISAGREEMENT,
        lambda r: r.disagreement,
        0.985,
        0.9,
        min_interval_s=10.0,
        looks_back_s=1.2,
    ),
    Rule(Trigger.UNCERTAINTY, lambda r: r.uncertainty, 0.99, 0.9, min_interval_s=20.0),
    Rule(Trigger.NOVELTY, lambda r: r.novelty, 0.99, 0.9, min_interval_s=20.0),
    Rule(Trigger.SAMPLE, lambda r: r.sampled, 0.5, 0.5),
)
"""Hard brake: 3.5 m/s² is RSS's comfortable bound a_max (METRICS); ranks are rates."""

RANK: dict[Trigger, int] = {rule.kind: -number for number, rule in enumerate(RULES)}
"""Worth of an event by kind; larger is worth more."""
RANK[Trigger.CAMPAIGN] = RANK[Trigger.UNCERTAINTY]


@dataclass(frozen=True, slots=True)
class Armed:
    """What the rules remember: per rule, whether it may fire, and when it last did (ns; -1 never)."""

    ready: tuple[bool, ...]
    fired_ns: tuple[int, ...]


def armed(rules: tuple[Rule, ...] = RULES) -> Armed:
    """All ready, none ever fired."""
    return Armed((True,) * len(rules), (-1,) * len(rules))


def detect(
    state: Armed, reading: Reading, now_ns: int, rules: tuple[Rule, ...] = RULES
) -> tuple[Armed, tuple[Rule, ...]]:
    """The rules that fire on this reading, and what to remember. Equal arguments give equal results."""
    ready, fired_ns, fired = list(state.ready), list(state.fired_ns), []
    for i, rule in enumerate(rules):
        value = rule.value(reading)
        if value < rule.rearms_below:
            ready[i] = True
        elif value > rule.fires_above and ready[i]:
            ready[i] = False
            if fired_ns[i] < 0 or now_ns - fired_ns[i] >= rule.min_interval_s * SECOND_NS:
                fired_ns[i] = now_ns
                fired.append(rule)
    if not fired and ready == list(state.ready):
        return state, ()
    return Armed(tuple(ready), tuple(fired_ns)), tuple(fired)


@dataclass(frozen=True, slots=True)
class Sampling:
    """An unbiased sample of the driving: in each period a lot falls with this probability."""

    period_s: float = 30.0
    probability: float = 0.0

    def period(self, time_ns: int) -> int:
        """Number of the period an instant lies in."""
        return time_ns // int(self.period_s * SECOND_NS)

    def drawn(self, vehicle: str, period: int) -> bool:
        """Whether the lot fell: fixed by vehicle and period, so that a replay draws alike."""
        return bucket(f"sample/{vehicle}", str(period)) < self.probability
