"""Recipes are complete, and of the sizes that they are named for."""

from __future__ import annotations

import pytest
import torch

from model.config import BadConfig
from model.network import Network
from model.recipes import RECIPES, recipe
from model.rig import RIGS

SIZES = {
    "quick": (10_000, 60_000),
    "demo": (230_000, 260_000),
    "tiny": (500_000, 1_000_000),
    "small": (8_000_000, 12_000_000),
    "base": (85_000_000, 115_000_000),
    "large": (850_000_000, 1_150_000_000),
}
"""Parameters, from and to."""


@pytest.mark.parametrize("name", list(RECIPES))
def test_a_recipe_has_the_size_of_its_name(name: str) -> None:
    with torch.device("meta"):
        count = sum(p.numel() for p in Network(recipe(name).network).parameters())
    low, high = SIZES[name]
    assert low <= count <= high, f"{name} has {count:,} parameters"


@pytest.mark.parametrize("name", list(RECIPES))
def test_a_recipe_fits_every_rig_and_shares_its_parts(name: str) -> None:
    chosen = recipe(name)
    assert chosen.name == name
    for rig in RIGS.values():
        rig.rays(chosen.network.patch_px)
    assert chosen.clone.batch % chosen.clone.parts == 0
    assert chosen.base_frames * 1000 > chosen.clone.steps * chosen.clone.batch


def test_an_unknown_recipe_lists_those_there_are() -> None:
    with pytest.raises(BadConfig, match="demo, quick, tiny, small, base, large"):
        recipe("huge")
