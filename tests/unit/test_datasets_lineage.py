"""Datasets and lineage: the rules at their edges."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from registry.datasets import (
    TRAIN,
    VALIDATION,
    Dataset,
    DatasetClip,
    load_dataset,
    make_dataset,
    save_dataset,
    split_of,
)
from registry.errors import Corrupt, Missing, Refused, Retry
from registry.lineage import Kind, Lineage, Node
from registry.store import Store, canonical_json


def clip(n: int, vehicle: str = "v1", split: str = TRAIN, weight: float = 1.0) -> DatasetClip:
    return DatasetClip(f"c{n}", f"{n:064x}", vehicle, split, weight)


def test_a_dataset_is_sorted_kept_and_loaded(tmp_path: Path) -> None:
    store = Store(tmp_path)
    dataset = make_dataset([clip(2), clip(1), clip(3, "v2", VALIDATION)], "recipe", ["f" * 64])
    version = save_dataset(store, dataset)
    assert [c.clip_id for c in dataset.clips] == ["c1", "c2", "c3"]
    assert load_dataset(store, version) == dataset
    assert [c.clip_id for c in dataset.split(VALIDATION)] == ["c3"]


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        ([clip(1), clip(1)], "twice"),
        ([clip(1, "v1", TRAIN), clip(2, "v1", VALIDATION)], "vehicle v1 is in two splits"),
        (
            [clip(1, "v1", TRAIN), msgspec.structs.replace(clip(2, "v2", VALIDATION), sha256=clip(1).sha256)],
            "content",
        ),
        ([clip(1, weight=0.0)], "weight"),
        ([clip(1, weight=float("nan"))], "JSON form|weight"),
        ([clip(1, vehicle="../v")], "vehicle"),
        ([msgspec.structs.replace(clip(1), sha256="x")], "sha256"),
    ],
)
def test_a_dataset_that_breaks_a_rule_is_refused(clips: list[DatasetClip], message: str) -> None:
    with pytest.raises(Refused, match=message):
        _ = make_dataset(clips).version


def test_a_manifest_that_is_none_is_corrupt(tmp_path: Path) -> None:
    store = Store(tmp_path)
    leaking = Dataset((clip(1, "v1", TRAIN), clip(2, "v1", VALIDATION)))
    for content in (b"{}", b"\xff", canonical_json(leaking), canonical_json(Dataset((clip(2), clip(1))))):
        with pytest.raises(Corrupt):
            load_dataset(store, store.put(content).sha256)
    with pytest.raises(Missing):
        load_dataset(store, "0" * 64)


def test_splits_hold_their_shares_and_their_vehicles() -> None:
    shares = {TRAIN: 0.8, VALIDATION: 0.2}
    drawn = [split_of(f"vehicle-{n}", shares) for n in range(2000)]
    assert 0.17 < drawn.count(VALIDATION) / 2000 < 0.23
    with pytest.raises(Refused, match="sum to 1"):
        split_of("v", {TRAIN: 0.5})
    with pytest.raises(Refused, match="sum to 1"):
        split_of("v", {})


@pytest.fixture
def lineage(tmp_path: Path) -> Lineage:
    return Lineage(tmp_path / "lineage.db")


def _turn(lineage: Lineage, n: int, base_model: Node | None) -> Node:
    events = [Node(Kind.EVENT, f"e{n}-{k}") for k in range(2)]
    clips = [Node(Kind.CLIP, f"c{n}-{k}") for k in range(2)]
    dataset, run, model = Node(Kind.DATASET, f"d{n}"), Node(Kind.RUN, f"r{n}"), Node(Kind.MODEL, f"m{n}")
    bundle, release = Node(Kind.BUNDLE, f"b{n}"), Node(Kind.RELEASE, f"{n}")
    lineage.link_all(zip(events, clips, strict=True))
    lineage.link(clips, dataset)
    lineage.link([dataset, *([base_model] if base_model else [])], run)
    lineage.link([run], model)
    lineage.link([model], bundle)
    lineage.link([bundle], release)
    lineage.link([release], Node(Kind.VEHICLE, "v1"))
    return model


def test_lineage_reaches_from_an_event_to_the_vehicles_over_turns(lineage: Lineage) -> None:
    first = _turn(lineage, 1, None)
    _turn(lineage, 2, first)
    event = Node(Kind.EVENT, "e1-0")
    assert lineage.descendants(event, Kind.RELEASE) == [Node(Kind.RELEASE, "1"), Node(Kind.RELEASE, "2")]
    assert lineage.descendants(event, Kind.VEHICLE) == [Node(Kind.VEHICLE, "v1")]
    assert lineage.ancestors(Node(Kind.RELEASE, "1"), Kind.EVENT) == [event, Node(Kind.EVENT, "e1-1")]
    assert len(lineage.ancestors(Node(Kind.RELEASE, "2"), Kind.CLIP)) == 4
    assert lineage.parents(Node(Kind.RUN, "r2")) == [Node(Kind.DATASET, "d2"), first]


def test_an_edge_is_recorded_once_and_nothing_of_a_refused_set(lineage: Lineage) -> None:
    run, model, dataset = Node(Kind.RUN, "r"), Node(Kind.MODEL, "m"), Node(Kind.DATASET, "d")
    lineage.link([run], model)
    lineage.link([run], model)
    assert lineage.descendants(run) == [model]
    with pytest.raises(Refused, match="a clip is made from"):
        lineage.link_all([(dataset, run), (run, Node(Kind.CLIP, "c"))])
    with pytest.raises(Refused, match="those were made from it"):
        lineage.link([dataset, model], run)
    with pytest.raises(Refused, match="needs an id"):
        lineage.link([Node(Kind.RUN, "")], model)
    assert lineage.ancestors(run) == []


def test_what_is_forgotten_has_no_edges_and_what_it_taught_stays(lineage: Lineage) -> None:
    _turn(lineage, 1, None)
    clip_node = Node(Kind.CLIP, "c1-0")
    learned = lineage.descendants(clip_node, Kind.MODEL)
    lineage.forget(clip_node)
    assert learned == [Node(Kind.MODEL, "m1")]
    assert lineage.descendants(clip_node) == []
    assert lineage.ancestors(Node(Kind.MODEL, "m1"), Kind.CLIP) == [Node(Kind.CLIP, "c1-1")]


def test_a_locked_database_asks_for_a_retry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("registry.database.BUSY_MS", 10)
    one, other = Lineage(tmp_path / "l.db"), Lineage(tmp_path / "l.db")
    with one._database.transaction(), pytest.raises(Retry, match="locked"):
        other.link([Node(Kind.RUN, "r")], Node(Kind.MODEL, "m"))
