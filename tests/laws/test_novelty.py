"""Novelty: the threshold is the false-alarm rate, also while the fleet drifts; memory is bounded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from streams.contracts.clock import SECOND_NS
from streams.contracts.codec import Message
from streams.contracts.scenarios import Scenario
from streams.novelty import NoveltyConfig, NoveltyStage, NoveltyState
from streams.prototypes import condense, cosine_distances, unit_vectors
from streams.stage import Emit
from streams.state import pack
from tests.laws.stage_laws import (
    check_any_batches,
    check_deterministic,
    check_dump_and_load,
    check_lanes,
    check_replay,
    run,
    shuffled,
)
from tests.samples import T0, embedding_of, in_batches, scenario, telemetry

SMALL = NoveltyConfig(
    prototypes=6, reservoir=32, block=5, longest_block=9, mature=8, nearest=2, cells=2, versions=2, seen_ids=1000
)
CELLS = ("right/day/clear/urban", "left/night/clear/urban", "right/day/fog/rural")
cuts = st.lists(st.integers(0, 9), min_size=1, max_size=4)
seeds = st.integers(0, 2**32 - 1)


def stream(seed: int, count: int, dimension: int = 8) -> list[Message]:
    """Scenarios of three cells and two embedding versions, some without an embedding."""
    rng = np.random.default_rng(seed)
    made: list[Message] = []
    for i in range(count):
        vector = rng.normal(size=dimension) + 2 * np.eye(dimension)[i % 3]
        version = f"m{int(rng.integers(2))}"
        data = b"" if rng.random() < 0.1 else embedding_of(vector)
        made.append(scenario(i, cell=CELLS[i % 3], embedding=data, embedding_version=version))
    return made


def scored(emits: Sequence[Emit]) -> list[Scenario]:
    return [e.message for e in emits if isinstance(e.message, Scenario)]


@settings(max_examples=25)
@given(seeds, st.integers(0, 60), cuts)
def test_laws(seed: int, count: int, sizes: list[int]) -> None:
    messages = [*stream(seed, count), telemetry()]
    batches = in_batches(messages, sizes)
    check_deterministic(NoveltyStage(SMALL), NoveltyStage(SMALL), batches, T0)
    check_dump_and_load(NoveltyStage(SMALL), batches, T0)
    check_replay(NoveltyStage(SMALL), batches, T0)


@settings(max_examples=25)
@given(seeds, st.integers(0, 80), cuts)
def test_batches_do_not_show(seed: int, count: int, sizes: list[int]) -> None:
    emits, _ = check_any_batches(NoveltyStage(SMALL), stream(seed, count), sizes, T0)
    assert len(emits) == count


@settings(max_examples=25)
@given(st.lists(seeds, min_size=1, max_size=4), st.lists(st.sampled_from([8, 16]), min_size=4, max_size=4))
def test_lanes_that_are_asked_at_once_know_nothing_of_one_another(some: list[int], dimensions: list[int]) -> None:
    """Of several lengths of embeddings too, and of more cells and versions than are kept."""
    streams = [stream(seed, 60, dimension) for seed, dimension in zip(some, dimensions, strict=False)]
    check_lanes(
        NoveltyStage(SMALL), [in_batches(s, [seed % 23, 7]) for s, seed in zip(streams, some, strict=True)], T0
    )


@settings(max_examples=25)
@given(seeds, st.lists(st.integers(0, 40), max_size=60), cuts)
def test_batches_do_not_show_where_versions_and_ids_are_forgotten(
    seed: int, numbers: list[int], sizes: list[int]
) -> None:
    """More embedding versions than are kept, more ids than are remembered, and events that come again."""
    vectors = normal(seed, 41)
    messages: list[Message] = [
        scenario(n, embedding=embedding_of(vectors[n]), embedding_version=f"m{n % 4}", cause=str(i))
        for i, n in enumerate(numbers)
    ]
    check_any_batches(NoveltyStage(replace(SMALL, seen_ids=16)), messages, sizes, T0)


@given(st.integers(0, 30 * 3600))
def test_an_empty_batch_before_one_at_the_same_instant_does_not_show(later_s: int) -> None:
    stage, again = NoveltyStage(SMALL), [scenario(1, embedding=embedding_of([1.0] * 8))]
    state, now_ns = stage.step(stage.initial(), again, T0).state, T0 + later_s * SECOND_NS
    told, others = stage.step(state, again, now_ns), stage.step(stage.step(state, [], now_ns).state, again, now_ns)
    assert told.emits == others.emits and len(told.emits) == (later_s > 24 * 3600)
    assert pack(told.state) == pack(others.state)


@settings(max_examples=20)
@given(seeds, seeds)
def test_order_within_a_block_is_forgotten(seed: int, salt: int) -> None:
    """What a model has learned after whole blocks hangs on the events, not on their order."""
    messages = [scenario(i, embedding=embedding_of(v)) for i, v in enumerate(normal(seed, 5))]
    stage = NoveltyStage(SMALL)
    first, _, _ = run(stage, [messages], T0)
    second, _, _ = run(stage, [shuffled(messages, salt)], T0)
    for a, b in zip(models(first), models(second), strict=True):
        assert np.array_equal(a[0], b[0]) and np.array_equal(a[1], b[1], equal_nan=True)


def models(state: NoveltyState) -> list[tuple[NDArray[np.int8], NDArray[np.float32]]]:
    return [(m.prototypes, m.distances) for cells in state.models.values() for m in cells.values()]


def normal(seed: int, count: int, dimension: int = 8) -> NDArray[np.float64]:
    return np.asarray(np.random.default_rng(seed).normal(size=(count, dimension)))


@settings(max_examples=20)
@given(seeds, st.integers(0, 200))
def test_memory_is_bounded(seed: int, count: int) -> None:
    state, _, _ = run(NoveltyStage(SMALL), in_batches(stream(seed, count), [17]), T0)
    assert len(state.models) <= SMALL.versions
    for cells in state.models.values():
        assert len(cells) <= SMALL.cells + 1
        for m in cells.values():
            assert len(m.prototypes) == len(m.weights) <= SMALL.prototypes
            assert len(m.pending) < SMALL.longest_block


def false_alarms(config: NoveltyConfig, drift_per_event: float, count: int = 6000, warm: int = 1500) -> float:
    """Share of ordinary events that are called novel, while the fleet's centre turns."""
    stage, rng = NoveltyStage(config), np.random.default_rng(11)
    axes = np.linalg.qr(rng.normal(size=(32, 32)))[0]
    messages: list[Message] = []
    for i in range(count):
        angle = drift_per_event * i
        centre = np.cos(angle) * axes[i % 4] + np.sin(angle) * axes[4 + i % 4]
        vector = centre + (0.1 + 0.05 * drift_per_event * i) * rng.normal(size=32)
        messages.append(scenario(i, cell=CELLS[i % 2], embedding=embedding_of(vector)))
    _, emits, _ = run(stage, in_batches(messages, [200]), T0)
    told = scored(emits)[warm:]
    return sum(s.novelty.novel for s in told) / len(told)


