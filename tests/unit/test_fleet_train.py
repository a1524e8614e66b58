"""`fleet model data`, `train` and `convert`: from drives or clips to a model, told plainly, stopped and gone
on."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet import train as training
from fleet.sample_data import BadChoice, FromClips, FromExpert, run_data
from fleet.train import overridden, reader, run_convert, run_train, stopping
from model.checkpoint import BadCheckpoint, load
from model.config import BadConfig
from model.recipes import quick
from model.rig import THREE_CAMERAS, BadRig
from model.shards import BadDataset, BadShard, open_dataset, read_shard, write
from registry.backends import LocalBackend
from registry.datasets import DatasetClip, make_dataset, save_dataset
from registry.errors import Retry
from registry.store import Store
from simulation.labels import LABELLERS
from tests.unit.model_samples import some_samples
from tests.unit.test_job_clips import clip_bytes

SETTINGS = ["steps=6", "batch=8", "warmup_steps=1", "keep_every=3", "threads=1"]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("data")
    write(LocalBackend(folder, durable=False), [some_samples(60)], THREE_CAMERAS, frames=16)
    return str(folder)


def told(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_drives_become_a_dataset_with_labels_and_history(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_data(str(tmp_path), FromExpert(10, 1, "dashcam-1", "base", "train"), 100, as_json=True)
    facts = told(capsys)
    dataset = open_dataset(LocalBackend(tmp_path))
    assert (facts["frames"], facts["shards"], facts["version"]) == (190, 2, dataset.version)
    assert dataset.rig.name == "dashcam-1"
    first = read_shard(LocalBackend(tmp_path), dataset.shards[0], dataset.rig)
    assert set(first.labels) == set(LABELLERS)
    assert first.before is not None
    assert list(first.before[:3]) == [-1, 0, 1]


def test_clips_become_a_dataset_and_unreadable_ones_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path / "store")
    contents = [clip_bytes("c0", 0), b"no clip", clip_bytes("c2", 2)]
    clips = [DatasetClip(f"c{i}", store.put(content).sha256, f"v{i}") for i, content in enumerate(contents)]
    version = save_dataset(store, make_dataset(clips))
    run_data(str(tmp_path / "data"), FromClips(str(tmp_path / "store"), version), 512, as_json=True)
    said = capsys.readouterr()
    assert "c1 left out" in said.err
    assert json.loads(said.out)["frames"] > 0
    nothing = save_dataset(store, make_dataset(clips[1:2]))
    with pytest.raises(BadChoice, match="none of the 1 training clips"):
        run_data(str(tmp_path / "none"), FromClips(str(tmp_path / "store"), nothing), 512, as_json=True)


@pytest.mark.parametrize(
    ("source", "error", "said"),
    [
        (FromExpert(10, 1, "tank", "base", "train"), BadRig, "three-96x48"),
        (FromExpert(10, 1, "dashcam-1", "moon", "train"), BadChoice, "no conditions .*there are base"),
        (FromExpert(10, 1, "dashcam-1", "base", "fleet"), BadChoice, "train and heldout"),
        (FromClips("somewhere", ""), BadChoice, "need both"),
    ],
)
def test_sources_that_are_none_are_refused(source: Any, error: type[Exception], said: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=said):
        run_data(str(tmp_path), source, 10, as_json=True)


def test_a_run_tells_its_end_keeps_a_log_and_is_only_read_the_next_time(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_train("quick", url, tmp_path, 1, SETTINGS, None, as_json=True) == 0
    facts = told(capsys)
    assert (facts["recipe"], facts["steps"], facts["steps_here"], facts["processes"]) == ("quick", 6, 6, 1)
    assert load(tmp_path / "model.safetensors", facts["sha256"]).network == quick().network
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [6]
    assert lines[0]["skipped"] == 0
    assert run_train("quick", url, tmp_path, 1, SETTINGS, None, as_json=True) == 0
    again = told(capsys)
    assert (again["sha256"], again["steps_here"], again["loss"]) == (facts["sha256"], 0, None)


def test_stopped_it_says_so_and_goes_on(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_train("quick", url, tmp_path / "whole", 1, SETTINGS, None, as_json=True)
    whole = told(capsys)["sha256"]
    seen: list[int] = []
    report = training._Report._step

    def press(self: Any, step: Any) -> None:
        report(self, step)
        seen.append(step.done)
        if step.done == 2:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(training._Report, "_step", press)
    assert run_train("quick", url, tmp_path / "parts", 1, SETTINGS, None, as_json=True) == 130
    assert "stopped after step 3 of 6; the same command goes on" in capsys.readouterr().err
    assert run_train("quick", url, tmp_path / "parts", 1, SETTINGS, None, as_json=True) == 0
    assert told(capsys)["sha256"] == whole
    assert seen == [1, 2, 3, 4, 5, 6]


def test_a_signal_is_heeded_once_and_then_as_it_ever_was() -> None:
    before = signal.getsignal(signal.SIGINT)
    with stopping() as stop:
        assert not stop()
        os.kill(os.getpid(), signal.SIGINT)
        assert stop()
        assert signal.getsignal(signal.SIGINT) is before
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_weights_of_a_file_are_begun_with_and_converted_both_ways(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_train("quick", url, tmp_path / "a", 1, SETTINGS, None, as_json=True)
    start = tmp_path / "a" / "model.safetensors"
    run_train("quick", url, tmp_path / "b", 1, SETTINGS, start, as_json=True)
    assert start.read_bytes() != (tmp_path / "b" / "model.safetensors").read_bytes()
    capsys.readouterr()
    run_convert(tmp_path / "a" / "checkpoints" / "step-00000003", tmp_path / "at-3.safetensors", as_json=True)
    assert told(capsys)["checkpoint"] == str(tmp_path / "at-3.safetensors")
    assert load(tmp_path / "at-3.safetensors").step == 3
    run_convert(tmp_path / "at-3.safetensors", tmp_path / "folder", as_json=False)
    assert capsys.readouterr().out.strip() == str(tmp_path / "folder" / "step-00000003")
    with pytest.raises(BadCheckpoint, match="cannot be read"):
        run_convert(tmp_path / "absent", tmp_path / "x", as_json=False)


def test_wrong_words_are_named(url: str, tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="no recipe 'huge'"):
        run_train("huge", url, tmp_path, 1, [], None, as_json=True)
    with pytest.raises(BadDataset, match="no dataset was written here"):
        run_train("quick", str(tmp_path / "absent"), tmp_path, 1, [], None, as_json=True)
    for setting, said in (
        ("step=3", "no such field; there are steps"),
        ("balance=3", "no such field"),
        ("steps=many", "steps is of type int"),
        ("bf16=maybe", "bf16 is of type bool"),
        ("steps=0", "steps 0 must be above 0"),
    ):
        with pytest.raises(BadConfig, match=said):
            overridden(quick().clone, [setting])
    changed = overridden(quick().clone, ["steps=3", "peak_rate=1e-4", "recompute=true"])
    assert (changed.steps, changed.peak_rate, changed.recompute) == (3, 1e-4, True)


def test_a_shard_that_cannot_be_read_just_now_is_asked_for_again(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "READ_WAIT_S", 0.0)
    dataset = open_dataset(LocalBackend(Path(url)))
    fails: list[int] = []

    class Flaky(LocalBackend):
        def read(self, key: str) -> Iterator[bytes]:
            fails.append(1)
            if len(fails) % 3:
                raise Retry("busy")
            return super().read(key)

    assert len(reader(Flaky(Path(url)), dataset.rig)(dataset.shards[0])) == 16
    assert len(fails) == 3

    class Away(LocalBackend):
        def read(self, key: str) -> Iterator[bytes]:
            raise Retry("away")

    with pytest.raises(Retry, match="away"):
        reader(Away(Path(url)), dataset.rig)(dataset.shards[0])


def test_a_damaged_shard_ends_the_run_and_is_named(tmp_path: Path) -> None:
    write(LocalBackend(tmp_path / "data"), [some_samples(20)], THREE_CAMERAS, frames=10)
    shard = tmp_path / "data" / "part-00001.safetensors"
    shard.write_bytes(shard.read_bytes()[:-5])
    with pytest.raises(BadShard, match="part-00001"):
        run_train("quick", str(tmp_path / "data"), tmp_path / "out", 1, SETTINGS, None, as_json=True)
    assert not (tmp_path / "out" / "model.safetensors").exists()
