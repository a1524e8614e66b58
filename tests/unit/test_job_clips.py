"""From archived clips to samples: curate, label, check, and the samples files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from edge.agent.clip import encode_clip
from edge.agent.frame import Frame
from jobs import samples as sample_files
from jobs.check import check, judge, problem
from jobs.context import Curation, JobContext, Places, Settings
from jobs.curate import choose, curate
from jobs.documents import ClipFacts
from jobs.label import ClipLabels, hindsight, is_plausible, label, label_clip, pack, unpack
from jobs.naming import DATASET
from jobs.recorded import from_folder
from jobs.step import Work, no_progress
from model.data import BadSamples, samples_from_arrays
from model.rig import THREE_CAMERAS, Rig
from model.samples_file import open_file, save
from registry.clips import ClipFrames, ClipIndex, read_clip
from registry.datasets import DatasetClip, load_dataset
from registry.errors import Corrupt
from registry.models import ModelVersion
from registry.store import Store
from streams.contracts.clips import ArchivedClip
from streams.contracts.ids import digest
from streams.contracts.jobs import JobRequested
from streams.contracts.odd import SPEED, YAW_RATE
from tests.unit.clip_bytes import whole_clip
from tests.unit.model_samples import labelled, some_samples

NOW_NS = 1_700_000_000_000_000_000
CAMERAS = ("left", "front", "right")


def circle(clip_id: str = "c1", *, driver: bool = True, engaged: int = 0, speed: float = 8.0) -> ClipFrames:
    """4 s on a circle to the left at 0.2 rad/s, the policy engaged in the first `engaged` frames."""
    rng = np.random.default_rng(3)
    way = arc(speed, 0.2) if driver else None
    frames = tuple(
        Frame(
            time_ns=NOW_NS + i * 200_000_000,
            signals={SPEED: speed * 3.6, YAW_RATE: float(np.degrees(0.2))},
            images=rng.integers(0, 255, (3, 48, 96, 3), dtype=np.uint8),
            cameras=CAMERAS,
            engaged=i < engaged,
            driver_plan_m=way,
        )
        for i in range(20)
    )
    return read_clip(encode_clip(frames, {"clip_id": clip_id}), clip_id)


def arc(speed: float, yaw_rate: float) -> NDArray[np.float32]:
    """The closed form of a circle: 8 waypoints every 0.3 s."""
    angle = yaw_rate * 0.3 * np.arange(1, 9)
    radius = speed / yaw_rate
    return np.stack([radius * np.sin(angle), radius * (1 - np.cos(angle))], 1).astype(np.float32)


def member(clip_id: str = "c1", vehicle: str = "v1", split: str = "train") -> DatasetClip:
    return DatasetClip(clip_id, digest(clip_id), vehicle, split)


def test_hindsight_is_the_way_that_was_driven() -> None:
    target, valid = hindsight(circle(driver=False))
    assert valid.all(1).sum() == 8  # 3.8 s of clip, 2.4 s ahead
    np.testing.assert_allclose(target[valid.all(1)], np.broadcast_to(arc(8.0, 0.2), (8, 8, 2)), atol=0.02)
    assert not valid[-1].any()


def test_the_policys_own_driving_is_no_label() -> None:
    frames = circle(driver=False, engaged=5)
    _, valid = hindsight(frames)
    assert not valid[:5].any()
    assert valid[5].all()
    facts, labels = label_clip(frames, member())
    assert (facts.source, facts.labelled) == ("hindsight", 3)
    assert list(np.flatnonzero(labels.valid)) == [5, 6, 7]
    facts, _ = label_clip(circle(driver=False, engaged=20), member())
    assert (facts.source, facts.labelled) == ("", 0)


def test_the_drivers_plan_comes_first_and_is_compared_with_what_he_did() -> None:
    facts, labels = label_clip(circle(), member())
    assert (facts.source, facts.labelled, facts.frames, facts.implausible) == ("driver", 20, 20, 0)
    assert facts.driven_error_m < 0.05
    np.testing.assert_allclose(labels.target[0], arc(8.0, 0.2), atol=2e-3)
    frames = circle()
    turned = frames.driver_m * np.array([1, -1], np.float32)  # he says right and goes left
    facts, _ = label_clip(replace(frames, driver_m=turned), member())
    assert facts.driven_error_m > 3.0
    assert "beside what the driver did" in problem(facts, THREE_CAMERAS)


def test_labels_that_contradict_the_speed_are_not_plausible() -> None:
    way = np.stack([arc(8.0, 0.2), arc(8.0, 0.2) * 3, np.full((8, 2), 0.0, np.float32)])
    assert is_plausible(way, np.full(3, 8.0)).tolist() == [True, False, False]
    facts, labels = label_clip(replace(circle(), driver_m=np.zeros((20, 8, 2), np.float32)), member())
    assert (facts.labelled, facts.implausible) == (0, 20)
    assert not labels.valid.any()


def test_what_is_not_finite_is_counted_not_learnt() -> None:
    frames = circle()
    hurt = frames.driver_m.copy()
    hurt[3, 2, 0] = np.nan
    speed = dict(frames.signals)
    speed[SPEED] = frames.signals[SPEED].copy()
    speed[SPEED][7:12] = np.nan
    facts, labels = label_clip(replace(frames, driver_m=hurt, signals=speed), member())
    assert (facts.not_finite, facts.labelled) == (6, 14)
    assert np.isfinite(labels.target).all()
    assert "6 frames without motion" in problem(facts, THREE_CAMERAS)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ({"images": np.zeros((20, 3, 48, 96, 3), np.uint8)}, "images show nothing"),
        ({"images": np.tile(circle().images[:1], (20, 1, 1, 1, 1))}, "stand still"),
        ({"times_ns": circle().times_ns + np.arange(20) // 10 * 2_000_000_000}, "2.2 s without an image"),
    ],
)
def test_broken_clips_are_found(broken: dict[str, NDArray[np.generic]], reason: str) -> None:
    facts, _ = label_clip(replace(circle(), **broken), member())  # type: ignore[arg-type]
    assert reason in problem(facts, THREE_CAMERAS)


def test_a_good_clip_has_no_problem_and_another_rig_has() -> None:
    facts, _ = label_clip(circle(), member())
    assert problem(facts, THREE_CAMERAS) == ""
    assert "rig" in problem(facts, Rig("one", THREE_CAMERAS.cameras[1:2]))
    assert (
        problem(ClipFacts("c", "v", "train", 1.0, unreadable="byte 7"), THREE_CAMERAS)
        == "it cannot be read: byte 7"
    )


def test_labels_survive_their_file() -> None:
    labels = {
        "b": ClipLabels(np.ones((3, 8, 2), np.float32), np.array([True, False, True])),
        "a": ClipLabels(np.zeros((1, 8, 2), np.float32), np.array([False])),
    }
    there = unpack(pack(labels))
    assert sorted(there) == ["a", "b"]
    assert there["b"].valid.tolist() == [True, False, True]
    assert (there["b"].target == 1).all()
    assert unpack(pack({})) == {}


def test_one_vehicle_does_not_teach_alone() -> None:
    fact, _ = label_clip(circle(), member())
    facts = [
        msgspec.structs.replace(fact, clip_id=f"c{i}", vehicle="v0" if i < 30 else f"v{i}") for i in range(42)
    ]
    judgement = judge(facts, Curation(poison_share=0.25))
    assert judgement.cut_down == {"v0": pytest.approx(4 / 30)}
    assert sum(judgement.weights[f"c{i}"] for i in range(30)) == pytest.approx(0.25 * (12 + 4))


class Fleet:
    """A store with an index of clips."""

    def __init__(self, folder: Path, **curation: float) -> None:
        names = ("store", "clips.db", "lineage.db", "mlflow.db", "releases", "keys", "scratch")
        settings = Settings(curation=Curation(**curation))  # type: ignore[arg-type]
        self.context = JobContext(Places(*(str(folder / n) for n in names)), settings)
        self.store = Store(folder / "store")
        self.index = ClipIndex(folder / "clips.db")
        self.base_model = ""

    def add(self, clip_id: str, vehicle: str, data: bytes) -> None:
        sha256 = self.store.put(data).sha256
        self.index.add(
            ArchivedClip(clip_id, f"e-{clip_id}", vehicle, NOW_NS, "x", sha256, len(data), "de", "cell", "sample")
        )

    def work(self, clips: list[str], **inputs: msgspec.Struct) -> Work:
        request = JobRequested(digest(*clips), "learn", NOW_NS, self.base_model, "quick", clips)
        return Work(request, self.context, {n: msgspec.to_builtins(d) for n, d in inputs.items()}, NOW_NS)


def clip_bytes(clip_id: str, seed: int = 0) -> bytes:
    rng = np.random.default_rng(seed)
    return encode_clip(
        tuple(
            Frame(
                NOW_NS + i * 200_000_000,
                {SPEED: 28.8, YAW_RATE: float(np.degrees(0.2))},
                rng.integers(0, 255, (3, 48, 96, 3), dtype=np.uint8),
                CAMERAS,
                driver_plan_m=arc(8.0, 0.2),
            )
            for i in range(20)
        ),
        {"clip_id": clip_id},
    )


def test_from_archive_to_samples(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, validation_share=0.0)
    for i in range(5):
        fleet.add(f"c{i}", f"v{i}", clip_bytes(f"c{i}", i))
    fleet.add("torn", "v5", clip_bytes("torn", 9)[:-3000])
    fleet.add("liar", "v6", clip_bytes("c77", 10))
    asked = [*(f"c{i}" for i in range(5)), "torn", "liar", "never-came"]
    chosen = curate(fleet.work(asked))
    assert (chosen.clips, chosen.vehicles, chosen.verdict) == (7, 7, "pass")
    assert chosen.left_out == {"never-came": "it is not archived"}
    labelled = label(fleet.work(asked, curate=chosen))
    assert (labelled.clips, labelled.frames, labelled.labelled) == (7, 100, 100)
    checked = check(fleet.work(asked, curate=chosen, label=labelled))
    assert (checked.clips, checked.verdict) == (5, "pass")
    assert sorted(checked.excluded) == ["liar", "torn"]
    assert all("cannot be read" in reason for reason in checked.excluded.values())
    dataset = load_dataset(fleet.store, checked.dataset)
    assert dataset.parents == (chosen.dataset,)
    learnt = sample_files.from_clips(
        fleet.store, dataset.clips, unpack(fleet.store.get(labelled.labels)), no_progress
    )
    assert (len(learnt), learnt.sources) == (100, tuple(f"c{i}" for i in range(5)))
    np.testing.assert_allclose(learnt.target[57], arc(8.0, 0.2), atol=2e-3)
    assert learnt.speed_mps[0] == pytest.approx(8.0)
    clip = read_clip(fleet.store.get(dataset.clips[0].sha256))
    assert clip.cameras == ("front", "left", "right")  # it names no rig: the model's order is left, front, right
    assert (learnt.images[0] == clip.images[0, [1, 0, 2]]).all()
    assert learnt.before is not None
    assert learnt.before[:3].tolist() == [-1, 0, 1]
    assert (learnt.before < 0).sum() == 5, "a clip knows nothing of what came before it"
    few = sample_files.from_clips(
        fleet.store, dataset.clips, unpack(fleet.store.get(labelled.labels)), no_progress, most=30
    )
    assert len(few) == 30


def test_a_folder_of_clips_is_read_as_a_job_reads_them(tmp_path: Path) -> None:
    for i in range(2):
        (tmp_path / f"c{i}.mcap").write_bytes(clip_bytes(f"c{i}", i))
    learnt = from_folder(tmp_path, no_progress)
    assert learnt.sources == ("c0", "c1")
    np.testing.assert_allclose(learnt.target[27], arc(8.0, 0.2), atol=2e-3)
    (tmp_path / "other.mcap").write_bytes(whole_clip())
    with pytest.raises(BadSamples, match="clip clip-1 must not be learnt from: its cameras"):
        from_folder(tmp_path, no_progress)
    (tmp_path / "other.mcap").write_bytes(clip_bytes("c1", 1))
    with pytest.raises(BadSamples, match="another file holds it too"):
        from_folder(tmp_path, no_progress)
    (tmp_path / "other.mcap").write_bytes(clip_bytes("other")[:-3000])
    with pytest.raises(Corrupt):
        from_folder(tmp_path, no_progress)


class Taught:
    """A registry of models in which each names the dataset it was taught from."""

    def __init__(self, datasets: dict[str, str]) -> None:
        self.datasets = datasets

    def version(self, id_: str) -> ModelVersion:
        tags = {DATASET: self.datasets[id_]} if id_ in self.datasets else {}
        return ModelVersion("m", 1, "run", "fingerprint", {}, tags)


def test_what_the_base_model_was_taught_is_shown_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = Fleet(tmp_path, validation_share=0.0)
    for i in range(4):
        fleet.add(f"c{i}", f"v{i}", f"clip {i}".encode())
    first = curate(fleet.work(["c0", "c1"]))
    monkeypatch.setattr("jobs.curate.open_models", lambda work: Taught({"m-1": first.dataset}))
    fleet.base_model = "m-1"
    second = load_dataset(fleet.store, curate(fleet.work(["c2", "c3"])).dataset)
    assert [c.clip_id for c in second.clips] == ["c0", "c1", "c2", "c3"]
    assert second.parents == (first.dataset,)
    fleet.index.remove("c1")
    erased = load_dataset(fleet.store, curate(fleet.work(["c2"])).dataset)
    assert [c.clip_id for c in erased.clips] == ["c0", "c2"], "an erased clip does not come back"
    fleet.base_model = "m-0"
    fresh = load_dataset(fleet.store, curate(fleet.work(["c3"])).dataset)
    assert [c.clip_id for c in fresh.clips] == ["c3"], "a first model was taught from no clip"


def test_nothing_to_learn_from_ends_the_job(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    chosen = curate(fleet.work(["gone"]))
    assert (chosen.verdict, chosen.reasons) == ("fail", ["0 clips to train on; at least 1 are needed"])
    with pytest.raises(BadSamples, match="none of 0 clips"):
        sample_files.from_clips(fleet.store, [], {}, no_progress)


def test_splits_keep_vehicles_apart() -> None:
    clips = [
        ArchivedClip(f"c{i}", f"e{i}", f"v{i % 40}", NOW_NS, "x", digest(str(i)), 9, "de", "cell")
        for i in range(200)
    ]
    chosen = choose(clips, Curation(validation_share=0.2)).clips
    by_split = {s: {c.vehicle for c in chosen if c.split == s} for s in ("train", "validation")}
    assert not by_split["train"] & by_split["validation"]
    assert 2 <= len(by_split["validation"]) <= 16


def test_samples_files_are_read_in_place(tmp_path: Path) -> None:
    frames = circle()
    made = [
        samples_from_arrays(
            np.ascontiguousarray(frames.images + i),
            speed_mps=frames.speed_mps,
            yaw_rate_radps=frames.yaw_rate_radps,
            command=frames.command,
            target=frames.driver_m,
            source=f"base-{i}",
        )
        for i in range(2)
    ]
    store = Store(tmp_path / "store")
    names = []
    for i, samples in enumerate(made):
        save(samples, tmp_path / f"{i}.safetensors")
        names.append(store.put_file(tmp_path / f"{i}.safetensors").sha256)
    parts = sample_files.fetch(store, names, tmp_path / "cache")
    assert isinstance(parts[0].images, np.memmap)
    assert (parts[1].images == made[1].images).all()
    some = sample_files.subset(parts, 25, seed=1)
    assert (len(some), some.sources) == (25, ("base-0", "base-1"))
    assert (some.weight == 1).all()
    again = sample_files.subset(parts, 25, seed=1)
    assert (some.images == again.images).all()
    everything = sample_files.subset(parts, 1000, seed=1)
    assert (everything.images == np.concatenate([m.images for m in made])).all()
    assert everything.source.tolist() == [0] * 20 + [1] * 20
    (tmp_path / "bad").write_bytes(b"nothing")
    with pytest.raises(BadSamples, match="bad: not a file of samples"):
        open_file(tmp_path / "bad")


def test_files_keep_labels_and_what_came_before(tmp_path: Path) -> None:
    samples = replace(labelled(some_samples(8, "drive")), before=np.arange(8) - 1)
    save(samples, tmp_path / "a.safetensors")
    save(some_samples(4, "bare"), tmp_path / "b.safetensors")
    parts = [open_file(tmp_path / f"{name}.safetensors") for name in "ab"]
    for name, kept in samples.labels.items():
        np.testing.assert_array_equal(parts[0].labels[name], kept)
    assert parts[0].before is not None
    assert parts[0].before.tolist() == list(range(-1, 7))
    assert parts[1].before is None
    assert not parts[1].labels
    some = sample_files.subset(parts, 100, seed=0, instants=2)
    assert some.images.shape[:2] == (12, 6)
    np.testing.assert_array_equal(some.images[3, 3:], samples.images[2])
    assert some.past is not None
    np.testing.assert_array_equal(some.past[1:8, 0, 0], samples.speed_mps[:7])
    assert np.isnan(some.past[8:]).all()
    np.testing.assert_array_equal(some.labels["risk"], [*samples.labels["risk"], -1, -1, -1, -1])
    assert sample_files.subset(parts, 100, seed=0).past is None
