"""ONE table each: what an explanation can say, word by word. Values only: no torch, no simulation.

An explanation is seven words of a closed vocabulary, one for each slot: what the vehicle does, why, where that is
and how far, the rule that asks for it, its duty and the quantity that it names. Which words agree is the tables'
matter, so what they do not hold cannot be said.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.rules import RULES, Duty, Quantity, Side, rule

NONE = "-"
"""In place of a word where there is nothing to say."""
ACTIONS: Mapping[str, str] = MappingProxyType(
    {
        "wait": "I wait",
        "stop": "I stop",
        "slow": "I slow down",
        "hold": "I keep my speed",
        "go": "I speed up",
        "pass": "I steer around",
        "aside": "I draw aside",
    }
)
PLACES = ("ahead", "left", "right", "behind")
DISTANCES_M = (5, 10, 15, 20, 30, 40, 60)

Cited = tuple[int, Duty, str]
"""A rule's number, the duty and the quantity that are cited, "-" for none."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a vehicle does what it does."""

    words: str
    cites: tuple[Cited, ...]
    """What it may be an instance of."""
    placed: bool = True
    """Whether it is somewhere."""


_MUST, _SHOULD = Duty.MUST, Duty.SHOULD
CAUSES: Mapping[str, Cause] = MappingProxyType(
    {
        "clear": Cause("nothing is in my way", ((160, _SHOULD, NONE),), placed=False),
        "wet": Cause("the road is wet", ((227, _SHOULD, "2 times"),), placed=False),
        "snow": Cause("there is snow on the road", ((230, _SHOULD, "10 times"),), placed=False),
        "bend": Cause("the road bends", ((125, _SHOULD, NONE),)),
        "lead": Cause("a vehicle drives before me", ((126, _SHOULD, "2 s"), (126, _SHOULD, "4 s"))),
        "cut_in": Cause("a vehicle pulls in before me", ((168, _SHOULD, "2 s"),)),
        "stop_sign": Cause("there is a stop sign", ((171, _MUST, NONE),)),
        "light": Cause("the light is not green", ((175, _MUST, NONE), (176, _MUST, NONE))),
        "walker": Cause("someone walks across the road", ((206, _SHOULD, NONE),)),
        "waits": Cause("someone waits to cross", ((195, _SHOULD, NONE),)),
        "crosses": Cause("someone is on the crossing", ((195, _MUST, NONE),)),
        "junction": Cause("traffic on the other road goes first", ((172, _MUST, NONE),)),
        "ring": Cause("traffic on the roundabout goes first", ((185, _SHOULD, NONE),)),
        "blocked": Cause("something is in my way", ((126, _SHOULD, NONE),)),
        "oncoming": Cause("someone comes towards me in my lane", ((146, _SHOULD, NONE),)),
        "cyclist": Cause("there is a cyclist", ((163, _SHOULD, "1.5 m"),)),
        "works": Cause("my lane is closed", ((163, _SHOULD, NONE), (288, _SHOULD, NONE))),
        "door": Cause("a parked car's door may open", ((152, _SHOULD, NONE),)),
        "emergency": Cause("an emergency vehicle wants to pass", ((219, _SHOULD, NONE),)),
        "tailgater": Cause("someone is close behind me", ((168, _SHOULD, NONE),)),
    }
)
"""By name. What of them stands in simulated worlds is found by simulation/labels/rule.py."""


class BadSentence(ValueError):
    """Words that make no explanation: says which do not agree."""


class Explanation(NamedTuple):
    """What is said, one field for each slot; `place`, `distance` and `quantity` may be NONE."""

    action: str
    cause: str
    place: str
    distance: str
    rule: str
    duty: str
    quantity: str

    @property
    def number(self) -> int:
        """Of the rule."""
        return int(self.rule)


Slot = Literal["action", "cause", "place", "distance", "rule", "duty", "quantity"]
SLOTS: tuple[Slot, ...] = ("action", "cause", "place", "distance", "rule", "duty", "quantity")
CAUSE_AT = SLOTS.index("cause")


def _quantities() -> tuple[str, ...]:
    cited = (quantity for cause in CAUSES.values() for _, _, quantity in cause.cites)
    return tuple(dict.fromkeys((NONE, *cited)))


WORDS: Mapping[Slot, tuple[str, ...]] = MappingProxyType(
    {
        "action": tuple(ACTIONS),
        "cause": tuple(CAUSES),
        "place": (NONE, *PLACES),
        "distance": (NONE, *(f"{m} m" for m in DISTANCES_M)),
        "rule": tuple(map(str, RULES)),
        "duty": tuple(map(str, Duty)),
        "quantity": _quantities(),
    }
)
VOCABULARY: tuple[tuple[Slot, str], ...] = tuple((slot, word) for slot in SLOTS for word in WORDS[slot])
"""Every word with its slot, in the order of their ids."""
_IDS = {word: number for number, word in enumerate(VOCABULARY)}
DIGEST = hashlib.sha256(repr((VOCABULARY, sorted(CAUSES))).encode()).digest()[:8]
"""Tells one vocabulary from another: a model knows its words by number."""


