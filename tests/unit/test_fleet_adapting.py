"""`fleet model`: an adapter is learnt, merged and exported; a stopped run goes on; nonsense is refused in
words."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fleet import adapting
from fleet.adapting import Asked, run_adapt, run_merge
from fleet.practising import run_practise
from fleet.sample_data import BadChoice
from fleet.unfinished import unfinished
from jobs.recorded import from_folder
from model import adapter_file
from model.adapter_file import Adapter, Base, WrongBase
from model.adapters import REPLAYED, adapt
from model.checkpoint import Checkpoint, load, save
from model.config import NetworkConfig
from model.data import BadSamples, Samples
from model.rig import BadRig
from model.training import initial
from simulation.scenarios import UnknownName
from tests.unit.model_samples import some_samples

NETWORK = NetworkConfig(heads=2, stem_width=8, latent_depth=1, latents=2, modes=3)


ASKED = Asked("uk", "uk", None, drives=1, steps=3, rank=1, seed=1)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    save(initial(NETWORK, 0), tmp_path / "base.safetensors")
    return tmp_path / "base.safetensors"


@pytest.fixture
def samples(monkeypatch: pytest.MonkeyPatch) -> Samples:
    """Instead of drives, which are rendered."""
    found = some_samples(30)
    monkeypatch.setattr(adapting, "_samples", lambda *_: found)
    return found


def test_an_adapter_is_learnt_in_a_region_merged_and_exported(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_adapt(base, ASKED, tmp_path / "adapters" / "uk.safetensors", as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["frames"] == 50
    assert 0 < told["share"] <= 0.03
    assert adapter_file.load(Path(told["adapter"])).parameters == told["parameters"]
    assert [p.name for p in (tmp_path / "adapters").iterdir()] == ["uk.safetensors"]
    whole = tmp_path / "whole.safetensors"
    run_merge(base, [Path(told["adapter"])], whole, tmp_path / "whole.onnx", ASKED.rig, as_json=True)
    merged = json.loads(capsys.readouterr().out)
    assert merged["adapters"] == ["uk"]
    assert merged["export_error"] < 1e-3
    changed = load(tmp_path / "whole.safetensors").weights["mode.2.weight"]
    assert not np.array_equal(changed, load(base).weights["mode.2.weight"])


def test_a_stopped_run_goes_on_and_another_does_not(
    base: Path, tmp_path: Path, samples: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    resumed: list[int] = []

    def stopped(*words: object, **options: object) -> object:
        hooks = options["hooks"]
        resumed.append(hooks.resume.step if hooks.resume else 0)  # type: ignore[attr-defined]
        hooks.keep(Checkpoint(NETWORK, {}, 2))  # type: ignore[attr-defined]
        raise KeyboardInterrupt

    monkeypatch.setattr(adapting, "adapt", stopped)
    out = tmp_path / "uk.safetensors"
    for again in (ASKED, ASKED, replace(ASKED, seed=2)):
        with pytest.raises(KeyboardInterrupt):
            run_adapt(base, again, out, as_json=True)
    assert resumed == [0, 2, 0]
    assert not out.exists()
    monkeypatch.setattr(adapting, "adapt", adapt)
    run_adapt(base, replace(ASKED, seed=3), out, as_json=True)
    assert out.exists()


def test_what_the_base_knows_is_replayed(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[tuple[Samples, Samples, float]] = []

    def asked(base: Base, name: str, replay: Samples, clips: Samples, *words: Any, **options: Any) -> Adapter:
        got.append((replay, clips, words[1].replay_share))
        return adapt(base, name, replay, clips, *words, **options)

    monkeypatch.setattr(adapting, "adapt", asked)
    for home in ((), ("us", "de")):
        run_adapt(base, replace(ASKED, drives=2, home=home), tmp_path / f"{len(home)}.safetensors", as_json=True)
    (alone, clips, none), (known, again, share) = got
    assert alone is clips and none == 0.0
    assert (
        share == REPLAYED
        and set(known.sources) == {"us-1-0", "de-1-1"}
        and set(again.sources) == {"uk-1-0", "uk-1-1"}
    )
    first, second = (adapter_file.load(tmp_path / f"{n}.safetensors") for n in (0, 2))
    assert any(not np.array_equal(first.weights[name], second.weights[name]) for name in first.weights)


def test_what_an_attempt_left_damaged_is_not_gone_on_from(tmp_path: Path) -> None:
    run = unfinished(tmp_path / "deep" / "out.safetensors", "a", 1)
    assert run.left() is None
    run.keep(initial(NETWORK, 0))
    assert run.left() is not None
    run.path.write_bytes(b"half")
    assert run.left() is None
    run.over()
    run.over()
    assert not run.path.exists()


def test_adapters_of_another_base_are_refused(base: Path, tmp_path: Path, samples: Samples) -> None:
    run_adapt(base, ASKED, tmp_path / "uk.safetensors", as_json=True)
    save(initial(NETWORK, 1), tmp_path / "other.safetensors")
    with pytest.raises(WrongBase, match="belongs to base"):
        run_merge(
            tmp_path / "other.safetensors",
            [tmp_path / "uk.safetensors"],
            tmp_path / "whole.safetensors",
            None,
            ASKED.rig,
            as_json=True,
        )
    assert not (tmp_path / "whole.safetensors").exists()


def test_a_vehicle_type_is_learnt_with_its_own_cameras(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, ...]] = []

    def noted(start: Base, name: str, samples: Samples, *rest: Any, **more: Any) -> Adapter:
        seen.append(samples.images.shape[1:])
        return adapt(start, name, samples, *rest, **more)

    monkeypatch.setattr(adapting, "adapt", noted)
    run_adapt(base, replace(ASKED, rig="van-6"), tmp_path / "van.safetensors", as_json=True)
    assert seen == [(6, 48, 96, 3)]
    with pytest.raises(BadRig, match="unknown rig 'bus'; known: dashcam-1"):
        run_adapt(base, replace(ASKED, rig="bus"), tmp_path / "bus.safetensors", as_json=True)


def test_sources_are_told_once(base: Path, tmp_path: Path) -> None:
    for wrong in (replace(ASKED, region=""), replace(ASKED, clips=tmp_path)):
        with pytest.raises(BadChoice, match="--region NAME or --clips FOLDER"):
            run_adapt(base, wrong, tmp_path / "a.safetensors", as_json=True)
    with pytest.raises(UnknownName, match="old_signs"):
        run_adapt(base, replace(ASKED, region="mars"), tmp_path / "a.safetensors", as_json=True)
    with pytest.raises(BadSamples, match="has no clip"):
        from_folder(tmp_path / "none", lambda *_: None)


def test_a_model_practises(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_practise(base, tmp_path / "better.safetensors", 1, "base", 2, 1, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert [r["number"] for r in told["rounds"]] == [1]
    assert 0 <= told["rounds"][0]["reward"] <= 1
    assert load(tmp_path / "better.safetensors").network == NETWORK
