"""Errors of the registry, named by the reaction they ask for. Each says what was wrong and with which value."""

from __future__ import annotations


class RegistryError(Exception):
    """Anything the registry raises on purpose."""


class Retry(RegistryError):
    """Nothing is wrong with the request: the same call may succeed later (busy, unreachable, disk full)."""


class Conflict(RegistryError):
    """Somebody else was first. Read again, then decide again; repeating the same call cannot succeed."""


class Stop(RegistryError):
    """The call can never succeed as it is. Do not repeat it; a person or the caller must change something."""


class Missing(Stop):
    """What was asked for is not there."""


class Corrupt(Stop):
    """Stored bytes are not what they were: do not use them. Restore them from elsewhere."""


class Refused(Stop, ValueError):
    """The argument is not acceptable: a bad name, id, size or value."""