@pytest.mark.parametrize("level", [0.02, 0.05, 0.1])
def test_the_threshold_is_the_false_alarm_rate(level: float) -> None:
    assert false_alarms(NoveltyConfig(false_alarm_rate=level), 0.0) == pytest.approx(level, rel=0.2)


@pytest.mark.parametrize("drift", [5e-5, 2e-4])
def test_and_follows_drift(drift: float) -> None:
    assert false_alarms(NoveltyConfig(), drift) == pytest.approx(0.05, rel=0.2)


def test_planted_strangers_are_found() -> None:
    stage, rng = NoveltyStage(), np.random.default_rng(3)
    axes = np.linalg.qr(rng.normal(size=(32, 32)))[0]
    usual = [scenario(i, embedding=embedding_of(axes[i % 4] + 0.1 * rng.normal(size=32))) for i in range(2000)]
    state, _, _ = run(stage, [usual], T0)
    strange = [scenario(9000 + i, embedding=embedding_of(axes[9] + 0.1 * rng.normal(size=32))) for i in range(12)]
    assert all(s.novelty.p_value < 0.01 for s in scored(stage.step(state, strange, T0).emits))
    assert "cell right/day/clear/urban" in scored(stage.step(state, strange, T0).emits)[0].novelty.explanation


def test_a_new_cell_is_judged_by_all_cells_until_it_is_mature() -> None:
    stage, rng = NoveltyStage(), np.random.default_rng(4)
    usual = [scenario(i, embedding=embedding_of(np.eye(16)[0] + 0.1 * rng.normal(size=16))) for i in range(500)]
    state, _, _ = run(stage, [usual], T0)
    abroad = [
        scenario(2000 + i, cell=CELLS[1], embedding=embedding_of(np.eye(16)[5] + 0.1 * rng.normal(size=16)))
        for i in range(400)
    ]
    told = scored(run_on(stage, state, abroad))
    assert told[0].novelty.novel and "all cells" in told[0].novelty.explanation
    assert "cell left/night" in told[-1].novelty.explanation
    assert sum(s.novelty.novel for s in told[200:]) < 40


