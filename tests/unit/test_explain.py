"""`fleet model explain`: clips of every kind are explained and drawn, and what is wrong with others is said."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from edge.agent.clip import encode_clip
from edge.agent.frame import Frame
from edge.sources.source import BadSource, rig_json
from fleet.cli import app
from fleet.explain import LINE_PX, NoModel, run_explain
from fleet.footage import BadClip, open_footage
from model.checkpoint import BadCheckpoint, save
from model.config import NetworkConfig
from model.explainer import CannotExplain
from model.grammar import CAUSES
from model.rig import THREE_CAMERAS, BadRig
from model.rules import RULES
from model.training import initial
from registry.errors import Corrupt
from streams.contracts.clock import SECOND_NS
from streams.contracts.odd import SPEED
from tests.unit.clip_bytes import whole_clip
from tests.unit.vehicle_segment import segment
from tests.unit.vehicle_video import video

CONFIG = NetworkConfig(width=32, heads=2, stem_width=8, latent_depth=1, latents=2, modes=3, language=1)
START_NS = 1_800_000_000 * SECOND_NS


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained: it says something, in whole sentences."""
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save(initial(CONFIG, 3), path)
    return path


def clip(path: Path, **metadata: str) -> Path:
    """Two seconds of driving in the dark with a lamp in the middle of the front camera."""
    frames = []
    for n in range(10):
        images = np.full((3, 48, 96, 3), 20 + n, np.uint8)
        images[1, 20:28, 44:52] = 255
        names = tuple(camera.name for camera in THREE_CAMERAS.cameras)
        frames.append(Frame(START_NS + n * SECOND_NS // 5, {SPEED: 36.0}, images, names))
    told = {"clip_id": "c-1", "region": "us", "rig": rig_json(THREE_CAMERAS)} | metadata
    path.write_bytes(encode_clip(tuple(frames), told))
    return path


def explain(what: Path | str, model: Path, out: Path, **changes: Any) -> None:
    words: dict[str, Any] = {"at_s": None, "model": model, "out": out, "seed": 1, "region": "", "weather": ""}
    run_explain(str(what), **(words | {"as_json": True} | changes))


def told_of(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert told["rule"] in RULES and told["duty"] in RULES[told["rule"]].duties
    assert any(cause.words in told["sentence"] for cause in CAUSES.values())
    assert f"rule {told['rule']} ({told['duty']})" in told["text"]
    assert 0 < told["probability"] <= 1
    assert sum(patch["share"] for patch in told["looked_at"]) <= 1.001
    return told


def test_a_vehicles_clip_is_explained_at_its_event(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = clip(tmp_path / "c-1.mcap", trigger_ns=str(START_NS + 1_400_000_000))
    explain(path, model, tmp_path / "out")
    told = told_of(capsys)
    assert told["time_s"] == 1.4 and told["truth"] == "" and told["warnings"] == []
    picture = np.asarray(Image.open(told["picture"]))
    height, width = 48 * 4, 3 * 96 * 4
    assert picture.shape[1] == width and picture.shape[0] > height + 3 * LINE_PX
    front = picture[-height:, width // 3 : 2 * width // 3]
    assert front[90:100, 180:200].min(axis=2).max() > 140, "the lamp, reddened or not"
    spread = np.ptp(picture[-height:, :, 0].astype(int) - picture[-height:, :, 2])
    assert spread > 30, "what was looked at is red"
    assert told["periods"][0]["from_s"] == 0 and told["periods"][-1]["to_s"] == 1.8
    explain(path, model, tmp_path / "out", at_s=0.2, as_json=False)
    printed = capsys.readouterr().out
    assert "c-1.mcap, 0.2 s" in printed and "looked at" in printed and "rule " in printed


def test_a_clip_without_an_event_is_explained_in_its_middle(tmp_path: Path) -> None:
    found = open_footage(str(clip(tmp_path / "x.mcap")), seed=1, region="", weather="", at_s=None)
    assert found.at_s == 1.0 and found.side == 1 and found.rig == THREE_CAMERAS
    assert found.seen.speed_mps.tolist() == [10.0] * 10


def test_a_video_is_explained_though_its_speed_is_not_known(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = video(tmp_path / "drive.mp4", [n / 10 for n in range(30)])
    explain(path, model, tmp_path)
    told = told_of(capsys)
    assert any("the model is told 10 m/s" in warning for warning in told["warnings"])
    assert Path(told["picture"]).exists()


def test_a_cut_off_video_is_explained_as_far_as_it_goes(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = video(tmp_path / "cut.ts", [n / 10 for n in range(40)])
    path.write_bytes(path.read_bytes()[: -path.stat().st_size // 3])
    explain(path, model, tmp_path)
    assert any("cut off" in warning for warning in told_of(capsys)["warnings"])


def test_of_a_long_recording_the_beginning_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fleet.footage.MOST_FRAMES", 5)
    path = video(tmp_path / "drive.mp4", [n / 10 for n in range(30)])
    found = open_footage(str(path), seed=1, region="", weather="", at_s=None)
    assert len(found.seen.images) == 5
    assert any("only the first 5 frames" in warning for warning in found.warnings)


def test_a_scenario_is_explained_with_what_the_expert_would_say(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    explain("unseen_sign", model, tmp_path, region="jp", at_s=0.6)
    told = told_of(capsys)
    assert told["name"] == "unseen_sign, jp"
    assert "Rule " in told["truth"] and "because" in told["truth"]
    assert np.asarray(Image.open(told["picture"])).shape[1] == 2 * 96 * 4


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda p: p / "nothing.mcap", BadClip, "neither a file or folder, nor a scenario; scenarios: base"),
        (lambda p: _written(p / "broken.mcap", whole_clip()[:-200]), Corrupt, "damaged near byte"),
        (lambda p: _written(p / "empty.mcap", b""), Corrupt, "damaged near byte 0"),
        (lambda p: _written(p / "text.mp4", b"not a video"), BadSource, "not a video"),
        (lambda p: _written(p / "small.mcap", whole_clip()), BadRig, "patches do not tile 16x8"),
        (lambda p: clip(p / "norig.mcap", rig=""), BadClip, "names no rig"),
        (lambda p: clip(p / "other.mcap", rig=_other_rig()), BadClip, "images are 96x48 px, its rig 192x96"),
        (lambda p: p, BadSource, "comma2k19 segment"),
        (lambda p: segment(p / "route" / "40"), BadClip, "has no images"),
    ],
)
def test_what_cannot_be_explained_says_why(
    make: Any, error: type[Exception], match: str, tmp_path: Path, model: Path
) -> None:
    with pytest.raises(error, match=match):
        explain(make(tmp_path), model, tmp_path / "out")
    assert not (tmp_path / "out").exists(), "nothing is written"


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _other_rig() -> str:
    cameras = tuple(replace(c, width_px=192, height_px=96) for c in THREE_CAMERAS.cameras)
    return rig_json(replace(THREE_CAMERAS, cameras=cameras))


def test_wrong_words_are_named(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = clip(tmp_path / "c.mcap")
    with pytest.raises(BadClip, match=r"--at 60 is not within it: it has 0\.0 to 1\.8 s"):
        explain(path, model, tmp_path, at_s=60.0)
    with pytest.raises(BadClip, match="--region and --weather are for scenarios"):
        explain(path, model, tmp_path, region="uk")
    with pytest.raises(BadCheckpoint, match="cannot be read"):
        explain(path, tmp_path / "none.safetensors", tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NoModel, match="fleet benchmark language leaves one, or give --model"):
        run_explain("base", at_s=None, model=None, out=tmp_path, seed=1, region="", weather="", as_json=True)
    mute = tmp_path / "mute.safetensors"
    save(initial(replace(CONFIG, language=0), 0), mute)
    with pytest.raises(CannotExplain, match="no language head"):
        explain(path, mute, tmp_path)


def test_the_command_passes_its_words_on(tmp_path: Path, model: Path) -> None:
    path, out = clip(tmp_path / "c.mcap"), tmp_path / "out"
    words = ["model", "explain", str(path), "--at", "0.6", "--model", str(model), "--out", str(out), "--json"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["time_s"] == 0.6
    shown = CliRunner().invoke(app, ["model", "explain", "--help"]).stdout
    assert "zebra_crossing" in shown and "--json" in shown
