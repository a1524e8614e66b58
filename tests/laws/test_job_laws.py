"""Laws of the decisions of a job."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from jobs.check import dominance
from jobs.context import Curation, GatePolicy
from jobs.curate import choose
from jobs.documents import Compiled, Driven, Evaluated, Tally
from jobs.gate import comparisons, decide
from registry.datasets import make_dataset
from simulation.scenarios import CONDITIONS
from streams.contracts.clips import ArchivedClip
from streams.contracts.ids import digest

CHEAP = Compiled("a" * 64, 1000, "onnx", 0.01, 4.0, 9.0, 20.0, "modelled")
TALLIES = st.builds(
    lambda km, pace, events, dispersion: Tally(km, km / pace, {"lateral": events}, dispersion, 24),
    st.floats(0.01, 50),
    st.floats(5, 60),
    st.integers(0, 300),
    st.floats(0.5, 5),
)
DRIVEN = st.builds(
    lambda tallies: Driven("g", dict(zip(CONDITIONS, tallies, strict=True))), st.tuples(*[TALLIES] * 7)
)


@given(DRIVEN, DRIVEN)
def test_nothing_that_is_clearly_worse_anywhere_passes(candidate: Driven, champion: Driven) -> None:
    """Bonferroni is stricter than Holm: what it finds worse, Holm finds worse."""
    policy = GatePolicy()
    compared = comparisons(candidate, champion)
    clearly_worse = any(c.p_worse <= policy.alpha / len(compared) for c in compared)
    verdict = decide(Evaluated(candidate, champion, {}, {}), CHEAP, policy)
    assert not (clearly_worse and verdict.verdict == "pass")
    assert verdict.reasons


@given(DRIVEN)
def test_a_model_is_never_better_than_itself(driven: Driven) -> None:
    verdict = decide(Evaluated(driven, driven, {}, {}), CHEAP, GatePolicy())
    assert verdict.verdict == "fail"
    assert all("not significantly better" in r for r in verdict.reasons)


@given(DRIVEN, DRIVEN, st.sampled_from(list(CONDITIONS)))
def test_more_failures_never_turn_a_fail_into_a_pass(candidate: Driven, champion: Driven, name: str) -> None:
    """At the dispersion as it was: more events of one kind are more of them."""
    before = decide(Evaluated(candidate, champion, {}, {}), CHEAP, GatePolicy()).verdict
    tally = candidate.by_condition[name]
    more = Tally(tally.km, tally.hours, {"lateral": tally.disengagements + 20}, tally.dispersion, 24)
    worse = Driven("g", candidate.by_condition | {name: more})
    after = decide(Evaluated(worse, champion, {}, {}), CHEAP, GatePolicy()).verdict
    if tally.disengagements:  # a condition without events says nothing of dispersion, with events it does
        assert not (before == "fail" and after == "pass")


def archived(number: int, vehicle: int, content: int, kind: str) -> ArchivedClip:
    sha256, cell = digest("content", str(content)), "left/day/clear/urban"
    return ArchivedClip(f"c{number}", f"e{number}", f"v{vehicle}", number, "x", sha256, 10, "de", cell, kind)


CLIPS = st.lists(
    st.builds(
        archived,
        st.integers(0, 500),
        st.integers(0, 12),
        st.integers(0, 400),
        st.sampled_from(["disengagement", "sample"]),
    ),
    max_size=60,
    unique_by=lambda c: c.clip_id,
)


@given(CLIPS, st.text())
def test_a_dataset_depends_on_the_set_of_clips_alone(clips: list[ArchivedClip], salt: str) -> None:
    shuffled = sorted(clips, key=lambda c: digest(c.clip_id, salt))
    assert choose(clips, Curation()) == choose(shuffled, Curation())


@given(CLIPS, st.floats(0.01, 1.0), st.integers(1, 6), st.floats(0.0, 1.0))
def test_a_dataset_keeps_vehicles_apart_and_capped(
    clips: list[ArchivedClip], share: float, least: int, validation: float
) -> None:
    curation = Curation(vehicle_share=share, vehicle_least=least, validation_share=validation)
    choice = choose(clips, curation)
    make_dataset(choice.clips)  # raises where a vehicle or a content is in two splits
    assert len(choice.clips) + len(choice.left_out) == len(clips)
    assert len({c.sha256 for c in choice.clips}) == len(choice.clips)
    most = max(least, math.floor(share * len(clips)))
    vehicles = [c.vehicle for c in choice.clips]
    assert all(vehicles.count(v) <= most for v in vehicles)
    for vehicle in set(vehicles):  # a disengagement is never left out for a lesser clip
        kept = {c.kind for c in clips if c.clip_id in {k.clip_id for k in choice.clips} and c.vehicle == vehicle}
        lost = [c for c in clips if c.vehicle == vehicle and "gives" in choice.left_out.get(c.clip_id, "")]
        assert not (kept == {"sample"} and any(c.kind == "disengagement" for c in lost))


WEIGHTS = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.floats(0.01, 100)), min_size=1, max_size=40)


@given(WEIGHTS, st.floats(0.05, 0.9))
def test_no_vehicle_teaches_alone(weights: list[tuple[str, float]], share: float) -> None:
    factors = dominance(weights, share)
    total = dict.fromkeys({v for v, _ in weights}, 0.0)
    for vehicle, weight in weights:
        total[vehicle] += weight * factors.get(vehicle, 1.0)
    assert all(0 < f < 1 for f in factors.values())
    assert max(total.values()) <= max(share, 1 / len(total)) * sum(total.values()) * (1 + 1e-6)
    least = min(sum(w for v, w in weights if v == vehicle) for vehicle in total)
    assert min(total.values()) >= least * (1 - 1e-9)  # the smallest is never cut
