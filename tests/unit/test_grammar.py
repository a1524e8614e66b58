"""Sentences: all that may be said is whole and true to the table, and nothing else may be said."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from model.grammar import (
    CAUSES,
    NONE,
    SLOTS,
    VOCABULARY,
    BadSentence,
    Explanation,
    agreement,
    citation,
    decoded,
    distance_word,
    encoded,
    in_slot,
    reckoning,
    sentence,
)
from model.rules import RULES

STOP = Explanation("slow", "stop_sign", "ahead", "20 m", "171", "must", NONE)
FOLLOW = Explanation("hold", "lead", "ahead", "30 m", "126", "should", "2 s")


def prefixes() -> Iterator[tuple[int, ...]]:
    """Every beginning of a sentence that the agreement allows, up to the place, and one way on from there each."""
    allowed, slots = agreement(), in_slot()

    def on(said: tuple[int, ...]) -> list[int]:
        may = slots[len(said)].copy()
        for word in said:
            may &= allowed[word]
        return [int(i) for i in np.flatnonzero(may)]

    todo: list[tuple[int, ...]] = [()]
    while todo:
        said = todo.pop()
        if len(said) == len(SLOTS):
            yield said
            continue
        words = on(said)
        assert words, f"nothing may follow {[VOCABULARY[i] for i in said]}"
        todo += [(*said, word) for word in (words if len(said) in (1, 4, 5, 6) else words[:2])]


def test_no_sentence_ends_before_it_is_whole_and_each_is_one_of_the_tables() -> None:
    seen = set()
    for ids in prefixes():
        said = decoded(np.array(ids))
        assert encoded(said) == ids
        cites = CAUSES[said.cause].cites
        assert (said.number, said.duty, said.quantity) in [(n, str(d), q) for n, d, q in cites], said
        assert said.number in RULES
        assert (said.place == NONE) == (said.distance == NONE) == (not CAUSES[said.cause].placed)
        seen.add((said.cause, said.rule, said.quantity))
    assert len(seen) == sum(len(cause.cites) for cause in CAUSES.values()), "all that is cited can be said"


def test_a_sentence_reads_as_one() -> None:
    assert sentence(STOP) == "I slow down because there is a stop sign, ahead, about 20 m away"
    assert citation(STOP).startswith("Highway Code rule 171 (must): stop behind the line")
    assert reckoning(STOP, 10.0) == ""
    assert reckoning(FOLLOW, 13.4) == "2 s (gap to who drives ahead): 26.8 m at 13.4 m/s"
    assert reckoning(FOLLOW, float("nan")) == "2 s: gap to who drives ahead"
    room = FOLLOW._replace(cause="cyclist", rule="163", quantity="1.5 m")
    assert reckoning(room, 8.0) == "1.5 m: room beside a cyclist at up to 30 mph; more when faster"
    clear = Explanation("hold", "clear", NONE, NONE, "160", "should", NONE)
    assert sentence(clear) == "I keep my speed because nothing is in my way"
    assert "keep to the right" in citation(clear, 1)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"rule": "999"}, "no such words: rule '999'"),
        ({"rule": "195"}, "'stop_sign' and '195' do not go together"),
        ({"duty": "should"}, "'stop_sign' and 'should' do not go together"),
        ({"place": NONE}, "do not go together"),
        ({"quantity": "2 s"}, "do not go together"),
        ({"action": "fly"}, "no such words: action 'fly'"),
    ],
)
def test_what_does_not_go_together_cannot_be_said(change: dict[str, str], match: str) -> None:
    with pytest.raises(BadSentence, match=match):
        encoded(STOP._replace(**change))


def test_ids_that_are_no_sentence_are_refused() -> None:
    ids = list(encoded(STOP))
    with pytest.raises(BadSentence, match="7 ids of 0 to"):
        decoded(np.array(ids[:-1]))
    with pytest.raises(BadSentence, match="7 ids of 0 to"):
        decoded(np.array([*ids[:-1], len(VOCABULARY)]))
    none = next(i for i, word in enumerate(VOCABULARY) if word == ("quantity", NONE))
    ids[SLOTS.index("place")] = none
    with pytest.raises(BadSentence, match=r"do not go together|not in the order"):
        decoded(np.array(ids))


@pytest.mark.parametrize(
    ("metres", "word"), [(0.0, "5 m"), (7.4, "10 m"), (24.0, "20 m"), (25.0, "30 m"), (500, "60 m")]
)
def test_distances_are_told_by_the_nearest_word(metres: float, word: str) -> None:
    assert distance_word(metres) == word
