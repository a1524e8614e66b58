"""`fleet model dream`: videos that open, samples that a model learns from, and clear refusals."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from fleet.dream import CORRECTABLE_M, Asked, TooEarly, bad_dream, run_dream
from model.checkpoint import BadCheckpoint
from model.config import NetworkConfig, TrainingConfig
from model.data import BadSamples
from model.dream_training import initial_world
from model.rig import THREE_CAMERAS, BadRig
from model.samples_file import open_file
from model.sequences import CONTEXT
from model.training import train
from model.world_file import save_world
from model.world_model import WorldConfig
from simulation.drives import Drives, empty_drives
from simulation.manoeuvres import BadManoeuvre
from simulation.scenarios import UnknownName
from tests.conftest import fleet


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("world") / "world.safetensors"
    save_world(initial_world(WorldConfig(width=8), 0), path)
    return path


def dream(model: Path, out: Path, **changes: object) -> None:
    words: dict[str, object] = {
        "scenario": "base", "what_if": "left", "edit": "", "seconds": 1.2, "at_s": 2.0, "seed": 1,
        "rig": "three-96x48",
    }  # fmt: skip
    run_dream(Asked(**(words | changes)), model, out, samples=True, quick=True, as_json=True)  # type: ignore[arg-type]


def test_a_dream_becomes_a_video_a_picture_and_samples(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dream(model, tmp_path, edit="oncoming", what_if="straight:0.4,left", at_s=8.0)
    told = json.loads(capsys.readouterr().out)
    assert told["video"] == "base-oncoming-straight-left.mp4"
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([told["video"], told["picture"], told["samples"]])
    with av.open(str(tmp_path / told["video"])) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert float(container.streams.video[0].average_rate or 0) == pytest.approx(10)
    assert len(frames) == 12
    assert np.asarray(Image.open(tmp_path / told["picture"])).std() > 20
    assert set(told["psnr_db"]) == {"0.1", "1.0", "1.2"}
    samples = open_file(tmp_path / told["samples"])
    assert len(samples) == told["frames"] == 6
    config = TrainingConfig(steps=2, batch=4, warmup_steps=1, threads=1)
    network = NetworkConfig(width=16, heads=2, stem_width=8, latent_depth=1, latents=2, modes=2)
    train(samples, THREE_CAMERAS, network, config, seed=1)


def test_a_dream_repeats_itself(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("one", "two"):
        dream(model, tmp_path / name, seconds=0.4)
    one, two = capsys.readouterr().out.splitlines()
    assert one == two
    for name in ("base-left.png", "base-left.samples.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.parametrize(
    ("changes", "error", "told"),
    [
        ({"scenario": "atlantis"}, UnknownName, "roundabout"),
        ({"edit": "dragon"}, UnknownName, "oncoming"),
        ({"rig": "periscope"}, BadRig, "dashcam-1"),
        ({"what_if": "fly"}, BadManoeuvre, "swerve-left"),
        ({"edit": "door"}, TooEarly, "later --at"),
    ],
)
def test_words_that_cannot_be_dreamt_are_named(
    model: Path, tmp_path: Path, changes: dict[str, object], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        dream(model, tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists(), "nothing is left behind"


def test_a_broken_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "world.safetensors"
    path.write_bytes(b"dreams")
    with pytest.raises(BadCheckpoint, match=r"world\.safetensors"):
        dream(path, tmp_path / "out")


def test_a_film_that_is_stopped_leaves_nothing(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(path: Path, *_: object) -> None:
        path.write_bytes(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr("fleet.dream.write_video", stopped)
    with pytest.raises(KeyboardInterrupt):
        dream(model, tmp_path, seconds=0.4)
    assert not list(tmp_path.glob("*.mp4"))
    assert not list(tmp_path.glob(".*"))


def a_drive(steps: int) -> Drives:
    twin = empty_drives(1, CONTEXT + steps, THREE_CAMERAS)
    for array in (twin.speed_mps, twin.yaw_rate_radps, twin.target, twin.lateral_m, twin.askew_rad):
        array[:] = 0
    twin.command[:] = 0
    return twin


def test_only_what_can_be_corrected_is_learnt_from() -> None:
    twin, images = a_drive(8), np.zeros((8, 3, 48, 96, 3), np.uint8)
    assert len(bad_dream(images, twin, "a")) == 4
    twin.speed_mps[0, :] = np.arange(10)
    np.testing.assert_array_equal(bad_dream(images, twin, "a").speed_mps, [3, 5, 7, 9])
    twin.lateral_m[0, 6:] = CORRECTABLE_M + 0.1
    kept = bad_dream(images, twin, "a")
    np.testing.assert_array_equal(kept.speed_mps, [3, 5])
    assert kept.sources == ("dream-a",)
    twin.askew_rad[:] = 1.0
    with pytest.raises(BadSamples, match="off its lane"):
        bad_dream(images, twin, "a")


def test_the_command_line_says_what_it_can_and_what_was_wrong() -> None:
    help_text = fleet("model", "dream", "--help", timeout_s=60).stdout
    for word in ("--what-if", "--edit", "--samples", "Examples", "oncoming"):
        assert word in help_text
    done = fleet("model", "dream", "atlantis", timeout_s=60)
    assert done.returncode == 1
    assert done.stderr.startswith("fleet: unknown scenario 'atlantis'")
