"""Selection with a pool: its laws hold, its probabilities stay true, and a new kind is asked for once, not once in
each partition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.contracts.clips import ClipRequest
from streams.contracts.clock import SECOND_NS
from streams.contracts.codec import Message
from streams.contracts.scenarios import Novelty
from streams.delta import apply, delta
from streams.novelty import NoveltyConfig, NoveltyStage
from streams.pooling import PoolConfig
from streams.selection import Selection, SelectionConfig
from streams.state import pack
from streams.value import Weights
from tests.laws.stage_laws import check_any_batches, check_deterministic, check_dump_and_load, run, shuffled
from tests.samples import T0, embedding_of, in_batches, scenario

WINDOW = 10 * SECOND_NS
START = T0 // WINDOW * WINDOW
SMALL = PoolConfig(mature=8, novelty=NoveltyConfig(prototypes=6, reservoir=32, block=5, longest_block=9, mature=8))
CONFIG = SelectionConfig(window_ns=WINDOW, clips=6, pool=SMALL)
AXES = np.linalg.qr(np.random.default_rng(1).normal(size=(32, 32)))[0]
seeds = st.integers(0, 2**32 - 1)
cuts = st.lists(st.integers(0, 9), min_size=1, max_size=4)


def candidates(seed: int, count: int, first: int = 0) -> list[Message]:
    rng = np.random.default_rng(seed)
    return [
        scenario(
            first + i,
            f"car-{i % 7}",
            embedding=embedding_of(AXES[i % 3] + 0.3 * rng.normal(size=32)),
            novelty=Novelty(0.2, float(rng.random()), False, "its partition's reasons"),
        )
        for i in range(count)
    ]


def requests(config: SelectionConfig, windows: Sequence[Sequence[Message]]) -> list[ClipRequest]:
    """What is asked for, window by window."""
    _, emits, _ = run(Selection(config), [*windows, []], START, period_ns=config.window_ns)
    return [e.message for e in emits if isinstance(e.message, ClipRequest)]


@settings(max_examples=20)
@given(seeds, st.integers(0, 80), cuts)
def test_laws(seed: int, count: int, sizes: list[int]) -> None:
    batches, config = (
        in_batches(candidates(seed, count), sizes),
        replace(CONFIG, window_ns=SECOND_NS, candidates=30),
    )
    check_deterministic(Selection(config), Selection(config), batches, START)
    check_dump_and_load(Selection(config), [*batches, []], START)
    check_any_batches(Selection(config), candidates(seed, count), sizes, START)


@settings(max_examples=20)
@given(seeds, seeds, st.integers(5, 80))
def test_order_of_arrival_does_not_matter(seed: int, salt: int, held: int) -> None:
    config, windows = replace(CONFIG, candidates=held), [candidates(seed + i, 40, 40 * i) for i in range(3)]
    assert requests(config, windows) == requests(config, [shuffled(w, salt) for w in windows])


def test_saved_changes_are_the_state() -> None:
    stage = Selection(CONFIG)
    state = saved = stage.initial()
    for window in range(5):
        following = stage.step(state, candidates(window, 40, 40 * window), START + window * WINDOW).state
        saved = apply(saved, delta(state, following))
        assert pack(saved) == pack(following)
        state = following
    assert state.pool


def test_the_pools_word_counts_and_is_told() -> None:
    told = requests(CONFIG, [candidates(i, 40, 40 * i) for i in range(3)])
    alone = requests(replace(CONFIG, pool=None), [candidates(i, 40, 40 * i) for i in range(3)])
    later = [r for r in told if r.requested_ns > START + 2 * WINDOW]
    assert any("among the fleet's rare events" in r.reason for r in later)
    assert all("its partition's reasons" in r.reason for r in told)
    assert [r.clip_id for r in told] != [r.clip_id for r in alone]
    assert not any("novelty:" in r.reason for r in alone)


def test_who_was_held_was_held_with_the_chance_of_then() -> None:
    """Fewer are held than came: the pool's verdict must not show in the probability of having been held."""
    weights = Weights(takeover=0.0, surprise=0.0, novelty=1.0, uncertainty=0.0)
    config = replace(CONFIG, candidates=20, clips=20, sure_share=0.0, per_vehicle=99, environment_share=1.0)
    config = replace(config, weights=weights, region_share=1.0)
    pooled = {r.clip_id: r for r in requests(config, [candidates(i, 60, 60 * i) for i in range(4)])}
    alone = {
        r.clip_id: r for r in requests(replace(config, pool=None), [candidates(i, 60, 60 * i) for i in range(4)])
    }
    assert pooled.keys() == alone.keys() and len(pooled) == 80
    for name, request in pooled.items():
        # All that were held are asked for, so no other chance comes in.
        assert request.inclusion_probability == alone[name].inclusion_probability
    assert any(r.inclusion_probability < 1.0 for r in pooled.values())


def test_a_kind_is_asked_for_once_and_not_once_in_each_partition() -> None:
    """Four partitions meet a new kind one after the other, a window each; each of them finds it novel."""
    rng, stage = np.random.default_rng(2), NoveltyStage(NoveltyConfig(prototypes=64))
    states = [stage.initial().models for _ in range(4)]
    windows: list[list[Message]] = []
    new = set[str]()
    for window in range(16):
        told: list[Message] = []
        for p in range(4):
            axes = [AXES[i % 7] for i in range(300)] + ([AXES[20]] * 20 if window == 12 + p else [])
            first = 10_000 * window + 1000 * p
            events = [
                scenario(first + i, f"car-{p}-{i}", embedding=embedding_of(a + 0.1 * rng.normal(size=32)))
                for i, a in enumerate(axes)
            ]
            states[p], scored = stage.score(states[p], events)
            told += scored
            late = [s for s in scored[300:] if s.novelty.novel]
            new |= {s.event.event_id for s in late}
            assert len(late) >= 10 or not scored[300:], "novel in each partition"
        windows.append(told)
    weights = Weights(takeover=0.0, surprise=0.0, novelty=1.0, uncertainty=0.0)
    config = SelectionConfig(window_ns=WINDOW, clips=40, sure_share=1.0, environment_share=1.0, region_share=1.0)
    config = replace(config, weights=weights, per_vehicle=99)
    apart, pooled = (
        sum(r.event_id in new for r in requests(c, windows)) for c in (config, replace(config, pool=PoolConfig()))
    )
    assert apart >= 50 and pooled <= 30
