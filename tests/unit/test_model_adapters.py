"""Adapters: an untrained one changes nothing, a trained one is what is merged, a wrong base is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch.nn.utils import parametrize

from model import adapter_file
from model.adapter_file import Adapter, BadAdapter, Base, WrongBase, base_of, load_base
from model.adapters import LARGEST_SHARE, adapt, adapted, merged
from model.checkpoint import BadCheckpoint, Checkpoint, save, to_bytes
from model.config import NetworkConfig, TrainingConfig
from model.data import Samples
from model.export import INPUTS, OUTPUTS, example_inputs, export
from model.network import Network, Output
from model.open_loop import evaluate
from model.rig import THREE_CAMERAS
from model.torch_policy import TorchPolicy
from model.training import Hooks, initial, train
from tests.unit.model_samples import some_samples

NETWORK = NetworkConfig(width=64, heads=2, stem_width=16, latent_depth=1, latents=2, modes=3)
CONFIG = TrainingConfig(steps=30, batch=32, peak_rate=2e-2, warmup_steps=3)


@pytest.fixture(scope="module")
def base() -> Base:
    config = TrainingConfig(steps=40, batch=32, warmup_steps=5)
    return base_of(train(some_samples(200), THREE_CAMERAS, NETWORK, config, seed=1))


@pytest.fixture(scope="module")
def elsewhere() -> Samples:
    """Where everyone drives further to the left."""
    clips = some_samples(60, "clip", seed=3)
    clips.target[..., 1] += 2
    return clips


@pytest.fixture(scope="module")
def adapter(base: Base, elsewhere: Samples) -> Adapter:
    return adapt(base, "uk", elsewhere, elsewhere, THREE_CAMERAS, CONFIG, seed=4)


def _seen(net: Network) -> Output:
    arrays = example_inputs(net, THREE_CAMERAS, vehicles=3, cameras=3, seed=5)
    with torch.no_grad():
        output: Output = net(*(torch.from_numpy(a) for a in arrays))
    return output


def _same(one: Output, other: Output) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_an_untrained_adapter_changes_nothing(base: Base) -> None:
    net = adapted(base.checkpoint, 1, 0)
    assert parametrize.is_parametrized(net.eye)
    assert _same(_seen(net), _seen(base.checkpoint.build()))


def test_only_the_adapter_learns_and_it_is_small(base: Base, adapter: Adapter) -> None:
    net = adapted(base.checkpoint, 1, 0)
    assert {n.split(".parametrizations.weight.0.")[-1] for n, p in net.named_parameters() if p.requires_grad} == {
        "up",
        "down",
    }
    assert 0 < adapter.parameters <= LARGEST_SHARE * base.parameters
    assert {"eye.weight", "mode.2.weight", "blocks.0.attend.key_value.weight"} <= set(adapter.adapted)
    with pytest.raises(BadAdapter, match="rank 9 is"):
        adapt(base, "uk", some_samples(4), some_samples(4), THREE_CAMERAS, CONFIG, rank=9, seed=0)


def test_heads_have_no_part_in_it() -> None:
    base, clips = base_of(initial(replace(NETWORK, tags=1), 3)), some_samples(8)
    adapter = adapt(base, "uk", clips, clips, THREE_CAMERAS, replace(CONFIG, steps=1, warmup_steps=0), seed=0)
    whole = merged(base, [adapter])
    heads = [name for name in whole.weights if name.startswith("heads.")]
    assert heads
    assert not any(name.startswith("heads.") for name in adapter.weights)
    assert all(torch.equal(whole.weights[name], base.checkpoint.weights[name]) for name in heads)
    assert whole.build().heads.keys() == {"tags"}


def test_it_learns_what_differs_and_leaves_the_base_alone(
    base: Base, elsewhere: Samples, adapter: Adapter
) -> None:
    before = to_bytes(base.checkpoint)
    zero, tuned = (
        evaluate(TorchPolicy(c, THREE_CAMERAS), elsewhere).ade_m
        for c in (base.checkpoint, merged(base, [adapter]))
    )
    assert tuned < 0.7 * zero
    assert to_bytes(base.checkpoint) == before


def test_what_is_merged_is_what_was_trained_and_can_be_exported(
    base: Base, elsewhere: Samples, tmp_path: Path
) -> None:
    kept: list[Checkpoint] = []
    hooks = Hooks(keep=kept.append, keep_every=29)
    adapter = adapt(base, "uk", elsewhere, elsewhere, THREE_CAMERAS, CONFIG, seed=4, hooks=hooks)
    whole = merged(base, [adapter])
    trained = adapted(replace(kept[0], weights=_as_trained(kept[0], adapter)), 1, 0).eval()
    assert _same(_seen(trained), _seen(whole.build()))
    export(whole, THREE_CAMERAS, tmp_path / "merged.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "merged.onnx")
    arrays = example_inputs(trained, THREE_CAMERAS, vehicles=2, cameras=3, seed=1)
    modes = session.run(list(OUTPUTS), dict(zip(INPUTS, arrays, strict=True)))[0]
    with torch.no_grad():
        np.testing.assert_allclose(trained(*(torch.from_numpy(a) for a in arrays)).modes, modes, atol=1e-4)


def _as_trained(checkpoint: Checkpoint, adapter: Adapter) -> dict[str, torch.Tensor]:
    """The weights of the network that was trained, at the end."""
    layer = ".parametrizations.weight.0."
    return {
        n: adapter.weights[n.replace(layer, ".weight.")] if layer in n else w
        for n, w in checkpoint.weights.items()
    }


def test_the_same_seed_gives_the_same_adapter_and_a_killed_run_resumes_to_it(
    base: Base, elsewhere: Samples, adapter: Adapter
) -> None:
    kept: list[Checkpoint] = []
    for whole in (True, False):
        hooks = Hooks(keep=kept.append, keep_every=20) if whole else Hooks(resume=kept[0])
        again = adapt(base, "uk", elsewhere, elsewhere, THREE_CAMERAS, CONFIG, seed=4, hooks=hooks)
        assert adapter_file.content(again) == adapter_file.content(adapter)
    assert kept[0].step == 20


def test_adapters_add_up_in_any_order(base: Base, adapter: Adapter) -> None:
    other = replace(adapter, name="van", weights={n: w * 0.5 for n, w in adapter.weights.items()})
    one, two = merged(base, [adapter, other]), merged(base, [other, adapter])
    for name, weight in one.weights.items():
        torch.testing.assert_close(weight, two.weights[name])
    up, down = adapter.weights["mode.2.weight.up"], adapter.weights["mode.2.weight.down"]
    torch.testing.assert_close(
        one.weights["mode.2.weight"], base.checkpoint.weights["mode.2.weight"] + 1.25 * up @ down
    )
    assert merged(base, []).weights.keys() == base.checkpoint.weights.keys()


def test_a_wrong_base_is_refused_by_both_names(base: Base, adapter: Adapter) -> None:
    other = base_of(initial(NETWORK, 7))
    with pytest.raises(WrongBase, match=f"'uk' belongs to base {base.sha256}, not to {other.sha256}"):
        merged(other, [adapter])
    with pytest.raises(BadAdapter, match="which the base has not in that shape"):
        merged(base_of(initial(replace(NETWORK, width=32), 7)), [replace(adapter, base_sha256=_sha(32))])


def _sha(width: int) -> str:
    return base_of(initial(replace(NETWORK, width=width), 7)).sha256


def test_files_come_back_as_they_went(base: Base, adapter: Adapter, tmp_path: Path) -> None:
    digest = save(base.checkpoint, tmp_path / "base.safetensors")
    assert load_base(tmp_path / "base.safetensors").sha256 == digest == base.sha256
    adapter_file.save(adapter, tmp_path / "uk.safetensors")
    loaded = adapter_file.load(tmp_path / "uk.safetensors")
    assert (loaded.name, loaded.base_sha256) == ("uk", base.sha256)
    assert to_bytes(merged(base, [loaded])) == to_bytes(merged(base, [adapter]))
    with pytest.raises(BadCheckpoint, match=r"base[.]none: cannot be read"):
        load_base(tmp_path / "base.none")


def test_damaged_files_are_refused_by_name(base: Base, adapter: Adapter, tmp_path: Path) -> None:
    content, path = adapter_file.content(adapter), tmp_path / "uk.safetensors"
    for damaged in (b"", content[:-1], content.replace(b"adapter/1", b"adapter/9"), to_bytes(base.checkpoint)):
        path.write_bytes(damaged)
        with pytest.raises(BadAdapter, match=r"uk[.]safetensors"):
            adapter_file.load(path)
    path.write_bytes(content.replace(b'\\"name\\"', b'\\"nome\\"'))
    with pytest.raises(BadAdapter, match="its header has no 'name'"):
        adapter_file.load(path)
    path.write_bytes(content.replace(b"mode.2.weight.up", b"mode.2.weight.uq"))
    with pytest.raises(BadAdapter, match="no pairs"):
        adapter_file.load(path)
    with pytest.raises(BadAdapter, match="cannot be read"):
        adapter_file.load(tmp_path / "none")
