"""Dead letters: what was refused, kept whole; can be listed, shown and sent again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from streams.contracts.codec import Headers, Rejected, decode, encode
from streams.contracts.dead_letter import DeadLetter
from streams.topics import DEAD_LETTER
from streams.transport.base import Record, Transport, TransportError


class NoSuchLetter(TransportError):
    """There is no dead letter of that number."""


def send_to_dead_letters(transport: Transport, record: Record, reason: str, detail: str, now_ns: int) -> None:
    """Keep a refused record, whole. Raises as publish does."""
    transport.publish(DEAD_LETTER, record.topic.encode(), *encode_letter(record, reason, detail, now_ns))


def encode_letter(record: Record, reason: str, detail: str, now_ns: int) -> tuple[Headers, bytes]:
    """Headers and value of the letter about a refused record; its key is the record's topic."""
    return encode(_letter(record, reason, detail, now_ns))


def letters_of(records: Iterable[Record], now_ns: int) -> list[DeadLetter]:
    """What the records of the dead letters' topic hold, oldest first: a letter's place in the list is its number,
    which stays until retention drops older ones."""
    return [_read(record, now_ns) for record in records]


def numbered(letters: Sequence[DeadLetter], number: int) -> DeadLetter:
    """One of them. Raises NoSuchLetter."""
    if not 0 <= number < len(letters):
        raise NoSuchLetter(f"there is no dead letter {number}; there are {len(letters)}, from 0")
    return letters[number]


def send_again(transport: Transport, letter: DeadLetter) -> None:
    """Send the original record to its topic again; readers deduplicate by id. Raises NotTaken."""
    transport.publish(letter.topic, letter.key, tuple(letter.headers), letter.value)
    transport.flush()


def _read(record: Record, now_ns: int) -> DeadLetter:
    """The letter, or a letter about a record that is none."""
    try:
        letter = decode(record.headers, record.value, now_ns)
        if isinstance(letter, DeadLetter):
            return letter
        reason, detail = "misplaced", f"{type(letter).__name__} does not belong into {record.topic}"
    except Rejected as error:
        reason, detail = error.reason, error.detail
    return _letter(record, reason, detail, now_ns)


def _letter(record: Record, reason: str, detail: str, now_ns: int) -> DeadLetter:
    return DeadLetter(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        time_ns=now_ns,
        reason=reason,
        detail=detail[:2000],
        key=record.key,
        value=record.value,
        headers=[(name[:128], value) for name, value in record.headers[:64]],
    )
