"""The adversary's search: it finds the corner where harm is done, and asks for nothing out of the table."""

from __future__ import annotations

import numpy as np
import pytest

from simulation.adversary import SIZE, Belief, Draws, drawn_from, ignorant, learned, scene_of
from simulation.encounters import ENCOUNTERS
from simulation.scenarios import drawn
from simulation.suites import MET_AHEAD, Row


def test_a_search_finds_the_corner_where_harm_is_done() -> None:
    def harm(draws: Draws) -> np.ndarray:
        return np.asarray(((draws.row == 2) & (draws.twist[:, 0] > 0.7) & (draws.twist[:, 1] < 0.4)).astype(float))

    rng, belief, told = np.random.default_rng(3), ignorant(4), []
    for _ in range(8):
        draws = drawn_from(belief, 60, rng)
        told.append(harm(draws).mean())
        belief = learned(belief, draws, harm(draws))
    assert told[0] < 0.15 and np.mean(told[-2:]) > 0.6, told
    assert belief.rows.argmax() == 2
    assert belief.mean[2, 0] > 0.7 and belief.mean[2, 1] < 0.4
    assert belief.rows.sum() == pytest.approx(1.0)


def test_without_harm_nothing_is_learned() -> None:
    belief = ignorant(3)
    draws = drawn_from(belief, 10, np.random.default_rng(0))
    assert learned(belief, draws, np.zeros(10)) is belief


def test_the_elite_alone_is_learned_from() -> None:
    """By hand: of five draws one is elite; belief moves half of the way to it, spreads keep a floor."""
    twist = np.tile(np.linspace(0, 1, 5)[:, None], (1, SIZE))
    draws = Draws(np.array([0, 1, 0, 1, 0]), twist)
    found = learned(ignorant(2), draws, np.array([0.0, 1.0, 0.0, 0.0, 0.0]))
    np.testing.assert_allclose(found.rows, [0.25, 0.75])
    np.testing.assert_allclose(found.mean, np.stack([np.full(SIZE, 0.5), np.full(SIZE, 0.375)]))
    assert (found.spread[0] == 0.4).all() and (found.spread[1] < 0.4).all() and (found.spread >= 0.05).all()


def test_the_same_seed_draws_the_same_and_stays_in_range() -> None:
    wide = Belief(np.array([0.5, 0.5]), np.full((2, SIZE), 0.9), np.full((2, SIZE), 2.0))
    first, second = (drawn_from(wide, 50, np.random.default_rng(9)) for _ in range(2))
    np.testing.assert_array_equal(first.twist, second.twist)
    assert first.twist.min() >= 0 and first.twist.max() <= 1 and (first.twist == 0).any()


@pytest.mark.parametrize("name", MET_AHEAD)
def test_twisted_encounters_stay_within_the_table(name: str) -> None:
    plain = drawn(Row(name).condition(), 77)
    for share in (0.0, 0.3, 1.0):
        scene = scene_of(Row(name), [share] * SIZE, 77)
        assert scene.line_s_m.tolist() == plain.line_s_m.tolist()
        assert (scene.darkness, scene.fog_per_m) == (plain.darkness, plain.fog_per_m)
        for made in filter(None, scene.encounters):
            known = ENCOUNTERS[made.name]
            assert (made.layout, made.line, made.closed_m) == (known.layout, known.line, known.closed_m)
            for role, before in zip(made.roles, known.roles, strict=True):
                assert before.at[0] <= role.at[0] == role.at[1] <= before.at[1]
                assert before.speed_mps[0] <= role.speed_mps[0] <= before.speed_mps[1]
                assert role.chance == (1.0 if before.chance >= 1 - share else 0.0)
