"""Laws of looking up where things were, of telling pictures apart, and of manoeuvres, whatever the numbers."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.geometry import eyes, identity, sources
from model.picture_scores import mse, psnr, ssim
from model.rig import RIGS
from simulation.dynamics import control
from simulation.manoeuvres import MANOEUVRES, Part, parts, trajectory

RIG_NAMES = st.sampled_from(sorted(RIGS))
SEEDS = st.integers(0, 2**31)


@given(RIG_NAMES, SEEDS)
@settings(max_examples=20, deadline=None)
def test_without_an_action_everything_is_where_it_was(name: str, seed: int) -> None:
    seen = eyes(RIGS[name], 4)
    nearness = torch.rand(2, *seen.ground.shape, generator=torch.Generator().manual_seed(seed))
    found, outside = sources(seen, nearness, torch.zeros(2, 2))
    own = identity(len(seen.ground), *seen.ground.shape[-2:]).permute(0, 2, 3, 1)
    torch.testing.assert_close(found, own.expand_as(found), atol=1e-4, rtol=0)
    assert outside.max() == 0


@given(RIG_NAMES, SEEDS, st.floats(0, 30), st.floats(-0.9, 0.9))
@settings(max_examples=20, deadline=None)
def test_what_is_infinitely_far_only_turns(name: str, seed: int, speed: float, yaw_rate: float) -> None:
    seen = eyes(RIGS[name], 8)
    far = torch.zeros(1, *seen.ground.shape)
    moving, turning = (sources(seen, far, torch.tensor([[v, yaw_rate]])) for v in (speed, 0.0))
    torch.testing.assert_close(moving, turning)


@given(SEEDS, st.integers(1, 40))
@settings(max_examples=20, deadline=None)
def test_scores_of_pictures(seed: int, amount: int) -> None:
    rng = np.random.default_rng(seed)
    real = rng.integers(50, 200, (2, 1, 24, 32, 3)).astype(np.uint8)
    off = (real + amount).astype(np.uint8)
    assert mse(real, real).max() == 0
    np.testing.assert_allclose(mse(off, real), amount**2)
    np.testing.assert_allclose(psnr(mse(off, real)), 20 * np.log10(255 / amount))
    np.testing.assert_allclose(ssim(real, real), 1, atol=1e-5)
    scrambled = rng.permutation(real.reshape(2, -1), axis=1).reshape(real.shape)
    assert (ssim(scrambled, real) < 0.5).all()
    assert (ssim(off, real) > ssim(scrambled, real)).all()
    np.testing.assert_allclose(ssim(scrambled, real), ssim(real, scrambled), atol=1e-5)


@given(st.sampled_from(sorted(MANOEUVRES)), st.floats(0, 25))
@settings(max_examples=60, deadline=None)
def test_a_manoeuvre_is_followed_as_it_is_meant(name: str, speed: float) -> None:
    meant = MANOEUVRES[name]
    path = trajectory(meant, np.array([speed]))
    way = np.linalg.norm(np.diff(path[0], axis=0, prepend=0), axis=1)
    assert (way > -1e-6).all()
    assert np.isfinite(path).all()
    accel, curvature = control(path, np.array([speed]), np.zeros(1))
    # Where the vehicle hardly moves there is nothing to aim at.
    if np.hypot(*path[0, -1]) > 1.0:
        np.testing.assert_allclose(curvature, meant.curvature_per_m, atol=1e-3)
    # Waypoints are joined by chords, a little shorter than the arc.
    assert abs(accel[0]) < 0.15 or np.sign(accel[0]) == np.sign(meant.accel_mps2)


@given(st.lists(st.sampled_from(sorted(MANOEUVRES)), min_size=1, max_size=4), st.floats(0.5, 20))
@settings(max_examples=40, deadline=None)
def test_manoeuvres_without_a_length_share_the_time(names: list[str], seconds: float) -> None:
    found = parts(",".join(names), seconds)
    assert [part.name for part in found] == names
    np.testing.assert_allclose(sum(part.seconds for part in found), seconds)
    assert parts(",".join(f"{n}:0.5" for n in names), seconds) == [Part(n, 0.5) for n in names]
