"""The keys that sign releases: Ed25519, one PEM file each, readable by their owner alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner

from registry.backends import write_atomically
from registry.errors import Corrupt, Missing, Refused


@dataclass(frozen=True, slots=True)
class RoleKeys:
    """Which keys a TUF role has and how many of them must sign."""

    role: str
    keys: int
    threshold: int
    online: bool
    """An online key lies with the publisher; an offline one belongs on a medium that is plugged in to release."""


ROLES: tuple[RoleKeys, ...] = (
    #        role         keys  threshold  online
    RoleKeys("root", 3, 2, online=False),
    RoleKeys("targets", 2, 2, online=False),
    RoleKeys("snapshot", 1, 1, online=True),
    RoleKeys("timestamp", 1, 1, online=True),
)


class KeyRing:
    """A folder with offline/ROLE-n.pem and online/ROLE-n.pem; `offline` may be a folder elsewhere."""

    def __init__(self, folder: Path, offline: Path | None = None) -> None:
        self._online = folder / "online"
        self._offline = offline or folder / "offline"

    def make(self) -> None:
        """Make the keys that are not there yet. The keys of a folder never change."""
        for role in ROLES:
            for path in self._paths(role):
                if not path.exists():
                    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                    write_atomically(path, [CryptoSigner.generate_ed25519().private_bytes], mode=0o600)

    def signers(self, role_name: str) -> list[CryptoSigner]:
        """The signers of a role. Raises Missing for absent keys, Refused for a file that others can read, Corrupt
        for one that is no key."""
        role = next(r for r in ROLES if r.role == role_name)
        return [_signer(path) for path in self._paths(role)]

    def _paths(self, role: RoleKeys) -> list[Path]:
        folder = self._online if role.online else self._offline
        return [folder / f"{role.role}-{n}.pem" for n in range(1, role.keys + 1)]


def _signer(path: Path) -> CryptoSigner:
    if not path.exists():
        raise Missing(f"the signing key {path} is not there: plug in the medium that holds it, or name its folder")
    if path.stat().st_mode & 0o077:
        raise Refused(
            f"the signing key {path} can be read by others: chmod 600 it, and replace it if it has leaked"
        )
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError) as error:
        raise Corrupt(f"{path} is not a private key: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise Corrupt(f"{path} is a {type(key).__name__}, not an Ed25519 key")
    return CryptoSigner(key)
