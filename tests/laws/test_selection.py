"""Selection: budgets hold, probabilities are true, order does not matter, every decision is told in numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.contracts.clips import ClipRequest
from streams.contracts.clock import SECOND_NS
from streams.contracts.codec import Message, encode
from streams.contracts.drive import ClipOffer, Scores, Trigger
from streams.contracts.scenarios import Novelty, Scenario
from streams.draw import Left, draw
from streams.selection import HOUR_NS, RANDOM, Selection, SelectionConfig
from streams.stage import Emit
from streams.state import pack
from streams.value import Weights, distinct, environment, value_all
from tests.laws.stage_laws import (
    check_any_batches,
    check_deterministic,
    check_dump_and_load,
    check_replay,
    shuffled,
)
from tests.samples import T0, embedding_of, in_batches, scenario, telemetry

WINDOW = 100 * SECOND_NS
START = T0 // WINDOW * WINDOW
CONFIG = SelectionConfig(window_ns=WINDOW, clips=8, budget_bytes=1_500_000, per_vehicle=3)
CELLS = ("right/day/clear/urban", "right/day/clear/rural", "left/night/clear/urban", "right/day/fog/urban")
seeds = st.integers(0, 2**32 - 1)
cuts = st.lists(st.integers(0, 9), min_size=1, max_size=4)


def candidates(seed: int, count: int, vehicles: int = 5) -> list[Message]:
    """Scenarios of many kinds; a few offer no clip."""
    rng = np.random.default_rng(seed)
    made: list[Message] = []
    for i in range(count):
        offer = ClipOffer(f"clip-{i}", 0, 1, int(rng.integers(1, 400_000)))
        made.append(
            scenario(
                i,
                vehicle=f"car-{rng.integers(vehicles)}",
                cell=CELLS[int(rng.integers(4))],
                kind=list(Trigger)[int(rng.integers(7))],
                region=str(rng.choice(["us", "gb"])),
                scores=Scores(*(float(x) for x in rng.random(3))),
                embedding=embedding_of(rng.normal(size=8)),
                novelty=Novelty(p_value=float(rng.random())),
                clip=None if rng.random() < 0.1 else offer,
            )
        )
    return made


def choose(config: SelectionConfig, messages: Sequence[Message], start_ns: int = START) -> list[ClipRequest]:
    """What is asked for when the window of these messages ends."""
    stage = Selection(config)
    state = stage.step(stage.initial(), messages, start_ns).state
    return requests(stage.step(state, [], start_ns + config.window_ns).emits)


@pytest.mark.parametrize("factor", [2, 0.5])
def test_a_window_that_was_given_another_length_is_closed(factor: float) -> None:
    """What had come by then is chosen from at once, and the next window is of the new length."""
    before, after = Selection(CONFIG), Selection(replace(CONFIG, window_ns=round(WINDOW * factor)))
    state = before.step(before.initial(), candidates(1, 30), START).state
    outcome = after.step(after.load(pack(state)), candidates(2, 30)[15:], START + 1)
    asked = requests(outcome.emits)
    assert asked and {r.requested_ns for r in asked} == {START + WINDOW}
    later = after.step(outcome.state, [], START + 2 * WINDOW)
    assert requests(later.emits) and later.state.window_ns == round(WINDOW * factor)


def test_a_bound_that_was_changed_holds_for_what_is_known_already() -> None:
    before, after = Selection(CONFIG), Selection(replace(CONFIG, seen_ids=80))
    state = before.step(before.initial(), candidates(1, 200), START).state
    loaded = after.load(pack(state))
    assert loaded.seen.limit == 80 and len(loaded.seen) == len(state.seen)


def requests(emits: Sequence[Emit]) -> list[ClipRequest]:
    return [e.message for e in emits if isinstance(e.message, ClipRequest)]


def by_clip(messages: Sequence[Message]) -> dict[str, Scenario]:
    known = [m for m in messages if isinstance(m, Scenario)]
    return {s.event.clip.clip_id: s for s in known if s.event.clip is not None}


@settings(max_examples=30)
@given(seeds, st.integers(0, 60), cuts, st.sampled_from(["curated", "random"]))
def test_laws(seed: int, count: int, sizes: list[int], mode: str) -> None:
    config = SelectionConfig(
        mode, 7 * SECOND_NS, clips=5, candidates=12, vehicle_bytes=900_000, hour_bytes=4_000_000
    )
    batches = [*in_batches([*candidates(seed, count), telemetry()], sizes), []]
    check_deterministic(Selection(config), Selection(config), batches, START)
    check_dump_and_load(Selection(config), batches, START)
    check_any_batches(Selection(config), candidates(seed, count), sizes, START)
    check_replay(Selection(SelectionConfig(window_ns=7 * SECOND_NS, clips=0)), batches, START)


@settings(max_examples=40)
@given(seeds, st.integers(0, 60), seeds, st.integers(5, 80))
def test_order_of_arrival_does_not_matter(seed: int, count: int, salt: int, held: int) -> None:
    config = SelectionConfig(window_ns=WINDOW, clips=8, candidates=held)
    messages = candidates(seed, count)
    assert choose(config, messages) == choose(config, shuffled(messages, salt))


@settings(max_examples=60)
@given(seeds, st.integers(0, 120), st.integers(0, 20), st.integers(0, 3_000_000), st.integers(1, 5))
def test_budgets_and_caps_hold(seed: int, count: int, clips: int, budget: int, each: int) -> None:
    config = SelectionConfig(window_ns=WINDOW, clips=clips, budget_bytes=budget, per_vehicle=each)
    messages = candidates(seed, count)
    known = by_clip(messages)
    told = choose(config, messages)
    offers = [known[r.clip_id].event.clip for r in told]
    assert len(told) <= clips and len({r.clip_id for r in told}) == len(told)
    assert sum(o.bytes for o in offers if o) <= budget
    assert max(Counter(r.vehicle for r in told).values(), default=0) <= each
    present = len({environment(s.cell) for s in known.values()})
    cap = max(1, round(clips * max(config.environment_share, 1 / max(present, 1))))
    assert max(Counter(environment(r.cell) for r in told).values(), default=0) <= cap
    for r in told:
        assert 0 < r.inclusion_probability <= 1 and encode(r)
        assert r.requested_ns == START + WINDOW < r.before_ns
        assert f"{r.inclusion_probability:.4f}" in r.reason and "value" in r.reason
        assert r.event_ns == known[r.clip_id].event.time_ns


@settings(max_examples=60)
@given(seeds, st.integers(1, 40), st.integers(1, 15), st.booleans())
def test_the_budget_is_used_where_caps_allow(seed: int, count: int, clips: int, draw_all: bool) -> None:
    config = SelectionConfig(
        window_ns=WINDOW,
        clips=clips,
        sure_share=0.0 if draw_all else 0.7,
        per_vehicle=99,
        region_share=1.0,
        environment_share=1.0,
    )
    known = by_clip(candidates(seed, count))
    assert len(choose(config, candidates(seed, count))) == min(clips, len(known))


budgets = st.one_of(st.none(), st.integers(0, 2_000_000))


@settings(max_examples=60)
@given(seeds, st.integers(0, 200), budgets, budgets, budgets, st.sampled_from(["curated", RANDOM]))
def test_no_hour_exceeds_its_bytes(
    seed: int, count: int, vehicle: int | None, region: int | None, fleet: int | None, mode: str
) -> None:
    """Of a vehicle, of a region, of the fleet; over windows that share an hour and windows that do not."""
    config = SelectionConfig(
        mode, HOUR_NS // 3, clips=12, vehicle_bytes=vehicle, region_bytes=region, hour_bytes=fleet, candidates=40
    )
    messages = candidates(seed, count)
    known, stage = by_clip(messages), Selection(config)
    state, asked = stage.initial(), Counter[tuple[int, str]]()
    begin_ns = T0 // HOUR_NS * HOUR_NS
    for number, batch in enumerate([*in_batches(messages, [25]), []]):
        outcome = stage.step(state, batch, begin_ns + number * config.window_ns)
        state = stage.load(pack(outcome.state))
        for r in requests(outcome.emits):
            offer = known[r.clip_id].event.clip
            hour = (r.requested_ns - config.window_ns) // HOUR_NS
            asked.update({(hour, whose): offer.bytes for whose in (r.vehicle, r.region, "") if offer})
            for budget, whose in ((vehicle, "its vehicle"), (region, "its region"), (fleet, "the fleet")):
                assert (budget is not None) == (f"MB of {whose}" in r.reason)
    for (_, whose), spent in asked.items():
        budget = vehicle if whose.startswith("car") else region if whose else fleet
        assert budget is None or spent <= budget


@pytest.mark.parametrize("mode", ["curated", RANDOM])
def test_an_hours_bytes_come_back_with_the_next(mode: str) -> None:
    config = SelectionConfig(
        mode, HOUR_NS // 2, clips=4, hour_bytes=200_000, environment_share=1.0, region_share=1.0
    )
    stage, begin_ns = Selection(config), T0 // HOUR_NS * HOUR_NS
    state, told = stage.initial(), list[int]()
    for number in range(6):
        offers = [
            scenario(
                10 * number + i, f"car-{i}", kind=Trigger.SAMPLE, clip=ClipOffer(f"c-{number}-{i}", 0, 1, 100_000)
            )
            for i in range(4)
        ]
        outcome = stage.step(state, offers, begin_ns + number * config.window_ns)
        state = outcome.state
        told.append(len(requests(outcome.emits)))
    assert told == [0, 2, 0, 2, 0, 2]


def test_a_negative_budget_is_refused() -> None:
    with pytest.raises(ValueError, match="region_bytes is -1"):
        SelectionConfig(region_bytes=-1)


@pytest.mark.parametrize("mode", ["curated", "random"])
@pytest.mark.parametrize("size", [1_600_000, 1_400_000])
def test_one_huge_offer_does_not_stop_the_draw(mode: str, size: int) -> None:
    """Neither one beyond the budget, nor one that would take nearly all of it."""
    rng = np.random.default_rng(0)
    offers = [ClipOffer(f"clip-{i}", 0, 1, 10_000) for i in range(20)] + [ClipOffer("huge", 0, 1, size)]
    messages = [
        scenario(
            i, f"car-{i}", CELLS[i % 4], kind=Trigger.SAMPLE, clip=o, embedding=embedding_of(rng.normal(size=8))
        )
        for i, o in enumerate(offers)
    ]
    config = SelectionConfig(mode, WINDOW, clips=8, budget_bytes=1_500_000, sure_share=0.0, environment_share=1.0)
    for window in range(20):
        told = choose(config, messages, START + window * WINDOW)
        assert len(told) == 8
        assert size < 1_500_000 or "huge" not in {r.clip_id for r in told}


@settings(max_examples=30)
@given(seeds, st.integers(1, 60), st.integers(1, 10))
def test_the_random_arm_is_a_uniform_sample_of_samples(seed: int, count: int, clips: int) -> None:
    config = SelectionConfig(mode=RANDOM, window_ns=WINDOW, clips=clips)
    samples = {n for n, s in by_clip(candidates(seed, count)).items() if s.event.kind is Trigger.SAMPLE}
    told = choose(config, candidates(seed, count))
    assert {r.clip_id for r in told} <= samples
    assert len(told) == min(clips, len(samples))
    share = min(1.0, clips / max(len(samples), 1))
    assert all(r.inclusion_probability == pytest.approx(share, abs=1e-9) for r in told)


def test_each_sample_is_drawn_as_often_as_is_said() -> None:
    messages = [m for m in candidates(1, 400) if isinstance(m, Scenario) and m.event.kind is Trigger.SAMPLE][:30]
    config = SelectionConfig(mode=RANDOM, window_ns=WINDOW, clips=6)
    times: Counter[str] = Counter()
    for window in range(600):
        times.update(r.clip_id for r in choose(config, messages, START + window * WINDOW))
    n = len(by_clip(messages))
    assert len(times) == n
    expected = 600 * 6 / n
    # Each count is binomial; five standard deviations for every one of them.
    assert all(abs(c - expected) < 5 * expected**0.5 for c in times.values())


@pytest.mark.parametrize(
    ("held", "vehicle", "region"), [(5_000, None, None), (25, None, None), (40, 10**6, 2 * 10**6)]
)
def test_weighting_back_by_probability_is_unbiased(held: int, vehicle: int | None, region: int | None) -> None:
    """Horvitz and Thompson: the weighted count of chosen clips estimates the count of all, by cell too. Budgets in
    which each clip alone finds room leave each its chance, where none is sure."""
    config = SelectionConfig(
        window_ns=WINDOW,
        clips=10,
        per_vehicle=6,
        candidates=held,
        duplicate_share=0.0,
        region_share=1.0,
        vehicle_bytes=vehicle,
        region_bytes=region,
        sure_share=0.7 if vehicle is None else 0.0,
    )
    messages = candidates(2, 60)
    everywhere: list[float] = []
    foggy: list[float] = []
    for window in range(400):
        told = choose(config, messages, START + window * (WINDOW if vehicle is None else HOUR_NS))
        everywhere.append(sum(1 / r.inclusion_probability for r in told))
        foggy.append(sum(1 / r.inclusion_probability for r in told if "fog" in r.cell))
    for found, cell in ((everywhere, ""), (foggy, "fog")):
        truth = sum(cell in s.cell for s in by_clip(messages).values())
        error = float(np.std(found)) / len(found) ** 0.5
        assert abs(float(np.mean(found)) - truth) < 4 * error + 0.01 * truth


def test_what_the_vehicle_sampled_is_weighted_too() -> None:
    (told,) = choose(CONFIG, [scenario(1, collection_probability=0.25)])
    assert told.inclusion_probability == pytest.approx(0.25)


def test_near_duplicates_of_other_vehicles_are_dropped() -> None:
    rng = np.random.default_rng(0)
    different = [
        scenario(i, vehicle=f"car-{i}", embedding=embedding_of(v)) for i, v in enumerate(rng.normal(size=(12, 16)))
    ]
    first = different[0].event
    twin = scenario(50, vehicle="car-50", embedding=first.embedding, scores=Scores(9, 9, 9))
    told = {r.vehicle for r in choose(SelectionConfig(window_ns=WINDOW), [*different, twin])}
    assert "car-50" in told and "car-0" not in told and len(told) == 12


def test_duplicates_are_found_across_blocks() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(300, 16))
    known = value_all(
        [scenario(i, embedding=embedding_of(v)) for i, v in enumerate([*vectors, vectors[3]])], Weights()
    )
    assert len(distinct(known, 0.02)) == 300
    assert len(distinct(value_all([scenario(i) for i in range(9)], Weights()), 0.02)) == 9


def test_one_environment_does_not_take_all() -> None:
    rng = np.random.default_rng(0)
    night = [scenario(i, f"car-{i}", CELLS[2], embedding=embedding_of(rng.normal(size=8))) for i in range(40)]
    rest = [
        scenario(
            100 + i, f"cab-{i}", CELLS[i % 4], kind=Trigger.SAMPLE, embedding=embedding_of(rng.normal(size=8))
        )
        for i in range(60)
    ]
    told = choose(SelectionConfig(window_ns=WINDOW, clips=20), [*night, *rest])
    assert len(told) == 20
    assert Counter(environment(r.cell) for r in told)["left/night/clear"] == 8


def test_takeovers_and_surprise_go_first() -> None:
    quiet = [scenario(i, f"car-{i}", kind=Trigger.SAMPLE, scores=Scores(0.1 * i, 0.1 * i, 0)) for i in range(8)]
    told = choose(SelectionConfig(window_ns=WINDOW, clips=2, sure_share=1.0), [*quiet, scenario(9, "car-9")])
    assert [r.vehicle for r in told] == ["car-9", "car-7"]
    assert told[0].priority > told[1].priority
    assert "takeover 1.00" in told[0].reason and "chosen for its value" in told[0].reason


def test_a_window_is_closed_once_and_only_when_it_is_over() -> None:
    stage = Selection(CONFIG)
    state = stage.step(stage.initial(), [scenario(1)], START + SECOND_NS).state
    waiting = stage.step(state, [scenario(2, "car-2")], START + WINDOW - 1)
    assert waiting.emits == ()
    closed = stage.step(waiting.state, [scenario(3, "car-3")], START + WINDOW)
    assert {r.vehicle for r in requests(closed.emits)} == {"car-1", "car-2"}
    later = stage.step(closed.state, [], START + 5 * WINDOW)
    assert [r.vehicle for r in requests(later.emits)] == ["car-3"]
    assert stage.step(later.state, [], START + 9 * WINDOW).emits == ()


def test_a_clock_that_steps_back_loses_nothing() -> None:
    stage = Selection(CONFIG)
    state = stage.step(stage.initial(), [scenario(1)], START + WINDOW).state
    state = stage.step(state, [scenario(2, "car-2")], START).state
    assert len(requests(stage.step(state, [], START + 2 * WINDOW).emits)) == 2


def test_an_unknown_mode_and_empty_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="'best'"):
        SelectionConfig(mode="best")
    with pytest.raises(ValueError, match="at least one weight"):
        value_all([scenario(1)], Weights(0, 0, 0, 0))


@given(
    seeds, st.integers(0, 60), st.integers(0, 12), st.integers(0, 3), st.integers(0, 5), st.integers(0, 9), seeds
)
def test_a_draw_keeps_every_cap(
    seed: int, count: int, number: int, each: int, cell: int, region: int, salt: int
) -> None:
    known = value_all([m for m in candidates(seed, count) if isinstance(m, Scenario)], Weights())
    left = Left(
        {c.vehicle: each for c in known},
        {c.environment: cell for c in known},
        {c.region: region for c in known},
        {"gb": salt % 7},
    )
    lots = draw(known, number, str(salt), left)
    assert len(lots) <= number
    assert max(Counter(lot.candidate.vehicle for lot in lots).values(), default=0) <= each
    assert max(Counter(lot.candidate.environment for lot in lots).values(), default=0) <= cell
    of_regions = Counter(lot.candidate.region for lot in lots)
    environments = len({c.environment for c in known})
    assert max(of_regions.values(), default=0) <= region + max(environments - 1, 0)
    assert of_regions["gb"] <= salt % 7
    assert all(0 < lot.probability <= 1 for lot in lots)
