"""Practising: a policy learns what it is rewarded for, repeats itself for a seed, resumes, and refuses
nonsense."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model.checkpoint import Checkpoint, to_bytes
from model.closed_loop import PractiseConfig, PractiseHooks, Round, practise
from model.config import BadConfig
from model.group_relative import BadGroups
from model.open_loop import observation
from model.policy import Observation, Policy
from model.recipes import quick
from model.rig import THREE_CAMERAS
from model.torch_policy import TorchPolicy
from model.training import CannotResume, NonFiniteLoss, initial
from tests.unit.model_samples import some_samples

CONFIG = PractiseConfig(rounds=8, group=6, updates=4, batch=16, peak_rate=2e-3, closeness=0.01)
SEEN = observation(some_samples(24))


@dataclass(frozen=True)
class Field:
    """An open field, in which plans are worth what they go to the left, up to 3 m; or something else."""

    observation: Observation = SEEN
    worth: Any = None

    def rewards(self, plans: NDArray[np.float32]) -> NDArray[np.float64]:
        if self.worth is not None:
            return np.broadcast_to(self.worth, plans.shape[:2]).astype(float)
        return np.clip(plans[..., -1, 1], -3, 3) / 3


def field(policy: Policy, number: int) -> Field:
    return Field()


@pytest.fixture(scope="module")
def start() -> Checkpoint:
    return initial(quick().network, 3)


@pytest.fixture(scope="module")
def practised(start: Checkpoint) -> Checkpoint:
    return practise(start, field, THREE_CAMERAS, CONFIG, seed=5)


def left_m(checkpoint: Checkpoint) -> float:
    return float(TorchPolicy(checkpoint, THREE_CAMERAS).plan(SEEN).best[:, -1, 1].mean())


def test_a_policy_learns_what_it_is_rewarded_for(start: Checkpoint, practised: Checkpoint) -> None:
    rounds: list[Round] = []
    config = replace(CONFIG, rounds=20)
    left = practise(start, field, THREE_CAMERAS, config, seed=5, hooks=PractiseHooks(told=rounds.append))
    assert left_m(left) > left_m(start) + 0.3
    assert [r.number for r in rounds] == list(range(1, 21))
    assert rounds[-1].reward > rounds[0].reward + 0.1
    assert rounds[0].divergence == pytest.approx(0.0, abs=1e-6)
    assert rounds[-1].divergence > 0.01
    assert rounds[0].frames == 24
    assert rounds[0].telling == 1.0


def test_closeness_holds_it_back(start: Checkpoint, practised: Checkpoint) -> None:
    held = practise(start, field, THREE_CAMERAS, replace(CONFIG, closeness=20.0), seed=5)
    assert abs(left_m(held) - left_m(start)) < 0.5 * abs(left_m(practised) - left_m(start))


def test_the_same_seed_gives_the_same_policy_and_a_killed_run_resumes_to_it(
    start: Checkpoint, practised: Checkpoint
) -> None:
    kept: list[Checkpoint] = []
    again = practise(start, field, THREE_CAMERAS, CONFIG, seed=5, hooks=PractiseHooks(keep=kept.append))
    assert to_bytes(again) == to_bytes(practised)
    assert [c.step for c in kept] == [4 * (n + 1) for n in range(7)]
    resumed = practise(start, field, THREE_CAMERAS, CONFIG, seed=5, hooks=PractiseHooks(resume=kept[2]))
    assert to_bytes(resumed) == to_bytes(practised)
    assert to_bytes(practise(start, field, THREE_CAMERAS, CONFIG, seed=6)) != to_bytes(practised)


def test_heads_stay_as_they_were_and_threads_are_left_alone() -> None:
    start, kept, threads = (
        initial(replace(quick().network, tags=1), 3),
        list[Checkpoint](),
        torch.get_num_threads(),
    )
    config = replace(CONFIG, rounds=2, updates=2)
    better = practise(start, field, THREE_CAMERAS, config, seed=5, hooks=PractiseHooks(keep=kept.append))
    heads = [name for name in start.weights if name.startswith("heads.")]
    assert heads
    assert all(torch.equal(better.weights[name], start.weights[name]) for name in heads)
    resumed = practise(start, field, THREE_CAMERAS, config, seed=5, hooks=PractiseHooks(resume=kept[0]))
    assert to_bytes(resumed) == to_bytes(better)
    assert torch.get_num_threads() == threads


def test_it_drives_the_present_policy_in_each_round(start: Checkpoint) -> None:
    driven: list[tuple[float, int]] = []

    def course(policy: Policy, number: int) -> Field:
        driven.append((float(policy.plan(SEEN).best[:, -1, 1].mean()), number))
        return Field()

    practise(start, course, THREE_CAMERAS, replace(CONFIG, rounds=3), seed=5)
    assert [number for _, number in driven] == [0, 1, 2]
    assert driven[0][0] == pytest.approx(left_m(start))
    assert driven[2][0] != driven[0][0]


def test_where_every_plan_is_worth_the_same_nothing_is_learnt(start: Checkpoint) -> None:
    flat = practise(start, lambda p, n: Field(worth=0.5), THREE_CAMERAS, replace(CONFIG, rounds=2), seed=5)
    for name, weight in flat.weights.items():
        np.testing.assert_allclose(weight, start.weights[name], atol=1e-6)


def test_nonsense_is_refused(start: Checkpoint) -> None:
    nothing = Observation(SEEN.images[:0], SEEN.speed_mps[:0], SEEN.yaw_rate_radps[:0], SEEN.command[:0])
    with pytest.raises(BadGroups, match="met no frame"):
        practise(start, lambda p, n: Field(nothing), THREE_CAMERAS, CONFIG, seed=1)
    with pytest.raises(BadGroups, match="not finite"):
        practise(start, lambda p, n: Field(worth=np.nan), THREE_CAMERAS, CONFIG, seed=1)
    with pytest.raises(CannotResume, match="step 3, not after one of 8 rounds"):
        practise(start, field, THREE_CAMERAS, CONFIG, seed=1, hooks=PractiseHooks(resume=replace(start, step=3)))
    with pytest.raises(NonFiniteLoss, match="lower peak_rate"):
        practise(start, field, THREE_CAMERAS, replace(CONFIG, peak_rate=1e18), seed=1)


@pytest.mark.parametrize(
    "change", [{"rounds": 0}, {"group": 1}, {"closeness": -1.0}, {"calm_share": 1.0}, {"width": 0.0}]
)
def test_bad_configurations_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadConfig, match=next(iter(change))):
        replace(CONFIG, **change)
