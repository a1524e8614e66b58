"""Rounds on their way from one group's lanes to another's in the same interpreter: what is at hand need not be
decoded again. Bytes travel with them, for where the other is in another process or comes late."""

from __future__ import annotations

import itertools
import threading
import uuid

from streams.engines.round import Round

MOST = 4
"""More do not fit between two operators: what is older went elsewhere."""


class Handed:
    """Of this process."""

    def __init__(self, most: int = MOST) -> None:
        self._most, self._rounds, self._lock = most, dict[bytes, Round](), threading.Lock()
        # Of no other process and no earlier run: a token is looked for wherever the bytes arrive.
        self._process, self._numbers = uuid.uuid4().bytes, itertools.count()

    def give(self, done: Round) -> bytes:
        """Under which token it can be taken."""
        with self._lock:
            token = self._process + next(self._numbers).to_bytes(8, "big")
            self._rounds[token] = done
            while len(self._rounds) > self._most:
                del self._rounds[next(iter(self._rounds))]
        return token

    def take(self, token: bytes) -> Round | None:
        """Once; None where it is not here."""
        with self._lock:
            return self._rounds.pop(token, None)

    def clear(self) -> None:
        """A task ends: what it gave and nobody took must not stay."""
        with self._lock:
            self._rounds.clear()


HANDED = Handed()
