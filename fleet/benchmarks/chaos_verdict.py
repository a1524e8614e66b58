"""What a trial of chaos came to: every decision by its name, against those of an undisturbed run. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from streams.contracts.ids import sha256_hex
from streams.topics import DEAD_LETTER

CONTENTS = "contents"
"""In the place of a topic: what lies in the store."""
_TOLD_BY_CHANCE = ("offset", "time_ns", "detail")
"""Of a dead letter: marks of transactions take offsets too, and a clock that is off shows in the rest."""


@dataclass(frozen=True, slots=True)
class Word:
    """A decision as its readers see it."""

    topic: str
    name: str
    """What it decides: the same however often it is told."""
    content: str
    """sha256 of all that it says."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Found against expected, each once by name."""

    expected: int
    found: int
    lost: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    different: tuple[str, ...] = ()
    twice: int = 0
    """Decisions told again, word for word: what at-least-once allows."""

    @property
    def losses(self) -> int:
        """Decisions that are not those of the undisturbed run."""
        return len(self.lost) + len(self.extra) + len(self.different)


def word(topic: str, value: bytes) -> Word:
    """The decision in a record. Raises KeyError for a topic whose decisions have no name."""
    body: dict[str, Any] = msgspec.json.decode(value)
    name = NAMES[topic](body)
    if topic == DEAD_LETTER:
        told = {k: v for k, v in body.items() if k not in _TOLD_BY_CHANCE}
        value = msgspec.json.encode(told, order="deterministic")
    return Word(topic, name, sha256_hex(value))


def letter_name(reason: str, value: bytes) -> str:
    """A dead letter is about the bytes that were refused."""
    return f"{reason}/{sha256_hex(value)[:16]}"


def _letter(body: Mapping[str, Any]) -> str:
    return letter_name(body["reason"], msgspec.convert(body["value"], bytes, strict=False))


NAMES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "fleet.scenarios": lambda body: str(body["event"]["event_id"]),
    "fleet.clip-requests": lambda body: str(body["clip_id"]),
    "fleet.archive": lambda body: str(body["clip_id"]),
    DEAD_LETTER: _letter,
}
"""Topic -> the name of a decision on it."""


def judge(found: Iterable[Word], expected: Iterable[Word]) -> Verdict:
    """A decision is different where any telling of it is."""
    told, wanted = list(found), {(w.topic, w.name): w.content for w in expected}
    names = {(w.topic, w.name) for w in told}
    different = {(w.topic, w.name) for w in told if wanted.get((w.topic, w.name), w.content) != w.content}
    return Verdict(
        expected=len(wanted),
        found=len(names),
        lost=_listed(wanted.keys() - names),
        extra=_listed(names - wanted.keys()),
        different=_listed(different),
        twice=len(told) - len(names),
    )


def _listed(names: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    return tuple(sorted(f"{topic}: {name}" for topic, name in names))
