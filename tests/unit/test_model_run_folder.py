"""Checkpoints of a run: whole or not there, turned into a file and back, and never taken for another's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model.checkpoint import BadCheckpoint, Checkpoint, to_bytes
from model.recipes import quick
from model.run_folder import (
    KEPT,
    MANIFEST,
    Manifest,
    Standing,
    from_checkpoint,
    keep,
    newest,
    read_manifest,
    restore,
    to_checkpoint,
)
from model.training import initial

NETWORK = quick().network


def checkpoint_at(step: int) -> Checkpoint:
    fresh = initial(NETWORK, step)
    moments = {
        f"{name}.{m}": torch.rand_like(t) for name, t in fresh.weights.items() for m in ("exp_avg", "exp_avg_sq")
    }
    return replace(fresh, step=step, optimizer=moments)


def put(folder: Path, step: int, interim: bool = False) -> Path:
    manifest = Manifest(NETWORK, Standing(step, step), {"seed": 1}, interim)
    return keep(folder, initial(NETWORK, step).weights, manifest)


def test_a_checkpoint_becomes_a_folder_and_a_file_again(tmp_path: Path) -> None:
    before = checkpoint_at(7)
    path = from_checkpoint(before, tmp_path)
    assert path == tmp_path / "step-00000007"
    assert to_bytes(to_checkpoint(path)) == to_bytes(before)
    assert not [p for p in path.iterdir() if p.suffix not in {".safetensors", ".json"}], "nothing is pickled"


def test_a_manifest_comes_back(tmp_path: Path) -> None:
    path = put(tmp_path, 40, interim=True)
    found = read_manifest(path)
    assert (found.network, found.standing, found.interim) == (NETWORK, Standing(40, 40), True)
    assert found.course == {"seed": 1}
    assert found.files


def test_tensors_are_filled_in_place(tmp_path: Path) -> None:
    path = put(tmp_path, 3)
    tensors = {name: torch.zeros_like(t) for name, t in initial(NETWORK, 3).weights.items()}
    restore(path, tensors)
    for name, tensor in initial(NETWORK, 3).weights.items():
        assert torch.equal(tensors[name], tensor)


def test_only_the_newest_stay_and_of_the_interim_ones_what_is_newer_still(tmp_path: Path) -> None:
    for step, interim in ((0, False), (10, False), (13, True), (20, False), (27, True)):
        put(tmp_path, step, interim)
    assert sorted(p.name[-2:] for p in tmp_path.iterdir()) == ["10", "20", "27"]
    put(tmp_path, 30)
    assert sorted(p.name[-2:] for p in tmp_path.iterdir()) == ["20", "30"]
    assert KEPT == 2


def test_the_same_step_again_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    put(tmp_path, 10)
    path = keep(tmp_path, initial(NETWORK, 99).weights, Manifest(NETWORK, Standing(10, 9)))
    assert read_manifest(path).standing.applied == 9
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000010"]


def _cut(path: Path) -> None:
    shard = next(path.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-10])


def _flip(path: Path) -> None:
    shard = next(path.glob("*.safetensors"))
    content = shard.read_bytes()
    shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def _lose(path: Path) -> None:
    next(path.glob("*.safetensors")).unlink()


def _no_manifest(path: Path) -> None:
    (path / MANIFEST).unlink()


def _half_manifest(path: Path) -> None:
    text = (path / MANIFEST).read_text()
    (path / MANIFEST).write_text(text[: len(text) // 2])


def _foreign(path: Path) -> None:
    (path / MANIFEST).write_text(json.dumps({"format": "other/1"}))


DAMAGES: list[Callable[[Path], None]] = [_cut, _flip, _lose, _no_manifest, _half_manifest, _foreign]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_told_and_the_one_before_is_taken(
    damage: Callable[[Path], None], tmp_path: Path
) -> None:
    good, bad = put(tmp_path, 10), put(tmp_path, 20)
    damage(bad)
    told: list[str] = []
    found = newest(tmp_path, told.append)
    assert found is not None
    assert found[0] == good
    assert len(told) == 1
    assert "step-00000020" in told[0]
    with pytest.raises(BadCheckpoint, match="step-00000020"):
        to_checkpoint(bad)


@pytest.mark.parametrize("damage", DAMAGES)
def test_where_all_are_damaged_nothing_is_begun_anew_in_silence(
    damage: Callable[[Path], None], tmp_path: Path
) -> None:
    damage(put(tmp_path, 10))
    with pytest.raises(BadCheckpoint, match=r"no checkpoint in .* can be used: .*step-00000010"):
        newest(tmp_path, lambda text: None)


def test_where_there_is_none_there_is_none(tmp_path: Path) -> None:
    assert newest(tmp_path / "absent", print) is None
    put(tmp_path, 5, interim=True)
    assert newest(tmp_path, print, interim=False) is None


def test_what_a_killed_writer_left_is_no_checkpoint_and_is_written_over(tmp_path: Path) -> None:
    path = put(tmp_path, 10)
    path.rename(tmp_path / ".step-00000010.partial")
    assert newest(tmp_path, print) is None
    put(tmp_path, 10)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000010"]


def test_weights_of_another_network_do_not_fit(tmp_path: Path) -> None:
    path = put(tmp_path, 3)
    other = initial(replace(NETWORK, width=64), 3).weights
    with pytest.raises(BadCheckpoint, match="step-00000003 does not fit"):
        restore(path, {name: tensor.clone() for name, tensor in other.items()})
    with pytest.raises(BadCheckpoint, match="does not fit"):
        restore(path, {"unknown": torch.zeros(3)})


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        put(tmp_path / "file", 1)
    shutil.rmtree(tmp_path)
