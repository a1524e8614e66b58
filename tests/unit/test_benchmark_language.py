"""The language benchmark: it asks what can be told, its counterfactuals lack the cause, its bars can be missed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fleet.benchmarks import language
from fleet.benchmarks.language import FULL, MODEL, QUICK, assess, examined, run
from fleet.benchmarks.language_scenes import EVIDENT_PX, MIX, RIG, Case, _radius_px, evident, held_out, taught
from model.checkpoint import Checkpoint, load, save
from model.explainer import Explained
from model.grammar import NONE, Explanation, decoded
from model.labels import LOOKS
from simulation.episode import Recording, record_expert
from simulation.faults import FAULTS
from simulation.labels.rule import reasons
from simulation.scenarios import CONDITIONS, scenes
from simulation.world import World

STOP = Explanation("slow", "stop_sign", "ahead", "20 m", "171", "must", NONE)
CLEAR = Explanation("hold", "clear", NONE, NONE, "160", "should", NONE)
CAR = Explanation("hold", "lead", "ahead", "20 m", "126", "should", "2 s")


def case(truth: Explanation, then: Explanation | None, beside: bool = True) -> Case:
    """Images are marks by which `Parrot` knows what to say."""
    images = np.zeros((len(RIG.cameras), 48, 96, 3), np.uint8)
    look = np.full((LOOKS, 4), np.nan, np.float32)
    return Case(
        "base", images, 8.0, 0.0, 0, truth, look,
        images + 1 if then else None, then, images + 2 if beside else None,
    )  # fmt: skip


class Parrot:
    """Says of each kind of image what it was told to."""

    def __init__(self, now: list[Explanation], gone: Explanation, beside: Explanation) -> None:
        self.now, self.otherwise = now, {1: gone, 2: beside}

    def explain(self, seen: Any) -> Explained:
        kind, count = int(seen.images[0, 0, 0, 0, 0]), len(seen.images)
        words = self.now if kind == 0 else [self.otherwise[kind]] * count
        look = np.full((count, len(RIG.cameras), 3, 6), 1 / 108, np.float32)
        return Explained(tuple(words), look, np.ones(count, np.float32))

    def shown(self, look: Any) -> Any:
        return np.zeros((len(look), len(RIG.cameras), 3, 6), np.float32)


def asked(monkeypatch: pytest.MonkeyPatch, parrot: Parrot, cases: list[Case]) -> dict[str, Any]:
    monkeypatch.setattr(language, "Explainer", lambda trained, rig: parrot)
    return examined(None, cases)  # type: ignore[arg-type]


def test_right_words_are_counted_and_an_explanation_goes_with_its_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [case(STOP, CLEAR), case(STOP, CLEAR), case(CLEAR, None), case(CAR, CAR, beside=False)]
    row = asked(monkeypatch, Parrot([STOP, CAR, CLEAR, CAR], CLEAR, STOP), cases)
    assert (row["asked"], row["right"], row["words_right"]) == (4, 0.75, 0.75)
    assert (row["removed"], row["faithful"], row["then_right"]) == (2, 0.5, 1.0), (
        "CAR stays the expert's own cause; who told another cause than the one that is gone is not faithful"
    )
    assert (row["spared"], row["stays"]) == (3, pytest.approx(1 / 3))
    assert row["mistaken"] == {"stop_sign -> lead": 1}
    assert row["right_of_causes"] == pytest.approx((1 / 2 + 1 + 1) / 3)
    assert row["by_cause"]["stop_sign"] == {"asked": 2, "right": 1, "removed": 2, "gone": 1}
    assert row["unknown_rules"] == 0 and row["said"] == 4 + 2 + 3


def test_who_says_the_same_without_the_cause_is_not_faithful(monkeypatch: pytest.MonkeyPatch) -> None:
    row = asked(monkeypatch, Parrot([STOP], STOP, STOP), [case(STOP, CLEAR)])
    assert row["faithful"] == 0.0 and row["stays"] == 1.0
    nothing = asked(monkeypatch, Parrot([CLEAR], STOP, STOP), [case(CLEAR, None, beside=False)])
    assert nothing["faithful"] == 0.0 and nothing["removed"] == 0


LEARNT = {"frames": 10, "parameters": 10}


def row_of(right: float, faithful: float, unknown: int = 0) -> dict[str, Any]:
    shares = dict.fromkeys(
        ("cause_right", "words_right", "then_right", "stays", "looked_at_it", "right_of_causes"), 0.5
    )
    counts = {"asked": 100, "removed": 50, "spared": 9, "said": 200}
    by_cause = {"stop_sign": {"asked": 2, "right": 1, "removed": 2, "gone": 1}}
    more = {
        "right": right,
        "faithful": faithful,
        "unknown_rules": unknown,
        "mistaken": {},
    }
    return shares | counts | more | {"by_cause": by_cause}


@pytest.mark.parametrize(
    ("right", "faithful", "unknown", "missed"),
    [(0.95, 0.9, 0, set()), (0.85, 0.9, 0, {"rule"}), (0.95, 0.8, 0, {"faithful"}), (0.95, 0.9, 1, {"known"})],
)
def test_each_bar_can_be_missed(right: float, faithful: float, unknown: int, missed: set[str]) -> None:
    found = assess(LEARNT, {"1": row_of(right, faithful, unknown), "2": row_of(right, faithful)})
    assert {bar.id for bar in found.bars if not bar.holds} == missed
    assert "of 200 held-out scenes" in found.bars[0].what
    assert "| stop_sign | 4 | 50% | 4 | 50% |" in found.table


def test_held_out_instants_are_told_by_all_and_seen_by_somebody() -> None:
    cases = held_out(5, 10, 12.0, lambda done, of: None)
    assert 5 <= len(cases) <= 10
    again = held_out(5, 10, 12.0, lambda done, of: None)
    assert [c.truth for c in again] == [c.truth for c in cases], "same seed, same questions"
    for one in cases:
        assert one.scenario in MIX and one.scenario not in FAULTS
        assert (one.without is None) == (one.then is None)
        if one.without is not None:
            assert np.abs(one.without.astype(int) - one.images).max() > 20, "something is gone"
        else:
            assert one.truth.cause in ("clear", "bend")
    assert set(CONDITIONS) <= set(MIX)
    assert all(np.array_equal(a.images, b.images) for a, b in zip(cases, again, strict=True))


def test_language_learns_what_is_shown_and_the_same_without_its_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[Recording] = []

    def recording(*args: Any, **more: Any) -> Recording:
        got.append(record_expert(*args, **more))
        return got[0]

    monkeypatch.setattr("fleet.benchmarks.language_scenes.record_expert", recording)
    samples = taught(5, 12, 18.0, 3, lambda done, of: None)
    (recorded,) = got
    shown = [
        max((_radius_px(ball, RIG) for ball in balls[~np.isnan(balls[:, 0])]), default=9.0)
        for balls in recorded.labels["look"]
    ]
    causes = [decoded(words).cause for words in recorded.labels["words"]]
    assert len(samples) == len(causes)
    places = list(zip(recorded.vehicle, recorded.time_s, strict=True))
    first = {place: i for i, place in reversed(list(enumerate(places)))}
    twins = [(first[place], i) for i, place in enumerate(places) if first[place] != i]
    assert len(twins) >= 5
    assert all(samples.weight[a] == samples.weight[b] for a, b in twins), "neither is told by default"
    assert len(set(samples.weight)) > 2, "what comes up seldom weighs more"
    assert all(s > EVIDENT_PX or cause == "door" for s, cause in zip(shown, causes, strict=True))
    changed = [causes[a] != causes[b] for a, b in twins]
    assert np.mean(changed) > 0.8, "mostly nothing else calls for the same"
    assert all(not np.array_equal(recorded.images[a], recorded.images[b]) for a, b in twins)


def test_few_of_the_instants_at_which_nothing_is_called_for_are_learnt_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counts = []
    for share in (0.0, 0.25, 1.0):
        monkeypatch.setattr("fleet.benchmarks.language_scenes.CLEAR_SHARE", share)
        samples = taught(5, 6, 12.0, 3, lambda done, of: None)
        counts.append(sum(decoded(words).cause == "clear" for words in samples.labels["words"]))
    none, some, every = counts
    assert 0.1 < (some - none) / (every - none) < 0.45


def test_what_no_camera_shows_is_not_asked_about() -> None:
    world = World(scenes({"base": 1}, 1, 1, "heldout"), None)
    (reason,) = reasons(world)
    balls = np.full((LOOKS, 4), np.nan, np.float32)
    near, far, above = balls.copy(), balls.copy(), balls.copy()
    near[0], far[0], above[0] = (20, 0, 2.2, 1.0), (60, 0, 2.2, 1.0), (1.0, 0, 30, 3.0)
    assert evident(world, 0, replace(reason, said=STOP, look=near))
    assert not evident(world, 0, replace(reason, said=STOP, look=far)), "less than two pixels"
    assert not evident(world, 0, replace(reason, said=STOP, look=above)), "nobody looks up"
    assert evident(world, 0, replace(reason, said=CLEAR, look=balls)), "what is nowhere is evident everywhere"


def test_an_interrupted_run_goes_on_from_what_it_has_recorded_and_learnt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = replace(QUICK.training, steps=8, warmup_steps=2, keep_every=3)
    monkeypatch.setattr(language, "QUICK", replace(QUICK, training=steps, scenes=4, asked=2))
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
    run([11], whole, True)

    def stopped(checkpoint: Checkpoint, path: Path) -> str:
        done = save(checkpoint, path)
        raise KeyboardInterrupt(done)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(language, "save", stopped)
        run([11], parts, True)
    with monkeypatch.context() as patch:
        patch.setattr(language, "taught", lambda *_: pytest.fail("recorded again"))
        run([11], parts, True)
    assert (parts / MODEL).read_bytes() == (whole / MODEL).read_bytes()


def test_the_quick_form_learns_asks_and_leaves_a_model(tmp_path: Path) -> None:
    learnt, runs = run([11], tmp_path, True)
    assert learnt["frames"] >= 12
    assert [path.name for path in tmp_path.iterdir()] == [MODEL], "what was recorded has served"
    assert runs["11"]["unknown_rules"] == 0 and runs["11"]["asked"] > 0
    assert load(tmp_path / "model.safetensors").network == QUICK.network
    assert FULL.network.language and FULL.asked >= 10 * QUICK.asked
    found = assess(learnt, runs)
    assert json.loads(json.dumps(found.results, allow_nan=False))["runs"]["11"]["asked"] == runs["11"]["asked"]
