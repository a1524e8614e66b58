"""Times as they are given on the command line."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from streams.contracts.clock import SECOND_NS, SystemClock

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class BadTime(ValueError):
    """Neither a time nor a duration."""


def span(begin: str, end: str) -> tuple[int, int | None]:
    """[from, to) in ns; None: up to now. Raises BadTime."""
    now_ns = SystemClock().now_ns()
    from_ns, to_ns = time_ns(begin, now_ns) if begin else 0, time_ns(end, now_ns) if end else None
    if to_ns is not None and to_ns <= from_ns:
        raise BadTime(f"--from {begin} is not before --to {end}")
    return from_ns, to_ns


def inside(time_ns: int, span: tuple[int, int | None]) -> bool:
    """Whether a time, ns, is in such a span."""
    from_ns, to_ns = span
    return from_ns <= time_ns and (to_ns is None or time_ns < to_ns)


def time_ns(text: str, now_ns: int) -> int:
    """An RFC 3339 time (without a zone: UTC) or a duration before now, in ns. Raises BadTime."""
    if re.fullmatch(r"\d+(\.\d+)?[smhd]", text):
        return max(now_ns - duration_ns(text), 0)
    try:
        told = datetime.fromisoformat(text)
    except ValueError as error:
        raise BadTime(f"{text!r} is no time: give 2026-01-31T12:00:00Z, or how long ago: 90s, 2h, 7d") from error
    return max(int((told if told.tzinfo else told.replace(tzinfo=UTC)).timestamp() * SECOND_NS), 0)


def duration_ns(text: str) -> int:
    """90s, 15m, 2h or 7d in ns. Raises BadTime."""
    if not re.fullmatch(r"\d+(\.\d+)?[smhd]", text):
        raise BadTime(f"{text!r} is no duration: give 90s, 15m, 2h or 7d")
    return round(float(text[:-1]) * UNITS_S[text[-1]] * SECOND_NS)


def utc(time_ns: int) -> str:
    """To the second, for people and scripts."""
    return f"{datetime.fromtimestamp(time_ns // SECOND_NS, UTC):%Y-%m-%dT%H:%M:%SZ}"
