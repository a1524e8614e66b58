"""Where bundles come from: a TUF repository (python-tuf ngclient), over http(s) or from a directory."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from tuf.api.exceptions import DownloadError, DownloadHTTPError, RepositoryError
from tuf.ngclient.fetcher import FetcherInterface
from tuf.ngclient.updater import Updater

from edge.agent.bundles import MAX_BUNDLE_BYTES, BadBundle
from streams.contracts.jobs import Release

logging.getLogger("tuf").setLevel(logging.WARNING)
_BLOCK = 1 << 20


class Unavailable(Exception):
    """The bundle could not be had in a trustworthy way: no connection, or metadata that does not verify (tampered
    with, expired, older than what was seen). Says nothing about the release: keep what runs, try again later."""


class Source(Protocol):
    """Where bundles come from.

    `fetch` blocks for the download. It returns a file whose bytes are exactly those that were signed for this
    hardware and this release counter; raises Unavailable, or BadBundle where what is signed is not fit for this
    vehicle, and OSError for the disk.
    """

    def fetch(self, release: Release, hardware: str) -> Path: ...


class FileFetcher(FetcherInterface):
    """Reads a mounted repository: file:// URLs below one folder, nothing else. ngclient bounds the sizes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()

    def _fetch(self, url: str) -> Iterator[bytes]:
        parts = urlsplit(url)
        path = Path(unquote(parts.path)).resolve()
        if parts.scheme != "file" or not path.is_relative_to(self._folder):
            raise DownloadHTTPError(f"{url} is not below {self._folder}", 403)
        if not path.is_file():
            raise DownloadHTTPError(f"{url} does not exist", 404)
        return _blocks(path)


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            yield block


class TufSource:
    """A TUF client. Trust starts at `root`, the bytes of the root metadata that the vehicle was built with; what
    was seen since is kept in `folder`, so that older metadata is noticed."""

    def __init__(self, folder: Path, url: str, root: bytes, max_bytes: int = MAX_BUNDLE_BYTES) -> None:
        """`url` is the repository's base: metadata/ and targets/ lie below it. A file:// URL is read directly."""
        self._metadata, self._targets = folder / "metadata", folder / "targets"
        self._url, self._root, self._max_bytes = url.rstrip("/"), root, max_bytes

    def fetch(self, release: Release, hardware: str) -> Path:
        """See Source."""
        for path in (self._metadata, self._targets):
            path.mkdir(parents=True, exist_ok=True)
        try:
            return self._download(release, hardware)
        except (RepositoryError, DownloadError) as error:
            raise Unavailable(f"release {release.version}: {type(error).__name__}: {error}") from error

    def _download(self, release: Release, hardware: str) -> Path:
        client = self._client()
        client.refresh()
        info = client.get_targetinfo(release.bundle)
        if info is None:
            raise Unavailable(f"release {release.version}: {release.bundle!r} is not among the signed targets")
        custom: dict[str, Any] = info.custom or {}
        if custom.get("hardware") != hardware:
            raise BadBundle(
                f"{release.bundle} is signed for hardware {custom.get('hardware')!r}, this is {hardware!r}"
            )
        if custom.get("release") != release.version or info.hashes.get("sha256") != release.sha256:
            raise BadBundle(
                f"{release.bundle} is signed as release {custom.get('release')}, not {release.version}"
            )
        if info.length > self._max_bytes:
            raise BadBundle(f"{release.bundle} has {info.length} bytes; at most {self._max_bytes}")
        return Path(client.find_cached_target(info) or client.download_target(info))

    def _client(self) -> Updater:
        parts = urlsplit(self._url)
        local = FileFetcher(Path(unquote(parts.path))) if parts.scheme == "file" else None
        return Updater(
            metadata_dir=str(self._metadata),
            metadata_base_url=f"{self._url}/metadata/",
            target_dir=str(self._targets),
            target_base_url=f"{self._url}/targets/",
            fetcher=local,
            bootstrap=self._root,
        )
