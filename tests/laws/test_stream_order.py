"""The order of streamed frames: what any process sees of any batch follows from dataset, seed and number alone."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from model.config import Balance, TrainingConfig
from model.data import MANOEUVRES, Samples, concatenate, manoeuvre, masses
from model.rig import THREE_CAMERAS
from model.shards import Dataset, Shard
from model.stream_data import Order, Stream
from tests.unit.model_samples import some_samples


def numbered(frames: list[int]) -> tuple[Dataset, dict[str, Samples]]:
    """Shards of so many frames; `yaw_rate_radps` numbers the frames of all shards, images are a pixel."""
    shards, samples, at = [], {}, 0
    for number, count in enumerate(frames):
        made = some_samples(count, seed=number)
        made.yaw_rate_radps[:] = np.arange(at, at + count)
        name = f"part-{number:05d}.safetensors"
        samples[name] = made
        shards.append(Shard(name, count, 0, "", tuple(float(m) for m in masses(made))))
        at += count
    return Dataset(THREE_CAMERAS, tuple(shards), "v"), samples


def config(batch: int, parts: int) -> TrainingConfig:
    return TrainingConfig(steps=1, batch=batch, parts=parts)


def seen(
    dataset: Dataset, samples: dict[str, Samples], c: TrainingConfig, lanes: range, steps: range
) -> list[list[int]]:
    """The numbers of the frames of these lanes, batch by batch."""
    with Stream(Order(dataset, c, seed=5), lambda shard: samples[shard.name], lanes) as stream:
        return [[int(n) for part in stream.draw(step) for n in part.yaw_rate_radps] for step in steps]


shapes = st.tuples(
    st.lists(st.integers(1, 9), min_size=1, max_size=7), st.integers(1, 12), st.integers(1, 4)
).filter(lambda shape: shape[2] <= shape[1])


@given(shapes)
@settings(max_examples=40, deadline=None)
def test_a_batch_is_the_same_whoever_asks_for_it_and_whenever(shape: tuple[list[int], int, int]) -> None:
    frames, batch, parts = shape
    dataset, samples = numbered(frames)
    c = config(batch, parts)
    whole = seen(dataset, samples, c, range(parts), range(6))
    assert [len(b) for b in whole] == [batch] * 6
    assert seen(dataset, samples, c, range(parts), range(4, 6)) == whole[4:]
    each = [seen(dataset, samples, c, range(lane, lane + 1), range(6)) for lane in range(parts)]
    assert [[n for lane in each for n in lane[step]] for step in range(6)] == whole


@given(shapes)
@settings(max_examples=40, deadline=None)
def test_windows_follow_one_another_without_gap_or_overlap(shape: tuple[list[int], int, int]) -> None:
    frames, batch, parts = shape
    dataset, _ = numbered(frames)
    order = Order(dataset, config(batch, parts), seed=5)
    for lane in range(parts):
        at = 0
        while at < 3 * order.epoch_draws:
            window = order.window_at(lane, at)
            assert window.first <= at < window.first + window.draws
            assert window.epoch == at // order.epoch_draws
            at = window.first + window.draws


def test_every_frame_of_equal_weight_is_seen_once_in_an_epoch_and_in_another_order_in_the_next() -> None:
    dataset, samples = numbered([8, 8, 8, 8])
    as_they_come = np.array([shard.mass for shard in dataset.shards]).sum(0) / 32
    c = TrainingConfig(steps=1, batch=8, parts=2, balance=Balance(*as_they_come))
    epochs = [[n for b in seen(dataset, samples, c, range(2), range(at, at + 4)) for n in b] for at in (0, 4)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(32))
    assert epochs[0] != epochs[1]
    assert epochs[0] != sorted(epochs[0])


def test_manoeuvres_are_drawn_by_their_shares_over_all_shards() -> None:
    dataset, samples = numbered([64] * 6)
    total = np.array([shard.mass for shard in dataset.shards]).sum(0)
    present = [name for name, mass in zip(MANOEUVRES, total, strict=True) if mass > 0]
    assert {"braking", "turning", "cruising"} >= set(present)
    assert len(present) > 1
    wanted = Balance(standing=0, launching=0, braking=0.5, turning=0.3, cruising=0.2)
    c = TrainingConfig(steps=1, batch=64, parts=2, balance=wanted)
    drawn = Counter(n for b in seen(dataset, samples, c, range(2), range(60)) for n in b)
    kind = manoeuvre(concatenate(list(samples.values())))
    found = np.bincount(kind, [drawn[n] for n in range(384)], len(MANOEUVRES)) / drawn.total()
    shares = np.where(total > 0, wanted.shares, 0)
    np.testing.assert_allclose(found, shares / shares.sum(), atol=0.02)
