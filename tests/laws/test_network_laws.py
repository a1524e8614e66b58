"""What holds of the network for any rig, any order of its cameras, and whatever of its inputs is missing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.network import Network, View
from model.recipes import quick
from model.rig import Camera, Rig

HEADS = ("occupancy", "tags", "motion", "risk")
"""Those that speak of the scene as a whole, not of single tokens."""
CONFIG = replace(quick().network, width=16, history=3, gaps=1, exits=1, token_depth=1, **dict.fromkeys(HEADS, 1))
DEEPER = replace(CONFIG, latent_depth=2)
seeds = st.integers(0, 2**31)
laws = settings(max_examples=15, deadline=None)


def network() -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return Network(DEEPER).eval()


NET = network()


def rig(cameras: int) -> Rig:
    views = (Camera(f"c{i}", 32, 16, 1.0, 1.5, 0.1 * i, 1.4, yaw_rad=0.8 * i) for i in range(cameras))
    return Rig("some", tuple(views))


def inputs(vehicles: int, cameras: int, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    size = (vehicles, 3 * cameras, 16, 32, 3)
    return {
        "images": torch.randint(0, 256, size, dtype=torch.uint8, generator=generator),
        "rays": torch.from_numpy(rig(cameras).rays(CONFIG.patch_px)),
        "speed": torch.rand(vehicles, generator=generator) * 15,
        "yaw_rate": torch.randn(vehicles, generator=generator) * 0.2,
        "command": torch.randint(0, 4, (vehicles,), generator=generator),
        "past": torch.rand((vehicles, 2, 2), generator=generator) * 10,
    }


def study(given: dict[str, Tensor]) -> list[Tensor]:
    """All that the network gives: trajectories of every exit, and what every head says."""
    with torch.inference_mode():
        view: View = NET.study(**given)
    return [*view.output, *(part for out in view.exits for part in out), *view.heads.values()]


def assert_same(one: list[Tensor], other: list[Tensor]) -> None:
    assert len(one) == len(other) == 4 * DEEPER.latent_depth + len(HEADS)
    for left, right in zip(one, other, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-3, atol=1e-4)


def lose(images: Tensor, lost: list[int], cameras: int) -> Tensor:
    """The images without some cameras, at all ages."""
    gone = images.clone()
    gone[:, [age * cameras + camera for age in range(3) for camera in lost]] = 0
    return gone


@laws
@given(seed=seeds, order=st.permutations(range(4)))
def test_the_order_of_cameras_changes_nothing(seed: int, order: list[int]) -> None:
    one = inputs(2, 4, seed)
    every = [age * 4 + camera for age in range(3) for camera in order]
    other = one | {"images": one["images"][:, every], "rays": one["rays"][order]}
    assert_same(study(one), study(other))


@laws
@given(seed=seeds, lost=st.sets(st.integers(0, 3), min_size=1, max_size=3))
def test_a_lost_camera_is_as_one_that_is_not_there(seed: int, lost: set[int]) -> None:
    whole = inputs(2, 4, seed)
    kept = [camera for camera in range(4) if camera not in lost]
    every = [age * 4 + camera for age in range(3) for camera in kept]
    without = whole | {"images": whole["images"][:, every], "rays": whole["rays"][kept]}
    blind = whole | {"images": lose(whole["images"], sorted(lost), 4)}
    assert_same(study(blind), study(without))


@laws
@given(seed=seeds, lost=st.integers(0, 3))
def test_where_a_lost_camera_would_look_changes_not_one_bit(seed: int, lost: int) -> None:
    one = inputs(2, 4, seed)
    blind = one | {"images": lose(one["images"], [lost], 4)}
    rays = one["rays"].clone()
    rays[lost] = torch.nan
    for left, right in zip(study(blind), study(blind | {"rays": rays}), strict=True):
        assert torch.equal(left, right)


@laws
@given(seed=seeds, row=st.integers(0, 4))
def test_a_vehicle_is_not_influenced_by_the_others(seed: int, row: int) -> None:
    whole = inputs(5, 3, seed)
    whole["images"][(row + 1) % 5] = 0
    whole["speed"][(row + 2) % 5] = torch.nan
    alone = {name: value if name == "rays" else value[row : row + 1] for name, value in whole.items()}
    assert_same([part[row : row + 1] for part in study(whole)], study(alone))


@laws
@given(seed=seeds, cameras=st.integers(1, 5))
def test_nothing_that_is_missing_makes_anything_infinite(seed: int, cameras: int) -> None:
    found = inputs(4, cameras, seed)
    rng = np.random.default_rng(seed)
    found["images"][torch.from_numpy(rng.random((4, 3 * cameras)) < 0.6)] = 0
    found["images"][0] = 0
    for name in ("speed", "yaw_rate", "past"):
        found[name][torch.from_numpy(rng.random(found[name].shape) < 0.5)] = torch.nan
    found["speed"][0] = found["yaw_rate"][0] = torch.nan
    for part in study(found):
        assert torch.isfinite(part).all()


@laws
@given(seed=seeds)
def test_earlier_frames_are_told_from_later_ones(seed: int) -> None:
    one = inputs(2, 2, seed)
    swapped = one | {"images": one["images"][:, [0, 1, 4, 5, 2, 3]]}
    assert not torch.allclose(study(one)[0], study(swapped)[0], atol=1e-4)
