"""Bounded field types: what is out of bounds is refused on entry, with the field's path."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

Id = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")]
"""A name that is safe in a path, a key and a URL. (`$` would let a newline pass behind it.)"""
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
Name = Annotated[str, Meta(max_length=128)]
"""A label: cell, tag, cause, region."""
Text = Annotated[str, Meta(max_length=2000)]
"""A sentence for a person."""
TimeNs = Annotated[int, Meta(ge=0, le=2**63 - 1)]
"""Nanoseconds since 1970, UTC."""
Count = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
NonNegative = Annotated[float, Meta(ge=0.0, le=1e12)]
Finite = Annotated[float, Meta(ge=-1e12, le=1e12)]
Signals = Annotated[dict[Name, Finite], Meta(max_length=64)]
"""COVESA VSS signal name -> value in the unit VSS gives for it."""
Embedding = Annotated[bytes, Meta(max_length=1024)]
"""Unit vector, int8 per component, scaled by 127."""
