"""May the candidate replace the champion? A verdict with reasons, from figures alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from jobs.context import GatePolicy
from jobs.documents import Compiled, Driven, Evaluated, Slice, Tally, Verdict
from jobs.step import Work
from monitoring.disengagements import Arm, holm, p_above, p_below, rate_ratio
from simulation.scenarios import BASE

KM, HOUR = "km", "hour"
UNSEEN = "all unseen"
"""The slice of all conditions but base, pooled."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Candidate and champion in one slice, per km or per vehicle-hour."""

    name: str
    unit: str
    candidate: Arm
    champion: Arm
    dispersion: float

    @property
    def p_worse(self) -> float:
        """Against "at most the champion's rate"."""
        return p_above(self.candidate, self.champion, 1.0, self.dispersion)

    def p_worse_than(self, margin: float) -> float:
        """Against "at most margin times the champion's rate"."""
        return p_above(self.candidate, self.champion, margin, self.dispersion)

    def p_better_than(self, margin: float) -> float:
        """Against "at least margin times the champion's rate"."""
        return p_below(self.candidate, self.champion, margin, self.dispersion)

    def __str__(self) -> str:
        rates = (_rate(self.candidate), _rate(self.champion))
        return f"{self.name}: {rates[0]:.2f} against {rates[1]:.2f} disengagements per {self.unit}"


def gate(work: Work) -> Verdict:
    """The step."""
    return decide(work.input("evaluate", Evaluated), work.input("compile", Compiled), work.context.settings.gate)


def decide(evaluated: Evaluated, compiled: Compiled, policy: GatePolicy) -> Verdict:
    """Pass or fail. A pass gives what was shown as reasons, a fail all that speaks against it."""
    against = [*_cost(compiled, policy), *_drove(evaluated.candidate)]
    if evaluated.champion is None:
        shown = ["there is no champion to compare with"]
        return Verdict("fail" if against else "pass", against or shown)
    compared = comparisons(evaluated.candidate, evaluated.champion)
    adjusted = holm({f"{c.name} per {c.unit}": c.p_worse_than(policy.margin) for c in compared})
    against += _missing(evaluated.candidate, evaluated.champion)
    against += _distance(evaluated.candidate, evaluated.champion, policy)
    against += [
        f"significantly worse in {c} (adjusted p {adjusted[f'{c.name} per {c.unit}']:.3g})"
        for c in compared
        if adjusted[f"{c.name} per {c.unit}"] <= policy.alpha
    ]
    against += _forgetting(compared, policy)
    against += _improvement(compared, policy)
    slices = [_slice(c, adjusted[f"{c.name} per {c.unit}"]) for c in compared]
    return Verdict(
        "fail" if against else "pass", against or [str(c) for c in compared if c.name == UNSEEN], slices
    )


def comparisons(candidate: Driven, champion: Driven) -> list[Comparison]:
    """Each condition and all unseen ones pooled, per km and per vehicle-hour."""
    dispersion = pooled_dispersion([*candidate.by_condition.values(), *champion.by_condition.values()])
    names = [n for n in candidate.by_condition if n in champion.by_condition]
    unseen = [n for n in names if n != BASE]
    groups = {**{n: [n] for n in names}, **({UNSEEN: unseen} if unseen else {})}
    return [
        Comparison(name, unit, _arm(candidate, group, unit), _arm(champion, group, unit), dispersion)
        for name, group in groups.items()
        for unit in (KM, HOUR)
    ]


def pooled_dispersion(tallies: Iterable[Tally]) -> float:
    """Index of dispersion over vehicles, within conditions and arms; at least 1. Too few vehicles in each to tell
    one by one, enough together."""
    freedom = [(t.dispersion, t.vehicles - 1) for t in tallies if t.vehicles > 1 and t.disengagements]
    total = sum(n for _, n in freedom)
    return max(1.0, sum(d * n for d, n in freedom) / total) if total else 1.0


def _cost(compiled: Compiled, policy: GatePolicy) -> Iterator[str]:
    if not compiled.latency_ms_p99 <= policy.latency_ms:
        yield f"p99 latency {compiled.latency_ms_p99:.1f} ms is above {policy.latency_ms:.1f} ms"
    if not compiled.watts <= policy.watts:
        yield f"{compiled.watts:.1f} W ({compiled.watts_source}) are above {policy.watts:.1f} W"


def _drove(driven: Driven) -> Iterator[str]:
    for name, tally in driven.by_condition.items():
        if not tally.km > 0:
            yield f"the candidate drove nothing in {name}"
    if not driven.by_condition:
        yield "the candidate was not driven in any condition"


def _missing(candidate: Driven, champion: Driven) -> Iterator[str]:
    if different := sorted(set(candidate.by_condition) ^ set(champion.by_condition)):
        yield f"candidate and champion were not both driven in {', '.join(different)}"


def _distance(candidate: Driven, champion: Driven, policy: GatePolicy) -> Iterator[str]:
    """All conditions, and all but base: a policy that stalls has few events."""
    for what, skipped in (("in all conditions", None), ("in unseen conditions", BASE)):
        km, before = (sum(t.km for n, t in d.by_condition.items() if n != skipped) for d in (candidate, champion))
        if km < policy.least_km_share * before:
            least = f"{policy.least_km_share:.0%} of the champion's {before:.2f} km"
            yield f"drove {km:.2f} km {what}, less than {least}"


def _forgetting(compared: Iterable[Comparison], policy: GatePolicy) -> Iterator[str]:
    for c in compared:
        if c.name != BASE or c.candidate.count == 0:
            continue
        if c.p_better_than(policy.base_margin) > 1 - policy.base_certainty:
            yield f"{c}: not at most {policy.base_margin:.2f} times, with {policy.base_certainty:.0%} confidence"


def _improvement(compared: Iterable[Comparison], policy: GatePolicy) -> Iterator[str]:
    for c in compared:
        if policy.require_improvement and c.name == UNSEEN and c.p_better_than(1.0) > policy.alpha:
            yield f"not significantly better in {c} (p {c.p_better_than(1.0):.3g})"


def _arm(driven: Driven, names: Iterable[str], unit: str) -> Arm:
    tallies = [driven.by_condition[n] for n in names]
    return Arm(sum(t.disengagements for t in tallies), sum(t.km if unit == KM else t.hours for t in tallies))


def _slice(c: Comparison, adjusted: float) -> Slice:
    ratio = rate_ratio(c.candidate, c.champion, dispersion=c.dispersion)
    figures: Mapping[str, float] = {
        "candidate": _rate(c.candidate),
        "champion": _rate(c.champion),
        "ratio": ratio.value,
        "low": ratio.low,
        "high": ratio.high,
    }
    finite = {name: value if math.isfinite(value) else None for name, value in figures.items()}
    return Slice(name=c.name, unit=c.unit, p_worse=adjusted, **finite)


def _rate(arm: Arm) -> float:
    return arm.count / arm.exposure if arm.exposure else math.nan
