"""Laws of the registry: content names, dataset versions, lineage closure."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mcap.writer import CompressionType

from registry.clips import read_clip
from registry.datasets import DatasetClip, make_dataset, save_dataset, split_of
from registry.errors import Corrupt, Refused
from registry.lineage import MADE_FROM, Kind, Lineage, Node
from registry.store import Store, canonical_json
from streams.contracts.ids import sha256_hex
from tests.unit.clip_bytes import whole_clip

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(st.binary(max_size=200), max_size=8))
@settings(max_examples=40, deadline=None)
def test_what_is_put_comes_back_under_the_hash_of_its_bytes(contents: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder, durable=False)
        names = [store.put(content).sha256 for content in contents]
        assert names == [sha256_hex(content) for content in contents]
        assert [store.get(name) for name in names] == contents


@given(st.dictionaries(st.text(), json_values, min_size=1), st.randoms(use_true_random=False))
def test_canonical_json_does_not_know_the_order_of_keys(value: dict[str, object], random: object) -> None:
    items = list(value.items())
    random.shuffle(items)  # type: ignore[attr-defined]
    assert canonical_json(dict(items)) == canonical_json(value)


_UNCHECKED = whole_clip(3, CompressionType.NONE, checksums=False)


@given(st.lists(st.tuples(st.integers(0, len(_UNCHECKED) - 1), st.integers(0, 255)), min_size=1, max_size=4))
@settings(max_examples=300, deadline=None)
def test_whatever_a_clip_holds_reading_it_gives_frames_or_a_clear_error(changes: list[tuple[int, int]]) -> None:
    data = bytearray(_UNCHECKED)
    for at, value in changes:
        data[at] = value
    try:
        clip = read_clip(bytes(data))
    except (Corrupt, Refused):
        return
    assert clip.images.shape[0] == len(clip.times_ns) == len(clip.plan_m) == len(clip.rules)


@given(st.binary(max_size=300))
def test_noise_is_no_clip(noise: bytes) -> None:
    with pytest.raises(Corrupt):
        read_clip(noise)


_vehicles = st.sampled_from([f"v{n}" for n in range(6)])


@st.composite
def clip_sets(draw: st.DrawFn) -> list[DatasetClip]:
    numbers = draw(st.lists(st.integers(0, 10_000), unique=True, min_size=1, max_size=20))
    shares = {"train": 0.6, "validation": 0.4}
    clips = []
    for n in numbers:
        vehicle, weight = draw(_vehicles), draw(st.floats(0.01, 10))
        clips.append(DatasetClip(f"c{n}", sha256_hex(str(n).encode()), vehicle, split_of(vehicle, shares), weight))
    return clips


@given(clip_sets(), st.randoms(use_true_random=False))
def test_a_dataset_version_does_not_know_the_order_of_its_clips(clips: list[DatasetClip], random: object) -> None:
    version = make_dataset(clips).version
    random.shuffle(clips)  # type: ignore[attr-defined]
    assert make_dataset(clips).version == version


@given(clip_sets(), st.data())
def test_a_dataset_version_knows_every_clip_weight_and_recipe(
    clips: list[DatasetClip], data: st.DataObject
) -> None:
    dataset = make_dataset(clips)
    n = data.draw(st.integers(0, len(clips) - 1))
    heavier = DatasetClip(clips[n].clip_id, clips[n].sha256, clips[n].vehicle, clips[n].split, clips[n].weight + 1)
    others = [make_dataset(clips[:n] + clips[n + 1 :]), make_dataset([*clips[:n], heavier, *clips[n + 1 :]])]
    others += [make_dataset(clips, "other"), make_dataset(clips, parents=[dataset.version])]
    assert dataset.version not in {other.version for other in others}


@given(clip_sets())
def test_the_splits_of_a_dataset_share_no_vehicle(clips: list[DatasetClip]) -> None:
    dataset = make_dataset(clips)
    train, validation = ({c.vehicle for c in dataset.split(s)} for s in ("train", "validation"))
    assert not train & validation
    assert len(dataset.split("train")) + len(dataset.split("validation")) == len(clips)


@given(clip_sets())
@settings(max_examples=20, deadline=None)
def test_a_dataset_is_stored_under_its_version(clips: list[DatasetClip]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        dataset = make_dataset(clips)
        assert save_dataset(Store(folder, durable=False), dataset) == dataset.version


@given(st.text(min_size=1), st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_every_vehicle_has_one_split_with_a_share(vehicle: str, parts: list[int]) -> None:
    shares = {f"s{n}": part / sum(parts) for n, part in enumerate(parts)}
    assert split_of(vehicle, shares) == split_of(vehicle, shares)
    assert split_of(vehicle, {"never": 0.0, **shares}) in shares


_nodes = st.builds(Node, st.sampled_from(Kind), st.sampled_from("abc"))
_edges = st.lists(st.tuples(_nodes, _nodes), max_size=25)


def _closure(edges: set[tuple[Node, Node]], start: Node) -> set[Node]:
    found: set[Node] = set()
    front = {start}
    while front:
        front = {child for parent, child in edges if parent in front} - found
        found |= front
    return found


@given(_edges)
@settings(max_examples=60, deadline=None)
def test_lineage_is_the_closure_of_its_edges_and_has_no_circle(edges: list[tuple[Node, Node]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        lineage, taken = Lineage(Path(folder) / "lineage.db"), set[tuple[Node, Node]]()
        for parent, child in edges:
            possible = (
                parent.kind in MADE_FROM[child.kind] and parent != child and parent not in _closure(taken, child)
            )
            if possible:
                lineage.link([parent], child)
                taken.add((parent, child))
            else:
                with pytest.raises(Refused):
                    lineage.link([parent], child)
        for node in {n for edge in taken for n in edge}:
            below = set(lineage.descendants(node))
            assert below == _closure(taken, node)
            assert node not in below
            assert set(lineage.ancestors(node)) == _closure({(c, p) for p, c in taken}, node)
            assert all(node in lineage.ancestors(other) for other in below)
        lineage.close()
