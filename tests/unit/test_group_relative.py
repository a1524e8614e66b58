"""The laws of group-relative policy optimisation, on cases worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.group_relative import (
    LEAST_SPREAD,
    SHAPE,
    BadGroups,
    Beliefs,
    advantages,
    beliefs,
    divergence,
    draw,
    log_likelihood,
    reach,
    surrogate,
    widths,
)
from model.network import Output

REWARDS = st.lists(st.lists(st.floats(-5, 5, width=32), min_size=4, max_size=4), min_size=1, max_size=5)


def believed(log_mode: list[float], ends_m: list[list[float]]) -> Beliefs:
    """One frame whose modes end there, growing as SHAPE does."""
    modes = SHAPE[None, None, :, None] * torch.tensor([ends_m])[:, :, None, :]
    return Beliefs(torch.log_softmax(torch.tensor([log_mode]), 1), reach(modes), modes)


@given(REWARDS)
@settings(deadline=None, max_examples=60)
def test_advantages_of_a_group_sum_to_nothing_and_keep_its_order(rewards: list[list[float]]) -> None:
    given_, found = torch.tensor(rewards), advantages(torch.tensor(rewards))
    torch.testing.assert_close(found.sum(1), torch.zeros(len(rewards)), atol=1e-4, rtol=0)
    for one, two in ((0, 1), (2, 3)):
        assert bool(((given_[:, one] - given_[:, two]) * (found[:, one] - found[:, two]) >= 0).all())
    assert float(found.square().mean(1).sqrt().max()) <= 1 + 1e-4


def test_advantages_worked_by_hand() -> None:
    found = advantages(torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.5, 0.5, 0.5, 0.5], [0.51, 0.49, 0.51, 0.49]]))
    expected = [[1.0, -1.0, -1.0, 1.0], [0.0] * 4, [v * 0.01 / LEAST_SPREAD for v in (1, -1, 1, -1)]]
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("rewards", "said"),
    [
        (torch.zeros(0, 4), "needs a frame"),
        (torch.zeros(3, 1), "two plans"),
        (torch.zeros(3), "needs a frame"),
        (torch.tensor([[0.0, 1.0], [math.nan, 1.0]]), "1 rewards are not finite, first that of frame 1, plan 0"),
        (torch.tensor([[0.0, math.inf]]), "frame 0, plan 1"),
    ],
)
def test_groups_that_teach_nothing_are_refused(rewards: Tensor, said: str) -> None:
    with pytest.raises(BadGroups, match=said):
        advantages(rewards)


def test_a_plan_that_is_better_is_made_likelier_until_it_is_clipped() -> None:
    """A bandit of two arms with one parameter: the gradient is d ratio · advantage, and ends at the clip."""
    before, advantage = torch.log(torch.tensor([[0.5, 0.5]])), torch.tensor([[1.0, -1.0]])

    def gradient(logit: float) -> float:
        preference = torch.tensor(logit, requires_grad=True)
        now = torch.log_softmax(torch.stack([preference, torch.zeros(())]), 0)[None]
        (found,) = torch.autograd.grad(surrogate(now, before, advantage, 0.2), preference)
        return float(found)

    # At equal shares p = 1/2, d p/d logit = p (1 - p) = 1/4; ratios p / 0.5; mean over the two plans.
    assert gradient(0.0) == pytest.approx((0.25 / 0.5 + 0.25 / 0.5) / 2)
    # Past the clip (p = 0.65: ratios 1.3 and 0.7) nothing more is gained; on the wrong side all of it is.
    assert gradient(math.log(0.65 / 0.35)) == 0.0
    assert gradient(math.log(0.35 / 0.65)) == pytest.approx(2 * 0.35 * 0.65)


def test_the_surrogate_is_the_smaller_of_the_two() -> None:
    now = torch.log(torch.tensor([[2.0, 0.5, 2.0, 0.5]]))
    gain = surrogate(now, torch.zeros(1, 4), torch.tensor([[1.0, 1.0, -1.0, -1.0]]), 0.2)
    assert float(gain) == pytest.approx((1.2 + 0.5 - 2.0 - 0.8) / 4)


def test_likelihood_is_that_of_the_mode_times_two_laplace_densities() -> None:
    source, width = (
        believed([0.0, math.log(3.0)], [[0.0, 0.0], [4.0, 1.0]]),
        torch.tensor([[[1.0, 1.0], [2.0, 0.5]]]),
    )
    found = log_likelihood(source, width, torch.tensor([[0, 1]]), torch.tensor([[[0.0, 0.0], [6.0, 2.0]]]))
    expected = [math.log(0.25 / 4), math.log(0.75) + math.log(math.exp(-1) / 4) + math.log(math.exp(-2) / 1.0)]
    torch.testing.assert_close(found, torch.tensor([expected]))


def test_divergence_is_none_of_the_same_and_worked_by_hand_of_others() -> None:
    one = believed([0.0, 0.0], [[0.0, 0.0], [4.0, 1.0]])
    width = torch.full((1, 2, 2), 2.0)
    assert float(divergence(one, one, width)) == pytest.approx(0.0, abs=1e-6)
    moved = believed([0.0, 0.0], [[2.0, 0.0], [4.0, 1.0]])
    assert float(divergence(one, moved, width)) == pytest.approx(0.5 * math.exp(-1), rel=1e-4)
    other = believed([0.0, math.log(3.0)], [[0.0, 0.0], [4.0, 1.0]])
    assert float(divergence(one, other, width)) == pytest.approx(
        0.5 * math.log(2) + 0.5 * math.log(2 / 3), rel=1e-4
    )


def test_plans_are_drawn_as_the_likelihood_tells_and_by_the_seed_alone() -> None:
    source, width = (
        believed([0.0, math.log(3.0)], [[0.0, 0.0], [8.0, 0.0]]),
        torch.tensor([[[0.5, 0.2], [0.1, 0.1]]]),
    )
    drawn = draw(source, width, 4000, np.random.default_rng(3))
    assert float((drawn.mode == 1).float().mean()) == pytest.approx(0.75, abs=0.03)
    first = drawn.reach_m[drawn.mode == 0]
    # A Laplace variable's mean distance from its middle is its scale.
    torch.testing.assert_close(first.abs().mean(0), torch.tensor([0.5, 0.2]), atol=0.04, rtol=0)
    torch.testing.assert_close(reach(drawn.plan), drawn.reach_m, atol=1e-4, rtol=1e-4)
    again = draw(source, width, 4000, np.random.default_rng(3))
    assert all(torch.equal(a, b) for a, b in zip(drawn, again, strict=True))


def test_a_departure_is_one_acceleration() -> None:
    drawn = draw(believed([0.0], [[0.0, 0.0]]), torch.ones(1, 1, 2), 1, np.random.default_rng(0))
    times_s = torch.arange(1, 9) * 0.3
    along = drawn.plan[0, 0, :, 0]
    torch.testing.assert_close(along / times_s**2, (along / times_s**2)[-1].expand(8))


def test_beliefs_and_widths_are_the_networks() -> None:
    generator = torch.Generator().manual_seed(1)
    modes, scale = torch.randn(3, 2, 8, 2, generator=generator), torch.rand(3, 2, 8, 2, generator=generator)
    output = Output(modes, torch.randn(3, 2, generator=generator), scale, torch.zeros(3, 4))
    torch.testing.assert_close(beliefs(output).log_mode.exp().sum(1), torch.ones(3))
    assert torch.equal(beliefs(output).modes, modes)
    assert torch.equal(widths(output, 2.0), 2 * scale[:, :, -1])
