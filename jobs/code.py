"""The version of the code that learns: part of a job's fingerprint and of every step's key."""

from __future__ import annotations

from pathlib import Path

from streams.contracts.ids import digest, sha256_hex

PACKAGES = ("jobs", "model", "simulation", "edge", "registry", "monitoring", "streams/contracts")
"""What the result of a job can depend on."""


def code_version() -> str:
    """A digest of the sources as they are installed (16 hex digits): another line of code, another version."""
    root = Path(__file__).resolve().parent.parent
    files = sorted(p for package in PACKAGES for p in (root / package).rglob("*.py"))
    return digest("code", *(f"{p.relative_to(root)}:{sha256_hex(p.read_bytes())}" for p in files))[:16]