def run_on(stage: NoveltyStage, state: NoveltyState, messages: Sequence[Message]) -> list[Emit]:
    return list(stage.step(state, messages, T0).emits)


def test_a_new_embedding_version_starts_anew() -> None:
    stage = NoveltyStage(SMALL)
    state, _, _ = run(stage, [[scenario(i, embedding=embedding_of(v)) for i, v in enumerate(normal(1, 40))]], T0)
    fresh = scored(
        run_on(stage, state, [scenario(99, embedding=embedding_of([1.0] * 8), embedding_version="m9")])
    )[0]
    assert fresh.novelty.p_value == 1 and "fewer than 2 events" in fresh.novelty.explanation


def test_without_an_embedding_nothing_is_claimed() -> None:
    (told,) = scored(run_on(NoveltyStage(), NoveltyStage().initial(), [scenario(1, embedding=b"")]))
    assert not told.novelty.novel and told.novelty.p_value == 1 and "no embedding" in told.novelty.explanation


def test_more_cells_than_the_bound_are_judged_by_all_cells() -> None:
    messages: list[Message] = [
        scenario(i, cell=f"cell-{i % 9}", embedding=embedding_of(v)) for i, v in enumerate(normal(2, 200))
    ]
    state, emits, _ = run(NoveltyStage(SMALL), in_batches(messages, [10]), T0)
    assert len(emits) == 200
    assert all("cell-8" not in cells for cells in state.models.values())


@given(st.integers(1, 40), st.integers(1, 12), seeds)
def test_condensing_keeps_the_weight_and_the_bound(count: int, bound: int, seed: int) -> None:
    units = unit_vectors([embedding_of(v) for v in normal(seed, count, 6)])
    kept, weights, radius = condense(units, np.ones(count, np.float32), 0.0, bound)
    assert len(kept) == min(count, bound) and weights.sum() == pytest.approx(count)
    assert {k.tobytes() for k in kept} <= {u.tobytes() for u in units}
    assert (radius > 0) == (count > bound)


def test_condensing_merges_what_is_alike() -> None:
    units = unit_vectors([embedding_of([1, 0, 0]), embedding_of([0, 1, 0]), embedding_of([100, 3, 0])])
    kept, weights, _ = condense(units, np.array([5, 1, 1], np.float32), 0.0, 2)
    assert kept.tolist() == [[127, 0, 0], [0, 127, 0]] and weights.tolist() == [6, 1]


def test_a_zero_vector_is_far_from_everything() -> None:
    units = unit_vectors([bytes(4), embedding_of([1, 0, 0, 0])])
    assert cosine_distances(units, units)[0].tolist() == [1.0, 1.0]


def test_of_too_many_versions_the_one_used_longest_ago_is_forgotten() -> None:
    stage = NoveltyStage(SMALL)
    state = stage.initial()
    for i, version in enumerate(["m1", "m2", "m1", "m3"]):
        message = scenario(i, embedding=embedding_of([1, 2, 3]), embedding_version=version)
        state = stage.step(state, [message], T0).state
    assert set(state.models) == {"m1/3", "m3/3"}