def encoded(said: Explanation) -> tuple[int, ...]:
    """The ids of its words, len(SLOTS) of them. Raises BadSentence where words are unknown or do not agree."""
    unknown = [f"{slot} {word!r}" for slot, word in zip(SLOTS, said, strict=True) if (slot, word) not in _IDS]
    if unknown:
        raise BadSentence(f"no such words: {', '.join(unknown)}")
    ids = tuple(_IDS[slot, word] for slot, word in zip(SLOTS, said, strict=True))
    agrees = agreement()
    for later, earlier in ((b, a) for b in range(len(ids)) for a in range(b)):
        if not agrees[ids[earlier], ids[later]]:
            raise BadSentence(f"{said[earlier]!r} and {said[later]!r} do not go together in {said}")
    return ids


def decoded(ids: NDArray[np.integer]) -> Explanation:
    """The explanation of such ids, [len(SLOTS)]. Raises BadSentence where they are none."""
    if len(ids) != len(SLOTS) or not all(0 <= i < len(VOCABULARY) for i in ids):
        raise BadSentence(f"an explanation is {len(SLOTS)} ids of 0 to {len(VOCABULARY) - 1}, not {list(ids)}")
    said = Explanation(*(VOCABULARY[i][1] for i in ids))
    if tuple(ids) != encoded(said):
        raise BadSentence(f"the words of {list(ids)} are not in the order {', '.join(SLOTS)}")
    return said


@cache
def agreement() -> NDArray[np.bool_]:
    """[V, V], whether a sentence that has the first word may go on with the second in a later slot. A word may
    follow where all before agree to it: no sentence then comes to an end that cannot go on."""
    size = len(VOCABULARY)
    table = np.zeros((size, size), bool)
    for first, (slot, word) in enumerate(VOCABULARY):
        for second, (later, next_word) in enumerate(VOCABULARY):
            ordered = SLOTS.index(slot) < SLOTS.index(later)
            table[first, second] = ordered and _agree(slot, word, later, next_word)
    table.setflags(write=False)
    return table


@cache
def in_slot() -> NDArray[np.bool_]:
    """[len(SLOTS), V], which words belong to a slot."""
    table = np.array([[slot == own for own, _ in VOCABULARY] for slot in SLOTS])
    table.setflags(write=False)
    return table


def _agree(slot: Slot, word: str, later: Slot, next_word: str) -> bool:
    if slot == "cause":
        return _fits(CAUSES[word], later, next_word)
    if (slot, later) == ("place", "distance"):
        return (word == NONE) == (next_word == NONE)
    if slot == "rule":
        at = {"duty": 1, "quantity": 2}[later]
        return any(str(c[0]) == word and c[at] == next_word for cause in CAUSES.values() for c in cause.cites)
    return True


def _fits(cause: Cause, later: Slot, word: str) -> bool:
    if later in ("place", "distance"):
        return cause.placed == (word != NONE)
    at = {"rule": 0, "duty": 1, "quantity": 2}[later]
    return any(str(cited[at]) == word for cited in cause.cites)


def distance_word(metres: float) -> str:
    """The nearest of DISTANCES_M, by ratio."""
    near = min(DISTANCES_M, key=lambda m: abs(np.log(m / max(metres, 0.1))))
    return f"{near} m"


def quantity_of(said: Explanation) -> Quantity | None:
    """The quantity that is cited, from the rule's row; None where none is."""
    own = (q for q in rule(said.number).quantities if q.words == said.quantity)
    return next(own, None)


def sentence(said: Explanation) -> str:
    """Such as "I slow down because there is a stop sign, ahead, about 20 m away"."""
    where = f", {said.place}, about {said.distance} away" if said.place != NONE else ""
    return f"{ACTIONS[said.action]} because {CAUSES[said.cause].words}{where}"


def citation(said: Explanation, side: Side = -1) -> str:
    """Such as "Highway Code rule 176 (must): stay behind the line while the light is red"."""
    found = rule(said.number)
    return f"Highway Code rule {found.number} ({said.duty}): {found.text(Duty(said.duty), side)}"


def reckoning(said: Explanation, speed_mps: float) -> str:
    """The cited quantity and what it comes to at a speed, where one is known; "" without a quantity. Worked out,
    not guessed."""
    quantity = quantity_of(said)
    if quantity is None:
        return ""
    metres = quantity.metres(speed_mps)
    if metres is None or quantity.unit == "m" or not math.isfinite(metres):
        return f"{quantity.words}: {quantity.of}"
    return f"{quantity.words} ({quantity.of}): {metres:.1f} m at {speed_mps:.1f} m/s"
