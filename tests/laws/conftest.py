"""Laws are checked on the same examples in every run, however slow the machine."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("laws", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("laws")
