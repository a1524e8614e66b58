"""What the adaptation benchmark says: what each way of adapting does in each region, what part of full fine-tuning
an adapter recovers, what practising in closed loop brings, and a page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fleet.benchmarks.result import Bar, Measured, seeds_bar
from fleet.suite_figures import interval
from model.adapters import LARGEST_SHARE, REPLAYED
from monitoring.disengagements import garwood
from simulation.arrays import Floats
from simulation.scores.suites import Mean, Resampling, mean

Row = Mapping[str, Any]
ARMS = (ZERO_SHOT, ADAPTER, FEW_FULL, MANY_FULL) = (
    "zero-shot",
    "adapter, 10 % of the clips",
    "full, 10 % of the clips",
    "full, all clips",
)
"""How a region is met: without a clip from there, by an adapter, or by full fine-tuning."""
LEAST_RECOVERED = 0.8
POOLED = "all regions"
HOW = Resampling()


@dataclass(frozen=True, slots=True)
class Shares:
    """A figure that is a sum over a sum: [S, E] of S seeds and E episodes each."""

    top: Floats
    bottom: Floats

    @property
    def value(self) -> float:
        """Of all."""
        return float(self.drawn(*(np.ones((1, size)) for size in self.top.shape))[0])

    def drawn(self, seeds: Floats, episodes: Floats) -> Floats:
        """Where seeds are drawn so often [R, S], and episodes so often [R, E]: [R]."""
        top, bottom = (((seeds @ column) * episodes).sum(1) for column in (self.top, self.bottom))
        return np.asarray(top / np.maximum(bottom, 1e-9))


def assess(runs: Mapping[str, Row]) -> Measured:
    """Figures over all seeds, the bars and the page."""
    regions = list(next(iter(runs.values()))["abroad"])
    rows = list(runs.values())
    found = {name: _of_region(rows, [name]) for name in regions} | {POOLED: _of_region(rows, regions)}
    part = max(row["abroad"][r][ADAPTER]["parameters"] / row["parameters"] for row in rows for r in regions)
    gain = _practice(rows)
    results = {"regions": found, "adapter_share": part, "practice": gain, "runs": dict(runs)}
    return Measured(results, _bars(found[POOLED]["recovered"], part, len(rows)), _page(found, gain, part))


def recovered(
    before: Shares, arm: Shares, full: Shares, better: int, how: Resampling = HOW
) -> dict[str, float | None]:
    """The part of what `full` improves that `arm` improves too, with the percentile interval of the pigeonhole
    bootstrap, seeds and episodes being drawn anew, the same for all three; None where `full` improves nothing.
    `better` is 1 for a figure that is to rise, -1 for one that is to fall."""

    def part(zero: Floats, one: Floats, most: Floats) -> Floats:
        there = better * (most - zero) > 1e-9
        return np.asarray(np.divide(zero - one, zero - most, out=np.full(len(zero), np.nan), where=there))

    (value,) = part(*(np.array([s.value]) for s in (before, arm, full)))
    if not np.isfinite(value):
        return {"value": None, "low": None, "high": None}
    drawn = _drawn_anew(before, how)
    return _with_interval(float(value), part(*(s.drawn(*drawn) for s in (before, arm, full))), how)


def ratio(after: Shares, before: Shares, how: Resampling = HOW) -> dict[str, float | None]:
    """How many times `before` a figure is `after`, in the same episodes, with the percentile interval of the
    pigeonhole bootstrap; None where there was nothing before."""
    if not before.value:
        return {"value": None, "low": None, "high": None}
    drawn = _drawn_anew(before, how)
    worse = before.drawn(*drawn)
    draws = np.divide(after.drawn(*drawn), worse, out=np.full(len(worse), np.nan), where=worse > 0)
    return _with_interval(after.value / before.value, draws, how)


def _with_interval(value: float, draws: Floats, how: Resampling) -> dict[str, float | None]:
    tail = (1 - how.confidence) / 2
    low, high = np.nanquantile(draws, [tail, 1 - tail])
    return {"value": value, "low": float(low), "high": float(high)}


def _drawn_anew(of: Shares, how: Resampling) -> tuple[Floats, Floats]:
    """How often each seed and each episode is drawn, [R, S] and [R, E]."""
    rng = np.random.default_rng(how.seed)
    seeds, episodes = (
        rng.multinomial(size, np.full(size, 1 / size), how.resamples).astype(np.float64) for size in of.top.shape
    )
    return seeds, episodes


def _of_region(rows: Sequence[Row], regions: Sequence[str]) -> dict[str, Any]:
    arms = {arm: [[row["abroad"][region][arm] for region in regions] for row in rows] for arm in ARMS}
    kinds: dict[str, tuple[Callable[[Any], Shares], int]] = {
        "rate": (_rate, -1),
        "pdms": (_score("pdms"), 1),
        "ade": (_ade, -1),
    }
    parts = {
        arm: {
            kind: recovered(of(arms[ZERO_SHOT]), of(arms[arm]), of(arms[MANY_FULL]), better)
            for kind, (of, better) in kinds.items()
        }
        for arm in (ADAPTER, FEW_FULL)
    }
    return {"arms": {arm: _figures(told) for arm, told in arms.items()}, "recovered": parts}


def _figures(told: Sequence[Sequence[Row]]) -> dict[str, Any]:
    rate = _rate(told)
    count, km = float(rate.top.sum()), float(rate.bottom.sum())
    low, high = garwood(count, km)
    return {
        "pdms": asdict(_mean(told, "pdms")),
        "epdms": asdict(_mean(told, "epdms")),
        "per_km": {"value": count / max(km, 1e-9), "low": low, "high": high},
        "disengagements": int(count),
        "km": km,
        "ade_m": _ade(told).value,
    }


def _column(told: Sequence[Sequence[Row]], name: str) -> Floats:
    """[S, E], the episodes of all regions one after another."""
    return np.array([np.concatenate([region[name] for region in seed]) for seed in told], float)


def _rate(told: Sequence[Sequence[Row]]) -> Shares:
    return Shares(_column(told, "disengagements"), _column(told, "km"))


def _score(name: str) -> Callable[[Sequence[Sequence[Row]]], Shares]:
    def of(told: Sequence[Sequence[Row]]) -> Shares:
        values = _column(told, name)
        return Shares(np.nan_to_num(values), np.isfinite(values).astype(float))

    return of


def _ade(told: Sequence[Sequence[Row]]) -> Shares:
    values = np.array([[region["ade_m"] for region in seed] for seed in told])
    return Shares(values, np.ones_like(values))


def _mean(told: Sequence[Sequence[Row]], name: str) -> Mean:
    return mean(_column(told, name))


def _practice(rows: Sequence[Row]) -> dict[str, Any]:
    """Before, after, and what it brought: the same seeds and scenes, so differences are of pairs."""
    before, after = ([[row["practice"][name]] for row in rows] for name in ("before", "after"))
    gain = {name: asdict(mean(_column(after, name) - _column(before, name))) for name in ("pdms", "epdms")}
    return {
        "before": _driven(before),
        "after": _driven(after),
        "gain": gain,
        "rate_ratio": ratio(_rate(after), _rate(before)),
        "rounds": [row["practice"]["rounds"] for row in rows],
    }


def _driven(told: Sequence[Sequence[Row]]) -> dict[str, Any]:
    with_ade = [[{**region, "ade_m": np.nan} for region in seed] for seed in told]
    return {k: v for k, v in _figures(with_ade).items() if k != "ade_m"}


def _bars(parts: Mapping[str, Any], part: float, seeds: int) -> list[Bar]:
    few = parts[ADAPTER]
    rate, pdms = (few[kind]["value"] or 0.0 for kind in ("rate", "pdms"))
    asked = f">= {LEAST_RECOVERED}"
    return [
        Bar(
            "recovered-rate",
            "part of full fine-tuning's fall in disengagements/km that an adapter of 10 % of the clips brings",
            rate,
            asked,
            rate >= LEAST_RECOVERED,
        ),
        Bar("recovered-pdms", "the same of its rise in PDMS", pdms, asked, pdms >= LEAST_RECOVERED),
        Bar("size", "adapter's parameters over the base's", part, f"<= {LARGEST_SHARE}", part <= LARGEST_SHARE),
        seeds_bar(seeds),
    ]


def _page(found: Mapping[str, Any], gain: Mapping[str, Any], part: float) -> str:
    lines = [
        "| region | model | PDMS | EPDMS | disengagements/km | ADE m | recovered of the rate | of PDMS | of ADE |",
        "|" + "---|" * 9,
    ]
    for region, told in found.items():
        for arm in ARMS:
            f, parts = told["arms"][arm], told["recovered"].get(arm, {})
            cells = [interval(f["pdms"], 3), interval(f["epdms"], 3), interval(f["per_km"]), f"{f['ade_m']:.2f}"]
            cells += [interval(parts[kind]) if parts else "" for kind in ("rate", "pdms", "ade")]
            lines.append(f"| {region} | {arm} | {' | '.join(cells)} |")
    lines += [
        "",
        f"Adapters have {part:.1%} of the base's parameters; {REPLAYED:.0%} of each of their batches is "
        "replayed from drives at home, such as the base has learnt from. Recovered: the part of what full "
        "fine-tuning on all clips improves. Intervals 95 %: bootstrap over seeds and episodes; rates Garwood's.",
        "",
        "| at home | PDMS | EPDMS | disengagements/km |",
        "|---|---|---|---|",
    ]
    for name in ("before", "after"):
        f = gain[name]
        cells = [interval(f["pdms"], 3), interval(f["epdms"], 3), interval(f["per_km"])]
        lines.append(f"| {name} practising | {' | '.join(cells)} |")
    cells = [interval(gain["gain"]["pdms"], 3, "+"), interval(gain["gain"]["epdms"], 3, "+")]
    lines.append(f"| gain, by pairs | {' | '.join(cells)} | × {interval(gain['rate_ratio'])} |")
    return "\n".join(lines)
