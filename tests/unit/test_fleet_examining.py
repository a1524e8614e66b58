"""`fleet model examine` and `fleet model score`: a model is driven and asked, what failed is kept, nonsense is
refused in words."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest

from edge.agent.bundles import BadBundle
from fleet import examining
from fleet.examining import Asked, BadExamination, run_examine
from fleet.scoring import Asked as Scored
from fleet.scoring import run_score
from fleet.vehicle import policy_in
from model.checkpoint import load, save
from model.config import NetworkConfig
from model.labels import LABELS
from model.policy import Observation, Plan, Policy
from model.rig import THREE_CAMERAS, BadRig
from model.shards import BadDataset, write
from model.torch_policy import TorchPolicy
from model.training import initial
from registry.store import open_backend
from simulation.regressions import BadRegressions, Regression, to_bytes
from simulation.regressions import load as past_of
from simulation.suites import Row
from tests.unit.model_samples import some_samples

NETWORK = NetworkConfig(heads=2, stem_width=8, latent_depth=1, latents=2, modes=3, tags=1)
ASKED = Asked(("base",), scenes=2, seconds=8.0)


class StraightOn:
    """Ten metres a second, wherever the road goes: it leaves it."""

    def plan(self, observation: Observation) -> Plan:
        count = len(observation.speed_mps)
        ahead = np.zeros((count, 1, 8, 2), np.float32)
        ahead[..., 0] = 10.0 * 0.5 * np.arange(1, 9)
        return Plan(ahead, np.ones((count, 1), np.float32), np.ones_like(ahead), np.zeros((count, 4), np.float32))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save(initial(NETWORK, 0), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def told(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_model_is_driven_beside_the_expert(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_examine(model, ASKED, as_json=True)
    suites = told(capsys)["suites"]
    assert list(suites) == ["base"]
    assert suites["base"]["expert"]["disengagements"] == 0
    assert (
        suites["base"]["expert"]["scores"]["pdms"]["value"] > suites["base"]["policy"]["scores"]["pdms"]["value"]
    )
    run_examine(model, ASKED, as_json=False)
    assert "| base | policy |" in capsys.readouterr().out


def test_what_failed_is_kept_and_driven_again(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy: Policy = StraightOn()
    monkeypatch.setattr(examining, "policy_in", lambda *_: policy)
    asked = replace(ASKED, seconds=12.0, regressions=tmp_path / "deep" / "past.json")
    run_examine(model, asked, as_json=True)
    first = told(capsys)
    assert first["failed"] > 0 and first["replayed"] == 0
    assert asked.regressions is not None
    kept = past_of(asked.regressions)
    assert len(kept) == first["new"] <= first["failed"]
    run_examine(model, asked, as_json=True)
    again = told(capsys)
    assert (again["replayed"], again["new"]) == (len(kept), 0)
    assert again["suites"]["regressions"]["policy"]["disengagements"] > 0
    assert past_of(asked.regressions) == kept, "the same failure is kept once"


def test_past_failures_are_kept_all_or_none(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tmp_path / "past.json"
    kept.write_bytes(to_bytes([Regression(Row("base"), 1, "stuck", 6.0, [])]))
    before = kept.read_bytes()

    def full(_descriptor: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    monkeypatch.setattr(examining, "policy_in", lambda *_: StraightOn())
    with pytest.raises(OSError, match="No space"):
        run_examine(model, replace(ASKED, regressions=kept), as_json=True)
    assert kept.read_bytes() == before and not list(tmp_path.glob(".past*"))


def test_a_bundle_is_known_by_its_content(model: Path, tmp_path: Path) -> None:
    assert isinstance(policy_in(model, THREE_CAMERAS), TorchPolicy)
    with ZipFile(tmp_path / "no-suffix", "w") as bundle:
        bundle.writestr("manifest.json", "{}")
    with pytest.raises(BadBundle):
        policy_in(tmp_path / "no-suffix", THREE_CAMERAS)


@pytest.mark.parametrize("name", ["adversarial", "regressions", "city"])
def test_suites_that_a_table_does_not_give_are_refused(model: Path, name: str) -> None:
    with pytest.raises(BadExamination, match=f"no suite '{name}'; there are base, regions, long-tail"):
        run_examine(model, replace(ASKED, suites=("base", name)), as_json=True)


def test_nothing_is_driven_before_all_words_are_understood(model: Path, tmp_path: Path) -> None:
    with pytest.raises(BadRig, match="unknown rig 'bus'"):
        run_examine(model, replace(ASKED, rig="bus"), as_json=True)
    (tmp_path / "past.json").write_text("{}")
    with pytest.raises(BadRegressions, match=r"past\.json"):
        run_examine(model, replace(ASKED, regressions=tmp_path / "past.json"), as_json=True)


@pytest.fixture
def dataset(tmp_path: Path) -> str:
    samples = some_samples(60)
    tags = np.repeat(np.arange(60, dtype=np.int8)[:, None] % 2, LABELS["tags"].shape[0], 1)
    write(
        open_backend(str(tmp_path / "data")), [replace(samples, labels={"tags": tags})], THREE_CAMERAS, frames=16
    )
    return str(tmp_path / "data")


def test_a_model_is_scored_and_its_confidences_are_mended(
    model: Path, dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_score(model, Scored(dataset, 40, tmp_path / "cool" / "model.safetensors"), as_json=True)
    found = told(capsys)
    assert found["frames"] == 40 and found["open_loop"]["ade_m"] > 0
    assert found["heads"]["tags.sign"]["cases"] == 40
    assert set(found["calibration"]) == {"modes", "tags"}
    cooled = load(Path(found["calibrated"]))
    frames = some_samples(5)
    observation = Observation(frames.images, frames.speed_mps, frames.yaw_rate_radps, frames.command)
    plans = [TorchPolicy(each, THREE_CAMERAS).plan(observation) for each in (load(model), cooled)]
    np.testing.assert_array_equal(plans[0].best, plans[1].best)
    run_score(model, Scored(dataset, 40, None), as_json=False)
    said = capsys.readouterr().out
    assert "ade_m" in said and "tags.sign" in said and "written to" not in said


def test_frames_are_needed(model: Path, tmp_path: Path, dataset: str) -> None:
    with pytest.raises(BadDataset, match="no dataset was written here"):
        run_score(model, Scored(str(tmp_path / "none"), 10, None), as_json=True)
    with pytest.raises(BadDataset, match="two frames"):
        run_score(model, Scored(dataset, 1, tmp_path / "c.safetensors"), as_json=True)
