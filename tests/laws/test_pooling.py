"""Pooling: what one partition has met is familiar to the others; the threshold is still the false-alarm rate."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace as changed

from streams.contracts.codec import Message
from streams.contracts.scenarios import Novelty, Scenario
from streams.novelty import EVERYWHERE, Models, NoveltyConfig, NoveltyStage
from streams.pooling import Pool, PoolConfig
from streams.state import pack
from tests.laws.stage_laws import shuffled
from tests.samples import embedding_of, scenario

SMALL = PoolConfig(mature=8, novelty=NoveltyConfig(prototypes=6, reservoir=32, block=5, longest_block=9, mature=8))
seeds = st.integers(0, 2**32 - 1)
AXES = np.linalg.qr(np.random.default_rng(1).normal(size=(32, 32)))[0]


def candidates(seed: int, count: int, first: int = 0) -> list[Scenario]:
    """With p-values of their partition as if drawn evenly; some without an embedding."""
    rng = np.random.default_rng(seed)
    return [
        scenario(
            first + i,
            cell=f"right/day/clear/{i % 2}",
            embedding=b"" if rng.random() < 0.1 else embedding_of(AXES[i % 5] + 0.2 * rng.normal(size=32)),
            novelty=Novelty(0.1, float(rng.random()), False, "own reasons"),
        )
        for i in range(count)
    ]


@settings(max_examples=25)
@given(seeds, seeds, st.integers(0, 60))
def test_the_order_in_which_candidates_came_does_not_show(seed: int, salt: int, count: int) -> None:
    known, _ = Pool(SMALL).judge({}, candidates(seed, 40))
    some = candidates(seed + 1, count, 100)
    mixed = [s for s in shuffled(list[Message](some), salt) if isinstance(s, Scenario)]
    first, second = Pool(SMALL).judge(known, some), Pool(SMALL).judge(known, mixed)
    assert pack(first[0]) == pack(second[0])
    assert sorted(first[1], key=str) == sorted(second[1], key=str)
    assert [s.event for s in second[1]] == [s.event for s in mixed]


@given(seeds)
def test_only_what_is_rare_is_judged_again_and_what_was_known_stays(seed: int) -> None:
    known, _ = Pool(SMALL).judge({}, candidates(seed, 60))
    before, some = pack(known), candidates(seed + 1, 30, 100)
    learned, judged = Pool(SMALL).judge(known, some)
    assert pack(known) == before != pack(learned)
    for own, told in zip(some, judged, strict=True):
        rare = bool(own.event.embedding) and own.novelty.p_value <= 0.5
        assert (told.novelty == own.novelty) == (not rare)
        if rare:
            assert told.novelty.p_value <= 0.5 and told.novelty.novel == (told.novelty.p_value <= 0.05)
            assert "among the fleet's rare events" in told.novelty.explanation
            assert told.novelty.explanation.endswith("in its partition own reasons")


def test_until_the_fleet_knows_enough_partitions_have_the_word() -> None:
    config = replace(SMALL, mature=20)
    models: Models = {}
    for window in range(8):
        some = candidates(window, 20, 100 * window)
        enough = bool(models) and models["m1/32"][EVERYWHERE].events >= 20
        models, judged = Pool(config).judge(models, some)
        assert (judged == some) == (not enough)
    assert enough
    other = [changed(s, event=changed(s.event, embedding_version="m2")) for s in candidates(99, 20, 9000)]
    assert Pool(config).judge(models, other)[1] == other


def in_partitions(count: int, kinds: int, partitions: int, seed: int) -> list[list[Scenario]]:
    """Ordinary events as eight partitions judge them, in windows of 400."""
    rng, stage = np.random.default_rng(seed), NoveltyStage(NoveltyConfig(prototypes=64))
    states = [stage.initial().models for _ in range(partitions)]
    windows: list[list[Scenario]] = []
    for start in range(0, count, 400):
        told: list[Scenario] = []
        for p in range(partitions):
            noise = 0.2 * rng.normal(size=(400 // partitions, 32))
            rows = [start + p + partitions * i for i in range(len(noise))]
            events = [
                scenario(n, embedding=embedding_of(AXES[n % kinds] + e)) for n, e in zip(rows, noise, strict=True)
            ]
            states[p], scored = stage.score(states[p], events)
            told += scored
        windows.append(told)
    return windows


def test_the_threshold_is_the_false_alarm_rate() -> None:
    pool, models, novel = Pool(PoolConfig(novelty=NoveltyConfig(prototypes=64))), Models(), list[bool]()
    for number, window in enumerate(in_partitions(16_000, 7, 8, 3)):
        models, judged = pool.judge(models, window)
        novel += [s.novelty.novel for s in judged if number > 5]
    assert np.mean(novel) == pytest.approx(0.05, rel=0.2)


def test_what_one_partition_has_met_is_familiar_to_the_others() -> None:
    """The new kind is novel in the last partition, which has not met it; the fleet has, from another one."""
    pool, models = Pool(PoolConfig(novelty=NoveltyConfig(prototypes=64))), Models()
    for window in in_partitions(8000, 7, 8, 4):
        models, _ = pool.judge(models, window)
    rng = np.random.default_rng(5)

    def new_kind(first: int, count: int) -> list[Scenario]:
        noise = 0.1 * rng.normal(size=(count, 32))
        own = Novelty(0.9, 0.001, True, "never met here")
        return [
            scenario(first + i, embedding=embedding_of(AXES[20] + n), novelty=own) for i, n in enumerate(noise)
        ]

    models, first = pool.judge(models, new_kind(50_000, 40))
    _, later = pool.judge(models, new_kind(60_000, 10))
    assert all(s.novelty.novel for s in first[:10])
    assert not any(s.novelty.novel for s in later)


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="share"):
        PoolConfig(share=share)
