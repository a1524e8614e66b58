"""`fleet simulate`: pictures and videos that open, of instants that tell."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from fleet.simulate import BEFORE_S, CAPTION_PX, ENLARGED, caption, rig_for, run_simulate, telling_s
from model.rig import THREE_CAMERAS, VAN
from simulation.scenarios import SCENARIOS, condition, scene
from simulation.world import World


def _run(name: str, out: Path, **changes: object) -> None:
    words: dict[str, object] = {
        "seed": 1, "seconds": 1.0, "region": "", "weather": "", "time_of_day": "", "fault": "", "rig": "",
        "out": out, "video": True, "as_json": True,
    }  # fmt: skip
    run_simulate(name, **(words | changes))  # type: ignore[arg-type]


def test_a_scenario_becomes_a_picture_and_a_video(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _run("opening_door", tmp_path, region="uk", seconds=7.0)
    (told,) = json.loads(capsys.readouterr().out)
    assert told["region"] == "uk"
    assert told["rule"] == "pass with room"
    assert told["disengagements"] == 0
    picture = np.asarray(Image.open(tmp_path / told["picture"]))
    assert picture.shape == (48 * ENLARGED + CAPTION_PX, 3 * 96 * ENLARGED, 3)
    assert picture[CAPTION_PX:].std() > 20
    assert picture[:CAPTION_PX].max() > 200, "a caption is written"
    with av.open(str(tmp_path / told["video"])) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert 30 <= len(frames) <= 36, "seven seconds at five pictures a second"
    assert np.abs(frames[0].astype(int) - frames[-1]).mean() > 5, "it moves"


def test_what_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown scenario 'zebra'; known: base"):
        _run("zebra", tmp_path)
    with pytest.raises(ValueError, match="unknown rig 'bus'; known: dashcam-1"):
        _run("base", tmp_path, rig="bus")
    assert not list(tmp_path.iterdir()), "nothing is written before all words are understood"


def test_who_comes_from_behind_is_looked_for_behind() -> None:
    assert rig_for(condition("emergency_vehicle"), "") is VAN
    assert rig_for(condition("roundabout"), "") is THREE_CAMERAS
    assert rig_for(condition("roundabout"), "van-6") is VAN


def test_the_telling_instant_is_one_of_the_scenario() -> None:
    chosen = scene("roadworks", 3)
    at_s = telling_s(chosen)
    world = World([chosen], None)
    while world.time_s < at_s:
        world.step(world.expert().trajectory)
    assert world.status().encounter == ("roadworks",)
    assert world.cast
    assert abs(world.cast.closed[0, 0] - world.front_s[0]) < 40
    assert telling_s(scene("snow", 1)) >= 0
    assert BEFORE_S > 0


def test_long_captions_are_cut_to_the_picture() -> None:
    assert caption("word " * 200, 120).shape == (CAPTION_PX, 120, 3)
    assert len(SCENARIOS) >= 12
