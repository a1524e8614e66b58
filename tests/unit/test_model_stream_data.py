"""What reads ahead: bounded, in order, and honest about what it cannot read."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import replace

import pytest

from model.data import Samples
from model.shards import BadDataset, BadShard, Dataset, Shard
from model.stream_data import WINDOW_SHARDS, Order, Stream
from tests.laws.test_stream_order import config, numbered


def test_no_more_than_two_windows_of_a_lane_are_held_and_each_is_read_once() -> None:
    dataset, samples = numbered([8] * 8)
    reads: Counter[str] = Counter()

    def read(shard: Shard) -> Samples:
        reads[shard.name] += 1
        return samples[shard.name]

    with Stream(Order(dataset, config(8, 2), seed=1), read, [0]) as stream:
        for step in range(8):
            stream.draw(step)
            assert len(stream._held[0]) <= 2
    assert reads.total() <= (8 * 4 / 32 + 1) * 4 + WINDOW_SHARDS


def test_the_next_window_is_read_before_it_is_asked_for() -> None:
    dataset, samples = numbered([8] * 8)
    done = threading.Event()
    read_by_now: list[str] = []

    def read(shard: Shard) -> Samples:
        read_by_now.append(shard.name)
        if len(read_by_now) == 2 * WINDOW_SHARDS:
            done.set()
        return samples[shard.name]

    with Stream(Order(dataset, config(2, 1), seed=1), read, [0]) as stream:
        stream.draw(0)
        assert done.wait(10)


def test_a_shard_that_cannot_be_read_is_told_when_it_is_needed() -> None:
    dataset, _ = numbered([8] * 4)

    def read(shard: Shard) -> Samples:
        raise BadShard(f"shard {shard.name} is damaged")

    with (
        Stream(Order(dataset, config(4, 1), seed=1), read, [0]) as stream,
        pytest.raises(BadShard, match="part-0000"),
    ):
        stream.draw(0)


def test_frames_that_weigh_nothing_are_never_read_and_where_all_do_it_is_said() -> None:
    dataset, samples = numbered([8] * 4)
    weightless = tuple(replace(shard, mass=(0.0,) * 5) for shard in dataset.shards)
    some = Dataset(dataset.rig, (*weightless[:3], dataset.shards[3]), "v")
    names: set[str] = set()

    def read(shard: Shard) -> Samples:
        names.add(shard.name)
        return samples[shard.name]

    with Stream(Order(some, config(4, 2), seed=1), read, [0, 1]) as stream:
        stream.draw(5)
    assert names == {"part-00003.safetensors"}
    with pytest.raises(BadDataset, match="none of the dataset's 32 frames has a weight"):
        Order(Dataset(dataset.rig, weightless, "v"), config(4, 2), seed=1)
